//! The way of bytes into the destination: counted, hashed, limited, cancellable. Shared by all sources.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use pipe_store::hex;
use sha2::{Digest as _, Sha256};

use super::{Cause, FetchEnv, Phase, Progress};
use crate::pipeline::op::Expected;

/// What all sources need to know about the file that is wanted.
pub(super) struct Job<'a> {
    pub source: usize,
    pub expect: Expected,
    pub resume_dir: &'a Path,
    pub env: &'a FetchEnv,
    pub progress: &'a dyn Fn(Progress),
    pub cancel: &'a AtomicBool,
}

/// Why a source stopped.
#[derive(Debug)]
pub(super) enum Halt {
    /// Its own fault: the next one may do better.
    Source {
        origin: String,
        cause: Cause,
    },
    Cancelled,
    /// Writing here failed, so no other source can do better.
    Write(io::Error),
}

impl Halt {
    pub fn source(origin: impl Into<String>, cause: Cause) -> Self {
        Halt::Source { origin: origin.into(), cause }
    }
}

impl Job<'_> {
    pub fn check(&self) -> Result<(), Halt> {
        if self.cancel.load(Ordering::Relaxed) { Err(Halt::Cancelled) } else { Ok(()) }
    }

    pub fn report(&self, phase: Phase, bytes: u64, resumed: u64, total: Option<u64>) {
        (self.progress)(Progress { source: self.source, phase, bytes, resumed, total });
    }
}

/// The hash the recipe names, under way.
pub(super) enum Hasher {
    Sha256(Sha256),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    pub fn new(expect: &Expected) -> Self {
        match expect {
            Expected::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Expected::Blake3(_) => Hasher::Blake3(Box::default()),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(h) => h.update(bytes),
            Hasher::Blake3(h) => {
                h.update(bytes);
            }
        }
    }

    /// Compares with what was expected; `length` is only for the message.
    pub fn verify(self, expect: &Expected, length: u64) -> Result<(), Cause> {
        let found: [u8; 32] = match self {
            Hasher::Sha256(h) => h.finalize().into(),
            Hasher::Blake3(h) => *h.finalize().as_bytes(),
        };
        let (kind, expected) = spell(expect);
        let found = hex(&found);
        if found == expected { Ok(()) } else { Err(Cause::WrongHash { kind, expected, found, length }) }
    }
}

/// The hash's kind and its hex digits.
pub(super) fn spell(expect: &Expected) -> (&'static str, String) {
    match expect {
        Expected::Sha256(bytes) => ("sha256", hex(bytes)),
        Expected::Blake3(digest) => ("blake3", digest.to_string()),
    }
}

/// Empties a file and goes to its start.
pub(super) fn rewind(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()
}

/// Streams `input` into `dest` and checks the hash at the end. `read_error` names what failed to read.
pub(super) fn stream(
    input: &mut dyn Read,
    origin: &str,
    (phase, total): (Phase, Option<u64>),
    job: &Job,
    dest: &mut File,
    read_error: &dyn Fn(io::Error) -> Cause,
) -> Result<u64, Halt> {
    rewind(dest).map_err(Halt::Write)?;
    let limit = job.env.max_bytes;
    let mut hasher = Hasher::new(&job.expect);
    let mut buffer = vec![0; 1 << 20];
    let mut length = 0u64;
    loop {
        job.check()?;
        job.report(phase, length, 0, total);
        let n = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Halt::source(origin, read_error(e))),
        };
        length += n as u64;
        if length > limit {
            return Err(Halt::source(origin, Cause::TooLarge { length, limit }));
        }
        hasher.update(&buffer[..n]);
        dest.write_all(&buffer[..n]).map_err(Halt::Write)?;
    }
    hasher.verify(&job.expect, length).map_err(|cause| Halt::source(origin, cause))?;
    Ok(length)
}

/// The `file:` source.
pub(super) fn copy_file(path: &Path, job: &Job, dest: &mut File) -> Result<u64, Halt> {
    let origin = format!("file:{}", path.display());
    let read_error = |source| Cause::Read { path: path.to_owned(), source };
    // Asked before opening: opening a pipe would wait for its writer.
    let meta = std::fs::metadata(path).map_err(|e| Halt::source(&origin, read_error(e)))?;
    if !meta.is_file() {
        return Err(Halt::source(origin, Cause::NotAFile { path: path.to_owned() }));
    }
    let mut input = File::open(path).map_err(|e| Halt::source(&origin, read_error(e)))?;
    stream(&mut input, &origin, (Phase::Copying, Some(meta.len())), job, dest, &read_error)
}
