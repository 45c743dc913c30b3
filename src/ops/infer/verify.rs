//! The check of a recorded `infer` step: everything it left, derived again from the weights, the prompts and its
//! tokens, in one pass.

use std::collections::{BTreeMap, BTreeSet};

use pipe_kernels::PackedModel;
use pipe_store::{Artifact, Digest, Object};
use safetensors::{Dtype, SafeTensors};

use super::generate::Generated;
use super::stop::Ending;
use super::{ANSWERS, Answers, LIKELIHOOD, LIKELIHOOD_JSON, LOGITS, LOGITS_JSON, PROBES, TRACE};
use crate::key::Inputs;
use crate::model::Model;
use crate::ops::{OpError, Progress, Tokens, Unit, World, json};
use crate::probe::{self, Mismatch};
use crate::recipe::op::Infer;
use crate::trace::Trace;
use crate::trace::verify::{self, Check, Claim, Difference, Verified, VerifyError, What};

/// What a step is recorded to have left, by name.
pub type Outputs = BTreeMap<String, Artifact>;

/// The artifacts of a step, read.
struct Left {
    answers: Object,
    trace: Object,
    logits: Option<Object>,
    likelihood: Option<Object>,
    probes: Option<Object>,
}

/// Which prompts are computed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    All,
    /// So many, drawn by a seed.
    Of {
        count: usize,
        seed: Digest,
    },
}

impl Sample {
    /// Of so many prompts those with the smallest digests of seed and number.
    fn draw(&self, prompts: usize) -> BTreeSet<usize> {
        match self {
            Sample::All => (0..prompts).collect(),
            Sample::Of { count, seed } => {
                let rank =
                    |prompt: &usize| Digest::of(&[&seed.0[..], &(*prompt as u64).to_le_bytes()].concat());
                let mut ranked: Vec<usize> = (0..prompts).collect();
                ranked.sort_by_key(rank);
                ranked.into_iter().take(*count).collect()
            }
        }
    }
}

/// Checks what an `infer` step left. Of prompts that are not in the sample nothing is computed: what follows from
/// their tokens and numbers is checked, these are not. Whatever is not as the model says is a difference; an error is what kept the
/// check from being made.
pub fn verify(
    op: &Infer,
    inputs: &Inputs,
    outputs: &Outputs,
    sample: &Sample,
    world: &World<'_>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Verified, OpError> {
    let tokens: Tokens = json::read("tokens.json", &world.open_one(inputs, "tokens")?)?;
    let packed = world.open_one(inputs, "packed")?;
    let packed = PackedModel::open(&packed, op.spec)?;
    let model = world.open_model(inputs)?;
    let left = Left {
        answers: open(ANSWERS, outputs, world)?,
        trace: open(TRACE, outputs, world)?,
        logits: op.logits.then(|| open(LOGITS, outputs, world)).transpose()?,
        likelihood: op.log_likelihood.then(|| open(LIKELIHOOD, outputs, world)).transpose()?,
        probes: (!op.probes.is_empty()).then(|| open(PROBES, outputs, world)).transpose()?,
    };
    let chosen = sample.draw(tokens.prompts.len());
    let step = Step { op, tokens: &tokens, packed: &packed, model: &model, outputs, chosen: &chosen, world };
    match step.check(&left, progress)? {
        Ok(verified) => Ok(verified),
        Err(unreadable) => Ok(Verified {
            prompts: chosen.len(),
            differences: vec![of_step(&tokens, unreadable)],
            ..Verified::default()
        }),
    }
}

fn open(name: &'static str, outputs: &Outputs, world: &World<'_>) -> Result<Object, OpError> {
    let artifact = outputs.get(name).ok_or_else(|| OpError::input(name, "the step has no such output"))?;
    Ok(world.store.get(&artifact.digest)?)
}

/// A difference that belongs to no position.
fn of_step(tokens: &Tokens, what: What) -> Difference {
    let id = tokens.prompts.first().map_or_else(String::new, |prompt| prompt.id.clone());
    Difference { prompt: 0, id, position: 0, token: None, what }
}

struct Step<'a> {
    op: &'a Infer,
    tokens: &'a Tokens,
    packed: &'a PackedModel<'a>,
    model: &'a Model,
    outputs: &'a Outputs,
    /// The prompts that are computed again.
    chosen: &'a BTreeSet<usize>,
    world: &'a World<'a>,
}

impl Step<'_> {
    /// The inner error is an artifact that does not say what it should.
    fn check(
        &self,
        left: &Left,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Result<Verified, What>, OpError> {
        let artifact = |name: &'static str, expected: &str, found: String| {
            Ok(Err(What::Artifact { name, expected: expected.to_owned(), found }))
        };
        let unreadable = |name, e: String| artifact(name, "a readable file", e);
        let answers: Answers = match serde_json::from_slice(&left.answers) {
            Ok(answers) => answers,
            Err(e) => return unreadable(ANSWERS, e.to_string()),
        };
        let trace = match Trace::open(&left.trace) {
            Ok(trace) => trace,
            Err(e) => return unreadable(TRACE, e.to_string()),
        };
        let prompts = self.tokens.prompts.len();
        if answers.answers.len() != prompts {
            return artifact(ANSWERS, &format!("{prompts} answers"), answers.answers.len().to_string());
        }
        if trace.level != self.op.trace {
            return artifact(TRACE, self.op.trace.name(), trace.level.name().into());
        }
        let logits = match left.logits.as_ref().map(|file| rows(file, "logits", prompts)).transpose() {
            Ok(rows) => rows,
            Err(e) => return unreadable(LOGITS, e),
        };
        let likelihood = match left.likelihood.as_ref().map(|file| each(file, prompts)).transpose() {
            Ok(rows) => rows,
            Err(e) => return unreadable(LIKELIHOOD, e),
        };

        let detokenizer = self.model.detokenizer()?;
        let ending = Ending::new(self.op, self.model, &detokenizer);
        let both = || self.tokens.prompts.iter().zip(&answers.answers);
        let ends: Vec<_> = both().map(|(p, answer)| ending.of(p.tokens.len(), &answer.tokens)).collect();
        let claims: Vec<Claim<'_>> = both()
            .enumerate()
            .map(|(i, (prompt, answer))| Claim {
                id: &prompt.id,
                prompt: &prompt.tokens,
                generated: &answer.tokens,
                computed: super::computed(prompt.tokens.len(), answer.tokens.len(), ends[i].map(|e| e.1)),
                root: answer.trace,
                logits: logits.as_ref().map(|rows| rows[i]),
                log_likelihood: likelihood.as_ref().map(|rows| rows[i]),
            })
            .collect();
        let tell = |done, total| {
            progress(Progress { done: done as u64, total: Some(total as u64), unit: Unit::Tokens });
        };
        let check = Check {
            engine: self.world.device.engine()?,
            model: self.packed,
            sampler: &self.op.sampler,
            trace: &trace,
            progress: &tell,
        };
        let mut probes = super::probes(self.op, self.tokens, self.packed, self.world)?;
        let verified =
            verify::verify_probed(&check, &claims, &|prompt| self.chosen.contains(&prompt), &mut probes);
        let mut verified = verified.map_err(|e| match e {
            VerifyError::Store(e) => OpError::from(e),
            VerifyError::Compute(e) => OpError::from(e),
            VerifyError::Sampler(e) => OpError::input("sampler", e),
        })?;
        self.endings(&claims, &ends, &mut verified);
        if verified.differences.is_empty() {
            let made: Vec<Generated> =
                claims.iter().zip(&ends).map(|(claim, end)| again(claim, *end)).collect();
            verified.differences.extend(self.files(&answers, &claims, &made, left)?);
        }
        if let (Some(found), []) = (&left.probes, &verified.differences[..]) {
            verified.differences.extend(self.probes(probes, found, &claims)?);
        }
        Ok(Ok(verified))
    }

    /// What the probes took, which follows when nothing else differs.
    fn probes(
        &self,
        probes: probe::Collector,
        found: &Object,
        claims: &[Claim<'_>],
    ) -> Result<Option<Difference>, OpError> {
        let spec = self.op.spec.id();
        let mismatch = match self.chosen.len() == claims.len() {
            true => probes.compare(found, spec),
            false => probes.compare_some(found, self.chosen),
        };
        let mismatch = mismatch.map_err(|e| OpError::input(PROBES, e))?;
        Ok(mismatch.map(|mismatch| match mismatch {
            Mismatch::File { at, expected, found } => {
                let found = format!("{found} bytes, others from {at} on");
                of_step(
                    self.tokens,
                    What::Artifact { name: PROBES, expected: format!("{expected} bytes"), found },
                )
            }
            Mismatch::Value { prompt, tensor, position, element, expected, found } => {
                let position = position.unwrap_or(0);
                let what = What::Probe { tensor, element, expected, found };
                let (id, token) = (claims[prompt].id.to_owned(), claims[prompt].token(position));
                Difference { prompt, id, position, token, what }
            }
        }))
    }

    /// Answers that go on after their end, or end before it: differences at that position, unless the prompt has
    /// one before.
    fn endings(
        &self,
        claims: &[Claim<'_>],
        ends: &[Option<(usize, super::StoppedBy)>],
        verified: &mut Verified,
    ) {
        for (prompt, (claim, end)) in claims.iter().zip(ends).enumerate() {
            let length = claim.generated.len();
            let count = end.map_or(length, |(count, _)| count);
            let position = claim.prompt.len() + count;
            let earlier = |d: &Difference| d.prompt == prompt && d.position <= position;
            if end.is_some_and(|(count, _)| count == length) || verified.differences.iter().any(earlier) {
                continue;
            }
            let expected = match end {
                Some((count, reason)) => format!("{count} tokens ({})", reason.name()),
                None => format!("more than {length} tokens"),
            };
            let what = What::Answer { field: "end", expected, found: format!("{length} tokens") };
            let (id, token) = (claim.id.to_owned(), claim.generated.get(count).copied());
            verified.differences.retain(|d| d.prompt != prompt);
            verified.differences.push(Difference { prompt, id, position, token, what });
        }
        verified.differences.sort_by_key(|d| d.prompt);
    }

    /// All numbers are right: the rest of each file follows from them, byte for byte.
    fn files(
        &self,
        found: &Answers,
        claims: &[Claim<'_>],
        made: &[Generated],
        left: &Left,
    ) -> Result<Option<Difference>, OpError> {
        let roots = claims.iter().map(|claim| claim.root).collect();
        let expected = super::answers(self.op, self.tokens, made, roots, self.model)?;
        for (prompt, (expected, found)) in expected.answers.iter().zip(&found.answers).enumerate() {
            for (field, expected, found) in [
                ("id", &expected.id, &found.id),
                ("text", &expected.text, &found.text),
                ("prompt_tokens", &expected.prompt_tokens.to_string(), &found.prompt_tokens.to_string()),
                ("stopped_by", &expected.stopped_by.name().into(), &found.stopped_by.name().into()),
            ] {
                if expected != found {
                    let (expected, found) = (expected.clone(), found.clone());
                    let what = What::Answer { field, expected, found };
                    let id = claims[prompt].id.to_owned();
                    return Ok(Some(Difference { prompt, id, position: 0, token: None, what }));
                }
            }
        }
        let mut files = vec![(ANSWERS, json::write(&expected), left.answers.to_vec())];
        if let Some(object) = &left.logits {
            files.push((LOGITS, super::logits(made), object.to_vec()));
            let text = open(LOGITS_JSON, self.outputs, self.world)?;
            files.push((LOGITS_JSON, super::logits_json(&self.tokens.prompts, made), text.to_vec()));
        }
        if let Some(object) = &left.likelihood {
            let (text, tensors) = super::likelihood::artifacts(&self.tokens.prompts, made);
            files.push((LIKELIHOOD, tensors, object.to_vec()));
            let found = open(LIKELIHOOD_JSON, self.outputs, self.world)?;
            files.push((LIKELIHOOD_JSON, json::write(&text), found.to_vec()));
        }
        let different = files.into_iter().find(|(_, expected, found)| expected != found);
        Ok(different.map(|(name, expected, found)| {
            let at = expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
            let (expected, found) =
                (format!("{} bytes", expected.len()), format!("other bytes from {at} on"));
            let what = What::Artifact { name, expected, found };
            of_step(self.tokens, what)
        }))
    }
}

/// What a prompt was found to have given.
fn again(claim: &Claim<'_>, end: Option<(usize, super::StoppedBy)>) -> Generated {
    let floats = claim.logits.unwrap_or_default().as_chunks().0.iter();
    let doubles = claim.log_likelihood.unwrap_or_default().as_chunks().0.iter();
    Generated {
        tokens: claim.generated.to_vec(),
        stopped_by: end.map_or(super::StoppedBy::MaxTokens, |(_, reason)| reason),
        logits: floats.map(|word| f32::from_le_bytes(*word)).collect(),
        log_likelihood: doubles.map(|word| f64::from_le_bytes(*word)).collect(),
    }
}

/// The rows of a tensor with one for each prompt.
fn rows<'a>(file: &'a Object, name: &str, prompts: usize) -> Result<Vec<&'a [u8]>, String> {
    let tensors = SafeTensors::deserialize(file).map_err(|e| e.to_string())?;
    let tensor = tensors.tensor(name).map_err(|e| e.to_string())?;
    match (tensor.dtype(), tensor.shape()) {
        (Dtype::F32, [n, width]) if *n == prompts && *width > 0 => {
            Ok(tensor.data().chunks_exact(width * 4).collect())
        }
        (dtype, shape) => Err(format!("`{name}` is {dtype:?} {shape:?}, not F32 [{prompts}, vocabulary]")),
    }
}

/// One tensor for each prompt, named by its number.
fn each(file: &Object, prompts: usize) -> Result<Vec<&[u8]>, String> {
    let tensors = SafeTensors::deserialize(file).map_err(|e| e.to_string())?;
    let one = |i: usize| {
        let tensor = tensors.tensor(&i.to_string()).map_err(|e| e.to_string())?;
        match tensor.dtype() {
            Dtype::F64 => Ok(tensor.data()),
            dtype => Err(format!("`{i}` is {dtype:?}, not F64")),
        }
    };
    (0..prompts).map(one).collect()
}
