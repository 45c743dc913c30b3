//! In: everything is checked in a first pass, and only then is anything taken, in a second one.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Seek, SeekFrom};

use cid::Cid;
use pipe_store::{Digest, Recorded, Store};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{CacheError, KIND, Part, Root, VERSION};
use crate::bundle::car::{self, CarReader};
use crate::run::RunBody;

/// The longest object: weights. They go to disk as they come.
const LENGTH_MAX: u64 = 1 << 40;
/// An object up to this length comes by way of memory.
const SMALL: u64 = 64 << 10;

/// What came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Objects that were not here before.
    pub objects: u64,
    pub records: u64,
    pub runs: u64,
    /// Records and runs that were here already.
    pub known: u64,
    /// Records with other outputs than ours of the same key: ours stand, these are kept beside them.
    pub disagree: u64,
}

/// Takes a file of [`super::export`]. Whatever is wrong with it is found before anything of it is taken.
pub fn import(input: &mut (impl Read + Seek), store: &Store) -> Result<Imported, CacheError> {
    let start = input.stream_position().map_err(CacheError::Again)?;
    check(&scan(&mut *input, |_, _, _| Ok(()))?)?;
    input.seek(SeekFrom::Start(start)).map_err(CacheError::Again)?;
    let mut imported = Imported::default();
    let held = scan(&mut *input, |digest, length, car| {
        if store.has(&digest)? {
            return Ok(());
        }
        imported.objects += 1;
        if length <= SMALL {
            let mut bytes = Vec::new();
            car.copy_to(&mut bytes)?;
            store.put(&bytes)?;
        } else {
            let mut staged = store.stage()?;
            car.copy_to(staged.file_mut())?;
            staged.commit()?;
        }
        Ok(())
    })?;
    for (key, record) in &held.part.records {
        match store.put_record(key, record)? {
            Recorded::New => imported.records += 1,
            Recorded::Same => imported.known += 1,
            Recorded::Disagrees { .. } => imported.disagree += 1,
        }
    }
    // Oldest first, so that runs of one time keep their order.
    for run in held.part.runs.iter().rev() {
        match store.run(&run.id)?.is_some_and(|known| known.id == run.id) {
            true => imported.known += 1,
            false => {
                store.put_run(run)?;
                imported.runs += 1;
            }
        }
    }
    Ok(imported)
}

/// What a file lists.
struct Held {
    part: Part,
    lengths: HashMap<Digest, u64>,
}

/// Reads a file from its start to its end, every block against its CID, and shows each object before its bytes.
fn scan<R: Read>(
    input: R,
    mut object: impl FnMut(Digest, u64, &mut CarReader<R>) -> Result<(), CacheError>,
) -> Result<Held, CacheError> {
    let mut car = CarReader::with_limit(input, LENGTH_MAX)?;
    let [root] = *car.roots() else { return Err(CacheError::Malformed("it has more than one root".into())) };
    let Root { kind, version, parts } = node(&mut car, &root)?;
    if kind != KIND {
        return Err(CacheError::Malformed(format!("kind is `{kind}`, expected `{KIND}`")));
    }
    if version != VERSION {
        return Err(CacheError::Version { found: version });
    }
    let mut all = Part::default();
    for cid in &parts {
        let Part { objects, records, runs } = node(&mut car, cid)?;
        all.objects.extend(objects);
        all.records.extend(records);
        all.runs.extend(runs);
    }
    let lengths: HashMap<Digest, u64> = all.objects.iter().copied().collect();
    let mut seen = HashSet::new();
    while let Some(section) = car.next_section()? {
        let stray = CacheError::Stray { cid: section.cid };
        let digest = car::digest_of(&section.cid).filter(|_| section.cid.codec() == car::RAW);
        let Some((digest, &expected)) = digest.and_then(|d| Some((d, lengths.get(&d)?))) else {
            return Err(stray);
        };
        if section.length != expected {
            return Err(CacheError::Length { digest, expected, found: section.length });
        }
        object(digest, section.length, &mut car)?;
        seen.insert(digest);
    }
    match all.objects.iter().find(|(digest, _)| !seen.contains(digest)) {
        Some((digest, _)) => Err(CacheError::Missing { what: format!("object {digest}") }),
        None => Ok(Held { part: all, lengths }),
    }
}

/// The next block, which must be this node.
fn node<T: DeserializeOwned>(car: &mut CarReader<impl Read>, cid: &Cid) -> Result<T, CacheError> {
    let missing = || CacheError::Missing { what: format!("list {cid}") };
    let section = car.next_section()?.ok_or_else(missing)?;
    if section.cid != *cid {
        return Err(CacheError::Malformed(format!("block {} stands where {cid} should", section.cid)));
    }
    if section.length > car::SECTION_LIMIT {
        return Err(CacheError::Malformed(format!("{} bytes are too many for a list", section.length)));
    }
    let mut bytes = Vec::new();
    car.copy_to(&mut bytes)?;
    serde_ipld_dagcbor::from_slice(&bytes).map_err(|e| CacheError::Malformed(format!("{cid}: {e}")))
}

/// Does all that is listed fit together?
fn check(held: &Held) -> Result<(), CacheError> {
    for (key, record) in &held.part.records {
        let outputs = record.outputs.iter().map(|o| (o.artifact.digest, Some(o.artifact.length)));
        for (digest, length) in outputs.chain(record.log.map(|log| (log, None))) {
            let held = held.lengths.get(&digest);
            if held.is_none() || length.is_some_and(|length| held != Some(&length)) {
                return Err(CacheError::Record { key: *key, digest });
            }
        }
    }
    for run in &held.part.runs {
        let wrong = |why: String| CacheError::Run { id: run.id.clone(), why };
        serde_json::from_str::<RunBody>(&run.body).map_err(|e| wrong(e.to_string()))?;
        if let Some(gone) = run.bundle.iter().chain(&run.objects).find(|d| !held.lengths.contains_key(d)) {
            return Err(wrong(format!("the file does not have its object {gone}")));
        }
    }
    Ok(())
}
