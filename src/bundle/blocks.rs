//! The blocks of a CAR, each checked against its CID: spooled to one file that is no object, or in place in a file that
//! is there. Whoever takes what he knows marks it; what nobody took at the end does not belong there.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cid::Cid;
use memmap2::Mmap;
use pipe_store::{Digest, Staged, Store, StoreError};
use rayon::prelude::*;

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
    bytes_at: Bytes,
    index: HashMap<Cid, Place>,
    taken: Mutex<BTreeSet<Cid>>,
    bytes: u64,
}

/// Where the bytes are.
enum Bytes {
    Spool(Mutex<Staged>),
    /// A whole CAR; no block is added.
    Mapped(Mmap),
}

#[derive(Clone, Copy)]
struct Place {
    at: u64,
    length: u64,
}

/// Blocks in place whose bytes nobody has compared with their CIDs.
pub struct Located {
    blocks: Blocks,
    sections: Vec<(car::Section, Place)>,
    /// What is wrong behind the sections.
    end: Result<(), car::CarError>,
}

impl Blocks {
    /// None yet, to be rooted in this.
    pub fn new(root: Cid, store: &Store) -> Result<Blocks, TransportError> {
        let spool = Bytes::Spool(Mutex::new(store.stage()?));
        Ok(Blocks::none(vec![root], spool))
    }

    fn none(roots: Vec<Cid>, bytes_at: Bytes) -> Blocks {
        Blocks { roots, bytes_at, index: HashMap::new(), taken: Mutex::default(), bytes: 0 }
    }

    /// Reads a CAR to its end. Every block fits its CID, every root is there, none comes twice.
    pub fn read(reader: impl Read, store: &Store) -> Result<Blocks, TransportError> {
        let mut blocks = Blocks::new(Cid::default(), store)?;
        blocks.roots = blocks.add_car(reader)?;
        Ok(blocks)
    }

    /// Finds the blocks of a CAR file where they are, without a copy; None if the file cannot be mapped.
    pub fn locate(file: &File) -> Result<Option<Located>, TransportError> {
        if !file.metadata().is_ok_and(|file| file.is_file() && file.len() > 0) {
            return Ok(None);
        }
        // SAFETY: nobody writes to a file while it is checked; one cut short would end the program. Nothing is kept of
        // what is read here, and no length or place is read from it twice.
        let Ok(map) = (unsafe { Mmap::map(file) }) else { return Ok(None) };
        let mut car = car::CarReader::locating(&map, LENGTH_MAX)?;
        let (roots, mut sections) = (car.roots().to_vec(), Vec::new());
        let mut next = || -> Result<bool, car::CarError> {
            let Some(section) = car.next_section()? else { return Ok(false) };
            sections.push((section, Place { at: car.skip_block()?, length: section.length }));
            Ok(true)
        };
        let end = loop {
            match next() {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        let mut blocks = Blocks::none(roots, Bytes::Mapped(map));
        blocks.index = sections.iter().map(|(section, place)| (section.cid, *place)).collect();
        blocks.bytes = sections.iter().map(|(_, place)| place.length).sum();
        Ok(Some(Located { blocks, sections, end }))
    }

    /// The blocks of a CAR too, but for those that are here; its roots.
    pub fn add_car(&mut self, reader: impl Read) -> Result<Vec<Cid>, TransportError> {
        let mut car = car::CarReader::with_limit(reader, LENGTH_MAX)?;
        while let Some(section) = car.next_section()? {
            if !self.has(&section.cid) {
                car.copy_to(self.spool().file_mut())?;
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
        let spool = self.spool();
        let path = spool.path().to_owned();
        spool.file_mut().write_all(bytes).map_err(|e| StoreError::io("write", &path, e))?;
        self.note(*cid, bytes.len() as u64);
        Ok(())
    }

    fn spool(&mut self) -> &mut Staged {
        match &mut self.bytes_at {
            Bytes::Spool(spool) => spool.get_mut().unwrap_or_else(PoisonError::into_inner),
            Bytes::Mapped(_) => unreachable!("BUG: no block is added to a CAR in place"),
        }
    }

    fn marks(&self) -> MutexGuard<'_, BTreeSet<Cid>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.marks().contains(cid)
    }

    /// Bytes of a block that is here.
    pub fn length(&self, cid: &Cid) -> Option<u64> {
        self.index.get(cid).map(|place| place.length)
    }

    /// A block, to see what it is; it counts as taken by whoever takes it.
    pub fn peek(&self, cid: &Cid) -> Result<Option<Cow<'_, [u8]>>, TransportError> {
        let before = self.taken(cid);
        let bytes = self.take(cid, u64::MAX)?;
        if !before {
            self.marks().remove(cid);
        }
        Ok(bytes)
    }

    /// A block that belongs to something known; None if the CAR lacks it.
    ///
    /// # Errors
    /// It is longer than anything that is meant to stand there.
    pub fn take(&self, cid: &Cid, limit: u64) -> Result<Option<Cow<'_, [u8]>>, TransportError> {
        let Some(place) = self.index.get(cid) else { return Ok(None) };
        if place.length > limit {
            return Err(TransportError::TooLong { cid: *cid, length: place.length, limit });
        }
        if let Bytes::Mapped(map) = &self.bytes_at {
            self.marks().insert(*cid);
            return Ok(Some(Cow::Borrowed(place.of(map))));
        }
        let mut bytes = Vec::with_capacity(place.length as usize);
        self.copy(cid, *place, &mut bytes)?;
        Ok(Some(Cow::Owned(bytes)))
    }

    /// The content with this digest and length that stands under an address; None if nothing of it is here. Staged in
    /// this store; without one it is checked all the same.
    pub fn content(
        &self,
        root: &Cid,
        digest: &Digest,
        length: u64,
        stage: Option<&Store>,
    ) -> Result<Option<Content>, TransportError> {
        let Some(place) = self.index.get(root) else { return Ok(None) };
        let mut staged = stage.map(Store::stage).transpose()?;
        let mut out = Hashing { out: staged.as_mut().map(Staged::file_mut), hasher: blake3::Hasher::new() };
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
        Ok(Some(Content { length, staged }))
    }

    fn copy(&self, cid: &Cid, place: Place, out: &mut dyn Write) -> Result<(), TransportError> {
        let mut spool = match &self.bytes_at {
            Bytes::Mapped(map) => {
                out.write_all(place.of(map)).map_err(|source| car::CarError::Output { cid: *cid, source })?;
                self.marks().insert(*cid);
                return Ok(());
            }
            Bytes::Spool(spool) => spool.lock().unwrap_or_else(PoisonError::into_inner),
        };
        let path = spool.path().to_owned();
        let file = spool.file_mut();
        let copied = file
            .seek(SeekFrom::Start(place.at))
            .and_then(|_| std::io::copy(&mut file.take(place.length), out));
        let copied = copied.map_err(|e| StoreError::io("read", &path, e))?;
        debug_assert_eq!(copied, place.length);
        self.marks().insert(*cid);
        Ok(())
    }

    /// Every block in place fits its CID; the first in the file that does not is the error.
    fn fit(&self, sections: &[(car::Section, Place)]) -> Result<(), car::CarError> {
        let Bytes::Mapped(map) = &self.bytes_at else { return Ok(()) };
        let wrong =
            sections.par_iter().find_first(|(section, place)| !car::fits(&section.cid, place.of(map)));
        wrong.map_or(Ok(()), |(section, _)| {
            Err(car::CarError::Mismatch { offset: section.offset, cid: section.cid })
        })
    }

    /// Everything was taken that is known: what is left belongs to nothing.
    pub fn all_taken(&self) -> Result<(), TransportError> {
        let taken = self.marks();
        let stray = self.index.keys().filter(|cid| !taken.contains(cid)).min();
        stray.map_or(Ok(()), |cid| Err(TransportError::Stray { cid: *cid }))
    }
}

impl Place {
    fn of(self, map: &[u8]) -> &[u8] {
        &map[self.at as usize..][..self.length as usize]
    }
}

impl Located {
    /// Compares every block with its CID, while `work` goes on with them. What it says counts only if all fit.
    pub fn check<T: Send>(self, work: impl FnOnce(&Blocks) -> T + Send) -> Result<T, TransportError> {
        let Located { blocks, sections, end } = self;
        let (fit, done) = rayon::join(|| blocks.fit(&sections), || end.is_ok().then(|| work(&blocks)));
        fit?;
        end?;
        Ok(done.expect("BUG: it worked, as the end is as it should be"))
    }
}

/// A content that was checked.
pub struct Content {
    pub length: u64,
    /// None where nothing is to be kept.
    pub staged: Option<Staged>,
}

struct Hashing<'a> {
    out: Option<&'a mut File>,
    hasher: blake3::Hasher,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Some(out) = &mut self.out {
            out.write_all(bytes)?;
        }
        if bytes.len() < 1 << 18 {
            self.hasher.update(bytes)
        } else {
            self.hasher.update_rayon(bytes)
        };
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.as_mut().map_or(Ok(()), |out| out.flush())
    }
}
