//! Fitness of one document: an answer against references, a question with choices, or a text's likelihood.

use pipe_kernels::math::double;
use serde_json::{Value, json};

use super::text::{Matching, contains, exact_match};
use super::{Parts, Score};

/// What is scored as one: a prompt, or all choices of a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Document<'a> {
    pub id: &'a str,
    /// Prompts of the inference that belong to it, by their numbers.
    pub prompts: Vec<usize>,
    pub content: Content<'a>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Content<'a> {
    /// A generated text, and what it should be.
    Answer { text: &'a str, expected: Option<&'a [String]>, confidence: Option<Value> },
    /// Choices with the log-likelihood of each after the question; which is right.
    Choices { choices: Vec<&'a str>, log_likelihoods: Vec<f64>, answer: Option<usize> },
    /// A text with its log-likelihood from its first token on.
    Rolling { text: &'a str, log_likelihood: f64 },
}

/// What a document adds to the metrics of all.
#[derive(Clone, Debug, PartialEq)]
pub enum Measured {
    /// A metric that is averaged.
    Mean(&'static str, f64),
    /// A log-likelihood of the type `loglikelihood`: for `perplexity`.
    LogLikelihood(f64),
    /// A log-likelihood of the type `loglikelihood_rolling`, with the text's words and bytes.
    Rolling { log_likelihood: f64, words: usize, bytes: usize },
}

/// A document's score, and what it measured.
///
/// The value is `contains` for an answer, `acc` for choices, and for a text, or a single choice, the mean probability
/// of a byte, `exp(log-likelihood / bytes)`.
pub fn fitness(document: &Document<'_>, matching: Matching) -> (Score, Vec<Measured>) {
    match &document.content {
        Content::Answer { text, expected, confidence } => {
            let mut parts = Parts::new();
            if let Some(confidence) = confidence {
                parts.insert("confidence".into(), confidence.clone());
            }
            let Some(expected) = expected else {
                let reason = Some("there is no reference; confidence is not accuracy".into());
                return (Score { value: None, parts, reason }, vec![]);
            };
            let exact = f64::from(u8::from(exact_match(text, expected, matching)));
            let contains = f64::from(u8::from(contains(text, expected, matching)));
            let means = vec![Measured::Mean("exact_match", exact), Measured::Mean("contains", contains)];
            scored(contains, parts, means)
        }
        Content::Choices { choices, log_likelihoods, answer } => match (choices.as_slice(), answer) {
            ([one], _) => {
                let ll = log_likelihoods[0];
                let mut parts = Parts::from([("log_likelihood".into(), json!(ll))]);
                parts.insert("perplexity".into(), json!(double::exp(-ll)));
                (
                    Score { value: Some(per_byte(ll, one.len())), parts, reason: None },
                    vec![Measured::LogLikelihood(ll)],
                )
            }
            (_, None) => {
                let parts = Parts::from([("log_likelihoods".into(), json!(log_likelihoods))]);
                let reason = Some("no reference says which choice is right".into());
                (Score { value: None, parts, reason }, vec![])
            }
            (_, Some(answer)) => multiple_choice(choices, log_likelihoods, *answer),
        },
        Content::Rolling { text, log_likelihood } => {
            let (ll, words, bytes) = (*log_likelihood, super::words(text), text.len());
            let parts = Parts::from([
                ("log_likelihood".to_owned(), json!(ll)),
                ("words".into(), json!(words)),
                ("bytes".into(), json!(bytes)),
                ("word_perplexity".into(), json!(double::exp(-ll / words as f64))),
                ("byte_perplexity".into(), json!(double::exp(-ll / bytes as f64))),
                ("bits_per_byte".into(), json!(-ll / bytes as f64 / std::f64::consts::LN_2)),
            ]);
            let measured = Measured::Rolling { log_likelihood: ll, words, bytes };
            (Score { value: Some(per_byte(ll, bytes)), parts, reason: None }, vec![measured])
        }
    }
}

/// `acc` takes the likeliest choice, `acc_norm` that with the most log-likelihood per character, `acc_bytes` per byte;
/// the first of equals. The choice counts without the white space between it and the question.
fn multiple_choice(choices: &[&str], log_likelihoods: &[f64], answer: usize) -> (Score, Vec<Measured>) {
    let best = |length: &dyn Fn(&str) -> f64| -> usize {
        let of = |i: usize| log_likelihoods[i] / length(choices[i]);
        (1..choices.len()).fold(0, |best, i| if of(i) > of(best) { i } else { best })
    };
    let picked = [best(&|_| 1.0), best(&|c| c.chars().count() as f64), best(&|c| c.len() as f64)];
    let right = picked.map(|picked| f64::from(u8::from(picked == answer)));
    let parts = Parts::from([
        ("log_likelihoods".to_owned(), json!(log_likelihoods)),
        ("answer".into(), json!(answer)),
        ("picked".into(), json!(picked[0])),
    ]);
    let names = ["acc", "acc_norm", "acc_bytes"];
    scored(right[0], parts, names.into_iter().zip(right).map(|(n, r)| Measured::Mean(n, r)).collect())
}

/// Means are parts as well.
fn scored(value: f64, mut parts: Parts, measured: Vec<Measured>) -> (Score, Vec<Measured>) {
    for one in &measured {
        if let Measured::Mean(name, value) = one {
            parts.insert((*name).into(), json!(value));
        }
    }
    (Score { value: Some(value), parts, reason: None }, measured)
}

/// At most 1: rounding may leave a certain text a hair above.
fn per_byte(log_likelihood: f64, bytes: usize) -> f64 {
    let p = double::exp(log_likelihood / bytes as f64);
    if p > 1.0 { 1.0 } else { p }
}
