//! gc on disk: takes the inventory, lets `gc` decide, removes. Fails closed: any error while looking ends
//! it before anything is removed. What a dropped run reaches goes only after the transaction that drops it.

use std::sync::PoisonError;

use super::index::Sync;
use super::layout::{list, remove};
use super::lock::held;
use super::writer::{Exclusive, living};
use super::{Disk, lease, rows};
use crate::error::Result;
use crate::gc::{Doomed, Inventory, Item, Removal, RunRoots, Why};
use crate::{Digest, GcOptions, GcReport};

/// File hashes worth remembering; more are dropped, the oldest first.
const MEMOS: i64 = 65_536;

impl Disk {
    pub fn gc(&self, options: &GcOptions) -> Result<GcReport> {
        if options.dry_run {
            return Ok(self.inventory()?.plan(options).1);
        }
        let me = &self.writer()?.id;
        let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let alone = Exclusive::acquire(&self.layout, me)?;
        let (doomed, report) = self.inventory()?.plan(options);
        self.faults.point("gc marked, nothing removed");
        self.sweep(&doomed)?;
        alone.bury(&self.layout, me)?;
        Ok(report)
    }

    fn inventory(&self) -> Result<Inventory> {
        let mut inventory = self.index.snapshot("mark what gc keeps", |c| {
            let mut inventory = Inventory {
                objects: rows::objects(c)?.into_iter().collect(),
                runs: rows::runs(c, usize::MAX)?.iter().map(RunRoots::of).collect(),
                pins: rows::pins(c)?.into_iter().map(|p| p.digest).collect(),
                ..Inventory::default()
            };
            for (key, record) in rows::all_records(c)?.iter().chain(&rows::all_disagreements(c)?) {
                inventory.add_record(key, record);
            }
            Ok(inventory)
        })?;
        for (_, digest, length) in self.object_files()?.0 {
            inventory.objects.insert(digest, length);
        }
        for (path, _) in list(&self.layout.leases())? {
            let key = path.file_name().and_then(|n| n.to_str()?.parse().ok());
            if let Some(key) = key
                && held(&path)?
            {
                inventory.leases.push(key);
            }
        }
        inventory.fresh.clone_from(&self.fresh());
        inventory.leftovers = self.orphans()?;
        for (path, meta) in list(&self.layout.damaged())? {
            inventory.leftovers.push(Removal {
                item: Item::Damaged(path),
                bytes: meta.len(),
                why: Why::SetAside,
            });
        }
        Ok(inventory)
    }

    /// Staged files whose writer is gone.
    pub(super) fn orphans(&self) -> Result<Vec<Removal>> {
        let me = self.writer.as_ref().map_or("", |w| w.id.as_str());
        // The files first: a writer that registers in between has none among them.
        let files = list(&self.layout.staged())?;
        let mut alive: Vec<String> = living(&self.layout, me)?.into_iter().map(|(id, _)| id).collect();
        alive.push(me.into());
        let mut orphans = Vec::new();
        for (path, meta) in files {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
            let writer = name.rsplit_once('-').map_or("", |(writer, _)| writer);
            if !alive.iter().any(|id| id == writer) {
                orphans.push(Removal { item: Item::Staged(path), bytes: meta.len(), why: Why::WriterGone });
            }
        }
        Ok(orphans)
    }

    fn sweep(&self, doomed: &Doomed) -> Result<()> {
        // No row needs these, so they may go first; on a full disk that makes room for the transaction.
        for path in &doomed.leftovers {
            remove(path)?;
        }
        self.remove_files(&doomed.garbage)?;
        self.index.write("remove what nothing needs", Sync::Now, |c| {
            for id in &doomed.runs {
                rows::forget_run(c, id)?;
            }
            for key in &doomed.records {
                rows::forget_record(c, key)?;
            }
            for digest in doomed.garbage.iter().chain(&doomed.objects) {
                rows::remove_object(c, digest)?;
            }
            rows::trim_memos(c, MEMOS)?;
            self.faults.point("gc removed rows, not committed");
            Ok(())
        })?;
        self.faults.point("gc removed rows, not files");
        self.remove_files(&doomed.objects)?;
        for (path, _) in list(&self.layout.leases())? {
            // Dropping a lease removes its file while it is locked.
            drop(lease::try_take(&path)?);
        }
        self.index.shrink()
    }

    fn remove_files(&self, digests: &[Digest]) -> Result<()> {
        for digest in digests {
            remove(&self.layout.object(digest))?;
            self.faults.point("gc removed a file");
        }
        Ok(())
    }
}
