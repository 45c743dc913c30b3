//! The SQLite file: opening, format version, one connection that reads and one that writes.
//! Knows no rows; those are in `rows`.
//!
//! Small objects are written with synchronous NORMAL, everything that claims something (records, runs,
//! pins) with FULL. Both survive kill -9. After a power cut the log is cut to a prefix, and the sync of
//! a record covers the objects before it, so a record never outlives the objects it was put after.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::error::{Result, StoreError};

/// The format this program writes, kept in `user_version`.
pub(crate) const FORMAT: i64 = 1;
/// "pipe", kept in `application_id`.
const APPLICATION: i64 = 0x7069_7065;

const SCHEMA: &str = "
CREATE TABLE objects(digest BLOB PRIMARY KEY NOT NULL, bytes BLOB NOT NULL);
CREATE TABLE records(
    key BLOB PRIMARY KEY NOT NULL, step TEXT NOT NULL, preimage TEXT NOT NULL, outputs TEXT NOT NULL,
    log BLOB, facts TEXT NOT NULL, created_ms INTEGER NOT NULL, seal BLOB NOT NULL);
CREATE INDEX records_by_step ON records(step, created_ms);
CREATE TABLE disagreements(
    seq INTEGER PRIMARY KEY, key BLOB NOT NULL, step TEXT NOT NULL, preimage TEXT NOT NULL,
    outputs TEXT NOT NULL, log BLOB, facts TEXT NOT NULL, created_ms INTEGER NOT NULL, seal BLOB NOT NULL);
CREATE INDEX disagreements_by_key ON disagreements(key);
CREATE TABLE runs(
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, pipeline TEXT NOT NULL, bundle BLOB,
    started_ms INTEGER NOT NULL, body TEXT NOT NULL, keys BLOB NOT NULL, objects BLOB NOT NULL, seal BLOB NOT NULL);
CREATE TABLE pins(digest BLOB PRIMARY KEY NOT NULL, label TEXT NOT NULL);
CREATE TABLE memos(
    device INTEGER NOT NULL, inode INTEGER NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL, digest BLOB NOT NULL,
    UNIQUE(device, inode));
";

pub(crate) struct Index {
    path: PathBuf,
    reader: Mutex<Connection>,
    /// None when the store can only be read.
    writer: Option<Mutex<Writer>>,
}

struct Writer {
    connection: Connection,
    /// What `synchronous` stands at.
    sync: Option<Sync>,
}

/// Whether a write must have reached the disk when the call returns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    Later,
    Now,
}

impl Index {
    /// Opens or creates. The caller holds the index lock, so two processes never set up at once.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let writer = connect(path, flags)?;
        set_up(&writer, path)?;
        let reader = connect(path, flags)?;
        reader
            .query_row("PRAGMA schema_version", [], |_| Ok(()))
            .map_err(|e| StoreError::sql("open", path, e))?;
        reader.pragma_update(None, "query_only", true).map_err(|e| StoreError::sql("open", path, e))?;
        let writer = Writer { connection: writer, sync: None };
        Ok(Index { path: path.into(), reader: Mutex::new(reader), writer: Some(Mutex::new(writer)) })
    }

    /// Opens for reading only, also where not even the log's shared memory can be created.
    pub fn open_read_only(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let usual = connect(path, flags).and_then(|c| check(&c, path).map(|()| c));
        let reader = match usual {
            Ok(reader) => reader,
            // Nobody can write here, so the file does not change while we read: unless a log is left
            // over from a killed writer, which "immutable" would ignore.
            Err(StoreError::Sql { .. } | StoreError::ReadOnly { .. }) if !has_log(path) => {
                let uri = format!("file:{}?immutable=1", escape(path));
                let reader = connect(Path::new(&uri), flags | OpenFlags::SQLITE_OPEN_URI)?;
                check(&reader, path)?;
                reader
            }
            Err(e) => return Err(e),
        };
        Ok(Index { path: path.into(), reader: Mutex::new(reader), writer: None })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn read_only(&self) -> bool {
        self.writer.is_none()
    }

    pub fn read<T>(
        &self,
        action: &'static str,
        f: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        f(&lock(&self.reader)).map_err(|e| StoreError::sql(action, &self.path, e))
    }

    /// Several statements that see one state.
    pub fn snapshot<T>(
        &self,
        action: &'static str,
        f: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.read(action, |c| {
            let tx = Transaction::new_unchecked(c, TransactionBehavior::Deferred)?;
            let got = f(&tx)?;
            tx.finish()?;
            Ok(got)
        })
    }

    /// One transaction: all of `f` or nothing.
    pub fn write<T>(
        &self,
        action: &'static str,
        sync: Sync,
        f: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let Some(writer) = &self.writer else {
            return Err(StoreError::ReadOnly { path: self.path.clone() });
        };
        let mut writer = lock(writer);
        let Writer { connection, sync: level } = &mut *writer;
        let run = || {
            if *level != Some(sync) {
                // Takes effect when compiled, so a cached statement would do nothing.
                connection.pragma_update(
                    None,
                    "synchronous",
                    if sync == Sync::Now { "FULL" } else { "NORMAL" },
                )?;
                *level = Some(sync);
            }
            // Immediate: a reader that turns writer could fail without waiting.
            let tx = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
            let got = f(&tx)?;
            tx.commit()?;
            Ok(got)
        };
        run().map_err(|e| StoreError::sql(action, &self.path, e))
    }

    /// Gives the pages that gc freed back to the file system.
    pub fn shrink(&self) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let writer = lock(writer);
        let run = || {
            writer.connection.execute_batch("PRAGMA incremental_vacuum")?;
            writer.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        };
        run().map_err(|e| StoreError::sql("shrink", &self.path, e))
    }
}

/// A thread that panicked left no half transaction: dropping one rolls back.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let open = || {
        let c = Connection::open_with_flags(path, flags)?;
        c.busy_timeout(Duration::from_secs(30))?;
        c.set_prepared_statement_cache_capacity(64);
        Ok(c)
    };
    open().map_err(|e| StoreError::sql("open", path, e))
}

/// The first pages can be read and the format is ours.
fn check(c: &Connection, path: &Path) -> Result<()> {
    match format_of(c).map_err(|e| StoreError::sql("open", path, e))? {
        (APPLICATION, FORMAT) => Ok(()),
        (APPLICATION, found) => Err(StoreError::NewerFormat { path: path.into(), found, known: FORMAT }),
        _ => Err(StoreError::ForeignIndex { path: path.into() }),
    }
}

fn format_of(c: &Connection) -> rusqlite::Result<(i64, i64)> {
    let application = c.pragma_query_value(None, "application_id", |r| r.get(0))?;
    Ok((application, c.pragma_query_value(None, "user_version", |r| r.get(0))?))
}

fn set_up(c: &Connection, path: &Path) -> Result<()> {
    let sql = |e| StoreError::sql("set up", path, e);
    let tables: i64 = c.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0)).map_err(sql)?;
    if (0, 0) == format_of(c).map_err(sql)? && tables == 0 {
        // Must come before the first table.
        c.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(sql)?;
        c.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).map_err(sql)?;
        let create = format!(
            "BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id={APPLICATION}; PRAGMA user_version={FORMAT}; COMMIT"
        );
        c.execute_batch(&create).map_err(sql)?;
    }
    check(c, path)
}

fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).is_ok_and(|m| m.len() > 0)
}

/// A path inside a `file:` URI.
fn escape(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut out = String::new();
    for &b in path.as_os_str().as_bytes() {
        match b {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => out.push(b as char),
            _ => out.push_str(&format!("%{b:02x}")),
        }
    }
    out
}
