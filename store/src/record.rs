//! The small values the store keeps beside objects: records, runs, pins. Plain data; knows no backend.

use serde::{Deserialize, Serialize};

use crate::{Artifact, Digest};

/// One named result of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    pub name: String,
    pub artifact: Artifact,
}

/// What a key maps to. `preimage` is the key as text; `facts` is JSON the store does not look into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub step: String,
    pub preimage: String,
    pub outputs: Vec<Output>,
    pub log: Option<Digest>,
    pub facts: String,
    /// Milliseconds since the Unix epoch, by the clock of whoever made the record.
    pub created_ms: u64,
}

impl Record {
    /// Same names with the same digests, in the same order. Log and facts may differ.
    pub fn agrees(&self, other: &Record) -> bool {
        let claim = |r: &Record| -> Vec<(String, Digest)> {
            r.outputs.iter().map(|o| (o.name.clone(), o.artifact.digest)).collect()
        };
        claim(self) == claim(other)
    }

    /// Every object the record points at.
    pub fn digests(&self) -> impl Iterator<Item = Digest> + '_ {
        self.outputs.iter().map(|o| o.artifact.digest).chain(self.log)
    }
}

/// What became of a record that was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    New,
    /// The key already had these outputs; the first record stays.
    Same,
    /// The key already had other outputs; the first stays and this one is kept beside it.
    Disagrees {
        first: Record,
    },
}

/// A finished (or running) run. Its keys and objects are what gc keeps for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEntry {
    pub id: String,
    pub pipeline: String,
    pub bundle: Option<Digest>,
    /// Milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// JSON the store does not look into.
    pub body: String,
    pub keys: Vec<Digest>,
    pub objects: Vec<Digest>,
}

/// An object gc must keep, and why. A pinned bundle keeps its whole run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    pub digest: Digest,
    pub label: String,
}

/// How much is where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Objects inside the index, and their bytes.
    pub inline_objects: u64,
    pub inline_bytes: u64,
    /// Objects that are files, and their bytes.
    pub file_objects: u64,
    pub file_bytes: u64,
    pub records: u64,
    pub disagreements: u64,
    pub runs: u64,
    pub pins: u64,
    /// Remembered file hashes.
    pub memos: u64,
    /// Temporary files, of living and dead processes.
    pub staged_files: u64,
    pub staged_bytes: u64,
    /// Damaged things set aside.
    pub damaged_files: u64,
    pub damaged_bytes: u64,
    /// Size of the index with its write-ahead log.
    pub index_bytes: u64,
}
