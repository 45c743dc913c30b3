//! CARv1: blocks under their CIDs in one stream, checked one by one as they are written and read.
//! Knows no bundle and no store. Format: <https://ipld.io/specs/transport/car/carv1/>

mod error;
mod reader;
mod writer;

use cid::Cid;
use cid::multihash::Multihash;
use pipe_store::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use error::CarError;
pub use reader::{Block, CarReader, Section};
pub use writer::CarWriter;

/// The longest section a reader takes unless told otherwise.
pub const SECTION_LIMIT: u64 = 32 << 20;
/// The longest header: some 25,000 roots.
const HEADER_LIMIT: u64 = 1 << 20;

/// Codec of plain bytes.
pub const RAW: u64 = 0x55;
/// Codec of a node.
pub const DAG_CBOR: u64 = 0x71;
/// Codec of files that other programs made; taken as bytes.
pub const DAG_PB: u64 = 0x70;
/// Blocks longer than this are hashed by several threads.
const PARALLEL_MIN: usize = 1 << 20;
const SHA2_256: u64 = 0x12;
const BLAKE3: u64 = 0x1e;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    roots: Vec<Cid>,
    version: u64,
}

/// The address of plain bytes: CIDv1, raw, BLAKE3.
pub fn cid_raw(digest: &Digest) -> Cid {
    cid_of(RAW, digest)
}

/// The address of an encoded node: CIDv1, dag-cbor, BLAKE3. The bytes must be canonical DAG-CBOR.
pub fn cid_dag_cbor(bytes: &[u8]) -> Cid {
    cid_of(DAG_CBOR, &Digest::of(bytes))
}

/// The address under a codec of the bytes with this digest.
pub fn cid_of(codec: u64, digest: &Digest) -> Cid {
    // A digest is 32 bytes and a multihash has room for 64.
    let hash = Multihash::wrap(BLAKE3, &digest.0).unwrap_or_default();
    Cid::new_v1(codec, hash)
}

/// The digest inside a CID; None if its hash is not BLAKE3.
pub fn digest_of(cid: &Cid) -> Option<Digest> {
    let bytes = cid.hash().digest().try_into().ok()?;
    (cid.hash().code() == BLAKE3).then_some(Digest(bytes))
}

/// Are these the bytes of this CID? False for a hash or codec that is not read here.
pub fn fits(cid: &Cid, bytes: &[u8]) -> bool {
    Check::new(cid).is_some_and(|mut check| {
        check.update(bytes);
        check.fits(cid)
    })
}

/// The check of a block's bytes against its CID, under way.
enum Check {
    Sha256(Sha256),
    Blake3(Box<blake3::Hasher>),
}

impl Check {
    /// None for a hash, a hash length or a codec that is not read here.
    fn new(cid: &Cid) -> Option<Self> {
        if cid.hash().size() != 32 || !matches!(cid.codec(), RAW | DAG_CBOR | DAG_PB) {
            return None;
        }
        match cid.hash().code() {
            SHA2_256 => Some(Check::Sha256(Sha256::new())),
            BLAKE3 => Some(Check::Blake3(Box::default())),
            _ => None,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Check::Sha256(h) => h.update(bytes),
            Check::Blake3(h) if bytes.len() > PARALLEL_MIN => {
                h.update_rayon(bytes);
            }
            Check::Blake3(h) => {
                h.update(bytes);
            }
        }
    }

    fn fits(self, cid: &Cid) -> bool {
        match self {
            Check::Sha256(h) => h.finalize()[..] == *cid.hash().digest(),
            Check::Blake3(h) => h.finalize().as_bytes()[..] == *cid.hash().digest(),
        }
    }
}
