//! The identity of a step: one walk over what can change its outputs, two writers, the hash and the text.
//! Knows no time, host, thread count, device or implementation: none of them may enter.

use std::collections::BTreeMap;

use pipe_store::{Artifact, Digest};
use serde::Serialize;

use crate::recipe::op::{Expected, Op, Prompts};

/// What a step takes, by port and then by the producer's output name.
pub type Inputs = BTreeMap<String, BTreeMap<String, Artifact>>;

/// First field of every preimage. A change of the preimage's shape changes the version.
const DOMAIN: &str = "pipe/step-key";
const VERSION: u32 = 1;

/// Versions of what an op does. A change of an op's output for the same inputs changes its number.
fn op_version(op: &Op) -> u32 {
    match op {
        Op::Fetch(_) => 1,
        Op::File(_) => 1,
        Op::Tokenize(_) => 1,
        Op::Pack(_) => 2,
        Op::Infer(_) => 2,
        Op::Score(_) => 1,
        Op::Introspect(_) => 1,
        Op::Checksum(_) => 1,
    }
}

#[derive(Serialize)]
struct Preimage<'a> {
    domain: &'static str,
    version: u32,
    op: &'static str,
    op_version: u32,
    params: Params<'a>,
    inputs: BTreeMap<&'a str, BTreeMap<&'a str, Digest>>,
}

/// The parameters that can change outputs. Sources and paths cannot: the content decides.
#[derive(Serialize)]
#[serde(untagged)]
enum Params<'a> {
    Fetch { files: BTreeMap<&'a str, Expected> },
    File { files: &'a BTreeMap<String, Digest> },
    Tokenize { prompts: &'a Prompts },
    Pack(&'a crate::recipe::op::Pack),
    Infer(&'a crate::recipe::op::Infer),
    Score(&'a crate::recipe::op::Score),
    Introspect(&'a crate::recipe::op::Introspect),
    Checksum(&'a crate::recipe::op::Checksum),
}

/// The key of a step whose inputs are known. `local` holds the contents a `file` step names, and is empty
/// for every other op.
pub fn step_key(op: &Op, inputs: &Inputs, local: &BTreeMap<String, Digest>) -> Digest {
    let bytes =
        serde_ipld_dagcbor::to_vec(&preimage(op, inputs, local)).expect("BUG: a preimage is plain data");
    Digest::of(&bytes)
}

/// The text the same key is made from: a `path = value` line per field, sorted; what `explain` compares.
pub fn step_text(op: &Op, inputs: &Inputs, local: &BTreeMap<String, Digest>) -> String {
    text_of(&serde_json::to_value(preimage(op, inputs, local)).expect("BUG: a preimage is plain data"))
}

/// Any value as such a text.
pub fn text_of(value: &serde_json::Value) -> String {
    let mut text = String::new();
    flatten("", value, &mut text);
    text
}

/// The one walk; serde's two writers make the hash and the text of it.
fn preimage<'a>(op: &'a Op, inputs: &'a Inputs, local: &'a BTreeMap<String, Digest>) -> Preimage<'a> {
    let params = match op {
        Op::Fetch(fetch) => {
            Params::Fetch { files: fetch.files.iter().map(|f| (f.name.as_str(), f.expect)).collect() }
        }
        Op::File(_) => Params::File { files: local },
        Op::Tokenize(tokenize) => Params::Tokenize { prompts: &tokenize.prompts },
        Op::Pack(pack) => Params::Pack(pack),
        Op::Infer(infer) => Params::Infer(infer),
        Op::Score(score) => Params::Score(score),
        Op::Introspect(introspect) => Params::Introspect(introspect),
        Op::Checksum(checksum) => Params::Checksum(checksum),
    };
    let inputs = inputs
        .iter()
        .map(|(port, files)| {
            (port.as_str(), files.iter().map(|(name, a)| (name.as_str(), a.digest)).collect())
        })
        .collect();
    Preimage { domain: DOMAIN, version: VERSION, op: op.name(), op_version: op_version(op), params, inputs }
}

/// One line per leaf. serde_json may or may not keep field order, so objects are walked sorted.
fn flatten(path: &str, value: &serde_json::Value, out: &mut String) {
    use serde_json::Value;
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(map) if !map.is_empty() => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            sorted.into_iter().for_each(|(name, v)| flatten(&join(name), v, out));
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(i, v)| flatten(&join(&i.to_string()), v, out));
        }
        leaf => {
            out.push_str(path);
            out.push_str(" = ");
            out.push_str(&leaf.to_string());
            out.push('\n');
        }
    }
}

/// A line of a preimage that two keys do not share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub field: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// What differs between two preimage texts, by field.
pub fn changes(before: &str, after: &str) -> Vec<Change> {
    fn fields(text: &str) -> BTreeMap<&str, &str> {
        text.lines().filter_map(|line| line.split_once(" = ")).collect()
    }
    let (before, after) = (fields(before), fields(after));
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
    names
        .into_iter()
        .filter(|name| before.get(name) != after.get(name))
        .map(|name| Change {
            field: name.to_owned(),
            before: before.get(name).map(|v| v.to_string()),
            after: after.get(name).map(|v| v.to_string()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use pipe_kernels::{Sampler, Spec};

    use super::*;
    use crate::recipe::op::{Infer, Source};

    fn infer() -> Op {
        Op::Infer(Infer {
            spec: Spec::F32,
            weights: None,
            max_tokens: 64,
            sampler: Sampler::Greedy,
            stop_at_eos: true,
            stop: vec![],
            logits: false,
            log_likelihood: false,
            trace: crate::recipe::op::TraceLevel::Digests,
            probes: BTreeMap::new(),
        })
    }

    fn inputs() -> Inputs {
        let artifact =
            Artifact { digest: Digest::of(b"tokens"), length: 6, media_type: "application/json".into() };
        BTreeMap::from([("tokens".into(), BTreeMap::from([("tokens.json".into(), artifact)]))])
    }

    /// A golden key. If this changes, every stored result is orphaned: bump VERSION or the op's version with it.
    #[test]
    fn golden_key() {
        let none = BTreeMap::new();
        assert_eq!(
            step_text(&infer(), &inputs(), &none),
            "domain = \"pipe/step-key\"\n\
             inputs.tokens.tokens.json = \"181c2e9cfd8d68639a001ee001ca9d4e9deb14200daa251acf540fc17409b99d\"\n\
             op = \"infer\"\nop_version = 2\nparams.log_likelihood = false\nparams.logits = false\n\
             params.max_tokens = 64\nparams.sampler.kind = \"greedy\"\nparams.spec = \"f32@1\"\n\
             params.stop = []\nparams.stop_at_eos = true\nparams.trace = \"digests\"\nversion = 1\n"
        );
        assert_eq!(
            step_key(&infer(), &inputs(), &none).to_string(),
            "7dbb1051682b2cfc484127c873643cfa509e47eea2584dbabcd696cb32397728"
        );
    }

    #[test]
    fn sources_do_not_enter_a_key() {
        let fetch = |from| {
            Op::Fetch(crate::recipe::op::Fetch {
                files: vec![crate::recipe::op::FetchFile {
                    name: "file".into(),
                    from,
                    expect: Expected::Sha256([7; 32]),
                }],
            })
        };
        let none = BTreeMap::new();
        let one = step_key(&fetch(vec![Source::Http("http://one/x".into())]), &Inputs::new(), &none);
        let two = step_key(&fetch(vec![Source::File("x".into())]), &Inputs::new(), &none);
        assert_eq!(one, two);
    }

    #[test]
    fn explain_names_the_field() {
        let none = BTreeMap::new();
        let before = infer();
        let Op::Infer(mut op) = infer() else { unreachable!() };
        op.max_tokens = 65;
        let after = Op::Infer(op);
        assert_ne!(step_key(&before, &inputs(), &none), step_key(&after, &inputs(), &none));
        let change =
            Change { field: "params.max_tokens".into(), before: Some("64".into()), after: Some("65".into()) };
        let text = |op| step_text(op, &inputs(), &none);
        assert_eq!(changes(&text(&before), &text(&after)), [change]);
    }
}
