//! A store, or as much of it as fits a size, as one file: objects, and the records and runs that name them. For one's
//! own caches. Objects are checked against their digests; records and runs are claims, which no check can prove.
//!
//! The file is a CAR. Its root names parts; parts list what is there; objects follow as raw blocks.

mod export;
mod import;

use cid::Cid;
use pipe_store::{Digest, Record, RunEntry, StoreError};
use serde::{Deserialize, Serialize};

use crate::bundle::car;

pub use export::{Exported, export};
pub use import::{Imported, import};

const KIND: &str = "pipe/cache";
const VERSION: u32 = 1;

/// The root block.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Root {
    kind: String,
    version: u32,
    parts: Vec<Cid>,
}

/// A list of what the file holds, in blocks that stay short.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    /// With their lengths.
    objects: Vec<(Digest, u64)>,
    records: Vec<(Digest, Record)>,
    runs: Vec<RunEntry>,
}

/// Why a cache could not be written or taken.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error(transparent)]
    Car(#[from] car::CarError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot read it again: {0}")]
    Again(std::io::Error),
    #[error("not a cache of `pipe store export`: {0}")]
    Malformed(String),
    #[error("the cache is version {found}; this pipe reads version {VERSION}. Use a newer pipe")]
    Version { found: u32 },
    #[error("block {cid} is nothing that the file's own list names")]
    Stray { cid: Cid },
    #[error("object {digest} is listed with {expected} bytes and has {found}")]
    Length { digest: Digest, expected: u64, found: u64 },
    #[error("{what} is listed, and not in the file: it was cut short")]
    Missing { what: String },
    #[error("the record of key {key} names {digest}, which the file does not have so")]
    Record { key: Digest, digest: Digest },
    #[error("run {id}: {why}")]
    Run { id: String, why: String },
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use pipe_store::{Artifact, Output, Store};

    use super::*;

    fn file(root: impl FnOnce(Cid) -> Root, part: &Part, objects: &[&[u8]]) -> Vec<u8> {
        let part = serde_ipld_dagcbor::to_vec(part).unwrap();
        let part_cid = car::cid_dag_cbor(&part);
        let root = serde_ipld_dagcbor::to_vec(&root(part_cid)).unwrap();
        let cid = car::cid_dag_cbor(&root);
        let mut out = Vec::new();
        let mut writer = car::CarWriter::new(&mut out, &[cid]).unwrap();
        writer.block(&cid, &root).unwrap();
        writer.block(&part_cid, &part).unwrap();
        objects.iter().for_each(|o| writer.block(&car::cid_raw(&Digest::of(o)), o).unwrap());
        writer.finish().unwrap();
        out
    }

    fn root(part: Cid) -> Root {
        Root { kind: KIND.into(), version: VERSION, parts: vec![part] }
    }

    fn record(object: &[u8], length: u64) -> Record {
        let digest = Digest::of(object);
        let artifact = Artifact { digest, length, media_type: String::new() };
        let outputs = vec![Output { name: "out".into(), artifact }];
        Record {
            step: "s".into(),
            preimage: String::new(),
            outputs,
            log: None,
            facts: "{}".into(),
            created_ms: 7,
        }
    }

    /// A file whose every block is what its CID says, and which lies in what it lists.
    #[test]
    fn lists_that_do_not_fit_the_blocks_are_refused() {
        let key = Digest::of(b"key");
        let run = |body: &str, bundle: &[u8]| RunEntry {
            id: "1".into(),
            pipeline: "p".into(),
            bundle: Some(Digest::of(bundle)),
            started_ms: 1,
            body: body.into(),
            keys: vec![],
            objects: vec![],
        };
        let part = |record: Record| Part {
            objects: vec![(Digest::of(b"one"), 3)],
            records: vec![(key, record)],
            runs: vec![],
        };
        let good = || part(record(b"one", 3));
        let with_run = |run: RunEntry| Part { runs: vec![run], ..good() };
        let store = Store::memory();
        for (file, expected) in [
            (file(root, &good(), &[b"one", b"two"]), "is nothing that the file's own list names"),
            (file(root, &good(), &[]), "is listed, and not in the file"),
            (file(root, &part(record(b"two", 3)), &[b"one"]), "which the file does not have so"),
            (file(root, &part(record(b"one", 4)), &[b"one"]), "which the file does not have so"),
            (file(root, &with_run(run("{}", b"one")), &[b"one"]), "run 1: "),
            (file(|cid| Root { version: 2, ..root(cid) }, &good(), &[b"one"]), "version 2"),
            (file(|cid| Root { kind: "x".into(), ..root(cid) }, &good(), &[b"one"]), "kind is `x`"),
        ] {
            let error = import(&mut Cursor::new(file), &store).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}; expected {expected}");
        }
        let wrong_length = Part { objects: vec![(Digest::of(b"one"), 4)], ..Part::default() };
        let error = import(&mut Cursor::new(file(root, &wrong_length, &[b"one"])), &store).unwrap_err();
        assert!(matches!(error, CacheError::Length { expected: 4, found: 3, .. }), "{error}");
        assert_eq!(store.stats().unwrap(), pipe_store::Stats::default());

        let taken = import(&mut Cursor::new(file(root, &good(), &[b"one"])), &store).unwrap();
        assert_eq!((taken.objects, taken.records, taken.known), (1, 1, 0));
        // A claim that contradicts ours stands beside it, not over it.
        let other = Part {
            objects: vec![(Digest::of(b"two"), 3)],
            records: vec![(key, record(b"two", 3))],
            runs: vec![],
        };
        let taken = import(&mut Cursor::new(file(root, &other, &[b"two"])), &store).unwrap();
        assert_eq!((taken.records, taken.disagree), (0, 1));
        assert_eq!(store.record(&key).unwrap(), Some(record(b"one", 3)));
    }
}
