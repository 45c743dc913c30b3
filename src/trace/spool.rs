//! Kept rows on their way into the artifact: how many positions there will be is known only at the end, so they
//! wait in a file, a record of all kept rows for each position. The last ones wait in memory.

use std::io::{self, Write};

use memmap2::Mmap;
use pipe_store::{Staged, StoreError};

/// From so many bytes on they go from memory to the file: enough for a write, and few enough to stay near.
const WAITING_ENOUGH: usize = 1 << 20;

/// Records of one length, in the order they came.
pub struct Spool {
    /// Without one all stay in memory.
    file: Option<Staged>,
    record: usize,
    /// Bytes in the file.
    written: usize,
    /// Those that are not, and behind them room that is used again and again.
    waiting: Vec<u8>,
    kept: usize,
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
        Spool { file, record, written: 0, waiting: Vec::new(), kept: 0 }
    }

    /// Room for `bytes` bytes, which may hold anything, to write whole records into.
    pub fn room(&mut self, bytes: usize) -> &mut [u8] {
        let end = self.kept + bytes;
        if self.waiting.len() < end {
            self.waiting.resize(end, 0);
        }
        &mut self.waiting[self.kept..end]
    }

    /// Takes the first `bytes` bytes of the room as records; the number of the first.
    pub fn keep(&mut self, bytes: usize) -> Result<usize, StoreError> {
        let first = (self.written + self.kept) / self.record;
        self.kept += bytes;
        if let Some(file) = self.file.as_mut().filter(|_| self.kept >= WAITING_ENOUGH) {
            file.write_all(&self.waiting[..self.kept])
                .map_err(|e| StoreError::io("write", file.path(), e))?;
            self.written += self.kept;
            self.kept = 0;
        }
        Ok(first)
    }

    /// Appends whole records; the number of the first.
    pub fn append(&mut self, bytes: &[u8]) -> Result<usize, StoreError> {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.keep(bytes.len())
    }

    /// All there is, and a spool that is empty.
    pub fn read(&mut self) -> io::Result<Records> {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.truncate(std::mem::take(&mut self.kept));
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
