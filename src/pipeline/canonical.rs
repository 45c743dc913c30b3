//! The part of a pipeline that is the same on every machine, as sorted plain data: what a bundle holds.

use serde::{Deserialize, Serialize};

use crate::recipe::op::{Checksum, Expected, Infer, Introspect, Op, Pack, Score, Source, Tokenize};

use super::Pipeline;

/// A pipeline without local paths. Equal for equal recipes, in any folder and any order of the text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Canonical {
    pub name: String,
    /// Sorted by name.
    pub steps: Vec<CanonicalStep>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CanonicalStep {
    pub name: String,
    pub op: CanonicalOp,
    /// Sorted by port, then by producer.
    pub inputs: Vec<Input>,
}

/// One input: which port, and whose output feeds it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Input {
    pub port: String,
    pub step: String,
    /// None takes all outputs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub output: Option<String>,
}

/// [`Op`] with the places of bytes that only this machine has left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum CanonicalOp {
    Fetch { files: Vec<CanonicalFile> },
    File,
    Tokenize(Tokenize),
    Pack(Pack),
    Infer(Infer),
    Score(Score),
    Introspect(Introspect),
    Checksum(Checksum),
}

/// A fetched file: its hash, and the public sources in the order they are tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CanonicalFile {
    pub name: String,
    /// As a recipe writes them. `file:` sources are left out: they say nothing elsewhere.
    pub from: Vec<String>,
    pub expect: Expected,
}

impl Pipeline {
    /// What a bundle says about this pipeline.
    pub fn canonical(&self) -> Canonical {
        let step = |node| {
            let inputs = self.inputs(node).into_iter().map(|(link, producer)| Input {
                port: link.port.clone(),
                step: self.graph[producer].name.clone(),
                output: link.output.clone(),
            });
            let step = &self.graph[node];
            CanonicalStep { name: step.name.clone(), op: canonical_op(&step.op), inputs: inputs.collect() }
        };
        // Nodes are numbered by name.
        Canonical { name: self.name.clone(), steps: self.graph.node_indices().map(step).collect() }
    }
}

fn canonical_op(op: &Op) -> CanonicalOp {
    match op {
        Op::Fetch(fetch) => {
            let file = |file: &crate::recipe::op::FetchFile| CanonicalFile {
                name: file.name.clone(),
                from: file
                    .from
                    .iter()
                    .filter(|s| !matches!(s, Source::File(_)))
                    .map(Source::to_string)
                    .collect(),
                expect: file.expect,
            };
            CanonicalOp::Fetch { files: fetch.files.iter().map(file).collect() }
        }
        Op::File(_) => CanonicalOp::File,
        Op::Tokenize(tokenize) => CanonicalOp::Tokenize(tokenize.clone()),
        Op::Pack(pack) => CanonicalOp::Pack(*pack),
        Op::Infer(infer) => CanonicalOp::Infer(infer.clone()),
        Op::Score(score) => CanonicalOp::Score(score.clone()),
        Op::Introspect(introspect) => CanonicalOp::Introspect(introspect.clone()),
        Op::Checksum(checksum) => CanonicalOp::Checksum(checksum.clone()),
    }
}
