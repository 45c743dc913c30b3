//! Where things lie under the root, and the few file-system moves the store makes. Knows no SQLite.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{At, Result};
use crate::{Digest, hex};

pub(crate) struct Layout {
    pub root: PathBuf,
}

impl Layout {
    /// Made absolute, so that a later change of directory does not matter.
    pub fn new(root: &Path) -> Result<Self> {
        Ok(Layout { root: std::path::absolute(root).at("resolve", root)? })
    }

    pub fn index(&self) -> PathBuf {
        self.root.join("index.sqlite")
    }
    pub fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }
    pub fn staged(&self) -> PathBuf {
        self.root.join("staged")
    }
    pub fn damaged(&self) -> PathBuf {
        self.root.join("damaged")
    }
    pub fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }
    pub fn writers(&self) -> PathBuf {
        self.root.join("writers")
    }
    /// Held exclusively by gc, shared for a moment by a process that opens the store.
    pub fn gc_lock(&self) -> PathBuf {
        self.root.join("gc.lock")
    }
    /// Held while the index is created or brought up to date.
    pub fn index_lock(&self) -> PathBuf {
        self.root.join("index.lock")
    }

    /// The only place where a digest becomes the path of its object.
    pub fn object(&self, digest: &Digest) -> PathBuf {
        let text = hex(&digest.0);
        self.objects().join(&text[..2]).join(&text[2..])
    }

    /// The way back, for files found below `objects`; None for a name no object has.
    pub fn digest_of(&self, path: &Path) -> Option<Digest> {
        let rest = path.strip_prefix(self.objects()).ok()?.to_str()?;
        let digest: Digest = rest.replacen('/', "", 1).parse().ok()?;
        (self.object(&digest) == path).then_some(digest)
    }

    pub fn create(&self) -> Result<()> {
        for dir in
            [self.root.clone(), self.objects(), self.staged(), self.damaged(), self.leases(), self.writers()]
        {
            fs::create_dir_all(&dir).at("create the directory", &dir)?;
        }
        Ok(())
    }
}

/// What identifies a state of a file, as far as the file system tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    pub mtime_ns: i128,
    pub ctime_ns: i128,
}

impl Stamp {
    pub fn of(meta: &fs::Metadata) -> Self {
        let ns = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        Stamp {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Changed so lately (or in the future) that another change could leave the same stamp.
    pub fn racy(&self) -> bool {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos() as i128);
        now - self.mtime_ns.max(self.ctime_ns) < 2_000_000_000
    }
}

/// Makes renames and creations in a directory last.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).at("sync the directory", dir)
}

/// Entries of a directory with their metadata, sorted by name; one that vanishes meanwhile is left out.
pub(crate) fn list(dir: &Path) -> Result<Vec<(PathBuf, fs::Metadata)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        match entry.metadata() {
            Ok(meta) => found.push((entry.path(), meta)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).at("look at", &entry.path()),
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Deletes; a file that is already gone is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).at("delete", path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_and_its_path_lead_to_each_other() {
        let layout = Layout::new(Path::new("/store")).unwrap();
        let digest = Digest::of(b"");
        let path = layout.object(&digest);
        let text = "/store/objects/af/1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(path, Path::new(text));
        assert_eq!(layout.digest_of(&path), Some(digest));
        for no in [
            "/store/objects/af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262".to_owned(),
            text.to_uppercase().replace("/STORE/OBJECTS", "/store/objects"),
            text.replace("/af/13", "/af13/"),
            text.replace("objects", "staged"),
            format!("{text}0"),
        ] {
            assert_eq!(layout.digest_of(Path::new(&no)), None, "{no}");
        }
    }
}
