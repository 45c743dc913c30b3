//! A lease per key: one file, one OS lock. Kill -9 frees it, so there is no unlock step.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::lock::{Locked, open_lock};
use crate::error::{At, Result};

/// Held as long as it lives; on drop the file goes while the lock is still held.
pub(crate) struct FileLease {
    path: PathBuf,
    _lock: Locked,
}

impl Drop for FileLease {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Blocks until the lease is free.
pub(crate) fn take(path: &Path) -> Result<FileLease> {
    loop {
        let locked = Locked::exclusive(open_lock(path)?, path)?;
        if let Some(lease) = settle(path, locked)? {
            return Ok(lease);
        }
    }
}

/// None while somebody else, in this process or another, holds it.
pub(crate) fn try_take(path: &Path) -> Result<Option<FileLease>> {
    loop {
        let Some(locked) = Locked::try_exclusive(open_lock(path)?, path)? else { return Ok(None) };
        if let Some(lease) = settle(path, locked)? {
            return Ok(Some(lease));
        }
    }
}

/// The former holder deletes the file while it holds the lock, so the file we locked may be one that
/// nobody else can find any more: then the lock is worth nothing and we start again.
fn settle(path: &Path, locked: Locked) -> Result<Option<FileLease>> {
    let ours = locked.file().metadata().at("look at", path)?;
    match fs::metadata(path) {
        Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {
            Ok(Some(FileLease { path: path.into(), _lock: locked }))
        }
        Ok(_) => Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).at("look at", path),
    }
}
