//! Who has the store open for writing. Every such handle holds a lock on a file of its own below
//! `writers`, so that gc can tell the living from the dead; the operating system frees it on any death.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::index::open_lock;
use super::layout::{Layout, list, remove};
use crate::error::{At, Result, StoreError};

/// Registered as long as it lives.
pub(crate) struct Writer {
    /// `<pid>-<n>`; staged files start with it.
    pub id: String,
    path: PathBuf,
    _lock: File,
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A gc that somebody stopped half-way must not hang everybody else without a word.
const PATIENCE: Duration = Duration::from_secs(30);

impl Writer {
    pub fn register(layout: &Layout) -> Result<Writer> {
        // Shared, and only for the moment: while gc holds it, the set of writers cannot grow.
        let lock_path = layout.gc_lock();
        let gate = open_lock(&lock_path)?;
        let since = Instant::now();
        loop {
            match gate.try_lock_shared() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if since.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::Busy { path: layout.root.clone(), who: vec!["a gc".into()] });
                }
                Err(TryLockError::Error(e)) => return Err(e).at("lock", &lock_path),
            }
        }
        let pid = std::process::id();
        for n in 0u64.. {
            let id = format!("{pid}-{n}");
            let path = layout.writers().join(&id);
            let mut file = match File::create_new(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
                other => other.at("create", &path)?,
            };
            file.lock().at("lock", &path)?;
            // Only for messages; a full disk shall not stop a reader here.
            let _ = write!(file, "process {pid} ({})", program());
            return Ok(Writer { id, path, _lock: file });
        }
        unreachable!("more than 2^64 writers")
    }
}

fn program() -> String {
    let name = std::env::args_os().next().map(PathBuf::from);
    name.and_then(|p| p.file_name().map(|n| n.to_string_lossy().into_owned())).unwrap_or_default()
}

/// Only one handle in the world holds this; no new writer can register meanwhile.
pub(crate) struct Exclusive {
    _gate: File,
}

impl Exclusive {
    /// Refuses, naming them, when others than `me` have the store open.
    pub fn acquire(layout: &Layout, me: &str) -> Result<Exclusive> {
        let path = layout.gc_lock();
        let gate = open_lock(&path)?;
        match gate.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let who = vec!["another gc, or a process that is just opening it".into()];
                return Err(StoreError::Busy { path: layout.root.clone(), who });
            }
            Err(TryLockError::Error(e)) => return Err(e).at("lock", &path),
        }
        let who = living(layout, me)?.into_iter().map(|(_, who)| who).collect::<Vec<_>>();
        if who.is_empty() {
            Ok(Exclusive { _gate: gate })
        } else {
            Err(StoreError::Busy { path: layout.root.clone(), who })
        }
    }

    /// Forgets the registrations of the dead.
    pub fn bury(&self, layout: &Layout, me: &str) -> Result<()> {
        for (path, _) in list(&layout.writers())? {
            if name(&path) != me && !held(&path)? {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

/// Writers other than `me` that live: id and description.
pub(crate) fn living(layout: &Layout, me: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for (path, _) in list(&layout.writers())? {
        let id = name(&path);
        if id != me && held(&path)? {
            let said = fs::read_to_string(&path).unwrap_or_default();
            let who = if said.is_empty() { format!("process {id}") } else { said };
            found.push((id, who));
        }
    }
    Ok(found)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether somebody holds the lock on a file; one that is gone is not held.
pub(crate) fn held(path: &Path) -> Result<bool> {
    let file = match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        other => other.at("open", path)?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(e)) => Err(e).at("lock", path),
    }
}
