//! What a run would do: each step with its fate, in order. Runs nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use petgraph::Direction;
use petgraph::graph::NodeIndex;
use petgraph::visit::EdgeRef;
use pipe_store::{Digest, Output, Record, Store, StoreError};
use serde::Serialize;

use crate::key::{Inputs, StepKey, step_key};
use crate::pipeline::{Op, Pipeline};

/// What will become of a step.
#[derive(Clone, Debug)]
pub enum Fate {
    /// The store has its record; nothing runs.
    Hit { key: Digest, record: Record },
    /// It will run.
    Miss { key: StepKey, why: Why },
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

/// The key of a step whose inputs are known. Hashes the files a `file` step names, memoised by the store.
pub fn key_of(
    pipeline: &Pipeline,
    node: NodeIndex,
    inputs: &Inputs,
    store: &Store,
) -> Result<StepKey, PlanError> {
    let step = &pipeline.graph[node];
    let mut local = BTreeMap::new();
    if let Op::File(file) = &step.op {
        let fail = |source: Box<dyn std::error::Error + Send + Sync>| PlanError::Local {
            step: step.name.clone(),
            path: file.path.clone(),
            source,
        };
        for entry in crate::ops::local::listing(&file.path).map_err(|e| fail(Box::new(e)))? {
            let (digest, _) = store.file_digest(&entry.path).map_err(|e| fail(Box::new(e)))?;
            local.insert(entry.name, digest);
        }
    }
    Ok(step_key(&step.op, inputs, &local))
}

/// Why a key that has no record has none.
pub fn why_miss(store: &Store, step: &str, key: &StepKey) -> Result<Why, StoreError> {
    Ok(match nearest(store, step, &key.text)? {
        None => Why::New,
        Some((_, record)) => Why::Changed {
            fields: crate::key::changes(&record.preimage, &key.text).into_iter().map(|c| c.field).collect(),
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
    for &node in &pipeline.order {
        let known = |n: NodeIndex| match &fates[n.index()] {
            Some(Fate::Hit { record, .. }) => Some(record.outputs.as_slice()),
            _ => None,
        };
        let fate = match inputs_of(pipeline, node, known)? {
            None => Fate::Waits {
                on: pipeline
                    .graph
                    .neighbors_directed(node, Direction::Incoming)
                    .filter(|n| known(*n).is_none())
                    .map(|n| pipeline.graph[n].name.clone())
                    .collect::<std::collections::BTreeSet<_>>()
                    .into_iter()
                    .collect(),
            },
            Some(inputs) => {
                let key = key_of(pipeline, node, &inputs, store)?;
                match store.record(&key.digest)? {
                    _ if force.contains(&node) => Fate::Miss { key, why: Why::Forced },
                    Some(record) => Fate::Hit { key: key.digest, record },
                    None => {
                        let why = why_miss(store, &pipeline.graph[node].name, &key)?;
                        Fate::Miss { key, why }
                    }
                }
            }
        };
        fates[node.index()] = Some(fate);
    }
    let take = |&node: &NodeIndex| Planned {
        node,
        fate: fates[node.index()].take().expect("BUG: the order holds every node once"),
    };
    Ok(Plan { steps: pipeline.order.iter().map(take).collect() })
}
