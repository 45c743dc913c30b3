//! The pure result: every step's key, inputs and outputs, with no time and no host, as one DAG-CBOR block.
//! Same pipeline, same bytes, same CID on every machine. Knows no network and no signature.

mod blocks;
pub mod car;
mod transport;
pub mod unixfs;

use std::collections::BTreeMap;

use cid::Cid;
use pipe_store::{Artifact, Digest, Output, Record, Store, StoreError};
use serde::{Deserialize, Serialize};

use crate::pipeline::{Canonical, Op, Pipeline};
use crate::plan;
use crate::run::Run;

pub use blocks::Blocks;
pub use transport::{Arrived, Imported, Parcel, TransportError, export, import};

/// First field of every bundle; a change of its shape changes the version.
pub const KIND: &str = "pipe/bundle";
pub const VERSION: u32 = 1;
/// Of a bundle that links an output too long for one block, by the root of its UnixFS DAG. Version 1 linked every
/// output as one block.
pub const VERSION_LONG: u32 = 2;

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
    /// An IPLD link if the bytes travel with the bundle: of the raw block, or of the UnixFS root of what is longer
    /// than 1 MiB. What anyone can fetch or derive again is named by
    /// its digest only, so that pinning a bundle does not wait for gigabytes of weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Cid>,
}

/// A bundle's bytes are not a bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("not a bundle: {0}")]
    Malformed(String),
    #[error("the bundle is version {found}; this pipe reads versions up to {VERSION_LONG}. Use a newer pipe")]
    Version { found: u32 },
    #[error("the bundle is not in canonical form")]
    NotCanonical,
    #[error("output {step}/{output} links {link}, which cannot be its bytes")]
    Link { step: String, output: String, link: Cid },
}

/// Do a step's outputs travel with the bundle?
fn carried(op: &Op, artifact: &Artifact) -> bool {
    match op {
        Op::Fetch(_) | Op::Pack(_) => false,
        Op::File(_) => artifact.length <= CARRY_FILE_MAX,
        Op::Tokenize(_) | Op::Infer(_) | Op::Score(_) | Op::Introspect(_) | Op::Checksum(_) => true,
    }
}

/// Seal a run and keep the bundle; None if a step has no outputs. Sealing is a step like any other: if a
/// pipeline with these keys was sealed before, its bundle is taken from the store.
pub fn keep(
    pipeline: &Pipeline,
    run: &Run,
    store: &Store,
    now_ms: u64,
) -> Result<Option<(Cid, Digest)>, StoreError> {
    if !run.ok() {
        return Ok(None);
    }
    let key = seal_key(pipeline, run);
    if let Some(record) = store.record(&key)?
        && let [output] = record.outputs.as_slice()
        && store.has(&output.artifact.digest)?
    {
        let digest = output.artifact.digest;
        return Ok(Some((car::cid_of(car::DAG_CBOR, &digest), digest)));
    }
    let links = Links { store, now_ms };
    let Some(bundle) = seal(pipeline, run, &links)? else { return Ok(None) };
    let bytes = bundle.to_bytes();
    let digest = store.put(&bytes)?;
    let media_type = "application/vnd.ipld.dag-cbor".to_owned();
    let artifact = Artifact { digest, length: bytes.len() as u64, media_type };
    let record = Record {
        step: String::new(),
        preimage: format!("domain = \"{SEAL_DOMAIN}\"\npipeline = {:?}\n", pipeline.name),
        outputs: vec![Output { name: "bundle".into(), artifact }],
        log: None,
        facts: "{}".into(),
        created_ms: now_ms,
    };
    store.put_record(&key, &record)?;
    Ok(Some((car::cid_of(car::DAG_CBOR, &digest), digest)))
}

const SEAL_DOMAIN: &str = "pipe/seal-key";

/// Hash of all that enters a bundle. Every field is led by its length, every list by its count.
fn seal_key(pipeline: &Pipeline, run: &Run) -> Digest {
    let mut hasher = blake3::Hasher::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    let count = |n: usize| (n as u64).to_le_bytes();
    field(SEAL_DOMAIN.as_bytes());
    field(&VERSION_LONG.to_le_bytes());
    field(pipeline.name.as_bytes());
    field(&count(run.steps.len()));
    for step in &run.steps {
        field(step.name.as_bytes());
        field(step.key.as_ref().map_or(&[][..], |key| &key.0));
        let inputs = pipeline.inputs(step.node);
        field(&count(inputs.len()));
        for (link, producer) in inputs {
            field(link.port.as_bytes());
            field(link.output.as_deref().unwrap_or_default().as_bytes());
            field(pipeline.graph[producer].name.as_bytes());
        }
        field(&count(step.outputs.len()));
        for output in &step.outputs {
            field(output.name.as_bytes());
            field(&output.artifact.digest.0);
        }
        // The sources of a fetch are in the bundle and not in its key.
        if let Op::Fetch(fetch) = &pipeline.graph[step.node].op {
            for file in &fetch.files {
                field(file.name.as_bytes());
                field(&count(file.from.len()));
                file.from.iter().for_each(|source| field(source.to_string().as_bytes()));
            }
        }
    }
    Digest(*hasher.finalize().as_bytes())
}

/// The addresses of outputs. That of a long one needs its bytes once, and is remembered: the bytes may go.
struct Links<'a> {
    store: &'a Store,
    now_ms: u64,
}

impl Links<'_> {
    fn of(&self, artifact: &Artifact) -> Result<Cid, StoreError> {
        if artifact.length <= unixfs::LEAF_MAX {
            return Ok(car::cid_raw(&artifact.digest));
        }
        let preimage = format!("domain = \"pipe/unixfs-root\"\ndigest = \"{}\"\n", artifact.digest);
        let key = Digest::of(preimage.as_bytes());
        let known = self.store.record(&key)?;
        if let Some(output) = known.as_ref().and_then(|record| record.outputs.first()) {
            return Ok(car::cid_of(car::DAG_PB, &output.artifact.digest));
        }
        let tree = unixfs::tree(&self.store.get(&artifact.digest)?);
        let node = tree.nodes.last().map(|(_, node)| node.as_slice()).unwrap_or_default();
        let media_type = "application/vnd.ipld.dag-pb".to_owned();
        let root = Artifact { digest: self.store.put(node)?, length: node.len() as u64, media_type };
        let record = Record {
            step: String::new(),
            preimage,
            outputs: vec![Output { name: "root".into(), artifact: root }],
            log: None,
            facts: "{}".into(),
            created_ms: self.now_ms,
        };
        self.store.put_record(&key, &record)?;
        Ok(tree.root)
    }
}

/// The bundle of a run whose every step came to its outputs.
fn seal(pipeline: &Pipeline, run: &Run, links: &Links<'_>) -> Result<Option<Bundle>, StoreError> {
    let outputs: BTreeMap<_, _> = run.steps.iter().map(|s| (s.node, s.outputs.as_slice())).collect();
    let mut steps = BTreeMap::new();
    let mut version = VERSION;
    for step in &run.steps {
        let op = &pipeline.graph[step.node].op;
        let inputs = plan::inputs_of(pipeline, step.node, |n| outputs.get(&n).copied());
        let (Ok(Some(inputs)), Some(key)) = (inputs, step.key) else { return Ok(None) };
        let digests =
            |files: BTreeMap<String, Artifact>| files.into_iter().map(|(n, a)| (n, a.digest)).collect();
        let inputs = inputs.into_iter().map(|(port, files)| (port, digests(files))).collect();
        let mut sealed = SealedStep { op: op.name().into(), key, inputs, outputs: BTreeMap::new() };
        for output in &step.outputs {
            let link = carried(op, &output.artifact).then(|| links.of(&output.artifact)).transpose()?;
            if link.is_some_and(|link| link.codec() == car::DAG_PB) {
                version = VERSION_LONG;
            }
            let Artifact { digest, length, media_type } = output.artifact.clone();
            sealed.outputs.insert(output.name.clone(), SealedOutput { digest, length, media_type, link });
        }
        steps.insert(step.name.clone(), sealed);
    }
    Ok(Some(Bundle { kind: KIND.into(), version, pipeline: pipeline.canonical(), steps }))
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
        if !(VERSION..=VERSION_LONG).contains(&bundle.version) {
            return Err(BundleError::Version { found: bundle.version });
        }
        if bundle.to_bytes() != bytes {
            return Err(BundleError::NotCanonical);
        }
        for (step, output, sealed) in bundle.outputs() {
            let long = bundle.version >= VERSION_LONG && sealed.length > unixfs::LEAF_MAX;
            let fits = |link: &Cid| match long {
                true => link.codec() == car::DAG_PB && car::digest_of(link).is_some(),
                false => *link == car::cid_raw(&sealed.digest),
            };
            if let Some(link) = sealed.link.filter(|link| !fits(link)) {
                return Err(BundleError::Link { step: step.into(), output: output.into(), link });
            }
        }
        Ok(bundle)
    }

    /// Every output, with its step.
    pub fn outputs(&self) -> impl Iterator<Item = (&str, &str, &SealedOutput)> {
        self.steps.iter().flat_map(|(step, sealed)| {
            sealed.outputs.iter().map(move |(name, output)| (step.as_str(), name.as_str(), output))
        })
    }
}
