//! What gc keeps and what it removes, as a pure function of an inventory. Knows no disk and no clock.
//!
//! Roots are runs, pins, leases and whatever the calling handle put that no run covers yet. An object that
//! no root reaches goes. Its record stays as a claim without bytes (a hollow hit): the next run can still
//! use the digest, and making the bytes again must give the same ones. Only age removes such a record.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::{Digest, Record, RunEntry};

/// With neither age nor budget, only what no root reaches goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct GcOptions {
    /// Report, remove nothing.
    pub dry_run: bool,
    /// Runs that started longer ago drop out, and records older than this that no run needs.
    pub max_age: Option<Duration>,
    /// The oldest runs drop out until the objects that are left have at most so many bytes.
    pub max_bytes: Option<u64>,
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    pub objects: u64,
    pub records: u64,
    pub runs: u64,
    /// Orphaned temporary files and damaged things that were set aside.
    pub leftovers: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    pub dry_run: bool,
    pub kept: Count,
    pub removed: Count,
    /// One for each thing removed.
    pub reasons: Vec<Removal>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removal {
    pub item: Item,
    pub bytes: u64,
    pub why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    Object(Digest),
    Record(Digest),
    Run(String),
    Staged(PathBuf),
    Damaged(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// No run, pin, lease or work in progress needs it.
    Unreached,
    TooOld {
        age_ms: u64,
        max_ms: u64,
    },
    OverBudget {
        max_bytes: u64,
    },
    /// The process that was writing it is gone.
    WriterGone,
    SetAside,
}

impl fmt::Display for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.item {
            Item::Object(d) => write!(f, "object {d} ({} bytes)", self.bytes)?,
            Item::Record(d) => write!(f, "record {d}")?,
            Item::Run(id) => write!(f, "run {id}")?,
            Item::Staged(p) => write!(f, "unfinished file {} ({} bytes)", p.display(), self.bytes)?,
            Item::Damaged(p) => write!(f, "damaged file {} ({} bytes)", p.display(), self.bytes)?,
        }
        match self.why {
            Why::Unreached => f.write_str(": nothing needs it"),
            Why::TooOld { age_ms, max_ms } => {
                write!(f, ": {} s old, the limit is {} s", age_ms / 1000, max_ms / 1000)
            }
            Why::OverBudget { max_bytes } => {
                write!(f, ": the oldest that does not fit into {max_bytes} bytes")
            }
            Why::WriterGone => f.write_str(": the process that wrote it is gone"),
            Why::SetAside => f.write_str(": it was set aside"),
        }
    }
}

/// Everything marking needs to know. Filled completely or not at all: a read error ends gc.
#[derive(Default)]
pub(crate) struct Inventory {
    pub objects: BTreeMap<Digest, u64>,
    /// Newest claim's time, and the objects of the record and of what disagrees with it.
    pub records: BTreeMap<Digest, Claim>,
    /// Newest first.
    pub runs: Vec<RunRoots>,
    pub pins: BTreeSet<Digest>,
    pub leases: Vec<Digest>,
    pub fresh: HashSet<Digest>,
    pub leftovers: Vec<Removal>,
}

#[derive(Default)]
pub(crate) struct Claim {
    created_ms: u64,
    digests: Vec<Digest>,
}

pub(crate) struct RunRoots {
    id: String,
    bundle: Option<Digest>,
    started_ms: u64,
    keys: Vec<Digest>,
    objects: Vec<Digest>,
}

impl RunRoots {
    pub fn of(run: &RunEntry) -> Self {
        RunRoots {
            id: run.id.clone(),
            bundle: run.bundle,
            started_ms: run.started_ms,
            keys: run.keys.clone(),
            objects: run.objects.iter().copied().chain(run.bundle).collect(),
        }
    }
}

#[derive(Default)]
pub(crate) struct Doomed {
    /// Reached by nothing at all.
    pub garbage: Vec<Digest>,
    /// Reached only by runs that drop out, so they stay until those are gone for good.
    pub objects: Vec<Digest>,
    pub records: Vec<Digest>,
    pub runs: Vec<String>,
    pub leftovers: Vec<PathBuf>,
}

/// What the roots so far reach.
#[derive(Default)]
struct Reached {
    objects: BTreeSet<Digest>,
    keys: BTreeSet<Digest>,
    bytes: u64,
}

impl Inventory {
    pub fn add_record(&mut self, key: &Digest, record: &Record) {
        let claim = self.records.entry(*key).or_default();
        claim.created_ms = claim.created_ms.max(record.created_ms);
        claim.digests.extend(record.digests());
    }

    fn reach(&self, reached: &mut Reached, keys: &[Digest], objects: impl Iterator<Item = Digest>) {
        let of_keys = keys.iter().filter_map(|k| self.records.get(k)).flat_map(|c| c.digests.iter().copied());
        for digest in objects.chain(of_keys) {
            if reached.objects.insert(digest) {
                reached.bytes += self.objects.get(&digest).copied().unwrap_or(0);
            }
        }
        reached.keys.extend(keys);
    }

    /// The bytes a run would add to what is reached.
    fn extra(&self, reached: &Reached, run: &RunRoots) -> u64 {
        let of_keys = run.keys.iter().filter_map(|k| self.records.get(k)).flat_map(|c| &c.digests);
        let new: BTreeSet<_> =
            run.objects.iter().chain(of_keys).filter(|d| !reached.objects.contains(d)).collect();
        new.iter().filter_map(|d| self.objects.get(d)).sum()
    }

    pub fn plan(&self, options: &GcOptions) -> (Doomed, GcReport) {
        let mut doomed = Doomed::default();
        let mut report = GcReport { dry_run: options.dry_run, ..GcReport::default() };
        let max_ms = options.max_age.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        let too_old = |then_ms: u64| {
            let age_ms = options.now_ms.saturating_sub(then_ms);
            max_ms.filter(|max| age_ms > *max).map(|max_ms| Why::TooOld { age_ms, max_ms })
        };

        // Roots that never drop out come first, so that the budget is what they leave.
        let mut reached = Reached::default();
        self.reach(&mut reached, &self.leases, self.pins.iter().chain(&self.fresh).copied());
        let pinned = |run: &RunRoots| run.bundle.is_some_and(|b| self.pins.contains(&b));
        for run in self.runs.iter().filter(|r| pinned(r)) {
            self.reach(&mut reached, &run.keys, run.objects.iter().copied());
        }
        let mut over = None;
        let mut dropped = Reached::default();
        for run in &self.runs {
            let why = if pinned(run) {
                None
            } else {
                // Once one does not fit, no older one stays: oldest first means just that.
                let fits = |max| reached.bytes.saturating_add(self.extra(&reached, run)) <= max;
                over = over.or(options.max_bytes.filter(|max| !fits(*max)));
                too_old(run.started_ms).or(over.map(|max_bytes| Why::OverBudget { max_bytes }))
            };
            match why {
                None => {
                    self.reach(&mut reached, &run.keys, run.objects.iter().copied());
                    report.kept.runs += 1;
                }
                Some(why) => {
                    self.reach(&mut dropped, &run.keys, run.objects.iter().copied());
                    doomed.runs.push(run.id.clone());
                    report.remove(Item::Run(run.id.clone()), 0, why);
                }
            }
        }

        for (key, claim) in &self.records {
            match too_old(claim.created_ms).filter(|_| !reached.keys.contains(key)) {
                None => report.kept.records += 1,
                Some(why) => {
                    doomed.records.push(*key);
                    report.remove(Item::Record(*key), 0, why);
                }
            }
        }
        for (digest, bytes) in &self.objects {
            if reached.objects.contains(digest) {
                report.kept.objects += 1;
                report.kept.bytes += bytes;
            } else {
                let last_moment = dropped.objects.contains(digest);
                if last_moment { &mut doomed.objects } else { &mut doomed.garbage }.push(*digest);
                report.remove(Item::Object(*digest), *bytes, Why::Unreached);
            }
        }
        for leftover in &self.leftovers {
            if let Item::Staged(path) | Item::Damaged(path) = &leftover.item {
                doomed.leftovers.push(path.clone());
            }
            report.remove(leftover.item.clone(), leftover.bytes, leftover.why);
        }
        (doomed, report)
    }
}

impl GcReport {
    fn remove(&mut self, item: Item, bytes: u64, why: Why) {
        let removed = &mut self.removed;
        let n = match item {
            Item::Object(_) => &mut removed.objects,
            Item::Record(_) => &mut removed.records,
            Item::Run(_) => &mut removed.runs,
            Item::Staged(_) | Item::Damaged(_) => &mut removed.leftovers,
        };
        *n += 1;
        removed.bytes += bytes;
        self.reasons.push(Removal { item, bytes, why });
    }
}
