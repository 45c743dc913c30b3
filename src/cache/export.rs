//! Out: what to take when not all of it fits, and in which order it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use pipe_store::{Digest, Record, RunEntry, Store, StoreError};
use serde::Serialize;

use super::{CacheError, KIND, Part, Root, VERSION};
use crate::bundle::car;

/// A part is closed when its encoding is about this long.
const PART_BYTES: u64 = 1 << 20;
/// More than what a block, a list entry and a share of the headers take beside the bytes themselves.
const OVERHEAD: u64 = 192;
const HEADERS: u64 = 4096;

/// What went out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exported {
    pub objects: u64,
    pub object_bytes: u64,
    pub records: u64,
    pub runs: u64,
    /// Records and runs that did not fit.
    pub left_out: u64,
    /// Records whose bytes are not in the store: they say nothing without them.
    pub hollow: u64,
}

/// What is taken so far.
struct Chosen<'a> {
    store: &'a Store,
    budget: u64,
    used: u64,
    lengths: BTreeMap<Digest, u64>,
    records: Vec<(Digest, Record)>,
    runs: Vec<RunEntry>,
    counts: Exported,
}

enum Fit {
    Yes(Vec<(Digest, u64)>),
    No,
    Hollow,
}

impl Chosen<'_> {
    /// Would these objects and so much text fit in? Objects that are in count no more.
    fn fit(&self, objects: impl Iterator<Item = Digest>, text: u64) -> Result<Fit, StoreError> {
        let new: BTreeSet<Digest> = objects.filter(|d| !self.lengths.contains_key(d)).collect();
        let mut sized = Vec::with_capacity(new.len());
        for digest in new {
            match self.store.length(&digest)? {
                Some(length) => sized.push((digest, length)),
                None => return Ok(Fit::Hollow),
            }
        }
        let bytes: u64 = sized.iter().map(|(_, length)| length + OVERHEAD).sum();
        let fits = self.used.saturating_add(bytes + text + OVERHEAD) <= self.budget;
        Ok(if fits { Fit::Yes(sized) } else { Fit::No })
    }

    fn take(&mut self, objects: Vec<(Digest, u64)>, text: u64) {
        self.used += objects.iter().map(|(_, length)| length + OVERHEAD).sum::<u64>() + text + OVERHEAD;
        self.lengths.extend(objects);
    }

    fn record(&mut self, key: Digest, record: Record) -> Result<(), StoreError> {
        let text = encoded(&(&key, &record)).len() as u64;
        match self.fit(record.digests(), text)? {
            Fit::Yes(objects) => {
                self.take(objects, text);
                self.records.push((key, record));
            }
            Fit::No => self.counts.left_out += 1,
            Fit::Hollow => self.counts.hollow += 1,
        }
        Ok(())
    }

    fn run(&mut self, run: RunEntry) -> Result<(), StoreError> {
        let text = encoded(&run).len() as u64;
        match self.fit(run.objects.iter().copied().chain(run.bundle), text)? {
            Fit::Yes(objects) => {
                self.take(objects, text);
                self.runs.push(run);
            }
            Fit::No => self.counts.left_out += 1,
            Fit::Hollow => self.counts.hollow += 1,
        }
        Ok(())
    }
}

/// Writes what the store holds, in at most `max_bytes`: the newest runs first, of a run its smallest results first,
/// then what belongs to no run, newest first. What does not fit is passed over, so that smaller things still may.
pub fn export(store: &Store, max_bytes: Option<u64>, out: &mut impl Write) -> Result<Exported, CacheError> {
    let mut chosen = choose(store, max_bytes.unwrap_or(u64::MAX))?;
    let parts = parts(&mut chosen);
    let parts: Vec<_> = parts.iter().map(|part| (car::cid_dag_cbor(part), part)).collect();
    let root =
        Root { kind: KIND.into(), version: VERSION, parts: parts.iter().map(|(cid, _)| *cid).collect() };
    let root = encoded(&root);
    let cid = car::cid_dag_cbor(&root);
    let mut car = car::CarWriter::new(out, &[cid])?;
    car.block(&cid, &root)?;
    for (cid, part) in &parts {
        car.block(cid, part)?;
    }
    for digest in chosen.lengths.keys() {
        car.block(&car::cid_raw(digest), &store.get(digest)?)?;
    }
    car.finish()?;
    Ok(chosen.counts)
}

fn choose(store: &Store, budget: u64) -> Result<Chosen<'_>, CacheError> {
    let mut records: BTreeMap<Digest, Record> = store.all_records()?.into_iter().collect();
    let (lengths, counts) = (BTreeMap::new(), Exported::default());
    let mut chosen =
        Chosen { store, budget, used: HEADERS, lengths, records: Vec::new(), runs: Vec::new(), counts };
    for run in store.runs(usize::MAX)? {
        let mut of_run = Vec::new();
        for key in &run.keys {
            if let Some(record) = records.remove(key) {
                let bytes: u64 = record.outputs.iter().map(|output| output.artifact.length).sum();
                of_run.push((bytes, *key, record));
            }
        }
        of_run.sort_by_key(|(bytes, key, _)| (*bytes, *key));
        chosen.run(run)?;
        of_run.into_iter().try_for_each(|(_, key, record)| chosen.record(key, record))?;
    }
    let mut rest: Vec<_> = records.into_iter().collect();
    rest.sort_by_key(|(key, record)| (std::cmp::Reverse(record.created_ms), *key));
    rest.into_iter().try_for_each(|(key, record)| chosen.record(key, record))?;
    chosen.counts.objects = chosen.lengths.len() as u64;
    chosen.counts.object_bytes = chosen.lengths.values().sum();
    chosen.counts.records = chosen.records.len() as u64;
    chosen.counts.runs = chosen.runs.len() as u64;
    Ok(chosen)
}

/// The lists, encoded.
fn parts(chosen: &mut Chosen<'_>) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    let (mut part, mut bytes) = (Part::default(), 0);
    let mut add = |part: &mut Part, text: u64, last: bool| {
        bytes += text;
        if bytes > PART_BYTES || last {
            parts.push(encoded(part));
            (*part, bytes) = (Part::default(), 0);
        }
    };
    for (digest, length) in &chosen.lengths {
        part.objects.push((*digest, *length));
        add(&mut part, 80, false);
    }
    for entry in std::mem::take(&mut chosen.records) {
        let text = encoded(&entry).len() as u64;
        part.records.push(entry);
        add(&mut part, text, false);
    }
    for run in std::mem::take(&mut chosen.runs) {
        let text = encoded(&run).len() as u64;
        part.runs.push(run);
        add(&mut part, text, false);
    }
    add(&mut part, 0, true);
    parts
}

fn encoded(value: &impl Serialize) -> Vec<u8> {
    serde_ipld_dagcbor::to_vec(value).expect("BUG: a cache's lists are plain data")
}
