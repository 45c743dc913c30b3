//! A new index for a store whose index is damaged. Object files need none; rows are saved one by one.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::index::{self, Index, Sync};
use super::layout::{Layout, sync_dir};
use super::writer::{Exclusive, Writer};
use super::{Disk, rows};
use crate::Digest;
use crate::error::{At, Result};
use crate::fault::Faults;
use crate::fsck::Rebuilt;

impl Disk {
    pub fn rebuild(root: &Path) -> Result<(Disk, Rebuilt)> {
        let layout = Layout::new(root)?;
        layout.create()?;
        let writer = Writer::register(&layout)?;
        let alone = Exclusive::acquire(&layout, &writer.id)?;
        let path = layout.index();
        let set_aside = move_aside(&layout)?;
        let index = index::alone(&layout.index_lock(), || Index::open(&path))?;
        let mut rebuilt = Rebuilt::default();
        if let Some(old) = &set_aside {
            // Read-write, so that SQLite can recover the old log; whatever fails is lost, not fatal.
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            if let Ok(old) = Connection::open_with_flags(old, flags) {
                save(&old, &index, &mut rebuilt)?;
            }
        }
        rebuilt.set_aside = set_aside;
        drop(alone);
        Ok((Disk::of(layout, index, Some(writer), Faults::default()), rebuilt))
    }
}

/// Moves the index with its log, under a name that is free.
fn move_aside(layout: &Layout) -> Result<Option<PathBuf>> {
    let from = layout.index();
    if !from.try_exists().at("look at", &from)? {
        return Ok(None);
    }
    let free = |n: &u32| !layout.damaged().join(format!("index-{n}.sqlite")).exists();
    let n = (0..u32::MAX).find(free).unwrap_or(0);
    let to = layout.damaged().join(format!("index-{n}.sqlite"));
    // The log first: were we killed in between, the index without its log is an older state of itself.
    for end in ["-wal", "-shm", ""] {
        let with = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            PathBuf::from(name)
        };
        let from = with(&from);
        if from.try_exists().at("look at", &from)? {
            fs::rename(&from, with(&to)).at("set aside", &from)?;
        }
    }
    sync_dir(&layout.root)?;
    Ok(Some(to))
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
