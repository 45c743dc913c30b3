//! A signed entry of a chain: which bundle, what merely happened, which entry came before. Plain data and its bytes.

use std::collections::BTreeMap;

use cid::Cid;
use pipe_store::Digest;
use serde::{Deserialize, Serialize};

use super::key::{PublicKey, SecretKey, Signature};
use crate::bundle::car;
use crate::run::Facts;

/// First field of every manifest; a change of its shape changes the version.
pub const KIND: &str = "pipe/manifest";
pub const VERSION: u32 = 1;

/// An entry of a chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub kind: String,
    pub version: u32,
    pub claim: Claim,
    /// The bundle it speaks about.
    pub bundle: Cid,
    /// Bytes that the bundle names by digest only and that travel all the same: by digest, their address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<Digest, Cid>,
    /// What merely happened when the signer ran it.
    pub facts: Facts,
    /// Milliseconds since the Unix epoch: when it started, how long it took, when this was signed.
    pub started_ms: u64,
    pub wall_ms: u64,
    pub signed_ms: u64,
    /// The entry before this one; none has number 0.
    pub previous: Option<Cid>,
    pub sequence: u64,
    pub key: PublicKey,
    /// Over the canonical bytes of all other fields.
    pub signature: Signature,
}

/// What the signer says of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Claim {
    /// I ran this pipeline, and the bundle is what came out.
    Published,
    /// I derived this bundle again, and every step gave the same bytes.
    Reproduced {
        /// The manifest I had it from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<Cid>,
    },
}

impl Claim {
    pub fn name(&self) -> &'static str {
        match self {
            Claim::Published => "published",
            Claim::Reproduced { .. } => "reproduced",
        }
    }
}

/// Where an entry stands in its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub previous: Option<Cid>,
    pub sequence: u64,
}

/// Bytes are not a manifest to be believed.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("not a manifest: {0}")]
    Malformed(String),
    #[error("the manifest is version {found}; this pipe reads version {VERSION}. Use a newer pipe")]
    Version { found: u32 },
    #[error("the manifest is not in canonical form")]
    NotCanonical,
    #[error("the signature is not that of {key}: the manifest is forged or damaged")]
    Signature { key: PublicKey },
    #[error("the manifest has number {sequence} and {}: only the first, number 0, has no entry before it", if *has { "an entry before it" } else { "no entry before it" })]
    Place { sequence: u64, has: bool },
    #[error("the manifest links {bundle}, which cannot be a bundle: expected dag-cbor and BLAKE3")]
    Bundle { bundle: Cid },
}

/// All that is signed.
#[derive(Serialize)]
struct Unsigned<'a> {
    kind: &'a str,
    version: u32,
    claim: &'a Claim,
    bundle: &'a Cid,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    files: &'a BTreeMap<Digest, Cid>,
    facts: &'a Facts,
    started_ms: u64,
    wall_ms: u64,
    signed_ms: u64,
    previous: &'a Option<Cid>,
    sequence: u64,
    key: &'a PublicKey,
}

impl Manifest {
    /// With this key and place in its chain; whatever stood there is replaced.
    #[must_use]
    pub fn signed(mut self, key: &SecretKey, link: Link) -> Manifest {
        self.previous = link.previous;
        self.sequence = link.sequence;
        self.key = key.public();
        self.signature = key.sign(&self.message());
        self
    }

    /// An entry without place and signature; [`Manifest::signed`] gives both.
    pub fn draft(claim: Claim, bundle: Cid, facts: Facts, signed_ms: u64) -> Manifest {
        Manifest {
            kind: KIND.into(),
            version: VERSION,
            claim,
            bundle,
            files: BTreeMap::new(),
            facts,
            started_ms: 0,
            wall_ms: 0,
            signed_ms,
            previous: None,
            sequence: 0,
            key: PublicKey([0; 32]),
            signature: Signature([0; 64]),
        }
    }

    /// Canonical DAG-CBOR.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_ipld_dagcbor::to_vec(self).expect("BUG: a manifest is plain data")
    }

    pub fn cid(&self) -> Cid {
        car::cid_dag_cbor(&self.to_bytes())
    }

    fn message(&self) -> Vec<u8> {
        // Every field by name: one that is added must be signed, or this does not compile.
        let Manifest {
            kind,
            version,
            claim,
            bundle,
            files,
            facts,
            started_ms,
            wall_ms,
            signed_ms,
            previous,
            sequence,
            key,
            signature: _,
        } = self;
        let unsigned = Unsigned {
            kind,
            version: *version,
            claim,
            bundle,
            files,
            facts,
            started_ms: *started_ms,
            wall_ms: *wall_ms,
            signed_ms: *signed_ms,
            previous,
            sequence: *sequence,
            key,
        };
        serde_ipld_dagcbor::to_vec(&unsigned).expect("BUG: a manifest is plain data")
    }

    /// Is this block meant to be a manifest? Says nothing about whether it is a good one.
    pub fn looks_like(bytes: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Kind {
            kind: String,
        }
        serde_ipld_dagcbor::from_slice::<Kind>(bytes).is_ok_and(|k| k.kind == KIND)
    }

    /// Reads bytes that anyone may have made; what comes out is signed by the key it names.
    pub fn from_bytes(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        let malformed = |e: serde_ipld_dagcbor::DecodeError<_>| ManifestError::Malformed(e.to_string());
        let manifest: Manifest = serde_ipld_dagcbor::from_slice(bytes).map_err(malformed)?;
        if manifest.kind != KIND {
            let why = format!("kind is `{}`, expected `{KIND}`", manifest.kind);
            return Err(ManifestError::Malformed(why));
        }
        if manifest.version != VERSION {
            return Err(ManifestError::Version { found: manifest.version });
        }
        if manifest.to_bytes() != bytes {
            return Err(ManifestError::NotCanonical);
        }
        if !manifest.key.signed(&manifest.message(), &manifest.signature) {
            return Err(ManifestError::Signature { key: manifest.key });
        }
        if (manifest.sequence == 0) != manifest.previous.is_none() {
            let (sequence, has) = (manifest.sequence, manifest.previous.is_some());
            return Err(ManifestError::Place { sequence, has });
        }
        if manifest.bundle.codec() != car::DAG_CBOR || car::digest_of(&manifest.bundle).is_none() {
            return Err(ManifestError::Bundle { bundle: manifest.bundle });
        }
        Ok(manifest)
    }
}
