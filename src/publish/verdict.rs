//! A bundle beside a run that derived it again: a verdict for every step. Reads stores, runs nothing.

use std::collections::BTreeMap;

use cid::Cid;
use pipe_store::{Digest, Output, Store};
use serde::Serialize;

use super::compare::{Place, first_difference};
use crate::bundle::{Bundle, SealedStep};
use crate::pipeline::Pipeline;
use crate::run::{Outcome, Run, StepRun};

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    Identical,
    Differs {
        /// The output; `key` where only the step's key is another.
        output: String,
        expected: String,
        found: String,
        /// None where the bytes of the bundle's output are not at hand.
        place: Option<Place>,
    },
    CouldNotRun {
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepVerdict {
    pub step: String,
    pub op: String,
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// A verdict for every step of the bundle, in the order they run. `theirs` may hold the bundle's outputs, `ours` holds
/// those of the run.
pub fn verdicts(
    bundle: &Bundle,
    pipeline: &Pipeline,
    run: &Run,
    theirs: &Store,
    ours: &Store,
) -> Vec<StepVerdict> {
    let mut differed = false;
    let mut verdicts = Vec::with_capacity(run.steps.len());
    for step in &run.steps {
        let op = pipeline.graph[step.node].op.name().to_owned();
        let sealed = bundle.steps.get(&step.name);
        let verdict = sealed.map_or_else(
            || Verdict::CouldNotRun { why: "the bundle has no result of it".into() },
            |sealed| verdict(sealed, step, theirs, ours, differed),
        );
        differed |= verdict != Verdict::Identical;
        verdicts.push(StepVerdict { step: step.name.clone(), op, verdict });
    }
    let known = |name: &String| run.steps.iter().any(|step| step.name == *name);
    for (step, sealed) in bundle.steps.iter().filter(|(name, _)| !known(name)) {
        let why = "the bundle's pipeline has no such step".to_owned();
        verdicts.push(StepVerdict {
            step: step.clone(),
            op: sealed.op.clone(),
            verdict: Verdict::CouldNotRun { why },
        });
    }
    verdicts
}

fn verdict(sealed: &SealedStep, step: &StepRun, theirs: &Store, ours: &Store, differed: bool) -> Verdict {
    match &step.outcome {
        Outcome::Failed(e) => return Verdict::CouldNotRun { why: e.to_string() },
        Outcome::Skipped { because } => return Verdict::CouldNotRun { why: because.clone() },
        Outcome::Hit | Outcome::Ran | Outcome::Disagreed => {}
    }
    let made: BTreeMap<&str, &Output> = step.outputs.iter().map(|o| (o.name.as_str(), o)).collect();
    let mut names: Vec<&str> =
        sealed.outputs.keys().map(String::as_str).chain(made.keys().copied()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let expected = sealed.outputs.get(name).map(|o| o.digest);
        let found = made.get(name).map(|o| o.artifact.digest);
        if expected != found {
            let place = expected.zip(found).and_then(|(expected, found)| {
                let (expected, found) = (theirs.get(&expected).ok()?, ours.get(&found).ok()?);
                first_difference(name, &expected, &found)
            });
            return differs(name, expected, found, place);
        }
    }
    // After a difference other inputs make other keys.
    match step.key == Some(sealed.key) || differed {
        true => Verdict::Identical,
        false => differs("key", Some(sealed.key), step.key, None),
    }
}

fn differs(output: &str, expected: Option<Digest>, found: Option<Digest>, place: Option<Place>) -> Verdict {
    let text = |digest: Option<Digest>| digest.map_or_else(|| "none".to_owned(), |d| d.to_string());
    Verdict::Differs { output: output.into(), expected: text(expected), found: text(found), place }
}

/// What was found, as an in-toto Statement with the predicate for the results of tests: one test a step.
pub fn in_toto(
    bundle_cid: &Cid,
    digest: &Digest,
    manifest: Option<&Cid>,
    verdicts: &[StepVerdict],
    whole: bool,
) -> serde_json::Value {
    let named = |same: bool| -> Vec<&str> {
        let some = verdicts.iter().filter(|v| (v.verdict == Verdict::Identical) == same);
        some.map(|v| v.step.as_str()).collect()
    };
    serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": bundle_cid.to_string(), "digest": { "blake3": digest.to_string() } }],
        "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
        "predicate": {
            "result": if whole { "PASSED" } else { "FAILED" },
            "configuration": manifest.iter().map(|cid| serde_json::json!({
                "name": "manifest", "uri": format!("ipfs://{cid}"),
            })).collect::<Vec<_>>(),
            "passedTests": named(true),
            "failedTests": named(false),
        },
    })
}
