//! fsck on disk: hashes every object, reads every row, and with repair takes the bad ones out of the way.

use std::fs::File;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::hash::map;
use super::index::Sync;
use super::layout::{Stamp, remove};
use super::{Disk, rows};
use crate::digest::of_parallel;
use crate::error::{At, Result, StoreError};
use crate::fsck::{Damage, FsckOptions, FsckReport};
use crate::gc::Item;
use crate::{Digest, Record};

const TABLES: [&str; 5] = ["records", "disagreements", "runs", "pins", "objects"];

impl Disk {
    pub fn fsck(&self, options: &FsckOptions) -> Result<FsckReport> {
        if options.repair {
            self.writer()?;
        }
        let mut report = FsckReport { repaired: options.repair, ..FsckReport::default() };
        self.check_rows(options, &mut report)?;
        self.check_inline(options, &mut report)?;
        self.check_files(options, &mut report)?;
        self.check_records(&mut report)?;
        for orphan in self.orphans()? {
            if let Item::Staged(path) = orphan.item {
                if options.repair {
                    remove(&path)?;
                }
                report.orphans.push(path);
            }
        }
        Ok(report)
    }

    fn check_rows(&self, options: &FsckOptions, report: &mut FsckReport) -> Result<()> {
        report.index_problems = self.index.read("check the index", rows::quick_check)?;
        for table in TABLES {
            let bad = self.index.snapshot("check the index", |c| rows::bad_rows(c, table))?;
            for (rowid, why) in bad {
                if options.repair {
                    self.index.write("remove a bad row", Sync::Now, |c| rows::remove_row(c, table, rowid))?;
                }
                report.index_problems.push(why);
            }
        }
        Ok(())
    }

    fn check_inline(&self, options: &FsckOptions, report: &mut FsckReport) -> Result<()> {
        for (digest, length) in self.index.read("list objects", rows::objects)? {
            let Some(bytes) = self.index.read("read an object", |c| rows::object(c, &digest))? else {
                continue;
            };
            report.objects += 1;
            report.bytes += length;
            let found = Digest::of(&bytes);
            if found != digest {
                let path = match options.repair {
                    true => self.set_aside_row(&digest, &found, &bytes),
                    false => self.index.path().into(),
                };
                report.damaged.push(Damage { digest, found: Some(found), path, why: "wrong bytes".into() });
            }
        }
        Ok(())
    }

    fn check_files(&self, options: &FsckOptions, report: &mut FsckReport) -> Result<()> {
        let (files, strays) = self.object_files()?;
        report.strays = strays;
        // Many small files keep the cores busy one each; a big one uses all of them by itself.
        let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    while let Some((path, digest, _)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let result = (path, digest, hash_object(path));
                        results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(result);
                    }
                });
            }
        });
        let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        results.sort_by_key(|(_, digest, _)| **digest);
        for (path, digest, result) in results {
            let (found, why) = match result {
                Ok(None) => continue,
                Ok(Some((found, stamp))) => {
                    report.objects += 1;
                    report.bytes += stamp.size;
                    if found == *digest {
                        continue;
                    }
                    (Some((found, stamp)), "wrong bytes".to_owned())
                }
                Err(e) => {
                    report.objects += 1;
                    (None, e.to_string())
                }
            };
            if !self.read_only() {
                // Bytes that changed under an unchanged stamp must not be believed by their memo.
                self.index.write("forget a file hash", Sync::Later, |c| rows::remove_memos(c, digest))?;
            }
            let path = match &found {
                Some((found, stamp)) if options.repair => self.set_aside_file(digest, found, path, stamp),
                _ => path.clone(),
            };
            report.damaged.push(Damage { digest: *digest, found: found.map(|(d, _)| d), path, why });
        }
        Ok(())
    }

    fn check_records(&self, report: &mut FsckReport) -> Result<()> {
        let all: Vec<(Digest, Record)> = match self.index.snapshot("list records", rows::all_records) {
            // Already among the problems of the index.
            Err(StoreError::BadRow { .. }) => return Ok(()),
            other => other?,
        };
        report.records = all.len() as u64;
        for (key, record) in all {
            for digest in record.digests() {
                if self.length(&digest)?.is_none() {
                    report.hollow.push(key);
                    break;
                }
            }
        }
        Ok(())
    }
}

/// None when the file went away meanwhile.
fn hash_object(path: &Path) -> Result<Option<(Digest, Stamp)>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.at("open", path)?,
    };
    let stamp = Stamp::of(&file.metadata().at("look at", path)?);
    let map = map(&file, stamp.size, path)?;
    Ok(Some((of_parallel(map.as_deref().unwrap_or_default()), stamp)))
}
