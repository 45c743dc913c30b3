//! The store in memory: the specification. At least as strict as the disk, and gone with the process.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Result, StoreError};
use crate::gc::{Inventory, RunRoots};
use crate::store::check_outputs;
use crate::{Digest, GcOptions, GcReport, Object, Pin, Record, Recorded, RunEntry, Stats};

#[derive(Default)]
pub(crate) struct Memory {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    objects: HashMap<Digest, Arc<[u8]>>,
    /// With the sequence number that orders records of one time.
    records: BTreeMap<Digest, (u64, Record)>,
    disagreements: BTreeMap<Digest, Vec<Record>>,
    runs: Vec<RunEntry>,
    pins: BTreeMap<Digest, String>,
    leases: HashSet<Digest>,
    fresh: HashSet<Digest>,
    sequence: u64,
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn put(&self, bytes: &[u8]) -> Digest {
        let digest = crate::digest::of_parallel(bytes);
        let mut state = self.state();
        state.objects.entry(digest).or_insert_with(|| bytes.into());
        state.fresh.insert(digest);
        digest
    }

    pub fn length(&self, digest: &Digest) -> Option<u64> {
        self.state().objects.get(digest).map(|b| b.len() as u64)
    }

    pub fn get(&self, digest: &Digest) -> Result<Object> {
        let bytes = self.state().objects.get(digest).cloned();
        bytes.map(Object::shared).ok_or(StoreError::Missing { digest: *digest })
    }

    pub fn put_record(&self, key: &Digest, record: &Record) -> Result<Recorded> {
        let mut state = self.state();
        state.fresh.extend(record.digests());
        check_outputs(key, record, |d| Ok(state.objects.get(d).map(|b| b.len() as u64)))?;
        let Some(first) = state.records.get(key).map(|(_, r)| r.clone()) else {
            state.sequence += 1;
            let sequence = state.sequence;
            state.records.insert(*key, (sequence, record.clone()));
            return Ok(Recorded::New);
        };
        if first.agrees(record) {
            return Ok(Recorded::Same);
        }
        let others = state.disagreements.entry(*key).or_default();
        if !others.iter().any(|r| r.agrees(record)) {
            others.push(record.clone());
        }
        Ok(Recorded::Disagrees { first })
    }

    pub fn record(&self, key: &Digest) -> Option<Record> {
        self.state().records.get(key).map(|(_, r)| r.clone())
    }

    pub fn disagreements(&self, key: &Digest) -> Vec<Record> {
        self.state().disagreements.get(key).cloned().unwrap_or_default()
    }

    pub fn forget(&self, key: &Digest) -> bool {
        let mut state = self.state();
        state.disagreements.remove(key);
        state.records.remove(key).is_some()
    }

    pub fn records_of_step(&self, step: &str, limit: usize) -> Vec<(Digest, Record)> {
        let state = self.state();
        let mut found: Vec<_> = state.records.iter().filter(|(_, (_, r))| r.step == step).collect();
        found.sort_by_key(|(_, (sequence, r))| std::cmp::Reverse((r.created_ms, *sequence)));
        found.into_iter().take(limit).map(|(key, (_, r))| (*key, r.clone())).collect()
    }

    pub fn all_records(&self) -> Vec<(Digest, Record)> {
        self.state().records.iter().map(|(key, (_, r))| (*key, r.clone())).collect()
    }

    pub fn put_run(&self, run: &RunEntry) {
        let mut state = self.state();
        match state.runs.iter().position(|r| r.id == run.id) {
            Some(at) => state.runs[at] = run.clone(),
            None => state.runs.push(run.clone()),
        }
        let mut covered: Vec<Digest> = run.objects.iter().copied().chain(run.bundle).collect();
        for key in &run.keys {
            covered.extend(state.records.get(key).iter().flat_map(|(_, r)| r.digests()));
        }
        for digest in covered {
            state.fresh.remove(&digest);
        }
    }

    pub fn runs(&self, limit: usize) -> Vec<RunEntry> {
        self.state().newest_runs().into_iter().take(limit).cloned().collect()
    }

    pub fn run(&self, prefix: &str) -> Result<Option<RunEntry>> {
        let state = self.state();
        if let Some(run) = state.runs.iter().find(|r| r.id == prefix) {
            return Ok(Some(run.clone()));
        }
        let mut found: Vec<_> = state.runs.iter().filter(|r| r.id.starts_with(prefix)).collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        match &found[..] {
            [] => Ok(None),
            [run] => Ok(Some((*run).clone())),
            many => Err(StoreError::AmbiguousRun {
                prefix: prefix.into(),
                candidates: many.iter().take(9).map(|r| r.id.clone()).collect(),
            }),
        }
    }

    pub fn forget_run(&self, id: &str) -> bool {
        let runs = &mut self.state().runs;
        let before = runs.len();
        runs.retain(|r| r.id != id);
        runs.len() < before
    }

    pub fn pin(&self, digest: &Digest, label: &str) -> Result<()> {
        let mut state = self.state();
        if !state.objects.contains_key(digest) {
            return Err(StoreError::Missing { digest: *digest });
        }
        state.pins.insert(*digest, label.into());
        Ok(())
    }

    pub fn unpin(&self, digest: &Digest) -> bool {
        self.state().pins.remove(digest).is_some()
    }

    pub fn pins(&self) -> Vec<Pin> {
        let pin = |(digest, label): (&Digest, &String)| Pin { digest: *digest, label: label.clone() };
        self.state().pins.iter().map(pin).collect()
    }

    pub fn lease(&self, key: &Digest) {
        let mut state = self.state();
        while !state.leases.insert(*key) {
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub fn try_lease(&self, key: &Digest) -> bool {
        self.state().leases.insert(*key)
    }

    pub fn release(&self, key: &Digest) {
        self.state().leases.remove(key);
        self.freed.notify_all();
    }

    pub fn gc(&self, options: &GcOptions) -> GcReport {
        let mut state = self.state();
        let (doomed, report) = state.inventory().plan(options);
        if !options.dry_run {
            for digest in doomed.garbage.iter().chain(&doomed.objects) {
                state.objects.remove(digest);
            }
            for key in &doomed.records {
                state.records.remove(key);
                state.disagreements.remove(key);
            }
            state.runs.retain(|r| !doomed.runs.contains(&r.id));
        }
        report
    }

    pub fn stats(&self) -> Stats {
        let state = self.state();
        Stats {
            inline_objects: state.objects.len() as u64,
            inline_bytes: state.objects.values().map(|b| b.len() as u64).sum(),
            records: state.records.len() as u64,
            disagreements: state.disagreements.values().map(|d| d.len() as u64).sum(),
            runs: state.runs.len() as u64,
            pins: state.pins.len() as u64,
            ..Stats::default()
        }
    }

    /// Keys of records with an object that is not there.
    pub fn hollow(&self) -> Vec<Digest> {
        let state = self.state();
        let here = |d: Digest| state.objects.contains_key(&d);
        state.records.iter().filter(|(_, (_, r))| !r.digests().all(here)).map(|(key, _)| *key).collect()
    }
}

impl State {
    /// Newest first; of one time, the one put last first.
    fn newest_runs(&self) -> Vec<&RunEntry> {
        let mut runs: Vec<_> = self.runs.iter().rev().collect();
        runs.sort_by_key(|r| std::cmp::Reverse(r.started_ms));
        runs
    }

    fn inventory(&self) -> Inventory {
        let mut inventory = Inventory {
            objects: self.objects.iter().map(|(d, b)| (*d, b.len() as u64)).collect(),
            runs: self.newest_runs().into_iter().map(RunRoots::of).collect(),
            pins: self.pins.keys().copied().collect(),
            leases: self.leases.iter().copied().collect(),
            fresh: self.fresh.clone(),
            ..Inventory::default()
        };
        for (key, (_, record)) in &self.records {
            inventory.add_record(key, record);
        }
        for (key, others) in &self.disagreements {
            others.iter().for_each(|r| inventory.add_record(key, r));
        }
        inventory
    }
}
