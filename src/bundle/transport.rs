//! A bundle and what it carries, out to a CAR and in again. Trusts no byte of what comes in.

use std::collections::HashMap;
use std::io::{Read, Write};

use cid::Cid;
use pipe_store::{Digest, Store, StoreError};

use super::{Bundle, BundleError, car};

/// The longest block: weights, when they travel. Blocks go to disk as they come.
const LENGTH_MAX: u64 = 1 << 40;

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
    #[error("a bundle's CAR has one root, this one has {found}")]
    Roots { found: usize },
    #[error("the root {root} is not among the blocks")]
    NoRoot { root: Cid },
    #[error("block {cid} belongs to nothing the bundle names")]
    Stray { cid: Cid },
    #[error("block {cid} is {found} bytes long; the bundle says {expected}")]
    Length { cid: Cid, found: u64, expected: u64 },
    #[error("output {step}/{output}: {source}")]
    Output { step: String, output: String, source: Box<StoreError> },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Write the bundle and the outputs it links, each once, in the bundle's own order; with `with_inputs` also
/// those it names by digest only. The number of blocks.
pub fn export(
    bundle: &Bundle,
    store: &Store,
    with_inputs: bool,
    writer: &mut impl Write,
) -> Result<usize, TransportError> {
    let bytes = bundle.to_bytes();
    let root = car::cid_dag_cbor(&bytes);
    let mut car = car::CarWriter::new(writer, &[root])?;
    car.block(&root, &bytes)?;
    let mut written = std::collections::HashSet::new();
    for (step, output, sealed) in bundle.outputs() {
        let digest = sealed.digest;
        if (sealed.link.is_none() && !with_inputs) || !written.insert(digest) {
            continue;
        }
        let object = store.get(&digest).map_err(|source| TransportError::Output {
            step: step.into(),
            output: output.into(),
            source: Box::new(source),
        })?;
        car.block(&car::cid_raw(&digest), &object)?;
    }
    car.finish()?;
    Ok(1 + written.len())
}

/// Read a CAR made by [`export`]. Everything is checked before anything is kept: every block against its CID,
/// the root as a bundle, every other block as something the bundle names.
pub fn import(reader: impl Read, store: &Store) -> Result<Imported, TransportError> {
    let mut car = car::CarReader::with_limit(reader, LENGTH_MAX)?;
    let root = match car.roots() {
        [root] => *root,
        roots => return Err(TransportError::Roots { found: roots.len() }),
    };
    let mut bundle = None;
    let mut blocks = Vec::new();
    while let Some(section) = car.next_section()? {
        let (cid, length) = (section.cid, section.length);
        if cid == root {
            if length > car::SECTION_LIMIT {
                return Err(
                    BundleError::Malformed(format!("{length} bytes are too many for a bundle")).into()
                );
            }
            let mut bytes = Vec::new();
            car.copy_to(&mut bytes)?;
            bundle = Some(Bundle::from_bytes(&bytes)?);
        } else {
            let mut staged = store.stage()?;
            car.copy_to(staged.file_mut())?;
            blocks.push((cid, length, staged));
        }
    }
    let bundle = bundle.ok_or(TransportError::NoRoot { root })?;
    let named: HashMap<_, _> =
        bundle.outputs().map(|(_, _, o)| (car::cid_raw(&o.digest), o.length)).collect();
    for (cid, found, _) in &blocks {
        let expected = *named.get(cid).ok_or(TransportError::Stray { cid: *cid })?;
        if *found != expected {
            return Err(TransportError::Length { cid: *cid, found: *found, expected });
        }
    }
    let count = 1 + blocks.len();
    for (_, _, staged) in blocks {
        staged.commit()?;
    }
    let digest = store.put(&bundle.to_bytes())?;
    store.pin(&digest, "imported")?;
    let mut missing = Vec::new();
    for (_, _, sealed) in bundle.outputs().filter(|(_, _, o)| o.link.is_some()) {
        match store.has(&sealed.digest)? {
            true => store.pin(&sealed.digest, &format!("imported with {root}"))?,
            false => missing.push(sealed.digest),
        }
    }
    Ok(Imported { cid: root, bundle, blocks: count, missing })
}
