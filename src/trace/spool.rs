//! Kept rows on their way into the artifact: how many positions there will be is known only at the end, so they
//! wait in a file, a record of all kept rows for each position. The last ones wait in memory.

use std::io::{self, Write};

use memmap2::Mmap;
use pipe_store::{Staged, StoreError};

/// Bytes that wait in memory before they go to the file.
const WAITING_MAX: usize = 4 << 20;

/// Records of one length, in the order they came.
pub struct Spool {
    /// Without one all stay in memory.
    file: Option<Staged>,
    record: usize,
    /// Bytes in the file.
    written: usize,
    waiting: Vec<u8>,
}

/// A spool read back.
pub struct Records {
    map: Option<Mmap>,
    waiting: Vec<u8>,
    record: usize,
}

impl Spool {
    /// `file` is nobody else's; it goes when the spool goes.
    pub fn new(file: Option<Staged>, record: usize) -> Self {
        Spool { file, record, written: 0, waiting: Vec::new() }
    }

    /// Appends whole records; the number of the first.
    pub fn append(&mut self, bytes: &[u8]) -> Result<usize, StoreError> {
        let first = (self.written + self.waiting.len()) / self.record;
        let Some(file) = &mut self.file else {
            self.waiting.extend_from_slice(bytes);
            return Ok(first);
        };
        let mut write = |bytes: &[u8]| {
            self.written += bytes.len();
            file.write_all(bytes).map_err(|e| StoreError::io("write", file.path(), e))
        };
        if self.waiting.len() + bytes.len() >= WAITING_MAX {
            write(&self.waiting)?;
            self.waiting.clear();
        }
        match bytes.len() < WAITING_MAX {
            true => self.waiting.extend_from_slice(bytes),
            false => write(bytes)?,
        }
        Ok(first)
    }

    /// All there is, and a spool that is empty.
    pub fn read(&mut self) -> io::Result<Records> {
        let waiting = std::mem::take(&mut self.waiting);
        let map = match &mut self.file {
            // An empty file cannot be mapped everywhere.
            Some(file) if self.written > 0 => {
                file.flush()?;
                // SAFETY: nobody else writes to a staged file, and this process has written all it will.
                Some(unsafe { Mmap::map(&*file.file_mut()) }?)
            }
            _ => None,
        };
        Ok(Records { map, waiting, record: self.record })
    }
}

impl Records {
    /// Bytes `from..from + length` of record `i`, or of what was appended together with it.
    pub fn part(&self, i: usize, from: usize, length: usize) -> &[u8] {
        let start = i * self.record + from;
        let map = self.map.as_deref().unwrap_or_default();
        // What was appended at once is in one of the two.
        match start.checked_sub(map.len()) {
            None => &map[start..start + length],
            Some(start) => &self.waiting[start..start + length],
        }
    }
}
