//! Records, runs and pins on disk: the transactions. Knows no SQL; that is in `rows`.

use std::sync::PoisonError;

use super::index::Sync;
use super::{Disk, rows};
use crate::error::{Result, StoreError};
use crate::store::check_outputs;
use crate::{Digest, Pin, Record, Recorded, RunEntry};

impl Disk {
    pub fn put_record(&self, key: &Digest, record: &Record) -> Result<Recorded> {
        self.writer()?;
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        self.fresh().extend(record.digests());
        check_outputs(key, record, |d| self.length(d))?;
        self.faults.point("record checked, not put");
        let done = self.index.write("put a record", Sync::Now, |c| {
            let done = match rows::record(c, key)? {
                None => {
                    rows::put_record(c, key, record)?;
                    Recorded::New
                }
                Some(first) if first.agrees(record) => Recorded::Same,
                Some(first) => {
                    if !rows::disagreements(c, key)?.iter().any(|r| r.agrees(record)) {
                        rows::put_disagreement(c, key, record)?;
                    }
                    Recorded::Disagrees { first }
                }
            };
            self.faults.point("record inserted, not committed");
            Ok(done)
        })?;
        self.faults.point("record committed");
        Ok(done)
    }

    pub fn record(&self, key: &Digest) -> Result<Option<Record>> {
        self.index.read("look up a record", |c| rows::record(c, key))
    }

    pub fn records(&self, keys: &[Digest]) -> Result<Vec<Option<Record>>> {
        self.index.snapshot("look up records", |c| keys.iter().map(|key| rows::record(c, key)).collect())
    }

    pub fn disagreements(&self, key: &Digest) -> Result<Vec<Record>> {
        self.index.read("look up disagreements", |c| rows::disagreements(c, key))
    }

    pub fn forget(&self, key: &Digest) -> Result<bool> {
        self.index.write("forget a record", Sync::Now, |c| rows::forget_record(c, key))
    }

    pub fn records_of_step(&self, step: &str, limit: usize) -> Result<Vec<(Digest, Record)>> {
        self.index.read("list records", |c| rows::records_of_step(c, step, limit))
    }

    pub fn all_records(&self) -> Result<Vec<(Digest, Record)>> {
        self.index.read("list records", rows::all_records)
    }

    pub fn put_run(&self, run: &RunEntry) -> Result<()> {
        // Records are read only if something this handle put is not named by the run itself: a run of ten
        // thousand hits puts its bundle alone.
        let named = |d: &Digest| run.bundle == Some(*d) || run.objects.contains(d);
        let all_named = self.fresh().iter().all(named);
        let covered = self.index.write("put a run", Sync::Now, |c| {
            rows::put_run(c, run)?;
            self.faults.point("run inserted, not committed");
            let mut covered: Vec<Digest> = run.objects.iter().copied().chain(run.bundle).collect();
            for key in run.keys.iter().filter(|_| !all_named) {
                covered.extend(rows::record(c, key)?.iter().flat_map(Record::digests));
            }
            Ok(covered)
        })?;
        self.faults.point("run committed");
        let mut fresh = self.fresh();
        for digest in covered {
            fresh.remove(&digest);
        }
        Ok(())
    }

    pub fn runs(&self, limit: usize) -> Result<Vec<RunEntry>> {
        self.index.read("list runs", |c| rows::runs(c, limit))
    }

    pub fn run(&self, prefix: &str) -> Result<Option<RunEntry>> {
        let found = self.index.snapshot("look up a run", |c| {
            let ids = rows::run_ids(c, prefix)?;
            let run = if let [id] = &ids[..] { rows::run(c, id)? } else { None };
            Ok((ids, run))
        });
        match found? {
            (ids, _) if ids.len() > 1 => {
                Err(StoreError::AmbiguousRun { prefix: prefix.into(), candidates: ids })
            }
            (_, run) => Ok(run),
        }
    }

    pub fn forget_run(&self, id: &str) -> Result<bool> {
        self.index.write("forget a run", Sync::Now, |c| rows::forget_run(c, id))
    }

    pub fn pin(&self, digest: &Digest, label: &str) -> Result<()> {
        self.writer()?;
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        if self.length(digest)?.is_none() {
            return Err(StoreError::Missing { digest: *digest });
        }
        self.index.write("pin an object", Sync::Now, |c| rows::pin(c, digest, label))
    }

    pub fn unpin(&self, digest: &Digest) -> Result<bool> {
        self.index.write("unpin an object", Sync::Now, |c| rows::unpin(c, digest))
    }

    pub fn pins(&self) -> Result<Vec<Pin>> {
        self.index.read("list pins", rows::pins)
    }
}
