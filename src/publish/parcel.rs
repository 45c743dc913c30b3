//! A manifest with its bundle and the chain before it as one CAR, out and in. Trusts no byte of what comes in.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Write};

use cid::Cid;
use pipe_store::{Digest, Store, StoreError};

use super::chain::{self, ChainError};
use super::{Manifest, PublicKey};
use crate::bundle::{Arrived, Blocks, Bundle, Parcel, TransportError, car};

/// The longest manifest.
pub(super) const MANIFEST_MAX: u64 = 1 << 20;

/// A manifest or a bundle that was brought in; everything about it was checked.
#[derive(Clone, Debug)]
pub struct Received {
    pub cid: Cid,
    /// None where a bundle came by itself.
    pub manifest: Option<Manifest>,
    pub bundle_cid: Cid,
    pub bundle: Bundle,
    /// Entries of the chain that came with it, itself included.
    pub entries: usize,
    pub blocks: usize,
    /// Linked outputs that neither the CAR nor the store holds.
    pub missing: Vec<Digest>,
}

/// What is asked of what comes in.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The first root must be this.
    pub cid: Option<Cid>,
    /// Manifests must be signed by one of these keys.
    pub trusted: Option<Vec<PublicKey>>,
    /// Every linked output must come with it, or be here.
    pub whole: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("the manifest {manifest} links {bundle}, which is not there")]
    NoBundle { manifest: Cid, bundle: Cid },
    #[error("the manifest {manifest} links {bundle}, which is no bundle: {source}")]
    WrongBundle { manifest: Cid, bundle: Cid, source: Box<TransportError> },
    #[error("asked for {wanted}, given {given}")]
    Other { wanted: Cid, given: Cid },
    #[error("{manifest} is signed by {key}, which is not among the trusted keys")]
    Untrusted { manifest: Cid, key: PublicKey },
    #[error("{cid} is a bundle without a signature, and trusted keys are asked for")]
    Unsigned { cid: Cid },
    #[error("{bundle} links {missing}, which did not come with it")]
    Incomplete { bundle: Cid, missing: Cid },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Write a manifest of the store: itself, the chain before it, its bundle with all that travels. The blocks.
pub fn export(
    cid: &Cid,
    manifest: &Manifest,
    bundle: &Bundle,
    store: &Store,
    writer: &mut impl Write,
) -> Result<Vec<Cid>, ReceiveError> {
    let mut car = car::CarWriter::new(writer, &[*cid]).map_err(TransportError::from)?;
    for entry in chain::walk(store, *cid) {
        match entry {
            Ok((cid, entry)) => car.block(&cid, &entry.to_bytes()).map_err(TransportError::from)?,
            // The chain may be older than what this store was given of it.
            Err(ChainError::Store(StoreError::Missing { .. })) => break,
            Err(e) => return Err(e.into()),
        }
    }
    Parcel::new(bundle, store).write(&manifest.files, &mut car)?;
    let blocks = car.written();
    car.finish().map_err(TransportError::from)?;
    Ok(blocks)
}

/// Read a CAR whose first root is a manifest or a bundle. Everything is checked before anything is kept.
pub fn receive(reader: impl Read, wanted: &Wanted, store: &Store) -> Result<Received, ReceiveError> {
    let blocks = Blocks::read(reader, store)?;
    receive_blocks(&blocks, wanted, store)
}

pub(super) fn receive_blocks(
    blocks: &Blocks,
    wanted: &Wanted,
    store: &Store,
) -> Result<Received, ReceiveError> {
    let Believed { cid, entries, newest, arrived } = believe(blocks, wanted, store, Some(store))?;
    let label = if entries.is_empty() { "imported".into() } else { format!("imported with {cid}") };
    let mut kept = None;
    for (cid, found) in arrived {
        let (bundle, missing) = found.keep(&label, store)?;
        if cid == newest {
            kept = Some((bundle, missing));
        }
    }
    for (_, entry) in &entries {
        chain::keep(store, entry)?;
    }
    let (bundle, missing) = kept.expect("BUG: looked for above");
    let (count, blocks) = (entries.len(), blocks.len());
    let manifest = entries.into_iter().next().map(|(_, manifest)| manifest);
    Ok(Received { cid, manifest, bundle_cid: newest, bundle, entries: count, blocks, missing })
}

/// A manifest or a bundle that was checked and is kept nowhere.
#[derive(Clone, Debug)]
pub struct Checked {
    /// None where a bundle came by itself.
    pub manifest: Option<(Cid, Manifest)>,
    pub bundle_cid: Cid,
    pub bundle: Bundle,
    /// Entries of the chain that came with it, itself included.
    pub entries: usize,
    /// Digest and length of what came with the bundle.
    pub carried: BTreeMap<Digest, u64>,
}

/// As [`receive`], of a CAR file, and nothing is kept. The store is asked for what did not come.
pub fn check(file: &File, wanted: &Wanted, store: &Store) -> Result<Checked, ReceiveError> {
    let checked = |blocks: &Blocks| -> Result<Checked, ReceiveError> {
        let Believed { entries, newest, mut arrived, .. } = believe(blocks, wanted, store, None)?;
        let found = arrived.remove(&newest).expect("BUG: looked for above");
        let (carried, bundle, count) = (found.carried(), found.bundle, entries.len());
        Ok(Checked {
            manifest: entries.into_iter().next(),
            bundle_cid: newest,
            bundle,
            entries: count,
            carried,
        })
    };
    match Blocks::locate(file)? {
        Some(located) => located.check(checked)?,
        None => checked(&Blocks::read(BufReader::new(file), store)?),
    }
}

/// What is to be believed of a CAR; nothing of it is kept yet.
struct Believed {
    /// The first root.
    cid: Cid,
    /// Of a manifest's chain, newest first.
    entries: Vec<(Cid, Manifest)>,
    /// The bundle that was asked for.
    newest: Cid,
    arrived: BTreeMap<Cid, Arrived>,
}

/// Check everything; `stage` it where it is to be kept.
fn believe(
    blocks: &Blocks,
    wanted: &Wanted,
    store: &Store,
    stage: Option<&Store>,
) -> Result<Believed, ReceiveError> {
    let root = blocks.roots[0];
    if let Some(wanted) = wanted.cid.filter(|wanted| *wanted != root) {
        return Err(ReceiveError::Other { wanted, given: root });
    }
    let signed = match blocks.length(&root) {
        Some(length) if length <= MANIFEST_MAX => {
            blocks.peek(&root)?.is_some_and(|bytes| Manifest::looks_like(&bytes))
        }
        _ => false,
    };
    if !signed {
        if wanted.trusted.is_some() {
            return Err(ReceiveError::Unsigned { cid: root });
        }
        let mut found = Arrived::rooted(blocks, stage)?;
        if wanted.whole {
            complete(&found, store)?;
        }
        found.others(blocks, stage)?;
        let arrived = BTreeMap::from([(root, found)]);
        return Ok(Believed { cid: root, entries: Vec::new(), newest: root, arrived });
    }
    let entries = entries(root, blocks)?;
    if let Some(trusted) = &wanted.trusted
        && let Some((manifest, entry)) = entries.iter().find(|(_, entry)| !trusted.contains(&entry.key))
    {
        return Err(ReceiveError::Untrusted { manifest: *manifest, key: entry.key });
    }
    // Of earlier entries the bundles may be elsewhere; that of the newest is what was asked for.
    let mut arrived: BTreeMap<Cid, Arrived> = BTreeMap::new();
    for (manifest, entry) in &entries {
        let bundle = entry.bundle;
        let wrong =
            |source| ReceiveError::WrongBundle { manifest: *manifest, bundle, source: Box::new(source) };
        if !arrived.contains_key(&bundle)
            && let Some(found) = Arrived::find(&bundle, blocks, &entry.files, stage).map_err(wrong)?
        {
            arrived.insert(bundle, found);
        }
    }
    let newest = entries[0].1.bundle;
    let found = arrived.get(&newest).ok_or(ReceiveError::NoBundle { manifest: root, bundle: newest })?;
    blocks.all_taken()?;
    if wanted.whole {
        complete(found, store)?;
    }
    Ok(Believed { cid: root, entries, newest, arrived })
}

fn complete(arrived: &Arrived, store: &Store) -> Result<(), ReceiveError> {
    let bundle = arrived.cid;
    arrived.lacks(store)?.map_or(Ok(()), |missing| Err(ReceiveError::Incomplete { bundle, missing }))
}

/// The entries of a chain that are among the blocks, newest first, each signed and in its place.
fn entries(root: Cid, blocks: &Blocks) -> Result<Vec<(Cid, Manifest)>, ReceiveError> {
    let mut entries: Vec<(Cid, Manifest)> = Vec::new();
    let mut next = Some(root);
    while let Some(cid) = next {
        let Some(bytes) = blocks.take(&cid, MANIFEST_MAX)? else { break };
        let manifest = Manifest::from_bytes(&bytes).map_err(|source| ChainError::Manifest { cid, source })?;
        if let Some((after, entry)) = entries.last() {
            chain::follows(after, entry, &manifest)?;
        }
        next = manifest.previous;
        entries.push((cid, manifest));
    }
    Ok(entries)
}
