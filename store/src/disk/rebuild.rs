//! A new index for a store whose index is damaged. Object files need none; rows are saved one by one.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::index::{Index, Sync};
use super::layout::{Layout, remove, sync_dir};
use super::lock;
use super::writer::{Exclusive, Writer};
use super::{Disk, rows};
use crate::Digest;
use crate::error::{At, Result};
use crate::fault::Faults;
use crate::fsck::Rebuilt;

impl Disk {
    /// The new index is complete before it takes the place of the old one, by one rename.
    pub fn rebuild(root: &Path) -> Result<(Disk, Rebuilt)> {
        let layout = Layout::new(root)?;
        layout.create()?;
        let writer = Writer::register(&layout)?;
        let alone = Exclusive::acquire(&layout, &writer.id)?;
        let (path, new) = (layout.index(), layout.root.join("index.new.sqlite"));
        for end in ENDS {
            remove(&with(&new, end))?;
        }
        let mut rebuilt = Rebuilt::default();
        {
            let index = Index::open(&new)?;
            // Read-write, so that SQLite can recover the old log; whatever fails is lost, not fatal.
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            if let Ok(old) = Connection::open_with_flags(&path, flags) {
                save(&old, &index, &mut rebuilt)?;
            }
            // Empties the log, so that the one file is everything.
            index.shrink()?;
        }
        rebuilt.set_aside = set_aside(&layout)?;
        fs::rename(&new, &path).at("put in place", &new)?;
        sync_dir(&layout.root)?;
        let index = lock::alone(&layout.index_lock(), || Index::open(&path))?;
        drop(alone);
        Ok((Disk::of(layout, index, Some(writer), Faults::default()), rebuilt))
    }
}

/// The log of an index and its shared memory have the name of the index with these ends.
const ENDS: [&str; 3] = ["-wal", "-shm", ""];

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Gives the old index a second name under which it stays, and takes its log away: the new index must
/// not meet it. Were we killed after that, the old index without its log is an older state of itself.
fn set_aside(layout: &Layout) -> Result<Option<PathBuf>> {
    let from = layout.index();
    let free = |n: &u32| ENDS.iter().all(|end| !with(&aside(layout, *n), end).exists());
    let to = aside(layout, (0..u32::MAX).find(free).unwrap_or(0));
    for end in &ENDS[..2] {
        match fs::rename(with(&from, end), with(&to, end)) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e).at("set aside", &with(&from, end)),
            _ => {}
        }
    }
    match fs::hard_link(&from, &to) {
        Ok(()) => Ok(Some(to)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        // A file system without links.
        Err(_) => fs::copy(&from, &to).map(|_| Some(to)).at("copy", &from),
    }
}

fn aside(layout: &Layout, n: u32) -> PathBuf {
    layout.damaged().join(format!("index-{n}.sqlite"))
}

fn save(old: &Connection, index: &Index, rebuilt: &mut Rebuilt) -> Result<()> {
    index.write("save rows of the old index", Sync::Now, |c| {
        let mut failed = None;
        let mut keep = |result: rusqlite::Result<()>| {
            let ok = result.is_ok();
            failed = failed.take().or(result.err());
            u64::from(ok)
        };
        rows::salvage_objects(old, |(digest, bytes)| {
            let known = rows::object_length(c, &digest).is_ok_and(|l| l.is_some());
            if !known && Digest::of(&bytes) == digest {
                rebuilt.objects += keep(rows::put_object(c, &digest, &bytes));
            }
        });
        rows::salvage_records(old, "records", |(key, record)| {
            if rows::record(c, &key).is_ok_and(|r| r.is_none()) {
                rebuilt.records += keep(rows::put_record(c, &key, &record));
            }
        });
        rows::salvage_records(old, "disagreements", |(key, record)| {
            if !rows::disagreements(c, &key).is_ok_and(|all| all.iter().any(|r| r.agrees(&record))) {
                rebuilt.disagreements += keep(rows::put_disagreement(c, &key, &record));
            }
        });
        rows::salvage_runs(old, |run| {
            if rows::run(c, &run.id).is_ok_and(|r| r.is_none()) {
                rebuilt.runs += keep(rows::put_run(c, &run));
            }
        });
        let mut pinned = std::collections::HashSet::new();
        rows::salvage_pins(old, |pin| {
            if pinned.insert(pin.digest) {
                rebuilt.pins += keep(rows::pin(c, &pin.digest, &pin.label));
            }
        });
        failed.map_or(Ok(()), Err)
    })
}
