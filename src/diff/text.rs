//! Texts of two results: the token at which they part, with what each model made of the place.

use pipe_store::Digest;
use serde::Serialize;

use super::{DiffError, Side};
use crate::ops::next::{self, Next};
use crate::ops::{Answer, Answers, Device, TokenizedPrompt, Tokens};
use crate::pipeline::CanonicalOp;
use crate::recipe::op::Infer;

/// For how many prompts the distributions are computed.
const LOOKED_INTO: usize = 4;

/// A token with its text, where the vocabulary is at hand.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Token {
    pub token: u32,
    pub text: Option<String>,
}

/// Two answers to one prompt.
#[derive(Clone, Debug, Serialize)]
pub struct AnswerDiff {
    pub id: String,
    /// The first generated token that is not the same, counted from 0. None: the tokens are the same.
    pub parts_at: Option<usize>,
    /// The same as a position of each transcript.
    pub positions: Option<[usize; 2]>,
    /// The tokens there; None where an answer had ended.
    pub tokens: [Option<Token>; 2],
    pub generated: [usize; 2],
    pub stopped_by: [&'static str; 2],
    pub texts: [String; 2],
    /// Is the inside the same, by the root of the trace?
    pub same_inside: bool,
    pub distributions: Option<Distributions>,
}

/// What each side's model gave there.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Distributions {
    Computed {
        a: Next,
        b: Next,
    },
    /// Why not.
    Not {
        not_computed: String,
    },
}

/// Two prompts, as tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PromptDiff {
    pub id: String,
    /// The first token that is not the same. None: the texts differ, and their tokens do not.
    pub parts_at: Option<usize>,
    pub tokens: [Option<u32>; 2],
    pub lengths: [usize; 2],
    pub texts: [Option<String>; 2],
}

/// Where two sequences part.
fn parting<T: PartialEq>(a: &[T], b: &[T]) -> Option<usize> {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    (same < a.len().max(b.len())).then_some(same)
}

/// Prompts of two `tokens.json`, and how many only one side has.
pub fn prompts(a: &[u8], b: &[u8]) -> Result<Vec<PromptDiff>, String> {
    let read = |bytes| serde_json::from_slice::<Tokens>(bytes).map_err(|e| e.to_string());
    let (a, b) = (read(a)?, read(b)?);
    let pair = |prompt: &TokenizedPrompt| {
        let other = b.prompts.iter().find(|other| other.id == prompt.id)?;
        let parts_at = parting(&prompt.tokens, &other.tokens);
        let differs = parts_at.is_some() || prompt.text != other.text;
        differs.then(|| PromptDiff {
            id: prompt.id.clone(),
            tokens: [&prompt.tokens, &other.tokens].map(|t| parts_at.and_then(|at| t.get(at).copied())),
            lengths: [prompt.tokens.len(), other.tokens.len()],
            texts: [prompt.text.clone(), other.text.clone()],
            parts_at,
        })
    };
    Ok(a.prompts.iter().filter_map(pair).collect())
}

/// Answers that differ; how many prompts only A and only B have.
type Answered = (Vec<AnswerDiff>, [usize; 2]);

/// Two `answers.json`. The inner error is a file that is none.
pub fn answers(
    step: &str,
    bytes: [&[u8]; 2],
    sides: [&Side; 2],
    device: &Device,
) -> Result<Result<Answered, String>, DiffError> {
    let read = |bytes| serde_json::from_slice::<Answers>(bytes).map_err(|e| e.to_string());
    let (a, b) = match (read(bytes[0]), read(bytes[1])) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(e), _) | (_, Err(e)) => return Ok(Err(e)),
    };
    let mut found: Vec<AnswerDiff> = Vec::new();
    let mut shared = 0;
    for answer in &a.answers {
        let Some(other) = b.answers.iter().find(|other| other.id == answer.id) else { continue };
        shared += 1;
        if answer == other {
            continue;
        }
        let looked = found.iter().filter(|f| f.distributions.is_some()).count();
        let look = looked < LOOKED_INTO;
        found.push(pair(step, [answer, other], sides, look, device)?);
    }
    Ok(Ok((found, [a.answers.len() - shared, b.answers.len() - shared])))
}

fn pair(
    step: &str,
    answers: [&Answer; 2],
    sides: [&Side; 2],
    look: bool,
    device: &Device,
) -> Result<AnswerDiff, DiffError> {
    let [a, b] = answers;
    let parts_at = parting(&a.tokens, &b.tokens);
    let at = |answer: &Answer| parts_at.and_then(|at| answer.tokens.get(at).copied());
    let tokens = [0, 1].map(|i| {
        let token = at(answers[i])?;
        Some(Token { token, text: word(step, sides[i], token, device) })
    });
    let asked: Vec<u32> = [at(a), at(b)].into_iter().flatten().collect();
    let distributions = match parts_at {
        None => None,
        Some(_) if !look => Some(Distributions::Not {
            not_computed: format!("only for the first {LOOKED_INTO} prompts that part"),
        }),
        Some(parts_at) => Some(distributions(step, answers, parts_at, &asked, sides, device)?),
    };
    Ok(AnswerDiff {
        id: a.id.clone(),
        parts_at,
        positions: parts_at.map(|at| answers.map(|answer| answer.prompt_tokens + at)),
        tokens,
        generated: answers.map(|answer| answer.tokens.len()),
        stopped_by: answers.map(|answer| answer.stopped_by.name()),
        texts: answers.map(|answer| answer.text.clone()),
        same_inside: a.trace == b.trace,
        distributions,
    })
}

/// The text of a token, if the vocabulary of the side's model is at hand.
fn word(step: &str, side: &Side, token: u32, device: &Device) -> Option<String> {
    let sealed = side.steps.get(step)?;
    let store = side.store_with(sealed.inputs.get("model")?.values())?;
    let words = next::vocabulary(&side.inputs(sealed), store, device).ok()?;
    words.decode_text(&[token], false).ok()
}

fn distributions(
    step: &str,
    answers: [&Answer; 2],
    parts_at: usize,
    asked: &[u32],
    sides: [&Side; 2],
    device: &Device,
) -> Result<Distributions, DiffError> {
    let not = |not_computed: String| Ok(Distributions::Not { not_computed });
    let mut computed = Vec::new();
    for (answer, side) in answers.into_iter().zip(sides) {
        let (Some(sealed), Some(op)) = (side.steps.get(step), infer(side, step)) else {
            return not(format!("{} has no infer step `{step}`", side.name));
        };
        let needed = || ["model", "packed", "tokens"].into_iter().filter_map(|port| sealed.inputs.get(port));
        let digests: Vec<&Digest> = needed().flat_map(|files| files.values()).collect();
        let Some(store) = side.store_with(digests.iter().copied()) else {
            let gone = digests.iter().find(|d| !side.stores.iter().any(|s| s.has(d).unwrap_or(false)));
            let gone = gone.map(|digest| made_by(side, digest)).unwrap_or_else(|| "an input".into());
            return not(format!("{gone} of {} is not in the store; run its recipe here first", side.name));
        };
        let tokens = sealed.inputs.get("tokens").and_then(|files| files.values().next());
        let bytes = tokens.map(|digest| side.open(digest)).transpose()?.flatten();
        let tokens: Option<Tokens> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let prompt = tokens.and_then(|tokens| tokens.prompts.into_iter().find(|p| p.id == answer.id));
        let Some(prompt) = prompt else { return not(format!("no prompt {} of {}", answer.id, side.name)) };
        let context = [&prompt.tokens, &answer.tokens[..parts_at]].concat();
        match next::next(op, &side.inputs(sealed), &context, asked, store, device) {
            Ok(next) => computed.push(next),
            Err(source) => {
                return Err(DiffError::Distribution { step: step.into(), source: Box::new(source) });
            }
        }
    }
    let b = computed.pop().expect("BUG: one for each side");
    let a = computed.pop().expect("BUG: one for each side");
    Ok(Distributions::Computed { a, b })
}

fn infer<'a>(side: &'a Side, step: &str) -> Option<&'a Infer> {
    side.pipeline.steps.iter().find(|s| s.name == step).and_then(|s| match &s.op {
        CanonicalOp::Infer(op) => Some(op),
        _ => None,
    })
}

/// `STEP/NAME` of the output with this digest.
fn made_by(side: &Side, digest: &Digest) -> String {
    let made = side.steps.iter().find_map(|(step, sealed)| {
        let (name, _) = sealed.outputs.iter().find(|(_, output)| output.digest == *digest)?;
        Some(format!("{step}/{name}"))
    });
    made.unwrap_or_else(|| digest.to_string())
}
