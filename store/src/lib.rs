//! Content-addressed objects and records on disk. Knows no step and no model.
//!
//! An object is its bytes, named by their BLAKE3; under 64 KiB it is a row of the index (SQLite), else the
//! file `objects/ab/cdef…`. A file is published in this order: staged file written, hashed, made read-only,
//! data synced, renamed to its digest, directory synced. Only then may a record name it: `put_record`
//! checks, and syncs. Bytes are verified when read, rows carry a seal; what is wrong is set aside and made
//! again, never returned.
//!
//! After kill -9 at any moment: whatever a call returned is there; what had no time to return is there
//! whole or not at all; staged files are orphans that gc removes; locks and leases are the operating
//! system's, so nothing needs unlocking. After a power cut records may miss their last moments, but none
//! lacks objects it was put after. Object files need no index: delete it, and only records, runs, pins and
//! small objects are gone. gc refuses to run beside other writers, so it never meets half a run.

pub mod digest;
mod disk;
mod error;
mod fault;
mod fsck;
mod gc;
mod memory;
mod object;
mod record;
mod staged;
mod store;

pub use digest::{Artifact, Digest, DigestParseError, hex, unhex32};
pub use error::{Result, StoreError};
pub use fsck::{Damage, FsckOptions, FsckReport, Rebuilt};
pub use gc::{Count, GcOptions, GcReport, Item, Removal, Why};
pub use object::Object;
pub use record::{Output, Pin, Record, Recorded, RunEntry, Stats};
pub use staged::Staged;
pub use store::{Lease, Store};
