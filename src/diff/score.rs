//! Scores of two results, with their change. Reads `scores.json`, whoever made it.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use super::{DiffError, Side};

/// The output that holds scores.
pub const SCORES: &str = "scores.json";

/// One score on both sides. A value is None where the score is, or is said to be, not there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScoreChange {
    pub step: String,
    /// None: of the whole.
    pub prompt: Option<String>,
    pub name: String,
    pub a: Option<f64>,
    pub b: Option<f64>,
    /// B minus A; None unless both have a value.
    pub change: Option<f64>,
}

/// The scores of a step that changed, those of the whole first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scores {
    pub changed: Vec<ScoreChange>,
    /// Parts of scores that changed are told as plain fields.
    pub same: usize,
}

/// Every score of the whole, of every step that has some on both sides.
pub fn whole(a: &Side, b: &Side) -> Result<Vec<ScoreChange>, DiffError> {
    let mut all = Vec::new();
    for step in a.steps.keys().filter(|step| b.steps.contains_key(*step)) {
        let digests = [a.outputs(step).get(SCORES).copied(), b.outputs(step).get(SCORES).copied()];
        let [Some(x), Some(y)] = digests else { continue };
        let (Some(x_bytes), Some(y_bytes)) = (a.open(&x)?, b.open(&y)?) else { continue };
        let read = |bytes: &[u8], side: &Side| {
            serde_json::from_slice::<Value>(bytes).map_err(|e| DiffError::Unreadable {
                step: step.clone(),
                output: SCORES.into(),
                side: side.name.clone(),
                message: e.to_string(),
            })
        };
        all.extend(pairs(step, None, &read(&x_bytes, a)?["scores"], &read(&y_bytes, b)?["scores"]));
    }
    Ok(all)
}

/// The changed ones of two `scores.json`.
pub fn changed(step: &str, a: &Value, b: &Value) -> Scores {
    let mut all = pairs(step, None, &a["scores"], &b["scores"]);
    let prompts = |value: &Value| value["prompts"].as_array().cloned().unwrap_or_default();
    let id = |prompt: &Value| match &prompt["id"] {
        Value::String(id) => id.clone(),
        other => other.to_string(),
    };
    let others = prompts(b);
    for prompt in prompts(a) {
        let name = id(&prompt);
        let other = others.iter().find(|other| id(other) == name);
        let scores = other.map_or(&Value::Null, |other| &other["scores"]);
        all.extend(pairs(step, Some(&name), &prompt["scores"], scores));
    }
    let (changed, same): (Vec<_>, Vec<_>) = all.into_iter().partition(|score| score.a != score.b);
    Scores { changed, same: same.len() }
}

fn pairs(step: &str, prompt: Option<&str>, a: &Value, b: &Value) -> Vec<ScoreChange> {
    let names = |value: &Value| value.as_object().into_iter().flat_map(|o| o.keys().cloned()).collect();
    let names: BTreeSet<String> = [names(a), names(b)].into_iter().flat_map(|n: Vec<String>| n).collect();
    let one = |name: String| {
        let (a, b) = (a[&name]["value"].as_f64(), b[&name]["value"].as_f64());
        let change = a.zip(b).map(|(a, b)| b - a);
        ScoreChange { step: step.to_owned(), prompt: prompt.map(str::to_owned), name, a, b, change }
    };
    names.into_iter().map(one).collect()
}
