//! A file being written, not yet an object. Dropped means deleted; killed means an orphan nobody believes.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::store::Backend;
use crate::{Digest, StoreError};

/// A temporary file in the store's own file system. [`commit`](Staged::commit) makes it an object.
pub struct Staged {
    file: File,
    path: PathBuf,
    backend: Backend,
    published: bool,
}

impl Staged {
    pub(crate) fn new(file: File, path: PathBuf, backend: Backend) -> Self {
        Staged { file, path, backend, published: false }
    }

    pub fn file_mut(&mut self) -> &mut File {
        &mut self.file
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Hashes the file, syncs it and publishes it by a rename; small ones go into the index.
    /// Nobody may write to the file any more. Returns digest and length.
    pub fn commit(mut self) -> Result<(Digest, u64)> {
        let (digest, length, published) = match &self.backend {
            Backend::Disk(disk) => disk.commit(&self.file, &self.path)?,
            Backend::Memory(memory) => {
                let bytes = std::fs::read(&self.path).map_err(|e| StoreError::io("read", &self.path, e))?;
                (memory.put(&bytes), bytes.len() as u64, false)
            }
        };
        self.published = published;
        Ok((digest, length))
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published {
            // What cannot be deleted now is an orphan that gc removes.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
