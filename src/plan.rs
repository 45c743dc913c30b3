//! What a run would do: each step with its fate, in order. Runs nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use petgraph::Direction;
use petgraph::graph::NodeIndex;
use petgraph::visit::EdgeRef;
use pipe_store::{Digest, Output, Record, Store, StoreError};
use rayon::prelude::*;
use serde::Serialize;

use crate::key::{Inputs, step_key, step_text};
use crate::pipeline::{Op, Pipeline};

/// What will become of a step.
#[derive(Clone, Debug)]
pub enum Fate {
    /// The store has its record; nothing runs.
    Hit { key: Digest, record: Record },
    /// It will run.
    Miss { key: Digest, text: String, why: Why },
    /// Its key depends on steps that have yet to run.
    Waits { on: Vec<String> },
}

/// Why a step is not a hit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Why {
    /// No step of this name was ever recorded here.
    New,
    /// A step of this name was recorded, under another key.
    Changed { fields: Vec<String> },
    /// The user asked for it.
    Forced,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Why::New => f.write_str("never run here"),
            Why::Changed { fields } => {
                write!(f, "changed: {}", fields.iter().take(3).cloned().collect::<Vec<_>>().join(", "))?;
                if fields.len() > 3 { write!(f, " and {} more", fields.len() - 3) } else { Ok(()) }
            }
            Why::Forced => f.write_str("forced"),
        }
    }
}

/// A step with its fate.
#[derive(Clone, Debug)]
pub struct Planned {
    pub node: NodeIndex,
    pub fate: Fate,
}

/// Steps in topological order with their fates.
#[derive(Clone, Debug)]
pub struct Plan {
    pub steps: Vec<Planned>,
}

/// A step could not be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("step `{step}`: {path}: {source}", path = path.display())]
    Local { step: String, path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("step `{step}`: `{producer}` has no output `{output}`; it has {has}", has = has.join(", "))]
    NoOutput { step: String, producer: String, output: String, has: Vec<String> },
    #[error("no step `{step}` to force; the steps are {has}", has = has.join(", "))]
    NoSuchStep { step: String, has: Vec<String> },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The inputs of a step, once every producer's outputs are known.
pub fn inputs_of<'a>(
    pipeline: &Pipeline,
    node: NodeIndex,
    outputs: impl Fn(NodeIndex) -> Option<&'a [Output]>,
) -> Result<Option<Inputs>, PlanError> {
    let mut inputs = Inputs::new();
    for edge in pipeline.graph.edges_directed(node, Direction::Incoming) {
        let Some(made) = outputs(edge.source()) else { return Ok(None) };
        let link = edge.weight();
        let port: &mut BTreeMap<_, _> = inputs.entry(link.port.clone()).or_default();
        match &link.output {
            None => port.extend(made.iter().map(|o| (o.name.clone(), o.artifact.clone()))),
            Some(name) => match made.iter().find(|o| &o.name == name) {
                Some(o) => {
                    port.insert(o.name.clone(), o.artifact.clone());
                }
                None => {
                    return Err(PlanError::NoOutput {
                        step: pipeline.graph[node].name.clone(),
                        producer: pipeline.graph[edge.source()].name.clone(),
                        output: name.clone(),
                        has: made.iter().map(|o| o.name.clone()).collect(),
                    });
                }
            },
        }
    }
    Ok(Some(inputs))
}

/// A step whose inputs are known, with its key and what the store says of it.
pub struct Looked {
    pub node: NodeIndex,
    pub inputs: Inputs,
    /// The contents a `file` step names.
    local: BTreeMap<String, Digest>,
    pub key: Digest,
    pub record: Option<Record>,
}

impl Looked {
    /// The text of the key; made only for steps that run.
    pub fn text(&self, pipeline: &Pipeline) -> String {
        step_text(&pipeline.graph[self.node].op, &self.inputs, &self.local)
    }
}

/// Keys of steps whose producers' outputs are known, and their records, in the given order. Keys are hashed
/// on all cores and records read in one transaction: a recipe may have ten thousand steps.
pub fn look_up<'a>(
    pipeline: &Pipeline,
    nodes: &[NodeIndex],
    outputs: impl Fn(NodeIndex) -> Option<&'a [Output]> + Sync,
    store: &Store,
) -> Result<Vec<Result<Looked, PlanError>>, StoreError> {
    let keyed = |&node: &NodeIndex| -> Result<Looked, PlanError> {
        let inputs =
            inputs_of(pipeline, node, &outputs)?.expect("BUG: looked up before its inputs are known");
        let step = &pipeline.graph[node];
        let local = match &step.op {
            Op::File(file) => contents(&step.name, &file.path, store)?,
            _ => BTreeMap::new(),
        };
        let key = step_key(&step.op, &inputs, &local);
        Ok(Looked { node, inputs, local, key, record: None })
    };
    let mut looked: Vec<_> = nodes.par_iter().map(keyed).collect();
    let keys: Vec<Digest> = looked.iter().flatten().map(|l| l.key).collect();
    for (looked, record) in looked.iter_mut().flatten().zip(store.records(&keys)?) {
        looked.record = record;
    }
    Ok(looked)
}

/// Digests of the files a `file` step names, memoised by the store.
fn contents(step: &str, path: &Path, store: &Store) -> Result<BTreeMap<String, Digest>, PlanError> {
    let fail = |source: Box<dyn std::error::Error + Send + Sync>| PlanError::Local {
        step: step.to_owned(),
        path: path.to_owned(),
        source,
    };
    let entries = crate::ops::local::listing(path).map_err(|e| fail(Box::new(e)))?;
    let digest = |entry: crate::ops::fetch::Entry| match store.file_digest(&entry.path) {
        Ok((digest, _)) => Ok((entry.name, digest)),
        Err(e) => Err(fail(Box::new(e))),
    };
    entries.into_iter().map(digest).collect()
}

/// Which steps become ready as their producers are done.
pub struct Frontier {
    /// Producers not yet done, by node; parallel edges (two ports fed by one step) count once.
    missing: Vec<usize>,
}

impl Frontier {
    /// The frontier before anything is done, and the steps that need nothing.
    pub fn new(pipeline: &Pipeline) -> (Self, Vec<NodeIndex>) {
        let mut missing = vec![0; pipeline.graph.node_count()];
        for &node in &pipeline.order {
            missing[node.index()] = distinct(pipeline, node, Direction::Incoming).len();
        }
        let first = pipeline.order.iter().copied().filter(|n| missing[n.index()] == 0).collect();
        (Frontier { missing }, first)
    }

    /// A step is done: those it was the last producer of.
    pub fn done(&mut self, pipeline: &Pipeline, node: NodeIndex) -> Vec<NodeIndex> {
        let mut ready = distinct(pipeline, node, Direction::Outgoing);
        ready.retain(|consumer| {
            let missing = &mut self.missing[consumer.index()];
            *missing -= 1;
            *missing == 0
        });
        ready
    }
}

/// Neighbours, each once.
fn distinct(pipeline: &Pipeline, node: NodeIndex, direction: Direction) -> Vec<NodeIndex> {
    let mut all: Vec<_> = pipeline.graph.neighbors_directed(node, direction).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Why a key that has no record has none.
pub fn why_miss(store: &Store, step: &str, text: &str) -> Result<Why, StoreError> {
    Ok(match nearest(store, step, text)? {
        None => Why::New,
        Some((_, record)) => Why::Changed {
            fields: crate::key::changes(&record.preimage, text).into_iter().map(|c| c.field).collect(),
        },
    })
}

/// How many earlier records of a step are compared to find the nearest.
const NEAREST_LIMIT: usize = 16;

/// The earlier record of a step whose preimage differs in the fewest fields; the newest of equals.
pub fn nearest(store: &Store, step: &str, text: &str) -> Result<Option<(Digest, Record)>, StoreError> {
    let earlier = store.records_of_step(step, NEAREST_LIMIT)?;
    Ok(earlier.into_iter().min_by_key(|(_, record)| crate::key::changes(&record.preimage, text).len()))
}

/// The indices of the steps a user names; an unknown name is an error.
pub fn named(pipeline: &Pipeline, names: &[String]) -> Result<Vec<NodeIndex>, PlanError> {
    let find = |name: &String| {
        pipeline.graph.node_indices().find(|&n| &pipeline.graph[n].name == name).ok_or_else(|| {
            PlanError::NoSuchStep {
                step: name.clone(),
                has: pipeline.order.iter().map(|&n| pipeline.graph[n].name.clone()).collect(),
            }
        })
    };
    names.iter().map(find).collect()
}

/// Plan a pipeline against a store. A step under `force` is a miss whatever is recorded.
pub fn plan(pipeline: &Pipeline, store: &Store, force: &[NodeIndex]) -> Result<Plan, PlanError> {
    let mut fates: Vec<Option<Fate>> = vec![None; pipeline.graph.node_count()];
    let (mut frontier, mut wave) = Frontier::new(pipeline);
    while !wave.is_empty() {
        let known = |n: NodeIndex| match &fates[n.index()] {
            Some(Fate::Hit { record, .. }) => Some(record.outputs.as_slice()),
            _ => None,
        };
        let looked = look_up(pipeline, &wave, known, store)?;
        wave.clear();
        for looked in looked {
            let looked = looked?;
            let (node, key) = (looked.node, looked.key);
            let fate = if force.contains(&node) {
                Fate::Miss { key, text: looked.text(pipeline), why: Why::Forced }
            } else if let Some(record) = looked.record {
                wave.extend(frontier.done(pipeline, node));
                Fate::Hit { key, record }
            } else {
                let text = looked.text(pipeline);
                let why = why_miss(store, &pipeline.graph[node].name, &text)?;
                Fate::Miss { key, text, why }
            };
            fates[node.index()] = Some(fate);
        }
    }
    for &node in pipeline.order.iter().filter(|n| fates[n.index()].is_none()).collect::<Vec<_>>() {
        let hit = |n: &NodeIndex| matches!(fates[n.index()], Some(Fate::Hit { .. }));
        let mut on = distinct(pipeline, node, Direction::Incoming);
        on.retain(|n| !hit(n));
        let on = on.into_iter().map(|n| pipeline.graph[n].name.clone()).collect();
        fates[node.index()] = Some(Fate::Waits { on });
    }
    let take = |&node: &NodeIndex| Planned {
        node,
        fate: fates[node.index()].take().expect("BUG: the order holds every node once"),
    };
    Ok(Plan { steps: pipeline.order.iter().map(take).collect() })
}
