//! One digest of an inference and of everything known of its inside, and proofs that a part of it is what it was
//! made from. A Merkle tree over named leaves; docs/CHECKSUM.md has its exact form. Knows no store and no step.

mod tree;

pub use tree::{Proof, ProofError, Tree};

use std::collections::BTreeMap;

use pipe_store::Digest;
use serde_json::Value;

/// A named part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub path: String,
    pub value: Digest,
}

/// The leaves of a JSON document down to `depth`: objects by field, arrays by number. Each is the digest of its own
/// canonical text: no white space, the fields of objects in the order of their names.
pub fn json_leaves(path: &str, value: &Value, depth: usize, leaves: &mut Vec<Leaf>) {
    match value {
        Value::Object(fields) if depth > 0 && !fields.is_empty() => {
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            for (name, value) in sorted {
                json_leaves(&format!("{path}/{name}"), value, depth - 1, leaves);
            }
        }
        Value::Array(items) if depth > 0 && !items.is_empty() => {
            for (i, value) in items.iter().enumerate() {
                json_leaves(&format!("{path}/{i}"), value, depth - 1, leaves);
            }
        }
        value => leaves.push(Leaf { path: path.to_owned(), value: Digest::of(canonical(value).as_bytes()) }),
    }
}

/// JSON as text, one way for one value.
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            let fields: Vec<String> = sorted
                .into_iter()
                .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), canonical(value)))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(","))
        }
        leaf => leaf.to_string(),
    }
}

#[cfg(test)]
mod tests;
