//! The store on disk: opening it and what its parts share. The parts are one file each.

mod check;
mod hash;
mod index;
mod layout;
mod lease;
mod lock;
mod objects;
mod rebuild;
mod records;
mod rows;
mod sweep;
mod writer;

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use crate::error::{Result, StoreError};
use crate::fault::Faults;
use crate::{Digest, Stats};
use index::Index;
use layout::Layout;
use writer::Writer;

pub(crate) use hash::{digest_of_file, open_regular};
pub(crate) use lease::FileLease;

/// Objects of fewer bytes lie inside the index.
pub(crate) const INLINE_LIMIT: u64 = 64 << 10;

pub(crate) struct Disk {
    layout: Layout,
    index: Index,
    /// None when the store can only be read.
    writer: Option<Writer>,
    /// Shared by whoever puts, exclusive for a gc by another thread of this handle.
    gate: RwLock<()>,
    /// What this handle put or recorded and no run covers yet: gc keeps it.
    fresh: Mutex<HashSet<Digest>>,
    staged: AtomicU64,
    faults: Faults,
}

impl Disk {
    pub fn open(root: &Path, faults: Faults) -> Result<Self> {
        let layout = Layout::new(root)?;
        let path = layout.index();
        let writer = match layout.create().and_then(|()| Writer::register(&layout)) {
            Ok(writer) => Some(writer),
            Err(e) if cannot_write(&e) && path.is_file() => None,
            Err(e) => return Err(e),
        };
        let index = match writer {
            Some(_) => lock::alone(&layout.index_lock(), || Index::open(&path))?,
            None => Index::open_read_only(&path)?,
        };
        Ok(Disk::of(layout, index, writer, faults))
    }

    fn of(layout: Layout, index: Index, writer: Option<Writer>, faults: Faults) -> Self {
        let (gate, fresh, staged) = (RwLock::new(()), Mutex::default(), AtomicU64::new(0));
        Disk { layout, index, writer, gate, fresh, staged, faults }
    }

    pub fn root(&self) -> &Path {
        &self.layout.root
    }

    pub fn read_only(&self) -> bool {
        self.writer.is_none()
    }

    fn writer(&self) -> Result<&Writer> {
        self.writer.as_ref().ok_or_else(|| StoreError::ReadOnly { path: self.layout.root.clone() })
    }

    fn fresh(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn lease(&self, key: &Digest) -> Result<FileLease> {
        self.writer()?;
        lease::take(&self.lease_path(key))
    }

    pub fn try_lease(&self, key: &Digest) -> Result<Option<FileLease>> {
        self.writer()?;
        lease::try_take(&self.lease_path(key))
    }

    fn lease_path(&self, key: &Digest) -> std::path::PathBuf {
        self.layout.leases().join(key.to_string())
    }

    pub fn stats(&self) -> Result<Stats> {
        let mut stats = self.index.snapshot("count rows", |c| {
            let objects = rows::objects(c)?;
            Ok(Stats {
                inline_objects: objects.len() as u64,
                inline_bytes: objects.iter().map(|(_, n)| n).sum(),
                records: rows::count(c, "records")?,
                disagreements: rows::count(c, "disagreements")?,
                runs: rows::count(c, "runs")?,
                pins: rows::count(c, "pins")?,
                memos: rows::count(c, "memos")?,
                ..Stats::default()
            })
        })?;
        for (_, _, length) in self.object_files()?.0 {
            stats.file_objects += 1;
            stats.file_bytes += length;
        }
        for (_, meta) in layout::list(&self.layout.staged())? {
            stats.staged_files += 1;
            stats.staged_bytes += meta.len();
        }
        for (_, meta) in layout::list(&self.layout.damaged())? {
            stats.damaged_files += 1;
            stats.damaged_bytes += meta.len();
        }
        for end in ["", "-wal"] {
            let mut path = self.layout.index().into_os_string();
            path.push(end);
            stats.index_bytes += std::fs::metadata(path).map_or(0, |m| m.len());
        }
        Ok(stats)
    }
}

fn cannot_write(e: &StoreError) -> bool {
    match e {
        StoreError::ReadOnly { .. } => true,
        StoreError::Io { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
        _ => false,
    }
}
