//! The blocks of a CAR, each checked against its CID, spooled to one file that is no object. Whoever takes what he
//! knows marks it; what nobody took at the end does not belong there.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Seek, SeekFrom, Write};

use cid::Cid;
use pipe_store::{Digest, Staged, Store, StoreError};

use super::unixfs::{self, UnixfsError};
use super::{TransportError, car};

/// The longest block: weights that an older version exported whole. Blocks go to disk as they come.
const LENGTH_MAX: u64 = 1 << 40;

/// How much longer a content may be than all the blocks it is made of: blocks may repeat, but a CAR of a megabyte that
/// claims an exabyte must not fill the disk.
const REPEATS_MAX: u64 = 1024;

/// A CAR, read and checked to its end. Dropped, nothing of it is left.
pub struct Blocks {
    pub roots: Vec<Cid>,
    spool: RefCell<Staged>,
    index: HashMap<Cid, Place>,
    taken: RefCell<BTreeSet<Cid>>,
    bytes: u64,
}

#[derive(Clone, Copy)]
struct Place {
    at: u64,
    length: u64,
}

impl Blocks {
    /// None yet, to be rooted in this.
    pub fn new(root: Cid, store: &Store) -> Result<Blocks, TransportError> {
        let spool = RefCell::new(store.stage()?);
        Ok(Blocks { roots: vec![root], spool, index: HashMap::new(), taken: RefCell::default(), bytes: 0 })
    }

    /// Reads a CAR to its end. Every block fits its CID, every root is there, none comes twice.
    pub fn read(reader: impl Read, store: &Store) -> Result<Blocks, TransportError> {
        let mut blocks = Blocks::new(Cid::default(), store)?;
        blocks.roots = blocks.add_car(reader)?;
        Ok(blocks)
    }

    /// The blocks of a CAR too, but for those that are here; its roots.
    pub fn add_car(&mut self, reader: impl Read) -> Result<Vec<Cid>, TransportError> {
        let mut car = car::CarReader::with_limit(reader, LENGTH_MAX)?;
        while let Some(section) = car.next_section()? {
            if !self.has(&section.cid) {
                car.copy_to(self.spool.get_mut().file_mut())?;
                self.note(section.cid, section.length);
            }
        }
        Ok(car.roots().to_vec())
    }

    /// A single block too.
    pub fn add(&mut self, cid: &Cid, bytes: &[u8]) -> Result<(), TransportError> {
        if self.has(cid) {
            return Ok(());
        }
        if !car::fits(cid, bytes) {
            return Err(car::CarError::Mismatch { offset: 0, cid: *cid }.into());
        }
        let spool = self.spool.get_mut();
        let path = spool.path().to_owned();
        spool.file_mut().write_all(bytes).map_err(|e| StoreError::io("write", &path, e))?;
        self.note(*cid, bytes.len() as u64);
        Ok(())
    }

    fn note(&mut self, cid: Cid, length: u64) {
        self.index.insert(cid, Place { at: self.bytes, length });
        self.bytes += length;
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    pub fn has(&self, cid: &Cid) -> bool {
        self.index.contains_key(cid)
    }

    /// Does this block belong to something known?
    pub fn taken(&self, cid: &Cid) -> bool {
        self.taken.borrow().contains(cid)
    }

    /// Bytes of a block that is here.
    pub fn length(&self, cid: &Cid) -> Option<u64> {
        self.index.get(cid).map(|place| place.length)
    }

    /// A block, to see what it is; it counts as taken by whoever takes it.
    pub fn peek(&self, cid: &Cid) -> Result<Option<Vec<u8>>, TransportError> {
        let before = self.taken(cid);
        let bytes = self.take(cid, u64::MAX)?;
        if !before {
            self.taken.borrow_mut().remove(cid);
        }
        Ok(bytes)
    }

    /// A block that belongs to something known; None if the CAR lacks it.
    ///
    /// # Errors
    /// It is longer than anything that is meant to stand there.
    pub fn take(&self, cid: &Cid, limit: u64) -> Result<Option<Vec<u8>>, TransportError> {
        let Some(place) = self.index.get(cid) else { return Ok(None) };
        if place.length > limit {
            return Err(TransportError::TooLong { cid: *cid, length: place.length, limit });
        }
        let mut bytes = Vec::with_capacity(place.length as usize);
        self.copy(cid, *place, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// The content with this digest and length that stands under an address, staged; None if nothing of it is here.
    pub fn content(
        &self,
        root: &Cid,
        digest: &Digest,
        length: u64,
        store: &Store,
    ) -> Result<Option<Staged>, TransportError> {
        let Some(place) = self.index.get(root) else { return Ok(None) };
        let mut staged = store.stage()?;
        let mut out = Hashing { out: staged.file_mut(), hasher: blake3::Hasher::new() };
        if root.codec() == car::RAW {
            // One block, whatever its length: older versions did not cut.
            if place.length != length {
                return Err(TransportError::Length { cid: *root, found: place.length, expected: length });
            }
            self.copy(root, *place, &mut out)?;
        } else {
            if length / REPEATS_MAX > self.bytes {
                return Err(TransportError::Bomb { root: *root, length, blocks: self.bytes });
            }
            let mut get = |cid: &Cid, limit: u64| self.take(cid, limit);
            unixfs::assemble(root, length, &mut get, &mut out).map_err(|e| match e {
                UnixfsError::Source(e) => e,
                e => TransportError::File { root: *root, why: e.to_string() },
            })?;
        }
        let found = Digest(*out.hasher.finalize().as_bytes());
        if found != *digest {
            return Err(TransportError::Content { root: *root, expected: *digest, found });
        }
        Ok(Some(staged))
    }

    fn copy(&self, cid: &Cid, place: Place, out: &mut dyn Write) -> Result<(), TransportError> {
        let mut spool = self.spool.borrow_mut();
        let path = spool.path().to_owned();
        let file = spool.file_mut();
        let copied = file
            .seek(SeekFrom::Start(place.at))
            .and_then(|_| std::io::copy(&mut file.take(place.length), out));
        let copied = copied.map_err(|e| StoreError::io("read", &path, e))?;
        debug_assert_eq!(copied, place.length);
        self.taken.borrow_mut().insert(*cid);
        Ok(())
    }

    /// Everything was taken that is known: what is left belongs to nothing.
    pub fn all_taken(&self) -> Result<(), TransportError> {
        let taken = self.taken.borrow();
        let stray = self.index.keys().filter(|cid| !taken.contains(cid)).min();
        stray.map_or(Ok(()), |cid| Err(TransportError::Stray { cid: *cid }))
    }
}

struct Hashing<'a> {
    out: &'a mut std::fs::File,
    hasher: blake3::Hasher,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.write_all(bytes)?;
        if bytes.len() < 1 << 18 {
            self.hasher.update(bytes)
        } else {
            self.hasher.update_rayon(bytes)
        };
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
