//! Beauty and relevance, as an `introspect` step found them: passed on, prompt by prompt.

use serde::Deserialize;
use serde_json::Value;

use crate::key::Inputs;
use crate::ops::{OpError, World, json};
use crate::score::{Parts, Score, mean_value};

/// What is read of `introspection.json`.
#[derive(Deserialize)]
struct Introspection {
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    beauty: Option<Found>,
    relevance: Option<Found>,
}

/// A score, with whatever parts it has.
#[derive(Clone, Deserialize)]
struct Found {
    value: Option<f64>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(flatten)]
    parts: Parts,
}

pub struct Inside(Option<Introspection>);

impl Inside {
    pub fn read(inputs: &Inputs, prompts: usize, world: &World<'_>) -> Result<Self, OpError> {
        if !inputs.contains_key("introspection") {
            return Ok(Inside(None));
        }
        let found: Introspection = json::read("introspection", &world.open_one(inputs, "introspection")?)?;
        if found.prompts.len() != prompts {
            let what = format!("{} prompts, the answers are of {prompts}", found.prompts.len());
            return Err(OpError::input("introspection", what));
        }
        Ok(Inside(Some(found)))
    }

    /// Beauty and relevance of the prompts that are one document: of one, as it is; of several, the mean.
    pub fn of(&self, prompts: &[usize]) -> (Score, Score) {
        let Some(all) = &self.0 else {
            let none = || Score::none("no introspect step is named as `introspection`");
            return (none(), none());
        };
        let one = |of: &dyn Fn(&Prompt) -> &Option<Found>| {
            let scores: Vec<Score> = prompts.iter().map(|&i| score(of(&all.prompts[i]))).collect();
            match <[Score; 1]>::try_from(scores) {
                Ok([alone]) => alone,
                Err(several) => {
                    let reason = several.iter().find_map(|score| score.reason.clone());
                    Score { value: mean_value(&several), parts: Parts::new(), reason }
                }
            }
        };
        (one(&|p| &p.beauty), one(&|p| &p.relevance))
    }
}

fn score(found: &Option<Found>) -> Score {
    let Some(found) = found.clone() else { return Score::none("the introspection has none") };
    let parts = found.parts.into_iter().map(|(name, value)| (name, sorted(value))).collect();
    Score { value: found.value, parts, reason: found.reason }
}

/// With the keys of every object in order, so that the bytes do not depend on how a library keeps them.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut fields: Vec<(String, Value)> = map.into_iter().collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            fields.into_iter().map(|(name, value)| (name, sorted(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        leaf => leaf,
    }
}
