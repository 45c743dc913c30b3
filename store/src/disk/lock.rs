//! Locks of the operating system on files. Any death frees them.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use crate::error::{At, Result};

/// A file that is locked while this lives. Dropping unlocks by name: closing alone would leave the lock to
/// a child process that another thread is just starting, until it has closed what it inherited.
pub(crate) struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

impl Locked {
    pub fn file(&self) -> &File {
        &self.0
    }

    /// Waits.
    pub fn exclusive(file: File, path: &Path) -> Result<Locked> {
        file.lock().at("lock", path)?;
        Ok(Locked(file))
    }

    /// None while somebody else has it.
    pub fn try_exclusive(file: File, path: &Path) -> Result<Option<Locked>> {
        let got = file.try_lock();
        settle(got, file, path)
    }

    pub fn try_shared(file: File, path: &Path) -> Result<Option<Locked>> {
        let got = file.try_lock_shared();
        settle(got, file, path)
    }
}

fn settle(got: Result<(), TryLockError>, file: File, path: &Path) -> Result<Option<Locked>> {
    match got {
        Ok(()) => Ok(Some(Locked(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(e).at("lock", path),
    }
}

/// Opens a lock file, creating it if need be.
pub(crate) fn open_lock(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).at("open", path)
}

/// Whether somebody holds the lock on a file; one that is gone is not held.
pub(crate) fn held(path: &Path) -> Result<bool> {
    let file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        other => other.at("open", path)?,
    };
    Ok(Locked::try_shared(file, path)?.is_none())
}

/// Runs `f` while the lock file is held.
pub(crate) fn alone<T>(path: &Path, f: impl FnOnce() -> Result<T>) -> Result<T> {
    let _held = Locked::exclusive(open_lock(path)?, path)?;
    f()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_unlocks_even_when_a_child_has_inherited_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held_by_us = Locked::try_exclusive(open_lock(&path).unwrap(), &path).unwrap().unwrap();
        // What a child has between its start and its exec.
        let inherited = held_by_us.file().try_clone().unwrap();
        assert!(held(&path).unwrap());
        drop(held_by_us);
        assert!(!held(&path).unwrap());
        drop(inherited);
    }
}
