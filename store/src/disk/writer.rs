//! Who has the store open for writing. Every such handle holds a lock on a file of its own below
//! `writers`, so that gc can tell the living from the dead; the operating system frees it on any death.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::layout::{Layout, list, remove};
use super::lock::{Locked, held, open_lock};
use crate::error::{At, Result, StoreError};

/// Registered as long as it lives.
pub(crate) struct Writer {
    /// `<pid>-<n>`; staged files start with it.
    pub id: String,
    path: PathBuf,
    _lock: Locked,
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
        let since = Instant::now();
        let _gate = loop {
            if let Some(gate) = Locked::try_shared(open_lock(&lock_path)?, &lock_path)? {
                break gate;
            }
            if since.elapsed() > PATIENCE {
                return Err(StoreError::Busy { path: layout.root.clone(), who: vec!["a gc".into()] });
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let pid = std::process::id();
        for n in 0u64.. {
            let id = format!("{pid}-{n}");
            let path = layout.writers().join(&id);
            let file = match File::create_new(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
                other => other.at("create", &path)?,
            };
            let lock = Locked::exclusive(file, &path)?;
            // Only for messages; a full disk shall not stop a reader here.
            let _ = write!(lock.file(), "process {pid} ({})", program());
            return Ok(Writer { id, path, _lock: lock });
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
    _gate: Locked,
}

impl Exclusive {
    /// Refuses, naming them, when others than `me` have the store open.
    pub fn acquire(layout: &Layout, me: &str) -> Result<Exclusive> {
        let path = layout.gc_lock();
        let Some(gate) = Locked::try_exclusive(open_lock(&path)?, &path)? else {
            let who = vec!["another gc, or a process that is just opening it".into()];
            return Err(StoreError::Busy { path: layout.root.clone(), who });
        };
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
