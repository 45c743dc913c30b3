//! What is wrong with a CAR, and at which byte.

use std::io;

use cid::Cid;

use super::{HEADER_LIMIT, SECTION_LIMIT};

/// Offsets count from the start of the CAR.
#[derive(Debug, thiserror::Error)]
pub enum CarError {
    #[error("CAR, byte {offset}: cannot read: {source}")]
    Read {
        offset: u64,
        #[source]
        source: io::Error,
    },
    #[error("CAR, byte {offset}: cannot write: {source}")]
    Write {
        offset: u64,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the contents of {cid} to where they belong: {source}")]
    Output {
        cid: Cid,
        #[source]
        source: io::Error,
    },
    #[error("CAR, byte {offset}: ends inside {what}, {missing} bytes are missing; fetch the file again")]
    Truncated { offset: u64, what: &'static str, missing: u64 },
    #[error("CAR, byte {offset}: the length is not the shortest varint of at most 9 bytes; not a CAR?")]
    Varint { offset: u64 },
    #[error("CAR, byte {offset}: the header is {length} bytes long, more than {HEADER_LIMIT}; not a CAR?")]
    HeaderTooLong { offset: u64, length: u64 },
    #[error("CAR, byte {offset}: the header is not {{roots, version}} in DAG-CBOR: {why}")]
    Header { offset: u64, why: String },
    #[error("CAR version {version} is not read here, only 1")]
    Version { version: u64 },
    #[error("the CAR names no root")]
    NoRoots,
    #[error("CAR, byte {offset}: an empty section; is there something behind the CAR's end?")]
    EmptySection { offset: u64 },
    #[error(
        "CAR, byte {offset}: a section of {length} bytes, more than the limit of {limit} (usually {SECTION_LIMIT})"
    )]
    SectionTooLong { offset: u64, length: u64, limit: u64 },
    #[error("CAR, byte {offset}: no CID: {why}; is there something behind the CAR's end?")]
    Cid { offset: u64, why: String },
    #[error(
        "CAR, byte {offset}: {cid} has a hash or codec that is not read here (blake3, sha2-256; raw, dag-cbor, dag-pb)"
    )]
    Unsupported { offset: u64, cid: Cid },
    #[error("CAR, byte {offset}: the bytes are not those of {cid}")]
    Mismatch { offset: u64, cid: Cid },
    #[error("CAR, byte {offset}: {cid} a second time, first at byte {first}")]
    Duplicate { offset: u64, cid: Cid, first: u64 },
    #[error("the CAR lacks the block of its root {cid}")]
    MissingRoot { cid: Cid },
}
