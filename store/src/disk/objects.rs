//! Objects on disk: publishing, opening with verification, setting damaged ones aside.
//!
//! Publish order of a file: write to a staged file, hash, make read-only, sync the data, rename, sync the
//! directory. A small object is one row, so one transaction. Nothing names an object before that.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::hash::{map, open_regular};
use super::index::Sync;
use super::layout::{Stamp, list, remove, sync_dir};
use super::{Disk, INLINE_LIMIT, rows};
use crate::digest::of_parallel;
use crate::error::{At, Result, StoreError};
use crate::{Digest, Object};

impl Disk {
    /// A new file below `staged` that belongs to this handle.
    pub fn stage(&self) -> Result<(File, PathBuf)> {
        let id = &self.writer()?.id;
        loop {
            let n = self.staged.fetch_add(1, Ordering::Relaxed);
            let path = self.layout.staged().join(format!("{id}-{n}"));
            match fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((file, path)),
                // An orphan of a process that had our number.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e).at("create", &path),
            }
        }
    }

    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        self.writer()?;
        let length = bytes.len() as u64;
        let digest = of_parallel(bytes);
        if length < INLINE_LIMIT {
            self.put_inline(&digest, bytes)?;
            return Ok(digest);
        }
        if self.adopt(&digest, length)? {
            return Ok(digest);
        }
        let (mut file, path) = self.stage()?;
        let mut write = || {
            self.faults.point("staged file created, empty");
            file.write_all(bytes).at("write", &path)?;
            self.publish(&file, &path, &digest)
        };
        write().inspect_err(|_| drop(fs::remove_file(&path)))?;
        Ok(digest)
    }

    pub fn put_file(&self, from: &Path) -> Result<(Digest, u64)> {
        let mut source = open_regular(from)?;
        let (mut file, path) = self.stage()?;
        let mut copy = || {
            self.faults.point("staged file created, empty");
            // The two sides fail for different reasons: only writing can find the disk full.
            io::copy(&mut source, &mut file).map_err(|e| {
                match StoreError::io("copy to the store", from, e) {
                    StoreError::Full { .. } => StoreError::Full { path: path.clone() },
                    other => other,
                }
            })?;
            self.commit(&file, &path)
        };
        let (digest, length, published) = copy().inspect_err(|_| drop(fs::remove_file(&path)))?;
        if !published {
            remove(&path)?;
        }
        Ok((digest, length))
    }

    /// The digest and length of a staged file that is now an object; whether the file itself became it.
    pub fn commit(&self, file: &File, path: &Path) -> Result<(Digest, u64, bool)> {
        self.faults.point("staged file written");
        let length = file.metadata().at("look at", path)?.len();
        let bytes = map(file, length, path)?;
        let bytes = bytes.as_deref().unwrap_or_default();
        let digest = of_parallel(bytes);
        if length < INLINE_LIMIT {
            self.put_inline(&digest, bytes)?;
            return Ok((digest, length, false));
        }
        if self.adopt(&digest, length)? {
            return Ok((digest, length, false));
        }
        self.publish(file, path, &digest)?;
        Ok((digest, length, true))
    }

    fn put_inline(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        self.fresh().insert(*digest);
        if self.index.read("look for an object", |c| rows::object_length(c, digest))?.is_some() {
            return Ok(());
        }
        self.faults.point("small object not yet put");
        self.index.write("put an object", Sync::Later, |c| {
            rows::put_object(c, digest, bytes)?;
            self.faults.point("small object inserted, not committed");
            Ok(())
        })?;
        self.faults.point("small object committed");
        Ok(())
    }

    /// True when the object is there already: it counts as put by this handle, so that gc keeps it.
    fn adopt(&self, digest: &Digest, length: u64) -> Result<bool> {
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        self.fresh().insert(*digest);
        Ok(self.length(digest)? == Some(length))
    }

    fn publish(&self, file: &File, path: &Path, digest: &Digest) -> Result<()> {
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        self.fresh().insert(*digest);
        self.faults.point("large object hashed");
        file.set_permissions(Permissions::from_mode(0o444)).at("make read-only", path)?;
        file.sync_data().at("sync", path)?;
        self.faults.point("large object synced");
        let target = self.layout.object(digest);
        let dir = target.parent().unwrap_or(&target);
        match fs::create_dir(dir) {
            Ok(()) => sync_dir(&self.layout.objects())?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).at("create the directory", dir),
        }
        self.faults.point("directory of the object made");
        fs::rename(path, &target).at("rename to its digest", path)?;
        self.faults.point("large object renamed");
        sync_dir(dir)?;
        self.faults.point("large object lasting");
        Ok(())
    }

    /// The length of an object that is there, verified or not.
    pub fn length(&self, digest: &Digest) -> Result<Option<u64>> {
        if let Some(length) = self.index.read("look for an object", |c| rows::object_length(c, digest))? {
            return Ok(Some(length));
        }
        let path = self.layout.object(digest);
        match fs::symlink_metadata(&path) {
            Ok(meta) => Ok(meta.is_file().then_some(meta.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).at("look at", &path),
        }
    }

    pub fn get(&self, digest: &Digest) -> Result<Object> {
        if let Some(bytes) = self.index.read("read an object", |c| rows::object(c, digest))? {
            let found = Digest::of(&bytes);
            if found == *digest {
                return Ok(Object::owned(bytes));
            }
            let path = self.set_aside_row(digest, &found, &bytes);
            return Err(StoreError::Damaged { digest: *digest, found, path });
        }
        let path = self.layout.object(digest);
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing { digest: *digest });
            }
            other => other.at("open", &path)?,
        };
        let stamp = Stamp::of(&file.metadata().at("look at", &path)?);
        let map = map(&file, stamp.size, &path)?;
        if self.recall(&stamp)? != Some(*digest) {
            let found = of_parallel(map.as_deref().unwrap_or_default());
            if found != *digest {
                let path = self.set_aside_file(digest, &found, &path, &stamp);
                return Err(StoreError::Damaged { digest: *digest, found, path });
            }
            self.remember(&stamp, digest);
        }
        // A file without bytes can only be right if the inline limit were 0.
        Ok(map.map_or_else(|| Object::owned(Vec::new()), |m| Object::mapped(m, path)))
    }

    fn aside(&self, digest: &Digest, found: &Digest) -> PathBuf {
        self.layout.damaged().join(format!("{digest}-{}", &found.to_string()[..8]))
    }

    /// Takes damaged bytes out of the way, so that the object counts as missing and is made again.
    /// Where that is impossible (a read-only store) they stay; returns where they are.
    pub(super) fn set_aside_file(
        &self,
        digest: &Digest,
        found: &Digest,
        path: &Path,
        stamp: &Stamp,
    ) -> PathBuf {
        let aside = self.aside(digest, found);
        // Somebody may have put a good one in its place since we looked.
        let same = fs::metadata(path).is_ok_and(|m| Stamp::of(&m) == *stamp);
        if self.read_only() || !same || fs::rename(path, &aside).is_err() { path.into() } else { aside }
    }

    pub(super) fn set_aside_row(&self, digest: &Digest, found: &Digest, bytes: &[u8]) -> PathBuf {
        let aside = self.aside(digest, found);
        if self.read_only() || fs::write(&aside, bytes).is_err() {
            return self.index.path().into();
        }
        let gone = self.index.write("set aside an object", Sync::Later, |c| rows::remove_object(c, digest));
        if gone.is_err() { self.index.path().into() } else { aside }
    }

    /// Every object file with its length, and files below `objects` that are none.
    #[allow(clippy::type_complexity)]
    pub(super) fn object_files(&self) -> Result<(Vec<(PathBuf, Digest, u64)>, Vec<PathBuf>)> {
        let (mut objects, mut strays) = (Vec::new(), Vec::new());
        for (dir, meta) in list(&self.layout.objects())? {
            if !meta.is_dir() {
                strays.push(dir);
                continue;
            }
            for (path, meta) in list(&dir)? {
                match self.layout.digest_of(&path) {
                    Some(digest) if meta.is_file() => objects.push((path, digest, meta.len())),
                    _ => strays.push(path),
                }
            }
        }
        Ok((objects, strays))
    }
}
