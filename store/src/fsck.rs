//! What fsck and rebuild report. Knows no disk.

use std::path::PathBuf;

use serde::Serialize;

use crate::Digest;
use crate::memory::Memory;

#[derive(Clone, Copy, Debug, Default)]
pub struct FsckOptions {
    /// Set damaged objects aside, remove rows that cannot be read and files of dead processes.
    pub repair: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FsckReport {
    /// Objects that were hashed, and their bytes.
    pub objects: u64,
    pub bytes: u64,
    pub records: u64,
    /// Objects whose bytes are wrong or cannot be read.
    pub damaged: Vec<Damage>,
    /// What is wrong in the index, row by row.
    pub index_problems: Vec<String>,
    /// Keys of records with an object that is gone: the step runs again when somebody needs it. No error.
    pub hollow: Vec<Digest>,
    /// Unfinished files of dead processes. No error; gc removes them.
    pub orphans: Vec<PathBuf>,
    /// Files among the objects that are none. Nothing reads them; look and delete them by hand.
    pub strays: Vec<PathBuf>,
    /// Whether repair was asked for, so that what is listed above is dealt with (strays excepted).
    pub repaired: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    pub digest: Digest,
    /// None: the bytes could not be read.
    pub found: Option<Digest>,
    /// Where the bytes are: set aside after a repair.
    pub path: PathBuf,
    pub why: String,
}

/// What was saved from a damaged index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    pub objects: u64,
    pub records: u64,
    pub disagreements: u64,
    pub runs: u64,
    pub pins: u64,
    /// Where the old index is now; None if there was none.
    pub set_aside: Option<PathBuf>,
}

impl FsckReport {
    /// Nothing is damaged: every object and row is what was put.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.index_problems.is_empty()
    }

    /// Memory cannot rot in a way we would notice; what is hollow is still worth telling.
    pub(crate) fn of_memory(memory: &Memory) -> Self {
        let stats = memory.stats();
        FsckReport {
            objects: stats.inline_objects,
            bytes: stats.inline_bytes,
            records: stats.records,
            hollow: memory.hollow(),
            ..FsckReport::default()
        }
    }
}
