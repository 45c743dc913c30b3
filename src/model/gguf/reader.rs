//! A cursor over the header: little-endian numbers and strings, each read checked. Knows no field.

use std::fmt::Arguments;
use std::ops::Range;

use super::error::{GgufError, GgufErrorKind};

type Result<T> = std::result::Result<T, GgufError>;

pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, pos: 0 }
    }

    pub fn pos(&self) -> u64 {
        self.pos as u64
    }

    pub fn left(&self) -> u64 {
        (self.bytes.len() - self.pos) as u64
    }

    /// The next `need` bytes, as a range of the file. `field` is only formatted when it fails.
    pub fn take(&mut self, need: u64, field: Arguments<'_>) -> Result<Range<usize>> {
        if need > self.left() {
            return Err(GgufErrorKind::Truncated { need, left: self.left() }.at(field, self.pos()));
        }
        let start = self.pos;
        self.pos += need as usize;
        Ok(start..self.pos)
    }

    fn array<const N: usize>(&mut self, field: Arguments<'_>) -> Result<[u8; N]> {
        let range = self.take(N as u64, field)?;
        let mut out = [0; N];
        out.copy_from_slice(&self.bytes[range]);
        Ok(out)
    }

    pub fn u8(&mut self, field: Arguments<'_>) -> Result<u8> {
        Ok(self.array::<1>(field)?[0])
    }

    pub fn u16(&mut self, field: Arguments<'_>) -> Result<u16> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub fn u32(&mut self, field: Arguments<'_>) -> Result<u32> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, field: Arguments<'_>) -> Result<u64> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A string's bytes; UTF-8 is checked by whoever reads it.
    pub fn string(&mut self, limit: u64, field: Arguments<'_>) -> Result<Range<usize>> {
        let at = self.pos();
        let count = self.u64(field)?;
        if count > limit {
            return Err(GgufErrorKind::Count { count, limit }.at(field, at));
        }
        self.take(count, field)
    }

    /// A count whose items take at least `item` bytes each, so that a lie is found before anything is done.
    pub fn count(&mut self, item: u64, limit: u64, field: Arguments<'_>) -> Result<u64> {
        let at = self.pos();
        let count = self.u64(field)?;
        let limit = limit.min(self.left() / item);
        if count > limit {
            return Err(GgufErrorKind::Count { count, limit }.at(field, at));
        }
        Ok(count)
    }
}
