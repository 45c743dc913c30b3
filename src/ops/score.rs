//! The `score` op: what an inference left, against references, as `scores.json`.

mod confidence;
mod inside;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::corpus::{self, Reference};
use super::{ANSWERS, Answers, Done, OpError, Progress, Tokens, World, json};
use crate::key::Inputs;
use crate::recipe::op::Score as Op;
use crate::score::mean_value;
use crate::score::{Content, Document, Metrics, PromptScores, Score, Scores, Three, fitness, fitness_of_all};

/// The artifact with the scores; JSON of [`Scores`].
pub const SCORES: &str = "scores.json";

/// What is read of `log_likelihood.json`.
#[derive(Deserialize)]
struct Likelihoods {
    prompts: Vec<Likelihood>,
}

#[derive(Deserialize)]
struct Likelihood {
    log_likelihood: Vec<f64>,
}

pub fn run(
    op: &Op,
    inputs: &Inputs,
    world: &World<'_>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Done, OpError> {
    let answers: Answers = json::read(ANSWERS, &world.open_one(inputs, "answers")?)?;
    let tokens: Tokens = json::read("tokens.json", &world.open_one(inputs, "tokens")?)?;
    let likelihoods = match inputs.contains_key("likelihood") {
        true => Some(json::read::<Likelihoods>("log-likelihoods", &world.open_one(inputs, "likelihood")?)?),
        false => None,
    };
    let references = match inputs.contains_key("references") {
        true => corpus::references(&world.open_one(inputs, "references")?)?,
        false => vec![],
    };
    let of_prompts = tokens.prompts.len();
    if answers.answers.len() != of_prompts
        || likelihoods.as_ref().is_some_and(|all| all.prompts.len() != of_prompts)
    {
        return Err(OpError::input(ANSWERS, "it is not of the same prompts as the tokens"));
    }
    let inside = inside::Inside::read(inputs, of_prompts, world)?;
    let confidence = match inputs.contains_key("packed") {
        true => confidence::measure(&answers, &tokens, inputs, world, progress)?,
        false => vec![None; of_prompts],
    };

    let what = What { op, answers: &answers, tokens: &tokens, likelihoods, references, confidence };
    let documents = what.documents()?;
    let mut metrics = Metrics::default();
    let mut prompts = Vec::with_capacity(documents.len());
    for document in &documents {
        let (fitness, measured) = fitness(document, op.matching);
        metrics.add(&measured);
        let (beauty, relevance) = inside.of(&document.prompts);
        let scores = Three { fitness, beauty, relevance };
        prompts.push(PromptScores { id: document.id.to_owned(), scores });
    }
    let each: Vec<&Score> = prompts.iter().map(|p| &p.scores.fitness).collect();
    let scores = Three {
        fitness: fitness_of_all(&each, &metrics, op.bootstrap),
        beauty: mean_of(prompts.iter().map(|p| &p.scores.beauty)),
        relevance: mean_of(prompts.iter().map(|p| &p.scores.relevance)),
    };
    let scores = Scores { of: op.of.clone(), spec: answers.spec.clone(), scores, prompts };
    let output = world.put(SCORES, json::MEDIA_TYPE, &json::write(&scores))?;
    let log = format!("{} documents, {} references\n", scores.prompts.len(), what.references.len());
    Ok(Done { outputs: vec![output], log, ..Done::default() })
}

/// The mean over the prompts that have the score; the reason of the first, if none has.
fn mean_of<'a>(each: impl Iterator<Item = &'a Score> + Clone) -> Score {
    let value = mean_value(each.clone());
    let reason = match value {
        Some(_) => None,
        None => each.clone().find_map(|score| score.reason.clone()),
    };
    let scored = each.clone().filter(|score| score.value.is_some()).count();
    let count = serde_json::json!({ "all": each.count(), "scored": scored });
    Score { value, parts: BTreeMap::from([("documents".to_owned(), count)]), reason }
}

struct What<'a> {
    op: &'a Op,
    answers: &'a Answers,
    tokens: &'a Tokens,
    likelihoods: Option<Likelihoods>,
    references: Vec<Reference>,
    /// Of each prompt; None for those without an answer.
    confidence: Vec<Option<Value>>,
}

impl What<'_> {
    /// The prompts as documents: choices of one line together, in the order of the prompts.
    fn documents(&self) -> Result<Vec<Document<'_>>, OpError> {
        let by_id: BTreeMap<&str, &Reference> = self.references.iter().map(|r| (r.id.as_str(), r)).collect();
        let mut documents: Vec<Document<'_>> = Vec::new();
        let mut used = 0;
        for (i, prompt) in self.tokens.prompts.iter().enumerate() {
            let Some(continuation) = &prompt.continuation else {
                let reference = by_id.get(prompt.id.as_str());
                used += usize::from(reference.is_some());
                let expected = reference.and_then(|r| r.expected.as_deref());
                let content = Content::Answer {
                    text: &self.answers.answers[i].text,
                    expected: expected.or(self.op.expected.as_deref()),
                    confidence: self.confidence[i].clone(),
                };
                documents.push(Document { id: &prompt.id, prompts: vec![i], content });
                continue;
            };
            let ll = self.log_likelihood(i, continuation.from)?;
            let text = continuation.text.as_str();
            match (continuation.choice, documents.last_mut()) {
                (None, _) => {
                    let content = Content::Rolling { text, log_likelihood: ll };
                    documents.push(Document { id: &prompt.id, prompts: vec![i], content });
                }
                (Some(1..), Some(Document { prompts, content, .. })) => {
                    if let Content::Choices { choices, log_likelihoods, .. } = content {
                        choices.push(text);
                        log_likelihoods.push(ll);
                        prompts.push(i);
                    }
                }
                (Some(_), _) => {
                    let reference = by_id.get(continuation.of.as_str());
                    used += usize::from(reference.is_some());
                    let answer = reference.and_then(|r| r.answer);
                    let content = Content::Choices { choices: vec![text], log_likelihoods: vec![ll], answer };
                    documents.push(Document { id: &continuation.of, prompts: vec![i], content });
                }
            }
        }
        self.check(&documents, used)?;
        Ok(documents)
    }

    /// A reference that no prompt uses, or that points beyond the choices, is a mistake and not a score.
    fn check(&self, documents: &[Document<'_>], used: usize) -> Result<(), OpError> {
        if used != self.references.len() {
            let ids: Vec<&str> = documents.iter().map(|d| d.id).collect();
            let stray = self.references.iter().find(|r| !ids.contains(&r.id.as_str()));
            let what = match stray {
                Some(stray) => format!("no prompt has the id `{}`", stray.id),
                None => "two prompts have one id".into(),
            };
            return Err(OpError::input("references", what));
        }
        for document in documents {
            if let Content::Choices { choices, answer: Some(answer), .. } = &document.content
                && *answer >= choices.len()
            {
                let what = format!("`{}`: answer {answer} of {} choices", document.id, choices.len());
                return Err(OpError::input("references", what));
            }
        }
        Ok(())
    }

    /// The sum over a continuation's tokens, in order.
    fn log_likelihood(&self, prompt: usize, from: usize) -> Result<f64, OpError> {
        let Some(all) = &self.likelihoods else {
            let id = &self.tokens.prompts[prompt].id;
            let why = "its likelihood is asked for; write log_likelihood = true in the infer step";
            return Err(OpError::input(format!("prompt {id}"), why));
        };
        // The first token has no likelihood.
        let tokens = from.checked_sub(1).and_then(|from| all.prompts[prompt].log_likelihood.get(from..));
        let tokens = tokens.ok_or_else(|| OpError::input("log-likelihoods", "fewer than tokens"))?;
        Ok(tokens.iter().fold(0.0, |sum, x| sum + x))
    }
}
