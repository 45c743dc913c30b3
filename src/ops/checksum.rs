//! The `checksum` op: one digest of an inference and of what other steps found inside it, beside the answer's text, as
//! `answer.json`.

use std::collections::BTreeMap;

use pipe_store::{Artifact, Digest, Store};
use safetensors::SafeTensors;
use serde::Serialize;
use serde_json::Value;

use super::introspect::INTROSPECTION;
use super::{ANSWERS, Answer, Answers, Done, OpError, SCORES, TRACE, World, json};
use crate::checksum::{Leaf, Tree, json_leaves};
use crate::key::Inputs;
use crate::recipe::op::Checksum;
use crate::trace::Trace;

/// The artifact with answers, scores and checksum.
pub const ANSWER: &str = "answer.json";

/// JSON of `answer.json`.
#[derive(Serialize)]
struct Summary<'a> {
    spec: &'a str,
    answers: &'a [Answer],
    /// By the step that gives them.
    scores: BTreeMap<&'a str, Value>,
    /// Did every check of every `introspect` step pass? None without such a step.
    sound: Option<bool>,
    /// Root of the tree over everything: docs/CHECKSUM.md.
    checksum: Digest,
    leaves: usize,
}

pub fn run(op: &Checksum, inputs: &Inputs, world: &World<'_>) -> Result<Done, OpError> {
    let left = inputs.get("answer").and_then(|left| left.get(ANSWERS));
    let left = left.ok_or_else(|| OpError::input(ANSWERS, "the step has no such output"))?;
    let answers: Answers = json::read(ANSWERS, &world.store.get(&left.digest)?)?;
    let (mut scores, mut sound) = (BTreeMap::new(), None);
    for (port, files) in inputs {
        let read = |artifact: &Artifact| -> Result<Value, OpError> {
            json::read(port, &world.store.get(&artifact.digest)?)
        };
        if let (Some(step), Some(file)) = (port.strip_prefix("scores."), files.get(SCORES)) {
            scores.insert(step, read(file)?["scores"].take());
        }
        if let Some(file) = files.get(INTROSPECTION) {
            let found = read(file)?["sound"].as_bool().unwrap_or(false);
            sound = Some(sound.unwrap_or(true) && found);
        }
    }
    let tree = tree(&op.of, inputs, world.store)?;
    let (checksum, leaves) = (tree.checksum(), tree.leaves().len());
    let summary = Summary { spec: &answers.spec, answers: &answers.answers, scores, sound, checksum, leaves };
    let output = world.put(ANSWER, json::MEDIA_TYPE, &json::write(&summary))?;
    Ok(Done { outputs: vec![output], log: format!("{checksum} over {leaves} leaves\n"), ..Done::default() })
}

/// The tree over what a `checksum` step takes: of which inference, and its inputs by port.
pub fn tree(of: &str, inputs: &Inputs, store: &Store) -> Result<Tree, OpError> {
    let mut leaves = Vec::new();
    for (port, files) in inputs {
        let step = port.split_once('.').map_or(of, |(_, step)| step);
        for (name, artifact) in files {
            add(&format!("{step}/{name}"), name, artifact, store, &mut leaves)?;
        }
    }
    if leaves.is_empty() {
        return Err(OpError::input("checksum", "there is nothing to sum up"));
    }
    Ok(Tree::new(leaves))
}

/// The leaves of an artifact: of what is known to have parts its parts, of others all their bytes.
fn add(
    path: &str,
    name: &str,
    artifact: &Artifact,
    store: &Store,
    leaves: &mut Vec<Leaf>,
) -> Result<(), OpError> {
    let wrong = |e: &dyn ToString| OpError::input(path, e.to_string());
    let bytes = || store.get(&artifact.digest);
    match name {
        TRACE => {
            let bytes = bytes()?;
            of_trace(path, &Trace::open(&bytes).map_err(|e| wrong(&e))?, leaves);
        }
        // Prompts, their fields, and the items of those.
        ANSWERS | INTROSPECTION | SCORES => {
            let value: Value = serde_json::from_slice(&bytes()?).map_err(|e| wrong(&e))?;
            json_leaves(path, &value, 4, leaves);
        }
        _ if name.ends_with(".safetensors") => {
            let bytes = bytes()?;
            let tensors = SafeTensors::deserialize(&bytes).map_err(|e| wrong(&e))?;
            let mut all = tensors.tensors();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            leaves.extend(
                all.iter()
                    .map(|(name, t)| Leaf { path: format!("{path}/{name}"), value: Digest::of(t.data()) }),
            );
        }
        _ => leaves.push(Leaf { path: path.into(), value: artifact.digest }),
    }
    Ok(())
}

/// The tokens of every prompt, and the digest of every row: BLAKE3 of its floats.
fn of_trace(path: &str, trace: &Trace<'_>, leaves: &mut Vec<Leaf>) {
    for (i, prompt) in trace.prompts.iter().enumerate() {
        let tokens: Vec<u8> = prompt.tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
        leaves.push(Leaf { path: format!("{path}/{i}/tokens"), value: Digest::of(&tokens) });
        for position in 0..prompt.computed {
            for (slot, block) in trace.blocks.iter().enumerate() {
                if let Some(value) = prompt.digest(position, slot) {
                    leaves.push(Leaf { path: format!("{path}/{i}/{position}/{block}"), value });
                }
            }
        }
    }
}
