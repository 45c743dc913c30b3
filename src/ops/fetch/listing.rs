//! A file or a folder on this machine as a sorted list of files, and the digest of one. For the `file` op.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use pipe_store::Digest;

/// Folders inside folders that are followed.
const DEEPEST: usize = 32;
/// Files in one folder that are listed: a mistyped path to a home folder ends here.
const MOST: usize = 100_000;

/// A file of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the folder, `/` between the pieces; the file's own name when a single file was listed.
    pub name: String,
    pub path: PathBuf,
    pub length: u64,
}

/// Why a listing or a digest failed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error("cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is neither a file nor a folder", path.display())]
    Special { path: PathBuf },
    #[error("{} links to {}, outside of the folder; copy the file into it", path.display(), target.display())]
    Escapes { path: PathBuf, target: PathBuf },
    #[error("{} links to a folder; list that folder itself or copy it", path.display())]
    LinkedFolder { path: PathBuf },
    #[error("the name of {} is not UTF-8; rename it", path.display())]
    Name { path: PathBuf },
    #[error("{} has more than {DEEPEST} folders inside each other", path.display())]
    TooDeep { path: PathBuf },
    #[error("{} has more than {MOST} files", path.display())]
    TooMany { path: PathBuf },
    #[error("{} has no files (hidden ones do not count)", path.display())]
    Empty { path: PathBuf },
    #[error("{} changed while it was read", path.display())]
    Changed { path: PathBuf },
    #[error("cancelled")]
    Cancelled,
}

/// The file itself, or all files below a folder sorted by name as bytes. Names that start with a dot are
/// skipped; links are followed to files inside the folder only.
pub fn list(path: &Path) -> Result<Vec<Entry>, ListError> {
    let read = |source| ListError::Read { path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(read)?;
    if meta.is_file() {
        // A path may end in `..`, so its last piece is asked of the file system.
        let real = path.canonicalize().map_err(read)?;
        let name = path.file_name().or(real.file_name()).unwrap_or_default();
        return Ok(vec![Entry { name: utf8(name, path)?, path: path.to_owned(), length: meta.len() }]);
    }
    if !meta.is_dir() {
        return Err(ListError::Special { path: path.to_owned() });
    }
    let mut found = Vec::new();
    let walk = Walk { top: path, root: path.canonicalize().map_err(read)? };
    walk.folder(path, "", 0, &mut found)?;
    if found.is_empty() {
        return Err(ListError::Empty { path: path.to_owned() });
    }
    found.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    Ok(found)
}

struct Walk<'a> {
    top: &'a Path,
    /// `top` without links.
    root: PathBuf,
}

impl Walk<'_> {
    fn folder(&self, at: &Path, prefix: &str, depth: usize, found: &mut Vec<Entry>) -> Result<(), ListError> {
        if depth > DEEPEST {
            return Err(ListError::TooDeep { path: self.top.to_owned() });
        }
        let read = |path: &Path, source| ListError::Read { path: path.to_owned(), source };
        for entry in fs::read_dir(at).map_err(|e| read(at, e))? {
            let path = entry.map_err(|e| read(at, e))?.path();
            let name = path.file_name().unwrap_or_default();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let name = format!("{prefix}{}", utf8(name, &path)?);
            let kind = fs::symlink_metadata(&path).map_err(|e| read(&path, e))?.file_type();
            if kind.is_symlink() {
                let target = path.canonicalize().map_err(|e| read(&path, e))?;
                if !target.starts_with(&self.root) {
                    return Err(ListError::Escapes { path, target });
                }
                if target.is_dir() {
                    return Err(ListError::LinkedFolder { path });
                }
            }
            let meta = fs::metadata(&path).map_err(|e| read(&path, e))?;
            if meta.is_dir() {
                self.folder(&path, &format!("{name}/"), depth + 1, found)?;
            } else if !meta.is_file() {
                return Err(ListError::Special { path });
            } else if found.len() >= MOST {
                return Err(ListError::TooMany { path: self.top.to_owned() });
            } else {
                found.push(Entry { name, path, length: meta.len() });
            }
        }
        Ok(())
    }
}

fn utf8(name: &OsStr, path: &Path) -> Result<String, ListError> {
    name.to_str().map(str::to_owned).ok_or_else(|| ListError::Name { path: path.to_owned() })
}

/// Digest and length of a file's bytes. `progress` gets the bytes so far.
///
/// # Errors
/// Also [`ListError::Changed`], when the length at the end is not the one at the start.
pub fn digest_file(
    path: &Path,
    progress: &dyn Fn(u64),
    cancel: &AtomicBool,
) -> Result<(Digest, u64), ListError> {
    let read = |source| ListError::Read { path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(read)?;
    if !meta.is_file() {
        return Err(ListError::Special { path: path.to_owned() });
    }
    let mut file = File::open(path).map_err(read)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut length = 0;
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(ListError::Cancelled);
        }
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                hasher.update(&buffer[..n]);
                length += n as u64;
                progress(length);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(read(e)),
        }
    }
    if length != meta.len() {
        return Err(ListError::Changed { path: path.to_owned() });
    }
    Ok((Digest(*hasher.finalize().as_bytes()), length))
}
