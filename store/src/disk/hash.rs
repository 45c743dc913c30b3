//! Hashing files, and remembering the hash by the file's stamp. A memo saves time, never decides.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use memmap2::Mmap;

use super::Disk;
use super::index::Sync;
use super::layout::Stamp;
use super::rows;
use crate::Digest;
use crate::error::{At, Result, StoreError};

/// Below this, hashing costs no more than asking the index.
const MEMO_FROM: u64 = 256 << 10;

/// Maps a whole file of the store for reading. An empty one cannot be mapped everywhere: None.
pub(crate) fn map(file: &File, length: u64, path: &Path) -> Result<Option<Mmap>> {
    if length == 0 {
        return Ok(None);
    }
    // SAFETY: objects are read-only files that the store only ever renames or unlinks, and a staged file
    // is its owner's alone until it is committed; both keep their bytes while mapped.
    unsafe { Mmap::map(file) }.map(Some).at("map", path)
}

/// The digest of an outside file, and the stamp it had before and after. Read in pieces, not mapped: its
/// owner may cut it short at any time, and that must be an error, not a signal.
fn hash_outside(file: &mut File, path: &Path) -> Result<(Digest, Stamp)> {
    let before = Stamp::of(&file.metadata().at("look at", path)?);
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; before.size.clamp(4 << 10, 8 << 20) as usize];
    let mut length = 0;
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => {
                hasher.update_rayon(&piece[..n]);
                length += n as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e).at("read", path),
        }
    }
    match Stamp::of(&file.metadata().at("look at", path)?) {
        after if after == before && length == before.size => {
            Ok((Digest(*hasher.finalize().as_bytes()), before))
        }
        _ => Err(StoreError::FileChanged { path: path.into() }),
    }
}

impl Disk {
    pub(crate) fn recall(&self, stamp: &Stamp) -> Result<Option<Digest>> {
        if stamp.size < MEMO_FROM {
            return Ok(None);
        }
        self.index.read("look up a file hash", |c| rows::memo(c, stamp))
    }

    /// Failing to remember costs time later, not truth, so it is no error.
    pub(crate) fn remember(&self, stamp: &Stamp, digest: &Digest) {
        if stamp.size >= MEMO_FROM && !stamp.racy() && !self.index.read_only() {
            let _ =
                self.index.write("remember a file hash", Sync::Later, |c| rows::put_memo(c, stamp, digest));
        }
    }

    pub(crate) fn file_digest(&self, path: &Path) -> Result<(Digest, u64)> {
        let mut file = open_regular(path)?;
        let stamp = Stamp::of(&file.metadata().at("look at", path)?);
        if let Some(digest) = self.recall(&stamp)? {
            return Ok((digest, stamp.size));
        }
        let (digest, stamp) = hash_outside(&mut file, path)?;
        self.remember(&stamp, &digest);
        Ok((digest, stamp.size))
    }
}

/// Digest and length, with nothing remembered.
pub(crate) fn digest_of_file(path: &Path) -> Result<(Digest, u64)> {
    hash_outside(&mut open_regular(path)?, path).map(|(digest, stamp)| (digest, stamp.size))
}

/// Pipes and devices have no end or no length; only regular files are hashed.
pub(crate) fn open_regular(path: &Path) -> Result<File> {
    // Look first: opening a pipe would wait for its other end.
    if !std::fs::metadata(path).at("look at", path)?.is_file() {
        let what = std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file");
        return Err(what).at("read", path);
    }
    File::open(path).at("open", path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Faults;

    const OLD: Stamp = Stamp { device: 1, inode: 2, size: 1 << 20, mtime_ns: 5, ctime_ns: 6 };

    #[test]
    fn a_stamp_is_remembered_unless_it_is_racy_small_or_another() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path(), Faults::default()).unwrap();
        let digest = Digest::of(b"x");
        disk.remember(&OLD, &digest);
        assert_eq!(disk.recall(&OLD).unwrap(), Some(digest));
        for other in [
            Stamp { device: 2, ..OLD },
            Stamp { inode: 3, ..OLD },
            Stamp { size: OLD.size + 1, ..OLD },
            Stamp { mtime_ns: 6, ..OLD },
            Stamp { ctime_ns: 7, ..OLD },
        ] {
            assert_eq!(disk.recall(&other).unwrap(), None, "{other:?}");
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let now = now.as_nanos() as i128;
        for racy in [
            Stamp { inode: 9, mtime_ns: now, ..OLD },
            Stamp { inode: 9, ctime_ns: now, ..OLD },
            Stamp { inode: 9, ctime_ns: now + 60_000_000_000, ..OLD },
            Stamp { inode: 9, size: 100, ..OLD },
        ] {
            disk.remember(&racy, &digest);
            assert_eq!(disk.recall(&racy).unwrap(), None, "{racy:?}");
        }
    }
}
