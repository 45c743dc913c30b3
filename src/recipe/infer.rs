//! `[steps.NAME] op = "infer"` as a recipe writes it: spec, sampler and when to stop.

use std::str::FromStr;

use pipe_kernels::{Sampler, Spec, Width};
use toml::Spanned;
use toml::de::DeValue;

use super::diagnostic::Mistake;
use super::near::did_you_mean;
use super::op::{Infer, TraceLevel};
use super::probe::probes;
use super::span::Span;
use super::table::{Subject, Table, either, string, wrong_type};

pub const KEYS: &[&str] = &[
    "op",
    "model",
    "tokens",
    "spec",
    "weights",
    "max_tokens",
    "sampler",
    "stop",
    "logits",
    "log_likelihood",
    "trace",
    "probes",
];

/// How many tokens an answer may have when the recipe does not say.
pub const DEFAULT_MAX_TOKENS: u32 = 128;

/// The samplers a recipe can name, each with its keys.
const SAMPLERS: &[(&str, &[&str])] = &[
    ("greedy", &["kind"]),
    ("temperature", &["kind", "temperature", "seed"]),
    ("top_k", &["kind", "k", "temperature", "seed"]),
    ("top_p", &["kind", "p", "k", "temperature", "seed"]),
];

/// None when something is wrong; all of it is reported.
pub fn infer(table: Table<'_, '_>, mistakes: &mut Vec<Mistake>) -> Option<Infer> {
    let before = mistakes.len();
    let spec = table.string("spec", mistakes).map(|(name, span)| spec(name, span, mistakes));
    let weights = weights(table, spec.flatten(), mistakes);
    let max_tokens = table.integer("max_tokens", 0, u32::MAX.into(), mistakes);
    let max_tokens = max_tokens.map_or(DEFAULT_MAX_TOKENS, |n| n as u32);
    let sampler = table.value("sampler").map(|value| sampler(table, value, mistakes));
    let (stop_at_eos, stop) = table.value("stop").map_or((true, Vec::new()), |value| stop(value, mistakes));
    let logits = table.boolean("logits", mistakes).unwrap_or(false);
    let log_likelihood = table.boolean("log_likelihood", mistakes).unwrap_or(false);
    let trace = table.string("trace", mistakes).map(|(name, span)| trace(name, span, mistakes));
    let probes = probes(table, mistakes);
    if mistakes.len() > before {
        return None;
    }
    let inside = trace.is_some() || !probes.is_empty();
    if max_tokens == 0 && !logits && !log_likelihood && !inside && !table.damaged {
        let span = table.value("max_tokens").map_or(table.span, |value| value.span().into());
        let message = format!(
            "{} would compute nothing: no token, no logits, no log-likelihood, no trace",
            table.subject
        );
        let hint = "with max_tokens = 0 ask for logits = true, log_likelihood = true or trace = \"layers\"";
        mistakes.push(Mistake::new(span, message).hint(hint));
        return None;
    }
    let sampler = sampler.unwrap_or(Some(Sampler::Greedy))?;
    let spec = spec.unwrap_or(Some(Spec::F32))?;
    let trace = trace.unwrap_or(Some(TraceLevel::default()))?;
    Some(Infer {
        spec,
        weights,
        max_tokens,
        sampler,
        stop_at_eos,
        stop,
        logits,
        log_likelihood,
        trace,
        probes,
    })
}

fn spec(name: &str, span: Span, mistakes: &mut Vec<Mistake>) -> Option<Spec> {
    let spec = Spec::from_str(name).ok();
    if spec.is_none() {
        let known = Spec::ALL.map(Spec::name);
        let message = format!("`{}` is not a spec", name);
        let hint = did_you_mean(name, known);
        mistakes.push(Mistake::new(span, message).expected(either(&known)).maybe_hint(hint));
    }
    spec
}

/// The narrower width whose weights f32 is to compute with.
fn weights(table: Table<'_, '_>, spec: Option<Spec>, mistakes: &mut Vec<Mistake>) -> Option<Width> {
    let (name, span) = table.string("weights", mistakes)?;
    let known = [Width::Q8, Width::Q4].map(Width::name);
    if spec.is_some_and(|spec| spec != Spec::F32) {
        let message = "`weights` is for spec = \"f32\"; the other specs have their own";
        mistakes.push(Mistake::new(span, message).hint("leave it out, or write spec = \"f32\""));
        return None;
    }
    if let (true, Ok(width)) = (known.contains(&name), name.parse()) {
        return Some(width);
    }
    let message = format!("`{name}` is no width of weights");
    let hint = did_you_mean(name, known);
    mistakes.push(Mistake::new(span, message).expected(either(&known)).maybe_hint(hint));
    None
}

fn trace(name: &str, span: Span, mistakes: &mut Vec<Mistake>) -> Option<TraceLevel> {
    let level = TraceLevel::from_name(name);
    if level.is_none() {
        let known = TraceLevel::ALL.map(TraceLevel::name);
        let message = format!("`{name}` is not a level of trace");
        let hint = did_you_mean(name, known);
        mistakes.push(Mistake::new(span, message).expected(either(&known)).maybe_hint(hint));
    }
    level
}

fn stop(value: &Spanned<DeValue<'_>>, mistakes: &mut Vec<Mistake>) -> (bool, Vec<String>) {
    let wanted = "true, false or an array of strings";
    match value.get_ref() {
        DeValue::Boolean(at_eos) => (*at_eos, Vec::new()),
        DeValue::Array(texts) => {
            let mut stop = Vec::with_capacity(texts.len());
            for text in texts.iter() {
                match string("stop", text, mistakes) {
                    Some(("", span)) => mistakes.push(
                        Mistake::new(span, "an empty text in `stop` would end every answer at once")
                            .hint("leave it out; the model's own end tokens always count here"),
                    ),
                    Some((text, _)) => stop.push(text.to_string()),
                    None => {}
                }
            }
            (true, stop)
        }
        _ => {
            wrong_type("stop", value, wanted, mistakes);
            (true, Vec::new())
        }
    }
}

fn sampler(
    step: Table<'_, '_>,
    value: &Spanned<DeValue<'_>>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Sampler> {
    let span = Span::from(value.span());
    let table = match value.get_ref() {
        DeValue::String(kind) => {
            let keys = kind_keys(kind, span, mistakes)?;
            if keys.len() > 1 {
                let message = format!("sampler `{kind}` needs parameters");
                let hint =
                    format!("write sampler = {{ kind = \"{kind}\", {} = … }}", keys[1..].join(" = …, "));
                mistakes.push(Mistake::new(span, message).expected("a table").hint(hint));
                return None;
            }
            return Some(Sampler::Greedy);
        }
        DeValue::Table(inner) => step.inside(Subject::Part("sampler"), span, inner),
        _ => {
            wrong_type("sampler", value, "a table or \"greedy\"", mistakes);
            return None;
        }
    };
    let hint = "write kind = \"greedy\", \"temperature\", \"top_k\" or \"top_p\"";
    let (kind, kind_span) = table.required_string("kind", hint, mistakes)?;
    let keys = kind_keys(kind, kind_span, mistakes)?;
    draw(table, kind, keys, mistakes)
}

fn kind_keys(kind: &str, span: Span, mistakes: &mut Vec<Mistake>) -> Option<&'static [&'static str]> {
    let found = SAMPLERS.iter().find(|(name, _)| *name == kind).map(|(_, keys)| *keys);
    if found.is_none() {
        let known: Vec<&str> = SAMPLERS.iter().map(|(name, _)| *name).collect();
        let message = format!("`{}` is not a kind of sampler", kind);
        let hint = did_you_mean(kind, known.iter().copied());
        mistakes.push(Mistake::new(span, message).expected(either(&known)).maybe_hint(hint));
    }
    found
}

/// The parameters of a kind, with their ranges.
fn draw(table: Table<'_, '_>, kind: &str, keys: &[&str], mistakes: &mut Vec<Mistake>) -> Option<Sampler> {
    let before = mistakes.len();
    table.only(keys, mistakes);
    if kind == "greedy" {
        return (mistakes.len() == before).then_some(Sampler::Greedy);
    }
    for (key, hint) in [
        ("temperature", "1.0 keeps the model's own distribution, less is sharper"),
        ("k", "how many of the likeliest tokens to draw from"),
        ("p", "how much of the probability to draw from, such as 0.9"),
    ] {
        // Each kind needs the key it is named after.
        let own = key == kind || kind.strip_prefix("top_") == Some(key);
        if own && !table.inner.contains_key(key) {
            table.missing(key, hint, mistakes);
        }
    }
    if !table.inner.contains_key("seed") {
        table.missing("seed", "a draw without a seed cannot be repeated; any whole number will do", mistakes);
    }
    let temperature =
        ranged(table, "temperature", "a number above 0", |t| t > 0.0 && t.is_finite(), mistakes);
    let top_p = ranged(table, "p", "a number above 0, at most 1", |p| p > 0.0 && p <= 1.0, mistakes);
    let top_k = table.integer("k", 1, u32::MAX.into(), mistakes).map(|k| k as u32);
    let seed = table.integer("seed", 0, u64::MAX, mistakes);
    if mistakes.len() > before {
        return None;
    }
    Some(Sampler::Draw { temperature: temperature.unwrap_or(1.0), top_k, top_p, seed: seed? })
}

fn ranged(
    table: Table<'_, '_>,
    key: &str,
    wanted: &str,
    inside: impl Fn(f32) -> bool,
    mistakes: &mut Vec<Mistake>,
) -> Option<f32> {
    let (number, span) = table.number(key, mistakes)?;
    if inside(number) {
        return Some(number);
    }
    let message = format!("`{key}` cannot be {number}");
    let hint = (key == "temperature" && number == 0.0)
        .then(|| "for no chance at all write kind = \"greedy\"".into());
    mistakes.push(Mistake::new(span, message).expected(wanted).maybe_hint(hint));
    None
}
