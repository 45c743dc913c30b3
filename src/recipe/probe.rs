//! `[steps.NAME.probes.PROBE]` as a recipe writes it: where to look and what to keep.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::DeValue;

use super::diagnostic::Mistake;
use super::near::{did_you_mean, nearest};
use super::span::Span;
use super::table::{Subject, Table, either, list, string, wrong_type};
use crate::probe::{Elements, Feature, Layers, Probe, Selector, SelectorError, Tokens, names};

const KEYS: &[&str] = &["at", "sample", "features"];
const SAMPLE_KEYS: &[&str] = &["tokens", "layers", "elements"];
const TOKENS: &str = "\"all\", \"last\", \"prompt\", \"answer\" or \"every N\"";
const LAYERS: &str = "\"all\", \"every N\" or { stratified = N, seed = S }";
/// Ways to choose elements, each with its keys.
const ELEMENTS: &[(&str, &[&str])] = &[
    ("reservoir", &["reservoir", "seed"]),
    ("top", &["top"]),
    ("stride", &["stride"]),
    ("projection", &["projection", "seed"]),
];

/// All probes of a step, by name. What is wrong is reported and left out.
pub fn probes(step: Table<'_, '_>, mistakes: &mut Vec<Mistake>) -> BTreeMap<String, Probe> {
    let Some(value) = step.value("probes") else { return BTreeMap::new() };
    let DeValue::Table(all) = value.get_ref() else {
        wrong_type("probes", value, "a table of probes", mistakes);
        return BTreeMap::new();
    };
    let mut found = BTreeMap::new();
    for (key, value) in all.iter() {
        let name: &str = key.get_ref();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
            let message = format!("`{name}` cannot name a probe");
            mistakes.push(Mistake::new(key.span(), message).expected("letters, digits, `_` and `-`"));
        }
        let DeValue::Table(inner) = value.get_ref() else {
            wrong_type(name, value, "a table with `at`", mistakes);
            continue;
        };
        let table = step.inside(Subject::Part(name), key.span().into(), inner);
        found.extend(probe(table, mistakes).map(|probe| (name.to_owned(), probe)));
    }
    found
}

fn probe(table: Table<'_, '_>, mistakes: &mut Vec<Mistake>) -> Option<Probe> {
    let before = mistakes.len();
    table.only(KEYS, mistakes);
    if table.value("at").is_none() {
        table.missing("at", "which blocks to look at, such as at = \"layer.*.ffn.residual\"", mistakes);
    }
    let at = table.value("at").map_or_else(Vec::new, |value| selectors(value, mistakes));
    let features = table.value("features").map_or_else(Vec::new, |value| features(value, &at, mistakes));
    let (mut tokens, mut layers, mut elements) = Default::default();
    if let Some(value) = table.value("sample") {
        let DeValue::Table(inner) = value.get_ref() else {
            wrong_type("sample", value, "a table with tokens, layers or elements", mistakes);
            return None;
        };
        let sample = table.inside(Subject::Part("sample"), value.span().into(), inner);
        sample.only(SAMPLE_KEYS, mistakes);
        tokens = sample.value("tokens").and_then(|value| self::tokens(value, mistakes)).unwrap_or_default();
        layers = sample
            .value("layers")
            .and_then(|value| self::layers(sample, value, mistakes))
            .unwrap_or_default();
        if let Some(value) = sample.value("elements") {
            elements = self::elements(sample, value, mistakes).unwrap_or_default();
            let drawn = matches!(elements, Elements::Reservoir { .. } | Elements::Projection { .. });
            if drawn && at.iter().any(Selector::weights) {
                let message = "the attention weights of a position are as many as the positions it sees, so \
                               elements cannot be drawn once for all";
                let hint = "give `attention.weights` a probe of its own";
                let wanted = "\"all\", \"none\", { top = N } or { stride = N }";
                mistakes.push(Mistake::new(value.span(), message).expected(wanted).hint(hint));
            }
            if elements == Elements::None && features.is_empty() && mistakes.len() == before {
                let message = format!("{} would keep nothing: no elements, no features", table.subject);
                let hint = format!("features are {}", list(&known_features(&at)));
                mistakes.push(Mistake::new(value.span(), message).hint(hint));
            }
        }
    }
    (mistakes.len() == before).then_some(Probe { at, tokens, layers, elements, features })
}

fn selectors(value: &Spanned<DeValue<'_>>, mistakes: &mut Vec<Mistake>) -> Vec<Selector> {
    let texts: Vec<&Spanned<DeValue<'_>>> = match value.get_ref() {
        DeValue::String(_) => vec![value],
        DeValue::Array(texts) if !texts.is_empty() => texts.iter().collect(),
        DeValue::Array(_) => {
            let hint = "such as at = [\"embed\", \"layer.*.ffn.residual\"]";
            mistakes.push(Mistake::new(value.span(), "`at` is empty").hint(hint));
            return Vec::new();
        }
        _ => {
            wrong_type("at", value, "a selector or an array of them", mistakes);
            return Vec::new();
        }
    };
    let texts = texts.into_iter().filter_map(|text| string("at", text, mistakes)).collect::<Vec<_>>();
    texts.into_iter().filter_map(|(text, span)| selector(text, span, mistakes)).collect()
}

fn selector(text: &str, span: Span, mistakes: &mut Vec<Mistake>) -> Option<Selector> {
    let error = match text.parse() {
        Ok(selector) => return Some(selector),
        // A string that could not be read is empty; that was reported.
        Err(_) if span.end == span.start => return None,
        Err(error) => error,
    };
    let mistake = Mistake::new(span, error.to_string());
    mistakes.push(match error {
        SelectorError::Unknown { text } => {
            let known = names();
            // A layer's number is no part of the name that was mistyped.
            let (wanted, layers) = without_layers(&text);
            let near = part(&wanted, &known)
                .or_else(|| did_you_mean(&wanted, known.iter().map(String::as_str)))
                .map(|hint| hint.replace("layer.*.", &format!("layer.{layers}.")));
            let hint = "a selector is `embed`, `final_norm`, `lm_head`, or `layer.LAYERS.NAME` as in \
                        layer.*.ffn.residual, layer.{0,15,29}.attention.weights, layer.5.qkv.q";
            mistake.hint(hint).maybe_hint(near)
        }
        SelectorError::Layers { .. } => {
            mistake.expected("a number, `*`, or a set such as {0,15,29} or {0..9}")
        }
        SelectorError::Sample => mistake,
    });
    None
}

/// Of a block that is there, a part that is not: what was meant, or which parts there are.
fn part(wanted: &str, known: &[String]) -> Option<String> {
    let (block, part) = wanted.rsplit_once('.')?;
    let parts: Vec<&str> =
        known.iter().filter_map(|name| name.strip_prefix(block)?.strip_prefix('.')).collect();
    if parts.is_empty() || !known.iter().any(|name| name == block) {
        return None;
    }
    Some(match nearest(part, parts.iter().copied()) {
        Some(near) => format!("did you mean `{block}.{near}`?"),
        None => format!("`{block}` has the parts {}", list(&parts)),
    })
}

/// A selector as if it were of all layers, and the layers it names.
fn without_layers(text: &str) -> (String, String) {
    let text = text.replace('/', ".");
    let Some((layer, rest)) = text.split_once('.') else { return (text, "*".into()) };
    let end = if rest.starts_with('{') { rest.find('}').map(|at| at + 1) } else { rest.find('.') };
    match end {
        Some(end) if end < rest.len() => (format!("{layer}.*{}", &rest[end..]), rest[..end].to_owned()),
        _ => (text, "*".into()),
    }
}

/// Names of the features that all of these selectors have.
fn known_features(at: &[Selector]) -> Vec<&'static str> {
    let weights = at.iter().all(Selector::only_weights);
    Feature::ALL.into_iter().filter(|feature| weights || !feature.of_weights()).map(Feature::name).collect()
}

fn features(value: &Spanned<DeValue<'_>>, at: &[Selector], mistakes: &mut Vec<Mistake>) -> Vec<Feature> {
    let DeValue::Array(texts) = value.get_ref() else {
        wrong_type("features", value, "an array of names", mistakes);
        return Vec::new();
    };
    let known = known_features(at);
    let mut found = Vec::new();
    for text in texts.iter() {
        let Some((name, span)) = string("features", text, mistakes) else { continue };
        match Feature::from_name(name) {
            Some(feature) if found.contains(&feature) => {
                mistakes.push(Mistake::new(span, format!("`{name}` stands twice")).hint("leave one out"));
            }
            Some(feature) if !known.contains(&feature.name()) => {
                let message =
                    format!("`{name}` is a number of attention weights, and `at` selects other rows");
                let hint = "give `attention.weights`, as in layer.*.attention.weights, a probe of its own";
                mistakes.push(Mistake::new(span, message).expected(either(&known)).hint(hint));
            }
            Some(feature) => found.push(feature),
            None if span.end == span.start => {}
            None => {
                let message = format!("`{name}` is not a feature");
                let near = did_you_mean(name, known.iter().copied());
                mistakes.push(Mistake::new(span, message).expected(either(&known)).maybe_hint(near));
            }
        }
    }
    found
}

/// `every N`, N from 1.
fn every(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("every ")?;
    let plain = !digits.starts_with('+');
    digits.parse().ok().filter(|n| plain && *n > 0)
}

fn tokens(value: &Spanned<DeValue<'_>>, mistakes: &mut Vec<Mistake>) -> Option<Tokens> {
    let DeValue::String(text) = value.get_ref() else {
        wrong_type("tokens", value, TOKENS, mistakes);
        return None;
    };
    let known = ["all", "last", "prompt", "answer"];
    let found = match &**text {
        "all" => Some(Tokens::All),
        "last" => Some(Tokens::Last),
        "prompt" => Some(Tokens::Prompt),
        "answer" => Some(Tokens::Answer),
        text => every(text).map(Tokens::Every),
    };
    if found.is_none() && !value.span().is_empty() {
        let message = format!("`{text}` is no choice of tokens");
        let near = did_you_mean(text, known);
        mistakes.push(Mistake::new(value.span(), message).expected(TOKENS).maybe_hint(near));
    }
    found
}

fn layers(
    sample: Table<'_, '_>,
    value: &Spanned<DeValue<'_>>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Layers> {
    match value.get_ref() {
        DeValue::String(text) => {
            let found = match &**text {
                "all" => Some(Layers::All),
                text => every(text).map(Layers::Every),
            };
            if found.is_none() && !value.span().is_empty() {
                let message = format!("`{text}` is no choice of layers");
                mistakes.push(Mistake::new(value.span(), message).expected(LAYERS));
            }
            found
        }
        DeValue::Table(inner) => {
            let table = sample.inside(Subject::Part("layers"), value.span().into(), inner);
            table.only(&["stratified", "seed"], mistakes);
            if table.value("stratified").is_none() {
                table.missing("stratified", "how many layers to draw, one of each stratum", mistakes);
            }
            let n = table.integer("stratified", 1, u32::MAX.into(), mistakes);
            let seed = seed(table, mistakes);
            Some(Layers::Stratified { n: n? as u32, seed: seed? })
        }
        _ => {
            wrong_type("layers", value, LAYERS, mistakes);
            None
        }
    }
}

fn elements(
    sample: Table<'_, '_>,
    value: &Spanned<DeValue<'_>>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Elements> {
    let kinds: Vec<&str> = ELEMENTS.iter().map(|(kind, _)| *kind).collect();
    let wanted = "\"all\", \"none\" or a table with one of `reservoir`, `top`, `stride` and `projection`";
    let inner = match value.get_ref() {
        DeValue::Table(inner) => inner,
        DeValue::String(text) => {
            let found = match &**text {
                "all" => Some(Elements::All),
                "none" => Some(Elements::None),
                _ => None,
            };
            if found.is_none() && !value.span().is_empty() {
                let message = format!("`{text}` is no choice of elements");
                mistakes.push(Mistake::new(value.span(), message).expected(wanted));
            }
            return found;
        }
        _ => {
            wrong_type("elements", value, wanted, mistakes);
            return None;
        }
    };
    let table = sample.inside(Subject::Part("elements"), value.span().into(), inner);
    let hint = "such as elements = { reservoir = 256, seed = 7 } or { top = 16 }";
    let present: Vec<&&str> = kinds.iter().filter(|kind| inner.contains_key(**kind)).collect();
    if present.is_empty() {
        let all: Vec<&str> = kinds.iter().copied().chain(["seed"]).collect();
        table.only(&all, mistakes);
        table.exactly_one(&["reservoir", "top", "stride", "projection"], hint, mistakes);
        return None;
    }
    let kind = table.exactly_one(&["reservoir", "top", "stride", "projection"], hint, mistakes)?;
    let (_, keys) = ELEMENTS.iter().find(|(name, _)| *name == kind)?;
    table.only(keys, mistakes);
    // A projection holds a sign for each output and element: more outputs than this are no sample.
    let most = if kind == "projection" { 4096 } else { u32::MAX.into() };
    let n = table.integer(kind, 1, most, mistakes).map(|n| n as u32);
    let seed = if keys.contains(&"seed") { seed(table, mistakes) } else { Some(0) };
    let (n, seed) = (n?, seed?);
    Some(match kind {
        "reservoir" => Elements::Reservoir { n, seed },
        "top" => Elements::Top { n },
        "stride" => Elements::Stride { n },
        _ => Elements::Projection { n, seed },
    })
}

fn seed(table: Table<'_, '_>, mistakes: &mut Vec<Mistake>) -> Option<u64> {
    if table.value("seed").is_none() {
        table.missing("seed", "a draw without a seed cannot be repeated; any whole number will do", mistakes);
    }
    table.integer("seed", 0, u64::MAX, mistakes)
}
