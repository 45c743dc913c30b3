//! The door: one `Store` over the disk or memory. Dispatch and what both have in common; no storage itself.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, FileLease};
use crate::error::{At, Result, StoreError};
use crate::fault::Faults;
use crate::fsck::{FsckOptions, FsckReport, Rebuilt};
use crate::memory::Memory;
use crate::staged::Staged;
use crate::{Digest, GcOptions, GcReport, Object, Pin, Record, Recorded, RunEntry, Stats};

/// A handle; clones share it. Threads and processes may use one store at once.
#[derive(Clone)]
pub struct Store(Backend);

#[derive(Clone)]
pub(crate) enum Backend {
    Disk(Arc<Disk>),
    Memory(Arc<Memory>),
}

use Backend as B;

/// Held while it lives, freed on drop and by any death of the process.
#[must_use = "dropping a lease frees it"]
pub struct Lease(#[expect(dead_code, reason = "held for its drop")] Held);

enum Held {
    File(#[expect(dead_code, reason = "held for its drop")] FileLease),
    Memory(Arc<Memory>, Digest),
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Held::Memory(memory, key) = self {
            memory.release(key);
        }
    }
}

impl Store {
    /// Opens the store below `root`, creating it if need be. Where `root` cannot be written, an existing
    /// store opens for reading and every write is [`StoreError::ReadOnly`]. A damaged index is
    /// [`StoreError::IndexDamaged`]; see [`Store::rebuild`].
    pub fn open(root: &Path) -> Result<Store> {
        Ok(Store(B::Disk(Arc::new(Disk::open(root, Faults::default())?))))
    }

    /// A store that ends with its last handle.
    pub fn memory() -> Store {
        Store(B::Memory(Arc::default()))
    }

    /// For crash tests: the process aborts at the given write step, counted from 1.
    #[doc(hidden)]
    pub fn open_dying_at(root: &Path, step: u64) -> Result<Store> {
        Ok(Store(B::Disk(Arc::new(Disk::open(root, Faults::die_at(step))?))))
    }

    /// Where it lies; None in memory.
    pub fn root(&self) -> Option<&Path> {
        match &self.0 {
            B::Disk(disk) => Some(disk.root()),
            B::Memory(_) => None,
        }
    }

    pub fn is_read_only(&self) -> bool {
        match &self.0 {
            B::Disk(disk) => disk.read_only(),
            B::Memory(_) => false,
        }
    }

    // Objects.

    /// Stores bytes; storing them again does nothing.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        match &self.0 {
            B::Disk(disk) => disk.put(bytes),
            B::Memory(memory) => Ok(memory.put(bytes)),
        }
    }

    /// Stores a copy of a regular file. Returns digest and length.
    pub fn put_file(&self, path: &Path) -> Result<(Digest, u64)> {
        match &self.0 {
            B::Disk(disk) => disk.put_file(path),
            B::Memory(memory) => {
                let mut bytes = Vec::new();
                crate::disk::open_regular(path)?.read_to_end(&mut bytes).at("read", path)?;
                Ok((memory.put(&bytes), bytes.len() as u64))
            }
        }
    }

    /// A file to write an object into, in the file system of the store.
    pub fn stage(&self) -> Result<Staged> {
        let (file, path) = match &self.0 {
            B::Disk(disk) => disk.stage()?,
            B::Memory(_) => {
                let dir = std::env::temp_dir();
                let (file, path) =
                    tempfile::NamedTempFile::new_in(&dir).at("create a file in", &dir)?.into_parts();
                (file, path.keep().map_err(|e| StoreError::io("keep", &dir, e.error))?)
            }
        };
        Ok(Staged::new(file, path, self.0.clone()))
    }

    /// Whether the object is there. Its bytes are verified by [`get`](Store::get), not here.
    pub fn has(&self, digest: &Digest) -> Result<bool> {
        Ok(self.length(digest)?.is_some())
    }

    /// The verified bytes. [`StoreError::Missing`] when it is not there; [`StoreError::Damaged`] when its
    /// bytes are not what was put: then it is set aside and counts as missing.
    pub fn get(&self, digest: &Digest) -> Result<Object> {
        match &self.0 {
            B::Disk(disk) => disk.get(digest),
            B::Memory(memory) => memory.get(digest),
        }
    }

    /// The length in bytes of an object that is there.
    pub fn length(&self, digest: &Digest) -> Result<Option<u64>> {
        match &self.0 {
            B::Disk(disk) => disk.length(digest),
            B::Memory(memory) => Ok(memory.length(digest)),
        }
    }

    /// BLAKE3 and length of any regular file outside the store, remembered by the file's device, inode,
    /// size and times unless it changed within the last two seconds.
    pub fn file_digest(&self, path: &Path) -> Result<(Digest, u64)> {
        match &self.0 {
            B::Disk(disk) => disk.file_digest(path),
            B::Memory(_) => crate::disk::digest_of_file(path),
        }
    }

    // Records.

    /// Stores what a key maps to. Every object the record names must be there. The first record of a key
    /// stays; one with other outputs is kept beside it and the answer says so.
    pub fn put_record(&self, key: &Digest, record: &Record) -> Result<Recorded> {
        match &self.0 {
            B::Disk(disk) => disk.put_record(key, record),
            B::Memory(memory) => memory.put_record(key, record),
        }
    }

    /// The record of a key. Its objects may be gone (a hollow hit); `get` says so.
    pub fn record(&self, key: &Digest) -> Result<Option<Record>> {
        match &self.0 {
            B::Disk(disk) => disk.record(key),
            B::Memory(memory) => Ok(memory.record(key)),
        }
    }

    /// As [`record`](Store::record) for many keys at once, of one moment and at half the cost each.
    pub fn records(&self, keys: &[Digest]) -> Result<Vec<Option<Record>>> {
        match &self.0 {
            B::Disk(disk) => disk.records(keys),
            B::Memory(memory) => Ok(keys.iter().map(|key| memory.record(key)).collect()),
        }
    }

    /// Records that were put for the key with other outputs than the first, oldest first.
    pub fn disagreements(&self, key: &Digest) -> Result<Vec<Record>> {
        match &self.0 {
            B::Disk(disk) => disk.disagreements(key),
            B::Memory(memory) => Ok(memory.disagreements(key)),
        }
    }

    /// Removes a record and its disagreements; its objects stay until gc. False if there was none.
    pub fn forget(&self, key: &Digest) -> Result<bool> {
        match &self.0 {
            B::Disk(disk) => disk.forget(key),
            B::Memory(memory) => Ok(memory.forget(key)),
        }
    }

    /// Records of a step with their keys, newest first.
    pub fn records_of_step(&self, step: &str, limit: usize) -> Result<Vec<(Digest, Record)>> {
        match &self.0 {
            B::Disk(disk) => disk.records_of_step(step, limit),
            B::Memory(memory) => Ok(memory.records_of_step(step, limit)),
        }
    }

    /// Every record with its key, ordered by key, of one moment.
    pub fn all_records(&self) -> Result<Vec<(Digest, Record)>> {
        match &self.0 {
            B::Disk(disk) => disk.all_records(),
            B::Memory(memory) => Ok(memory.all_records()),
        }
    }

    // Leases.

    /// Waits until nobody else holds the key. To be able to give up, poll [`try_lease`](Store::try_lease).
    /// Taking a lease twice in one thread waits for ever.
    pub fn lease(&self, key: &Digest) -> Result<Lease> {
        match &self.0 {
            B::Disk(disk) => disk.lease(key).map(|l| Lease(Held::File(l))),
            B::Memory(memory) => {
                memory.lease(key);
                Ok(Lease(Held::Memory(memory.clone(), *key)))
            }
        }
    }

    /// None while somebody holds it.
    pub fn try_lease(&self, key: &Digest) -> Result<Option<Lease>> {
        match &self.0 {
            B::Disk(disk) => Ok(disk.try_lease(key)?.map(|l| Lease(Held::File(l)))),
            B::Memory(memory) => {
                let got = memory.try_lease(key);
                Ok(got.then(|| Lease(Held::Memory(memory.clone(), *key))))
            }
        }
    }

    // Runs and pins.

    /// Stores a run, replacing one with the same id: a run may be put when it starts and again when it ends.
    pub fn put_run(&self, run: &RunEntry) -> Result<()> {
        match &self.0 {
            B::Disk(disk) => disk.put_run(run),
            B::Memory(memory) => {
                memory.put_run(run);
                Ok(())
            }
        }
    }

    /// Runs, newest first.
    pub fn runs(&self, limit: usize) -> Result<Vec<RunEntry>> {
        match &self.0 {
            B::Disk(disk) => disk.runs(limit),
            B::Memory(memory) => Ok(memory.runs(limit)),
        }
    }

    /// The run with this id, or the only one whose id starts so.
    pub fn run(&self, id_prefix: &str) -> Result<Option<RunEntry>> {
        match &self.0 {
            B::Disk(disk) => disk.run(id_prefix),
            B::Memory(memory) => memory.run(id_prefix),
        }
    }

    /// Removes a run by its whole id; what only it needed goes with the next gc.
    pub fn forget_run(&self, id: &str) -> Result<bool> {
        match &self.0 {
            B::Disk(disk) => disk.forget_run(id),
            B::Memory(memory) => Ok(memory.forget_run(id)),
        }
    }

    /// Keeps an object through every gc; pinning a run's bundle keeps the whole run. A second pin of one
    /// object replaces the label.
    pub fn pin(&self, digest: &Digest, label: &str) -> Result<()> {
        match &self.0 {
            B::Disk(disk) => disk.pin(digest, label),
            B::Memory(memory) => memory.pin(digest, label),
        }
    }

    pub fn unpin(&self, digest: &Digest) -> Result<bool> {
        match &self.0 {
            B::Disk(disk) => disk.unpin(digest),
            B::Memory(memory) => Ok(memory.unpin(digest)),
        }
    }

    /// Pins, ordered by digest.
    pub fn pins(&self) -> Result<Vec<Pin>> {
        match &self.0 {
            B::Disk(disk) => disk.pins(),
            B::Memory(memory) => Ok(memory.pins()),
        }
    }

    // Housekeeping.

    /// For a store whose index is damaged: sets the index aside, starts a new one and saves into it every
    /// row that can still be read. Object files need no index. Refuses while others have the store open.
    pub fn rebuild(root: &Path) -> Result<(Store, Rebuilt)> {
        let (disk, rebuilt) = Disk::rebuild(root)?;
        Ok((Store(B::Disk(Arc::new(disk))), rebuilt))
    }

    /// Removes what no run, pin, lease or work of this handle needs. Refuses with [`StoreError::Busy`]
    /// while another handle has the store open for writing.
    pub fn gc(&self, options: &GcOptions) -> Result<GcReport> {
        match &self.0 {
            B::Disk(disk) => disk.gc(options),
            B::Memory(memory) => Ok(memory.gc(options)),
        }
    }

    /// Hashes every object and checks every row. With `repair`, sets damaged objects aside and removes
    /// what dead processes left.
    pub fn fsck(&self, options: &FsckOptions) -> Result<FsckReport> {
        match &self.0 {
            B::Disk(disk) => disk.fsck(options),
            B::Memory(memory) => Ok(FsckReport::of_memory(memory)),
        }
    }

    pub fn stats(&self) -> Result<Stats> {
        match &self.0 {
            B::Disk(disk) => disk.stats(),
            B::Memory(memory) => Ok(memory.stats()),
        }
    }
}

/// Nothing may be recorded that was never put: the writer's half of what `open` checks for the reader.
pub(crate) fn check_outputs(
    key: &Digest,
    record: &Record,
    length: impl Fn(&Digest) -> Result<Option<u64>>,
) -> Result<()> {
    let missing =
        |output: &str, digest| StoreError::OutputMissing { key: *key, output: output.into(), digest };
    for output in &record.outputs {
        let artifact = &output.artifact;
        match length(&artifact.digest)? {
            None => return Err(missing(&output.name, artifact.digest)),
            Some(actual) if actual != artifact.length => {
                return Err(StoreError::OutputLength {
                    output: output.name.clone(),
                    digest: artifact.digest,
                    stated: artifact.length,
                    actual,
                });
            }
            Some(_) => {}
        }
    }
    match record.log {
        Some(log) if length(&log)?.is_none() => Err(missing("log", log)),
        _ => Ok(()),
    }
}
