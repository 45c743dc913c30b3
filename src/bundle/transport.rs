//! A bundle and what it carries, out to a CAR and in again. Trusts no byte of what comes in.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use cid::Cid;
use pipe_store::{Digest, Object, Store, StoreError};

use super::blocks::{Blocks, Content};
use super::{Bundle, BundleError, car, unixfs};

/// What came in.
#[derive(Clone, Debug)]
pub struct Imported {
    pub cid: Cid,
    pub bundle: Bundle,
    pub blocks: usize,
    /// Linked outputs that neither the CAR nor the store holds.
    pub missing: Vec<Digest>,
}

#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error(transparent)]
    Car(#[from] car::CarError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("the first root {root} is not among the blocks")]
    NoRoot { root: Cid },
    #[error("block {cid} belongs to nothing the bundle names")]
    Stray { cid: Cid },
    #[error("block {cid} is {found} bytes long; the bundle says {expected}")]
    Length { cid: Cid, found: u64, expected: u64 },
    #[error("block {cid} is {length} bytes long; at most {limit} belong there")]
    TooLong { cid: Cid, length: u64, limit: u64 },
    #[error("the file {root}: {why}")]
    File { root: Cid, why: String },
    #[error("the file {root} is said to be {length} bytes long, but all blocks together have {blocks}")]
    Bomb { root: Cid, length: u64, blocks: u64 },
    #[error("the bytes under {root} hash to {found}; {expected} is named")]
    Content { root: Cid, expected: Digest, found: Digest },
    #[error("output {step}/{output}: {source}")]
    Output { step: String, output: String, source: Box<StoreError> },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TransportError {
    /// The step that must run again, since bytes it made are gone.
    pub fn lost(&self) -> Option<&str> {
        match self {
            TransportError::Output { step, source, .. } => {
                matches!(**source, StoreError::Missing { .. }).then_some(step.as_str())
            }
            _ => None,
        }
    }
}

/// A bundle's outputs as they travel: by address, from the store.
pub struct Parcel<'a> {
    bundle: &'a Bundle,
    store: &'a Store,
}

impl<'a> Parcel<'a> {
    pub fn new(bundle: &'a Bundle, store: &'a Store) -> Self {
        Parcel { bundle, store }
    }

    fn object(&self, step: &str, output: &str, digest: &Digest) -> Result<Object, TransportError> {
        self.store.get(digest).map_err(|source| TransportError::Output {
            step: step.into(),
            output: output.into(),
            source: Box::new(source),
        })
    }

    /// The addresses of what the bundle names by digest only: weights and whatever else anyone could have again.
    pub fn inputs(&self) -> Result<BTreeMap<Digest, Cid>, TransportError> {
        let mut inputs = BTreeMap::new();
        for (step, output, sealed) in self.bundle.outputs().filter(|(_, _, o)| o.link.is_none()) {
            if let Entry::Vacant(new) = inputs.entry(sealed.digest) {
                new.insert(unixfs::tree(&self.object(step, output, &sealed.digest)?).root);
            }
        }
        Ok(inputs)
    }

    /// Keep all that travels through every gc. An output whose bytes are gone is an error, and then nothing is kept.
    pub fn hold(&self, inputs: &BTreeMap<Digest, Cid>, label: &str) -> Result<(), TransportError> {
        let mut held = BTreeSet::from([Digest::of(&self.bundle.to_bytes())]);
        for (step, output, sealed) in self.bundle.outputs() {
            if sealed.link.is_none() && !inputs.contains_key(&sealed.digest) {
                continue;
            }
            if !self.store.has(&sealed.digest)? {
                let source = Box::new(StoreError::Missing { digest: sealed.digest });
                return Err(TransportError::Output { step: step.into(), output: output.into(), source });
            }
            held.insert(sealed.digest);
        }
        Ok(pin(held, label, self.store)?)
    }

    /// Write the bundle and the outputs it links, each block once, in the bundle's own order; also those of `inputs`.
    pub fn write(
        &self,
        inputs: &BTreeMap<Digest, Cid>,
        car: &mut car::CarWriter<impl Write>,
    ) -> Result<(), TransportError> {
        let bytes = self.bundle.to_bytes();
        put(car, &car::cid_dag_cbor(&bytes), &bytes)?;
        for (step, output, sealed) in self.bundle.outputs() {
            let Some(root) = sealed.link.as_ref().or_else(|| inputs.get(&sealed.digest)) else { continue };
            if car.has(root) {
                continue;
            }
            let object = self.object(step, output, &sealed.digest)?;
            if root.codec() == car::RAW {
                put(car, root, &object)?;
                continue;
            }
            for (cid, node) in unixfs::tree(&object).nodes.iter().rev() {
                put(car, cid, node)?;
            }
            for (cid, leaf) in unixfs::leaves(&object) {
                put(car, &cid, leaf)?;
            }
        }
        Ok(())
    }
}

/// Pin what is not pinned yet. A pin that is there keeps its label: a chain is made of them.
fn pin(digests: impl IntoIterator<Item = Digest>, label: &str, store: &Store) -> Result<(), StoreError> {
    let pinned: BTreeSet<Digest> = store.pins()?.into_iter().map(|pin| pin.digest).collect();
    let new = digests.into_iter().filter(|digest| !pinned.contains(digest));
    new.into_iter().try_for_each(|digest| store.pin(&digest, label))
}

fn put(car: &mut car::CarWriter<impl Write>, cid: &Cid, bytes: &[u8]) -> Result<(), TransportError> {
    if !car.has(cid) {
        car.block(cid, bytes)?;
    }
    Ok(())
}

/// Write the bundle and the outputs it links; with `with_inputs` also those it names by digest only, as further roots.
/// The number of blocks.
pub fn export(
    bundle: &Bundle,
    store: &Store,
    with_inputs: bool,
    writer: &mut impl Write,
) -> Result<usize, TransportError> {
    let parcel = Parcel::new(bundle, store);
    let inputs = if with_inputs { parcel.inputs()? } else { BTreeMap::new() };
    let mut roots = vec![car::cid_dag_cbor(&bundle.to_bytes())];
    roots.extend(inputs.values());
    let mut car = car::CarWriter::new(writer, &roots)?;
    parcel.write(&inputs, &mut car)?;
    let blocks = car.written().len();
    car.finish()?;
    Ok(blocks)
}

/// A bundle found among blocks and checked, with its outputs; nothing of it is kept yet.
pub struct Arrived {
    pub cid: Cid,
    pub bundle: Bundle,
    contents: BTreeMap<Digest, Content>,
}

impl Arrived {
    /// The bundle under this address, every block of it checked; None if the blocks have no such bundle. `files` are
    /// addresses of bytes that it names by digest only. What is to be kept is staged; without a store nothing is.
    pub fn find(
        cid: &Cid,
        blocks: &Blocks,
        files: &BTreeMap<Digest, Cid>,
        stage: Option<&Store>,
    ) -> Result<Option<Arrived>, TransportError> {
        let Some(bytes) = blocks.take(cid, car::SECTION_LIMIT)? else { return Ok(None) };
        let bundle = Bundle::from_bytes(&bytes)?;
        let mut contents = BTreeMap::new();
        for (_, _, output) in bundle.outputs() {
            // Older versions wrote in one block whatever its length.
            let plain = car::cid_raw(&output.digest);
            let mut roots =
                [output.link, files.get(&output.digest).copied(), Some(plain)].into_iter().flatten();
            if let Some(root) = roots.find(|root| blocks.has(root) && !contents.contains_key(&output.digest))
            {
                let content = blocks.content(&root, &output.digest, output.length, stage)?;
                contents.extend(content.map(|content| (output.digest, content)));
            }
        }
        Ok(Some(Arrived { cid: *cid, bundle, contents }))
    }

    /// A root that is the address of a content. No list says of which: among those of the bundle that are not here
    /// yet, the one it has the bytes of.
    fn content(&mut self, root: &Cid, blocks: &Blocks, stage: Option<&Store>) -> Result<(), TransportError> {
        for (_, _, output) in self.bundle.outputs() {
            if self.contents.contains_key(&output.digest) {
                continue;
            }
            match blocks.content(root, &output.digest, output.length, stage) {
                Ok(None) => break,
                Ok(Some(content)) => {
                    self.contents.insert(output.digest, content);
                    return Ok(());
                }
                Err(TransportError::Store(e)) => return Err(e.into()),
                Err(_) => {}
            }
        }
        Err(TransportError::Stray { cid: *root })
    }

    /// The bundle that is the first root.
    pub fn rooted(blocks: &Blocks, stage: Option<&Store>) -> Result<Arrived, TransportError> {
        let root = blocks.roots[0];
        Arrived::find(&root, blocks, &BTreeMap::new(), stage)?.ok_or(TransportError::NoRoot { root })
    }

    /// The other roots too; then no block is left that belongs to nothing.
    pub fn others(&mut self, blocks: &Blocks, stage: Option<&Store>) -> Result<(), TransportError> {
        for other in &blocks.roots[1..] {
            if !blocks.taken(other) {
                self.content(other, blocks, stage)?;
            }
        }
        blocks.all_taken()
    }

    /// Digest and length of every output that came.
    pub fn carried(&self) -> BTreeMap<Digest, u64> {
        self.contents.iter().map(|(digest, content)| (*digest, content.length)).collect()
    }

    /// The first linked output that neither came nor is in the store.
    pub fn lacks(&self, store: &Store) -> Result<Option<Cid>, StoreError> {
        for (_, _, output) in self.bundle.outputs() {
            if let Some(link) = output.link
                && !self.contents.contains_key(&output.digest)
                && !store.has(&output.digest)?
            {
                return Ok(Some(link));
            }
        }
        Ok(None)
    }

    /// Keep it through every gc. The linked outputs that the store does not have.
    pub fn keep(self, label: &str, store: &Store) -> Result<(Bundle, Vec<Digest>), StoreError> {
        let came: Vec<Digest> = self.contents.keys().copied().collect();
        for staged in self.contents.into_values().filter_map(|content| content.staged) {
            staged.commit()?;
        }
        let digest = store.put(&self.bundle.to_bytes())?;
        pin([digest], label, store)?;
        let (mut missing, mut held) = (Vec::new(), Vec::new());
        for (_, _, sealed) in self.bundle.outputs() {
            let linked = sealed.link.is_some();
            match store.has(&sealed.digest)? {
                true if linked || came.contains(&sealed.digest) => held.push(sealed.digest),
                false if linked => missing.push(sealed.digest),
                _ => {}
            }
        }
        pin(held, &format!("imported with {}", self.cid), store)?;
        Ok((self.bundle, missing))
    }
}

/// Read a CAR made by [`export`]. Everything is checked before anything is kept: every block against its CID,
/// the root as a bundle, every other block as part of something the bundle names.
pub fn import(reader: impl Read, store: &Store) -> Result<Imported, TransportError> {
    let blocks = Blocks::read(reader, store)?;
    let mut arrived = Arrived::rooted(&blocks, Some(store))?;
    arrived.others(&blocks, Some(store))?;
    let cid = arrived.cid;
    let (bundle, missing) = arrived.keep("imported", store)?;
    Ok(Imported { cid, bundle, blocks: blocks.len(), missing })
}
