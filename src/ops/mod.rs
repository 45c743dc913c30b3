//! What steps do: the only place that touches devices and outside sources. Knows no graph and no plan:
//! a job comes in with its inputs, a done goes out with its outputs.

pub mod checksum;
mod corpus;
mod download;
pub mod fetch;
mod infer;
pub mod introspect;
mod json;
pub mod local;
mod pack;
mod score;
mod tokenize;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use pipe_kernels::{Engine, Implementation};
use pipe_store::{Artifact, Digest, Object, Output, Store, StoreError};
use serde::{Deserialize, Serialize};

use crate::key::Inputs;
use crate::model::{Bytes, Model, ModelFile};
use crate::pipeline::Op;

pub use infer::next::{self, Next};
pub use infer::{ANSWERS, Answer, Answers, Outputs, PROBES, Sample, StoppedBy, TRACE, verify};
pub use score::SCORES;
pub use tokenize::{Continuation, TokenizedPrompt, Tokens};

/// One step's work, as data: what an executor is handed, here or far away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub step: String,
    pub op: Op,
    pub key: Digest,
    pub inputs: Inputs,
}

/// What came of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Done {
    pub outputs: Vec<Output>,
    /// What the op has to say for people; kept beside the record.
    pub log: String,
    /// What merely happened (rates, device); never compared.
    pub facts: serde_json::Map<String, serde_json::Value>,
}

/// A beat of a long job.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Progress {
    pub done: u64,
    pub total: Option<u64>,
    pub unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Bytes,
    Tokens,
}

/// What ops may use of the world.
pub struct World<'a> {
    pub store: &'a Store,
    pub device: &'a Device,
    pub fetch: &'a fetch::FetchEnv,
    /// Where broken downloads wait to be continued.
    pub partial: &'a std::path::Path,
    pub cancel: &'a AtomicBool,
    /// Take computed prefixes of prompts from the store, and keep new ones there as of this time, in milliseconds
    /// since the Unix epoch. None: neither. Changes no bit.
    pub prefixes: Option<u64>,
}

/// The engine, made when the first step needs it. None of its settings can change a result.
pub struct Device {
    pub threads: usize,
    pub implementation: Implementation,
    engine: OnceLock<Engine>,
}

impl Device {
    pub fn new(threads: usize, implementation: Implementation) -> Self {
        Device { threads, implementation, engine: OnceLock::new() }
    }

    /// The engine; fails when this machine's arithmetic does not pass the start-up vectors.
    pub fn engine(&self) -> Result<&Engine, OpError> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let engine = Engine::new(self.threads, self.implementation)
            .map_err(|e| OpError::Machine { message: e.to_string() })?;
        Ok(self.engine.get_or_init(|| engine))
    }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    #[error("cancelled")]
    Cancelled,
    #[error(transparent)]
    Fetch(#[from] fetch::FetchError),
    #[error(transparent)]
    Model(#[from] crate::model::ModelError),
    #[error(transparent)]
    Compute(#[from] pipe_kernels::ComputeError),
    #[error("packing: {0}")]
    Pack(#[from] pipe_kernels::PackError),
    #[error("this machine cannot compute: {message}; `pipe doctor` shows the vectors")]
    Machine { message: String },
    #[error("{what}: {message}")]
    Input { what: String, message: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpError {
    /// Is it the network's doing (exit code 6) rather than the step's (4)?
    pub fn is_network(&self) -> bool {
        matches!(self, OpError::Fetch(e) if e.is_network())
    }

    /// Is it damage to the store (exit code 5)?
    pub fn is_store(&self) -> bool {
        matches!(self, OpError::Store(_))
    }

    pub(crate) fn input(what: impl Into<String>, message: impl ToString) -> Self {
        OpError::Input { what: what.into(), message: message.to_string() }
    }
}

/// Do a job. `progress` may be called from any thread.
pub fn execute(job: &Job, world: &World<'_>, progress: &(dyn Fn(Progress) + Sync)) -> Result<Done, OpError> {
    world.check_cancelled()?;
    match &job.op {
        Op::Fetch(op) => download::run(op, world, progress),
        Op::File(op) => local::run(op, world),
        Op::Tokenize(op) => tokenize::run(op, &job.inputs, world),
        Op::Pack(op) => pack::run(op, &job.inputs, world, progress),
        Op::Infer(op) => infer::run(op, &job.inputs, world, progress),
        Op::Score(op) => score::run(op, &job.inputs, world, progress),
        Op::Introspect(op) => introspect::run(op, &job.inputs, world, progress),
        Op::Checksum(op) => checksum::run(op, &job.inputs, world),
    }
}

impl World<'_> {
    fn check_cancelled(&self) -> Result<(), OpError> {
        if self.cancel.load(Ordering::Relaxed) { Err(OpError::Cancelled) } else { Ok(()) }
    }

    /// Keep bytes as an output.
    fn put(&self, name: &str, media_type: &str, bytes: &[u8]) -> Result<Output, OpError> {
        let digest = self.store.put(bytes)?;
        let artifact = Artifact { digest, length: bytes.len() as u64, media_type: media_type.into() };
        Ok(Output { name: name.into(), artifact })
    }

    /// The single artifact of a port.
    fn open_one(&self, inputs: &Inputs, port: &str) -> Result<Object, OpError> {
        let files =
            inputs.get(port).ok_or_else(|| OpError::input(format!("port `{port}`"), "not connected"))?;
        match files.values().collect::<Vec<_>>().as_slice() {
            [one] => Ok(self.store.get(&one.digest)?),
            many => Err(OpError::input(
                format!("port `{port}`"),
                format!("expected one file, found {}; name it as `step.output`", many.len()),
            )),
        }
    }

    /// A port's files as a model.
    fn open_model(&self, inputs: &Inputs) -> Result<Model, OpError> {
        let files = inputs.get("model").ok_or_else(|| OpError::input("port `model`", "not connected"))?;
        let files = files
            .iter()
            .map(|(name, artifact)| Ok(ModelFile::new(name, Bytes::new(self.store.get(&artifact.digest)?))))
            .collect::<Result<Vec<_>, StoreError>>()?;
        Ok(Model::open(&files)?)
    }
}
