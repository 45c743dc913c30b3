//! Kept rows on their way into the artifact: how many positions there will be is known only at the end, so they
//! wait in a file, a record of all kept rows for each position.

use std::io::{self, Write};

use memmap2::Mmap;
use pipe_store::{Staged, StoreError};

/// A file of records of one length, in the order they came.
pub struct Spool {
    file: Staged,
    record: usize,
    records: usize,
}

/// A spool read back.
pub struct Records {
    map: Option<Mmap>,
    record: usize,
}

impl Spool {
    /// `file` is nobody else's; it goes when the spool goes.
    pub fn new(file: Staged, record: usize) -> Self {
        Spool { file, record, records: 0 }
    }

    /// Appends whole records; the number of the first.
    pub fn append(&mut self, bytes: &[u8]) -> Result<usize, StoreError> {
        self.file.write_all(bytes).map_err(|e| StoreError::io("write", self.file.path(), e))?;
        let first = self.records;
        self.records += bytes.len() / self.record;
        Ok(first)
    }

    pub fn read(&mut self) -> io::Result<Records> {
        // An empty file cannot be mapped everywhere.
        if self.records == 0 {
            return Ok(Records { map: None, record: self.record });
        }
        self.file.flush()?;
        // SAFETY: nobody else writes to a staged file, and this process has written all it will.
        let map = unsafe { Mmap::map(&*self.file.file_mut()) }?;
        Ok(Records { map: Some(map), record: self.record })
    }
}

impl Records {
    /// Bytes `from..from + length` of record `i`.
    pub fn part(&self, i: usize, from: usize, length: usize) -> &[u8] {
        let start = i * self.record + from;
        self.map.as_ref().map_or(&[], |map| &map[start..start + length])
    }
}
