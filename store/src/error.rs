//! What can go wrong, with what happened, where, and what to do. Knows no backend.

use std::io;
use std::path::{Path, PathBuf};

use crate::Digest;

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("could not {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },

    #[error("no space left for {}: free some, for instance with gc, and run again; nothing half-written is kept", path.display())]
    Full { path: PathBuf },

    #[error("the store at {} can only be read: check its owner and permissions, or use another store", path.display())]
    ReadOnly { path: PathBuf },

    #[error("object {digest} is not in the store: run the step that makes it, or fetch it again")]
    Missing { digest: Digest },

    #[error("object {digest} is damaged, its bytes hash to {found}; they are at {}; run the step that makes it again", path.display())]
    Damaged { digest: Digest, found: Digest, path: PathBuf },

    #[error(
        "record {key} names output {output:?} = {digest}, which is not in the store: put the object before its record"
    )]
    OutputMissing { key: Digest, output: String, digest: Digest },

    #[error("output {output:?} = {digest} is said to have {stated} bytes, but has {actual}")]
    OutputLength { output: String, digest: Digest, stated: u64, actual: u64 },

    #[error("the store at {} was written by a newer version (format {found}, this program knows {known}): use a newer program", path.display())]
    NewerFormat { path: PathBuf, found: i64, known: i64 },

    #[error("{} is an SQLite file of another program: choose another directory for the store", path.display())]
    ForeignIndex { path: PathBuf },

    #[error("the index {} is damaged ({why}): rebuild it from the objects with fsck and repair", path.display())]
    IndexDamaged { path: PathBuf, why: String },

    #[error("a row of {} cannot be read ({why}): run fsck with repair", path.display())]
    BadRow { path: PathBuf, why: String },

    #[error("could not {action} in {}: {source}", path.display())]
    Sql { action: &'static str, path: PathBuf, source: rusqlite::Error },

    #[error("the store at {} is in use by {}: wait until they have finished, then run again", path.display(), who.join(", "))]
    Busy { path: PathBuf, who: Vec<String> },

    #[error("run {prefix:?} could be {}: give more digits", candidates.join(", "))]
    AmbiguousRun { prefix: String, candidates: Vec<String> },

    #[error("{} changed while it was read: run again when nothing writes to it", path.display())]
    FileChanged { path: PathBuf },
}

impl StoreError {
    /// Names path and action; a full or read-only file system becomes its own variant.
    /// Public for callers that write to a [`Staged`](crate::Staged) themselves.
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { path },
            io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly { path },
            _ => StoreError::Io { action, path, source },
        }
    }

    pub(crate) fn sql(action: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        use rusqlite::{Error, ErrorCode, ffi};
        let path = path.to_path_buf();
        let extended = source.sqlite_error().map_or(0, |e| e.extended_code);
        match (source.sqlite_error_code(), &source) {
            (Some(ErrorCode::DiskFull), _) => StoreError::Full { path },
            // The shared-memory file of the write-ahead log could not grow: the disk is full too.
            _ if extended == ffi::SQLITE_IOERR_SHMSIZE => StoreError::Full { path },
            (Some(ErrorCode::ReadOnly), _) => StoreError::ReadOnly { path },
            (Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase), _) => {
                StoreError::IndexDamaged { path, why: source.to_string() }
            }
            (_, Error::FromSqlConversionFailure(..) | Error::InvalidColumnType(..)) => {
                StoreError::BadRow { path, why: source.to_string() }
            }
            (_, Error::IntegralValueOutOfRange(..)) => StoreError::BadRow { path, why: source.to_string() },
            _ => StoreError::Sql { action, path, source },
        }
    }
}

/// `std::io` results always gain an action and a path, so there is no blanket `From`.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|e| StoreError::io(action, path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_errors_say_what_where_and_what_to_do() {
        let at = Path::new("/s/x");
        let said = |kind: io::ErrorKind| StoreError::io("write", at, kind.into()).to_string();
        assert!(said(io::ErrorKind::PermissionDenied).starts_with("could not write /s/x: "));
        assert!(said(io::ErrorKind::StorageFull).contains("/s/x: free some"));
        assert!(said(io::ErrorKind::ReadOnlyFilesystem).contains("/s/x can only be read"));
        let busy = StoreError::Busy { path: at.into(), who: vec!["a".into(), "b".into()] };
        assert!(busy.to_string().contains("in use by a, b: wait"));
    }
}
