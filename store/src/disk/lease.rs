//! A lease per key: one file, one OS lock. Kill -9 frees it, so there is no unlock step.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::index::open_lock;
use crate::error::{At, Result};

/// Held as long as it lives; on drop the file goes while the lock is still held.
pub(crate) struct FileLease {
    path: PathBuf,
    _lock: File,
}

impl Drop for FileLease {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Blocks until the lease is free.
pub(crate) fn take(path: &Path) -> Result<FileLease> {
    loop {
        let file = open_lock(path)?;
        file.lock().at("lock", path)?;
        if let Some(lease) = settle(path, file)? {
            return Ok(lease);
        }
    }
}

/// None while somebody else, in this process or another, holds it.
pub(crate) fn try_take(path: &Path) -> Result<Option<FileLease>> {
    loop {
        let file = open_lock(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(e).at("lock", path),
        }
        if let Some(lease) = settle(path, file)? {
            return Ok(Some(lease));
        }
    }
}

/// The former holder deletes the file while it holds the lock, so the file we locked may be one that
/// nobody else can find any more: then the lock is worth nothing and we start again.
fn settle(path: &Path, file: File) -> Result<Option<FileLease>> {
    let ours = file.metadata().at("look at", path)?;
    match fs::metadata(path) {
        Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {
            Ok(Some(FileLease { path: path.into(), _lock: file }))
        }
        Ok(_) => Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).at("look at", path),
    }
}
