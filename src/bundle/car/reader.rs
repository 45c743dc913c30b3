//! Reads a CAR and believes none of it: lengths are checked before anything is allocated, bytes against
//! their CID before they are given out as a block.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Cursor, Read, Write};

use cid::Cid;

use super::{CarError, Check, HEADER_LIMIT, Header, SECTION_LIMIT};

/// A block whose bytes fit its CID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub cid: Cid,
    pub bytes: Vec<u8>,
}

/// The start of a block: which one comes, and how many bytes it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    pub cid: Cid,
    pub length: u64,
    /// Where the section starts in the CAR.
    pub offset: u64,
}

/// Reads blocks in the CAR's order. Either as an iterator, or a section at a time into a stream.
/// After an error nothing more is read.
#[derive(Debug)]
pub struct CarReader<R: Read> {
    input: BufReader<R>,
    offset: u64,
    limit: u64,
    roots: Vec<Cid>,
    seen: HashMap<Cid, u64>,
    open: Option<Section>,
    ended: bool,
}

impl<R: Read> CarReader<R> {
    /// Reads the header; sections may have [`SECTION_LIMIT`] bytes.
    pub fn new(input: R) -> Result<Self, CarError> {
        Self::with_limit(input, SECTION_LIMIT)
    }

    /// Reads the header; sections may have `limit` bytes, CID included.
    pub fn with_limit(input: R, limit: u64) -> Result<Self, CarError> {
        Self::with_buffer(BufReader::with_capacity(1 << 16, input), limit)
    }

    fn with_buffer(input: BufReader<R>, limit: u64) -> Result<Self, CarError> {
        let mut reader = CarReader {
            input,
            offset: 0,
            limit,
            roots: Vec::new(),
            seen: HashMap::new(),
            open: None,
            ended: false,
        };
        let Some(length) = reader.varint("the header's length")? else {
            return Err(CarError::Truncated { offset: 0, what: "the header's length", missing: 1 });
        };
        if length > HEADER_LIMIT {
            return Err(CarError::HeaderTooLong { offset: 0, length });
        }
        let offset = reader.offset;
        let mut bytes = Vec::new();
        reader.copy(length, "the header", &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        let header: Header = serde_ipld_dagcbor::from_slice(&bytes)
            .map_err(|e| CarError::Header { offset, why: e.to_string() })?;
        if header.version != 1 {
            return Err(CarError::Version { version: header.version });
        }
        if header.roots.is_empty() {
            return Err(CarError::NoRoots);
        }
        reader.roots = header.roots;
        Ok(reader)
    }

    pub fn roots(&self) -> &[Cid] {
        &self.roots
    }

    /// The next section, whose bytes [`CarReader::copy_to`] gives; None at the end. Bytes of a section that
    /// were not asked for are read and checked all the same.
    ///
    /// # Errors
    /// Anything wrong; at the end [`CarError::MissingRoot`].
    pub fn next_section(&mut self) -> Result<Option<Section>, CarError> {
        self.guarded(|reader| {
            reader.finish_section(&mut io::sink())?;
            reader.start_section()
        })
    }

    /// Writes the bytes of the section that [`CarReader::next_section`] named. They are those of the CID
    /// only if this returns Ok: until then treat what was written as staged.
    pub fn copy_to(&mut self, out: &mut dyn Write) -> Result<(), CarError> {
        self.guarded(|reader| reader.finish_section(out))
    }

    fn next_block(&mut self) -> Result<Option<Block>, CarError> {
        let Some(section) = self.next_section()? else { return Ok(None) };
        let mut bytes = Vec::new();
        self.copy_to(&mut bytes)?;
        Ok(Some(Block { cid: section.cid, bytes }))
    }

    /// An error is the end: behind it nobody knows where a section starts.
    fn guarded<T: Default>(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<T, CarError>,
    ) -> Result<T, CarError> {
        if self.ended {
            return Ok(T::default());
        }
        let result = step(self);
        self.ended |= result.is_err();
        result
    }

    fn start_section(&mut self) -> Result<Option<Section>, CarError> {
        let offset = self.offset;
        let Some(length) = self.varint("a section's length")? else {
            self.ended = true;
            let missing = self.roots.iter().find(|root| !self.seen.contains_key(root));
            return missing.map_or(Ok(None), |cid| Err(CarError::MissingRoot { cid: *cid }));
        };
        if length == 0 {
            return Err(CarError::EmptySection { offset });
        }
        if length > self.limit {
            return Err(CarError::SectionTooLong { offset, length, limit: self.limit });
        }
        let start = self.offset;
        let mut counted = Counted { input: self.input.by_ref().take(length), count: 0 };
        let parsed = Cid::read_bytes(&mut counted);
        let (used, inside) = (counted.count, counted.input.limit() > 0);
        self.offset += used;
        let cid = match parsed {
            Ok(cid) => cid,
            Err(cid::Error::Io(e)) if e.kind() != io::ErrorKind::UnexpectedEof => {
                return Err(CarError::Read { offset: self.offset, source: e });
            }
            // The file ended before the section did.
            Err(_) if inside && self.at_end()? => {
                return Err(CarError::Truncated {
                    offset: self.offset,
                    what: "a CID",
                    missing: length - used,
                });
            }
            Err(e) => return Err(CarError::Cid { offset: start, why: e.to_string() }),
        };
        if let Some(first) = self.seen.insert(cid, offset) {
            return Err(CarError::Duplicate { offset, cid, first });
        }
        let section = Section { cid, length: length - used, offset };
        self.open = Some(section);
        Ok(Some(section))
    }

    fn finish_section(&mut self, out: &mut dyn Write) -> Result<(), CarError> {
        let Some(Section { cid, length, offset }) = self.open.take() else { return Ok(()) };
        let mut check = Check::new(&cid).ok_or(CarError::Unsupported { offset, cid })?;
        self.copy(length, "a block", &mut |piece| {
            check.update(piece);
            out.write_all(piece).map_err(|source| CarError::Output { cid, source })
        })?;
        if check.fits(&cid) { Ok(()) } else { Err(CarError::Mismatch { offset, cid }) }
    }

    /// Gives out `length` bytes in pieces of the buffer's size: nothing is allocated for what is not there.
    fn copy(
        &mut self,
        length: u64,
        what: &'static str,
        take: &mut dyn FnMut(&[u8]) -> Result<(), CarError>,
    ) -> Result<(), CarError> {
        let mut left = length;
        while left > 0 {
            let offset = self.offset;
            let piece = fill(&mut self.input, offset)?;
            if piece.is_empty() {
                return Err(CarError::Truncated { offset, what, missing: left });
            }
            let n = left.min(piece.len() as u64) as usize;
            take(&piece[..n])?;
            self.input.consume(n);
            self.offset += n as u64;
            left -= n as u64;
        }
        Ok(())
    }

    fn at_end(&mut self) -> Result<bool, CarError> {
        Ok(fill(&mut self.input, self.offset)?.is_empty())
    }

    /// A length; None when the file ends in front of it.
    fn varint(&mut self, what: &'static str) -> Result<Option<u64>, CarError> {
        let start = self.offset;
        let mut value = 0;
        for index in 0..9 {
            let Some(byte) = fill(&mut self.input, self.offset)?.first().copied() else {
                return match index {
                    0 => Ok(None),
                    _ => Err(CarError::Truncated { offset: self.offset, what, missing: 1 }),
                };
            };
            self.input.consume(1);
            self.offset += 1;
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                let shortest = byte != 0 || index == 0;
                return if shortest { Ok(Some(value)) } else { Err(CarError::Varint { offset: start }) };
            }
        }
        Err(CarError::Varint { offset: start })
    }
}

impl<'a> CarReader<Cursor<&'a [u8]>> {
    /// Finds the sections of a CAR that is in memory: see [`CarReader::skip_block`].
    pub fn locating(car: &'a [u8], limit: u64) -> Result<Self, CarError> {
        // Little is read between two blocks.
        Self::with_buffer(BufReader::with_capacity(1 << 8, Cursor::new(car)), limit)
    }

    /// Passes by the bytes of the section that [`CarReader::next_section`] named, all of them there and NOT compared
    /// with the CID; where they start.
    pub fn skip_block(&mut self) -> Result<u64, CarError> {
        self.guarded(|reader| {
            let start = reader.offset;
            let Some(Section { cid, length, offset }) = reader.open.take() else { return Ok(start) };
            Check::new(&cid).ok_or(CarError::Unsupported { offset, cid })?;
            let end = reader.input.get_ref().get_ref().len() as u64;
            if let Some(missing @ 1..) = length.checked_sub(end - start) {
                return Err(CarError::Truncated { offset: end, what: "a block", missing });
            }
            let skipped = reader.input.seek_relative(length as i64);
            skipped.map_err(|source| CarError::Read { offset: start, source })?;
            reader.offset += length;
            Ok(start)
        })
    }
}

impl<R: Read> Iterator for CarReader<R> {
    type Item = Result<Block, CarError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_block().transpose()
    }
}

/// What is buffered, at least one byte unless the input ended.
fn fill<R: Read>(input: &mut BufReader<R>, offset: u64) -> Result<&[u8], CarError> {
    // Asked twice because the borrow of the answer cannot leave a loop.
    while let Err(source) = input.fill_buf() {
        if source.kind() != io::ErrorKind::Interrupted {
            return Err(CarError::Read { offset, source });
        }
    }
    Ok(input.buffer())
}

struct Counted<R> {
    input: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.count += n as u64;
        Ok(n)
    }
}
