//! What a report shows of a run, gathered from the store. What is not here becomes a remark, not a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pipe_store::{Digest, Store, StoreError};
use serde::de::DeserializeOwned;

use super::error::{CliError, Exit};
use super::show::Found;
use crate::bundle::{Bundle, car};
use crate::inside::Introspection;
use crate::ops::introspect::INTROSPECTION;
use crate::ops::{ANSWERS, Answers, SCORES, Tokens, checksum};
use crate::pipeline::{CanonicalOp, CanonicalStep};
use crate::report::{AnswerCard, ChecksumCard, Output, Report, RunCard, Step};
use crate::run::{RunBody, StepBody};
use crate::score::{Scores, Three};

/// Runs that are searched for what a step took when it was computed.
const SEARCHED: usize = 500;
/// Most ids that an error names.
const NAMED: usize = 20;

/// Which prompt of which infer step; by default one that was looked into, else the first.
pub fn report(
    found: &Found,
    step: Option<&str>,
    prompt: Option<&str>,
    store: &Store,
) -> Result<Report, CliError> {
    let mut gather = Gather { found, store, steps: Vec::new(), missing: Vec::new() };
    gather.steps = gather.steps()?;
    let of = |name: &str| -> Vec<String> {
        let with = |s: &&Step| s.outputs.iter().any(|o| o.name == name);
        gather.steps.iter().filter(with).map(|s| s.name.clone()).collect()
    };
    let (mut infers, introspects, scorers) = (of(ANSWERS), of(INTROSPECTION), of(SCORES));
    if let Some(wanted) = step {
        if !infers.iter().any(|name| name == wanted) {
            return Err(CliError::new(Exit::Usage, format!("no infer step `{wanted}` in this run"))
                .hint(named("there are", &infers)));
        }
        infers.retain(|name| name == wanted);
    }
    let looked_into: BTreeMap<String, String> =
        introspects.into_iter().filter_map(|name| Some((gather.about(&name, &infers)?, name))).collect();
    // What was looked into stands first, then what answered anything.
    infers.sort_by_key(|name| !looked_into.contains_key(name));
    let mut all: Vec<(String, Answers)> = Vec::new();
    for name in &infers {
        if let Some(answers) = gather.read::<Answers>(name, ANSWERS)? {
            all.push((name.clone(), answers));
        }
    }
    all.sort_by_key(|(name, a)| {
        (!looked_into.contains_key(name), a.answers.iter().all(|a| a.tokens.is_empty()))
    });
    let place = |id: &str| {
        let at = |(step, (_, answers)): (usize, &(String, Answers))| {
            answers.answers.iter().position(|a| a.id == id).map(|at| (step, at))
        };
        all.iter().enumerate().find_map(at)
    };
    let chosen = match prompt {
        Some(id) => Some(place(id).ok_or_else(|| {
            let ids: Vec<_> = all.iter().flat_map(|(_, a)| &a.answers).map(|a| a.id.clone()).collect();
            CliError::new(Exit::Usage, format!("no prompt `{id}` in this run")).hint(named("there are", &ids))
        })?),
        None => all.iter().position(|(_, answers)| !answers.answers.is_empty()).map(|step| (step, 0)),
    };

    let (bundle, run) = (found.bundle.as_ref(), found.run.as_ref());
    let pipeline = bundle.map(|b| b.pipeline.name.clone()).or(run.map(|(entry, _)| entry.pipeline.clone()));
    let mut report = Report {
        pipeline: pipeline.unwrap_or_default(),
        cid: found.cid.map(|cid| cid.to_string()),
        run: run.map(|(entry, body)| RunCard {
            id: entry.id.clone(),
            started_ms: entry.started_ms,
            wall_ms: body.wall_ms,
            ok: body.ok,
            // A page goes to others: the folder is nobody's business.
            recipe: body.recipe.as_deref().map(file_name),
            facts: body.facts.clone(),
        }),
        answer: None,
        others: Vec::new(),
        inside: None,
        scores: Vec::new(),
        scores_of_all: Vec::new(),
        checksum: None,
        versions: None,
        steps: Vec::new(),
        missing: Vec::new(),
    };
    if let Some((step, at)) = chosen {
        let (name, answers) = &all[step];
        let answer = answers.answers[at].clone();
        let id = answer.id.clone();
        report.others =
            answers.answers.iter().map(|a| &a.id).filter(|other| **other != id).cloned().collect();
        if let Some(inside) = looked_into.get(name)
            && let Some(mut found) = gather.read::<Introspection>(inside, INTROSPECTION)?
            && at < found.prompts.len()
        {
            report.inside = Some((inside.clone(), found.prompts.swap_remove(at)));
        }
        for scorer in &scorers {
            if let Some(scores) = gather.read::<Scores>(scorer, SCORES)?.filter(|s| s.of == *name) {
                if let Some(three) = of_prompt(&scores, &id) {
                    report.scores.push((scorer.clone(), three));
                }
                if scores.prompts.len() > 1 {
                    report.scores_of_all.push((scorer.clone(), scores.scores));
                }
            }
        }
        report.checksum = gather.checksum(name)?;
        let prompt = gather.prompt(name, &id)?;
        report.answer = Some(AnswerCard { step: name.clone(), spec: answers.spec.clone(), prompt, answer });
    }
    report.steps = gather.steps;
    report.missing = gather.missing;
    Ok(report)
}

/// Without the folder.
pub fn file_name(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned())
}

fn named(what: &str, ids: &[String]) -> String {
    let more = if ids.len() > NAMED { format!(" and {} more", ids.len() - NAMED) } else { String::new() };
    match ids.is_empty() {
        true => "there is none".into(),
        false => format!("{what} {}{more}", ids.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ")),
    }
}

/// Of a prompt; of the question that it is a choice of.
fn of_prompt(scores: &Scores, id: &str) -> Option<Three> {
    let question = id.rsplit_once('#').map_or(id, |(question, _)| question);
    let with = |id: &str| scores.prompts.iter().find(|p| p.id == id).map(|p| p.scores.clone());
    with(id).or_else(|| with(question))
}

struct Gather<'a> {
    found: &'a Found,
    store: &'a Store,
    steps: Vec<Step>,
    missing: Vec<String>,
}

impl Gather<'_> {
    /// An output as what it says; None, and a remark, if it is not here or is not what it should be.
    fn read<T: DeserializeOwned>(&mut self, step: &str, name: &str) -> Result<Option<T>, CliError> {
        let made = self.steps.iter().find(|s| s.name == step).into_iter().flat_map(|s| &s.outputs);
        let Some(digest) = made.into_iter().find(|o| o.name == name).map(|o| o.digest) else {
            return Ok(None);
        };
        let why = match self.store.get(&digest) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(value) => return Ok(Some(value)),
                Err(e) => format!("is not what this pipe expects ({e})"),
            },
            Err(StoreError::Missing { .. }) => "is not in this store".into(),
            Err(e) => return Err(e.into()),
        };
        self.missing.push(format!("{step}/{name} {why}; `pipe run --force {step}` makes it again"));
        Ok(None)
    }

    fn bundle(&self) -> Option<&Bundle> {
        self.found.bundle.as_ref()
    }

    /// The infer step that an introspect step is about.
    fn about(&self, introspect: &str, infers: &[String]) -> Option<String> {
        match self.bundle() {
            Some(bundle) => {
                let step = bundle.pipeline.steps.iter().find(|step| step.name == introspect)?;
                let input = step.inputs.iter().find(|input| input.port == "answer")?;
                infers.iter().find(|name| **name == input.step).cloned()
            }
            // A run that failed says less; with one infer step there is no question.
            None => <&[String; 1]>::try_from(infers).ok().map(|[one]| one.clone()),
        }
    }

    /// The prompt as the model got it.
    fn prompt(&mut self, infer: &str, id: &str) -> Result<Option<String>, CliError> {
        let step = self.bundle().and_then(|b| b.pipeline.steps.iter().find(|step| step.name == infer));
        let input = step.and_then(|step| step.inputs.iter().find(|input| input.port == "tokens"));
        let Some(tokenize) = input.map(|input| input.step.clone()) else { return Ok(None) };
        let tokens: Option<Tokens> = self.read(&tokenize, "tokens.json")?;
        let prompt = tokens.and_then(|tokens| tokens.prompts.into_iter().find(|p| p.id == id));
        Ok(prompt.and_then(|prompt| prompt.text))
    }

    fn checksum(&mut self, infer: &str) -> Result<Option<ChecksumCard>, CliError> {
        let is = |op: &CanonicalOp| matches!(op, CanonicalOp::Checksum(op) if op.of == infer);
        let step = self.bundle().and_then(|b| b.pipeline.steps.iter().find(|step| is(&step.op)));
        let Some(step) = step.map(|step| step.name.clone()) else { return Ok(None) };
        #[derive(serde::Deserialize)]
        struct Summary {
            checksum: Digest,
            leaves: u64,
            sound: Option<bool>,
        }
        let summary: Option<Summary> = self.read(&step, checksum::ANSWER)?;
        Ok(summary.map(|s| ChecksumCard { step, checksum: s.checksum, leaves: s.leaves, sound: s.sound }))
    }

    fn steps(&self) -> Result<Vec<Step>, CliError> {
        let run = self.found.run.as_ref();
        let body = run.map(|(_, body)| body);
        let told: BTreeMap<&str, &StepBody> =
            body.iter().flat_map(|body| &body.steps).map(|step| (step.name.as_str(), step)).collect();
        let Some(bundle) = self.bundle() else {
            return body.iter().flat_map(|body| &body.steps).map(|told| self.without_bundle(told)).collect();
        };
        let mut took = self.took(bundle, run.map(|(entry, _)| entry.started_ms))?;
        let asked: BTreeMap<&str, &CanonicalStep> =
            bundle.pipeline.steps.iter().map(|step| (step.name.as_str(), step)).collect();
        let mut steps = Vec::with_capacity(bundle.steps.len());
        for (name, sealed) in &bundle.steps {
            let told = told.get(name.as_str());
            let inputs = asked.get(name.as_str()).into_iter().flat_map(|step| &step.inputs);
            let mut inputs: Vec<String> = inputs.map(|input| input.step.clone()).collect();
            inputs.sort();
            inputs.dedup();
            let output = |(name, o): (&String, &crate::bundle::SealedOutput)| Output {
                name: name.clone(),
                digest: o.digest,
                length: o.length,
                cid: o.link.map(|_| car::cid_raw(&o.digest).to_string()),
            };
            steps.push(Step {
                name: name.clone(),
                op: sealed.op.clone(),
                outcome: body.map(|_| told.map_or("hit".to_owned(), |step| step.outcome.clone())),
                error: told.and_then(|step| step.error.clone()),
                wall_ms: told
                    .filter(|step| step.outcome == "ran")
                    .map(|step| step.wall_ms)
                    .or_else(|| took.remove(&sealed.key)),
                inputs,
                outputs: sealed.outputs.iter().map(output).collect(),
            });
        }
        Ok(steps)
    }

    fn without_bundle(&self, told: &StepBody) -> Result<Step, CliError> {
        let made = matches!(told.outcome.as_str(), "hit" | "ran");
        let record = match told.key.filter(|_| made) {
            Some(key) => self.store.record(&key)?,
            None => None,
        };
        let output = |o: pipe_store::Output| Output {
            name: o.name,
            digest: o.artifact.digest,
            length: o.artifact.length,
            cid: None,
        };
        Ok(Step {
            name: told.name.clone(),
            op: told.op.clone(),
            outcome: Some(told.outcome.clone()),
            error: told.error.clone(),
            wall_ms: (told.outcome == "ran").then_some(told.wall_ms),
            inputs: vec![],
            outputs: record.into_iter().flat_map(|record| record.outputs).map(output).collect(),
        })
    }

    /// What each step took when it last ran, up to a time, by its key.
    fn took(&self, bundle: &Bundle, until: Option<u64>) -> Result<BTreeMap<Digest, u64>, CliError> {
        let (mut took, keys) =
            (BTreeMap::new(), bundle.steps.values().map(|s| s.key).collect::<BTreeSet<_>>());
        for entry in self.store.runs(SEARCHED)? {
            if took.len() == keys.len() {
                break;
            }
            if until.is_some_and(|until| entry.started_ms > until) {
                continue;
            }
            let Ok(body) = serde_json::from_str::<RunBody>(&entry.body) else { continue };
            for step in body.steps.iter().filter(|step| step.outcome == "ran") {
                if let Some(key) = step.key.filter(|key| keys.contains(key)) {
                    took.entry(key).or_insert(step.wall_ms);
                }
            }
        }
        Ok(took)
    }
}
