//! Writes a CAR: the header, then blocks in the caller's order. The same calls give the same bytes.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use cid::Cid;

use super::{CarError, Check, Header};

/// Streams blocks to `out`; [`CarWriter::finish`] must be called.
#[derive(Debug)]
pub struct CarWriter<W: Write> {
    out: W,
    offset: u64,
    roots: Vec<Cid>,
    seen: HashMap<Cid, u64>,
}

impl<W: Write> CarWriter<W> {
    /// # Errors
    /// [`CarError::NoRoots`], or writing failed.
    pub fn new(out: W, roots: &[Cid]) -> Result<Self, CarError> {
        if roots.is_empty() {
            return Err(CarError::NoRoots);
        }
        let header = Header { roots: roots.to_vec(), version: 1 };
        let header = serde_ipld_dagcbor::to_vec(&header)
            .map_err(|e| CarError::Header { offset: 0, why: e.to_string() })?;
        let mut writer = CarWriter { out, offset: 0, roots: roots.to_vec(), seen: HashMap::new() };
        writer.put(&varint(header.len() as u64))?;
        writer.put(&header)?;
        Ok(writer)
    }

    /// Is this block written?
    pub fn has(&self, cid: &Cid) -> bool {
        self.seen.contains_key(cid)
    }

    /// The blocks that are written, in their order.
    pub fn written(&self) -> Vec<Cid> {
        let mut written: Vec<_> = self.seen.iter().map(|(cid, offset)| (*offset, *cid)).collect();
        written.sort_unstable_by_key(|(offset, _)| *offset);
        written.into_iter().map(|(_, cid)| cid).collect()
    }

    /// Writes one block.
    ///
    /// # Errors
    /// As [`CarWriter::block_from`].
    pub fn block(&mut self, cid: &Cid, bytes: &[u8]) -> Result<(), CarError> {
        self.block_from(cid, bytes.len() as u64, &mut &bytes[..])
    }

    /// Writes one block of `length` bytes, taken from a stream. After an error what was written is no CAR.
    ///
    /// # Errors
    /// A block twice, bytes that are not those of the CID, a stream that fails or is too short.
    pub fn block_from(&mut self, cid: &Cid, length: u64, input: &mut dyn Read) -> Result<(), CarError> {
        let offset = self.offset;
        let mut check = Check::new(cid).ok_or(CarError::Unsupported { offset, cid: *cid })?;
        if let Some(first) = self.seen.insert(*cid, offset) {
            return Err(CarError::Duplicate { offset, cid: *cid, first });
        }
        let name = cid.to_bytes();
        self.put(&varint(name.len() as u64 + length))?;
        self.put(&name)?;
        let mut buffer = vec![0; length.clamp(1, 1 << 16) as usize];
        let mut left = length;
        while left > 0 {
            let room = left.min(buffer.len() as u64) as usize;
            match input.read(&mut buffer[..room]) {
                Ok(0) => {
                    return Err(CarError::Truncated { offset: self.offset, what: "a block", missing: left });
                }
                Ok(n) => {
                    check.update(&buffer[..n]);
                    self.put(&buffer[..n])?;
                    left -= n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(CarError::Read { offset: self.offset, source }),
            }
        }
        if check.fits(cid) { Ok(()) } else { Err(CarError::Mismatch { offset, cid: *cid }) }
    }

    /// Flushes and gives the output back.
    ///
    /// # Errors
    /// [`CarError::MissingRoot`], or writing failed.
    pub fn finish(mut self) -> Result<W, CarError> {
        if let Some(cid) = self.roots.iter().find(|root| !self.seen.contains_key(root)) {
            return Err(CarError::MissingRoot { cid: *cid });
        }
        let offset = self.offset;
        self.out.flush().map_err(|source| CarError::Write { offset, source })?;
        Ok(self.out)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), CarError> {
        let offset = self.offset;
        self.out.write_all(bytes).map_err(|source| CarError::Write { offset, source })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

/// LEB128 of a length.
fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}
