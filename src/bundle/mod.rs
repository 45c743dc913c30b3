//! The pure result: every step's key, inputs and outputs, with no time and no host, as one DAG-CBOR block.
//! Same pipeline, same bytes, same CID on every machine. Knows no network and no signature.

pub mod car;
mod transport;

use std::collections::BTreeMap;

use cid::Cid;
use pipe_store::{Artifact, Digest, Store, StoreError};
use serde::{Deserialize, Serialize};

use crate::pipeline::{Canonical, Op, Pipeline};
use crate::plan;
use crate::run::Run;

pub use transport::{Imported, TransportError, export, import};

/// First field of every bundle; a change of its shape changes the version.
pub const KIND: &str = "pipe/bundle";
pub const VERSION: u32 = 1;

/// A local file up to this length travels with the bundle; a longer one is named by its hash alone.
const CARRY_FILE_MAX: u64 = 1 << 20;

/// The result of a run. Field order does not matter: DAG-CBOR sorts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bundle {
    pub kind: String,
    pub version: u32,
    pub pipeline: Canonical,
    pub steps: BTreeMap<String, SealedStep>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SealedStep {
    pub op: String,
    pub key: Digest,
    /// By port, then by output name of the producer.
    pub inputs: BTreeMap<String, BTreeMap<String, Digest>>,
    pub outputs: BTreeMap<String, SealedOutput>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SealedOutput {
    pub digest: Digest,
    /// Bytes.
    pub length: u64,
    pub media_type: String,
    /// An IPLD link if the bytes travel with the bundle. What anyone can fetch or derive again is named by
    /// its digest only, so that pinning a bundle does not wait for gigabytes of weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Cid>,
}

/// A bundle's bytes are not a bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("not a bundle: {0}")]
    Malformed(String),
    #[error("the bundle is version {found}; this pipe reads version {VERSION}. Use a newer pipe")]
    Version { found: u32 },
    #[error("the bundle is not in canonical form")]
    NotCanonical,
}

/// Do a step's outputs travel with the bundle?
fn carried(op: &Op, artifact: &Artifact) -> bool {
    match op {
        Op::Fetch(_) | Op::Pack(_) => false,
        Op::File(_) => artifact.length <= CARRY_FILE_MAX,
        Op::Tokenize(_) | Op::Infer(_) => true,
    }
}

/// The bundle of a run that came to its end; None if a step has no outputs.
pub fn seal(pipeline: &Pipeline, run: &Run) -> Option<Bundle> {
    if !run.ok() {
        return None;
    }
    let outputs: BTreeMap<_, _> = run.steps.iter().map(|s| (s.node, s.outputs.as_slice())).collect();
    let mut steps = BTreeMap::new();
    for step in &run.steps {
        let op = &pipeline.graph[step.node].op;
        let inputs = plan::inputs_of(pipeline, step.node, |n| outputs.get(&n).copied()).ok()??;
        let digests =
            |files: BTreeMap<String, Artifact>| files.into_iter().map(|(n, a)| (n, a.digest)).collect();
        let sealed = SealedStep {
            op: op.name().into(),
            key: step.key?,
            inputs: inputs.into_iter().map(|(port, files)| (port, digests(files))).collect(),
            outputs: step
                .outputs
                .iter()
                .map(|o| {
                    let link = carried(op, &o.artifact).then(|| car::cid_raw(&o.artifact.digest));
                    let Artifact { digest, length, media_type } = o.artifact.clone();
                    (o.name.clone(), SealedOutput { digest, length, media_type, link })
                })
                .collect(),
        };
        steps.insert(step.name.clone(), sealed);
    }
    Some(Bundle { kind: KIND.into(), version: VERSION, pipeline: pipeline.canonical(), steps })
}

impl Bundle {
    /// Canonical DAG-CBOR.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_ipld_dagcbor::to_vec(self).expect("BUG: a bundle is plain data")
    }

    /// Reads bytes that anyone may have made.
    pub fn from_bytes(bytes: &[u8]) -> Result<Bundle, BundleError> {
        let malformed = |e: serde_ipld_dagcbor::DecodeError<_>| BundleError::Malformed(e.to_string());
        let bundle: Bundle = serde_ipld_dagcbor::from_slice(bytes).map_err(malformed)?;
        if bundle.kind != KIND {
            return Err(BundleError::Malformed(format!("kind is `{}`, expected `{KIND}`", bundle.kind)));
        }
        if bundle.version != VERSION {
            return Err(BundleError::Version { found: bundle.version });
        }
        if bundle.to_bytes() != bytes {
            return Err(BundleError::NotCanonical);
        }
        Ok(bundle)
    }

    /// Keep the bundle's bytes; its CID and digest.
    pub fn store(&self, store: &Store) -> Result<(Cid, Digest), StoreError> {
        let digest = store.put(&self.to_bytes())?;
        Ok((car::cid_of(car::DAG_CBOR, &digest), digest))
    }

    /// Every output, with its step.
    pub fn outputs(&self) -> impl Iterator<Item = (&str, &str, &SealedOutput)> {
        self.steps.iter().flat_map(|(step, sealed)| {
            sealed.outputs.iter().map(move |(name, output)| (step.as_str(), name.as_str(), output))
        })
    }
}
