//! A download under way, kept in the resume folder under the expected hash, so that any later call and any
//! source can continue it: the hash decides whether the pieces fit.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::sink::{Hasher, Job, spell};
use crate::pipeline::op::Expected;

/// Where the kept bytes came from, to ask for the rest of the very same file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub url: String,
    /// A strong ETag or a date, as If-Range takes it.
    pub validator: Option<String>,
}

/// The bytes so far, with their hash.
pub(super) struct Partial {
    file: File,
    pub length: u64,
    pub origin: Origin,
    hasher: Hasher,
    expect: Expected,
    /// None when another process holds the named file and this one works on a nameless one.
    path: Option<PathBuf>,
}

fn part_path(dir: &Path, expect: &Expected) -> PathBuf {
    let (kind, hash) = spell(expect);
    dir.join(format!("{kind}-{hash}.part"))
}

fn origin_path(part: &Path) -> PathBuf {
    part.with_extension("origin.json")
}

/// Bytes kept for this hash.
pub(super) fn kept(dir: &Path, expect: &Expected) -> u64 {
    fs::metadata(part_path(dir, expect)).map_or(0, |m| m.len())
}

impl Drop for Partial {
    /// Closing is not enough: a process being started elsewhere may still hold a copy of the open file.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl Partial {
    /// Opens what an earlier call left and hashes it, or starts empty.
    pub fn open(job: &Job) -> io::Result<Self> {
        fs::create_dir_all(job.resume_dir)?;
        let path = part_path(job.resume_dir, &job.expect);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let (file, path) = match file.try_lock() {
            Ok(()) => (file, Some(path)),
            Err(TryLockError::WouldBlock) => (tempfile::tempfile_in(job.resume_dir)?, None),
            Err(TryLockError::Error(e)) => return Err(e),
        };
        let origin = path
            .as_ref()
            .and_then(|p| fs::read(origin_path(p)).ok())
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let hasher = Hasher::new(&job.expect);
        let mut partial = Partial { file, length: 0, origin, hasher, expect: job.expect, path };
        partial.rehash(job)?;
        Ok(partial)
    }

    fn rehash(&mut self, job: &Job) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 20];
        loop {
            // A cancelled call is noticed by the caller at its next step; the bytes read so far stay true.
            let n = if job.check().is_ok() { self.file.read(&mut buffer)? } else { 0 };
            if n == 0 {
                return Ok(());
            }
            self.hasher.update(&buffer[..n]);
            self.length += n as u64;
        }
    }

    /// Forgets all bytes.
    pub fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.length = 0;
        self.origin = Origin::default();
        self.hasher = Hasher::new(&self.expect);
        match self.path.as_ref().map(|p| fs::remove_file(origin_path(p))) {
            Some(Err(e)) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Notes where the bytes come from. A lost note only costs a question without If-Range.
    pub fn set_origin(&mut self, origin: Origin) -> io::Result<()> {
        if let Some(path) = self.path.as_ref().filter(|_| self.origin != origin) {
            fs::write(origin_path(path), serde_json::to_vec(&origin)?)?;
        }
        self.origin = origin;
        Ok(())
    }

    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Checks the hash. Wrong bytes are forgotten, and what is left can be filled anew.
    pub fn verify(&mut self) -> io::Result<Result<(), super::Cause>> {
        let hasher = std::mem::replace(&mut self.hasher, Hasher::new(&self.expect));
        let verdict = hasher.verify(&self.expect, self.length);
        if verdict.is_err() {
            self.clear()?;
        }
        Ok(verdict)
    }

    /// Copies the verified bytes to `dest` and removes the partial file.
    pub fn finish(mut self, dest: &mut File) -> io::Result<u64> {
        super::sink::rewind(dest)?;
        self.file.seek(SeekFrom::Start(0))?;
        let copied = io::copy(&mut self.file, dest)?;
        if copied != self.length {
            return Err(io::Error::other(format!("copied {copied} of {} bytes", self.length)));
        }
        self.discard()?;
        Ok(copied)
    }

    /// Removes the partial file.
    pub fn discard(mut self) -> io::Result<()> {
        self.clear()?;
        match self.path.as_ref().map(fs::remove_file) {
            Some(Err(e)) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}
