//! A run as one page: HTML with inline SVG that needs no network and no script. A pure function of what is shown, so
//! the same run gives the same bytes. Knows no store, no file and no terminal.

mod chart;
mod draw;
mod frame;
mod graph;
mod layers;
mod lens;
mod number;
mod page;
mod parts;
mod scores;
mod text;
mod versions;

pub use number::{count, short};

use pipe_store::Digest;

use crate::inside::{Component, Inside, Unusual, UnusualKind};
use crate::ops::Answer;
use crate::run::Facts;
use crate::score::Three;
use crate::specs::Card;
use page::Page;

/// Everything a page shows.
#[derive(Clone, Debug)]
pub struct Report {
    pub pipeline: String,
    /// The bundle's.
    pub cid: Option<String>,
    pub run: Option<RunCard>,
    /// In the order of their names.
    pub steps: Vec<Step>,
    pub answer: Option<AnswerCard>,
    /// Ids of the step's other prompts.
    pub others: Vec<String>,
    /// The introspect step, and what it found for the prompt.
    pub inside: Option<(String, Inside)>,
    /// Of the prompt, by score step.
    pub scores: Vec<(String, Three)>,
    /// Of all prompts, where there are several.
    pub scores_of_all: Vec<(String, Three)>,
    pub checksum: Option<ChecksumCard>,
    /// Of the model, where somebody measured it.
    pub versions: Option<Card>,
    /// What cannot be shown, and what to do about it.
    pub missing: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct RunCard {
    pub id: String,
    pub started_ms: u64,
    pub wall_ms: u64,
    pub ok: bool,
    pub recipe: Option<String>,
    pub facts: Facts,
}

/// The prompt and its answer.
#[derive(Clone, Debug)]
pub struct AnswerCard {
    /// The infer step.
    pub step: String,
    pub spec: String,
    /// After the template; None if it is not here.
    pub prompt: Option<String>,
    pub answer: Answer,
}

#[derive(Clone, Debug)]
pub struct Step {
    pub name: String,
    pub op: String,
    /// `hit`, `ran`, `failed`; None for a bundle that was no run of this store.
    pub outcome: Option<String>,
    pub error: Option<String>,
    /// What it took in this run, else when it was computed.
    pub wall_ms: Option<u64>,
    /// Names of the steps whose outputs it takes.
    pub inputs: Vec<String>,
    pub outputs: Vec<Output>,
}

#[derive(Clone, Debug)]
pub struct Output {
    pub name: String,
    pub digest: Digest,
    /// Bytes.
    pub length: u64,
    /// If the bytes travel with the bundle.
    pub cid: Option<String>,
}

#[derive(Clone, Debug)]
pub struct ChecksumCard {
    pub step: String,
    pub checksum: Digest,
    pub leaves: u64,
    /// None without an introspect step.
    pub sound: Option<bool>,
}

/// The page.
pub fn html(report: &Report) -> String {
    let mut page = Page::default();
    frame::head(&mut page, report);
    text::answer(&mut page, report);
    scores::section(&mut page, report);
    if let Some((_, inside)) = &report.inside {
        parts::checks(&mut page, inside);
        text::rests_on(&mut page, inside);
        parts::attribution(&mut page, inside);
        lens::section(&mut page, inside);
        parts::attention(&mut page, inside);
        layers::section(&mut page, inside);
        parts::unusual(&mut page, inside);
    } else {
        frame::how_to_get_more(&mut page, report);
    }
    if let Some(card) = &report.versions {
        let own = report.answer.as_ref().map(|card| card.spec.as_str());
        versions::section(&mut page, card, own);
    }
    graph::section(&mut page, report);
    frame::addresses(&mut page, report);
    frame::foot(&mut page, report);
    page.finish()
}

/// Something unusual as a sentence.
pub fn sentence(unusual: &Unusual) -> String {
    let Unusual { place, value, than, .. } = unusual;
    let (value, than) = (short(*value), short(*than));
    match (unusual.kind, unusual.baseline) {
        (UnusualKind::Outlier, false) => format!(
            "{place}: one element of the stream outweighs all others; its square is {value} times the mean square, \
             above {than}"
        ),
        (UnusualKind::DeadUnits, _) => format!("{place}: {value} hidden units never do anything"),
        (UnusualKind::CollapsedAttention, _) => {
            format!("{place}: all its weight is on one position; exp(−entropy) is {value}, above {than}")
        }
        (UnusualKind::Outlier, true) => format!("{place}: max ÷ RMS is {value}; in the baseline {than}"),
        (UnusualKind::Rms, _) => format!("{place}: RMS is {value}; in the baseline {than}"),
        (UnusualKind::Entropy, _) => {
            format!("{place}: entropy of its attention is {value}; in the baseline {than}")
        }
    }
}

/// What a row of the lens is called.
pub fn row_name(row: usize) -> String {
    row.checked_sub(1).map_or("embedding".into(), |layer| format!("layer {layer}"))
}

/// Components by what their loss does to the answer, else by what they add to it, most first; and the unit.
pub fn foremost(inside: &Inside) -> (Vec<(Component, f64)>, &'static str) {
    let (mut all, unit): (Vec<_>, _) = match &inside.relevance {
        Some(relevance) => (relevance.components.iter().map(|c| (c.component, c.kl)).collect(), "nats"),
        None => (inside.attribution.components.iter().map(|c| (c.component, c.direct)).collect(), "logits"),
    };
    all.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
    (all, unit)
}

/// The prompt's tokens by what their loss does to the answer, most first.
pub fn foremost_tokens(inside: &Inside) -> Vec<(usize, &str, f64)> {
    let effects = inside.relevance.iter().flat_map(|relevance| &relevance.tokens);
    let mut all: Vec<_> = inside.tokens.iter().zip(effects).enumerate().collect::<Vec<_>>();
    all.sort_by(|(i, a), (j, b)| b.1.total_cmp(a.1).then(i.cmp(j)));
    all.into_iter().map(|(i, (token, kl))| (i, token.text.as_str(), *kl)).collect()
}

/// A token on one line, with what cannot be seen shown.
pub fn visible(text: &str) -> String {
    text.replace('\n', "↵").replace('\r', "␍").replace('\t', "⇥").replace(' ', "·")
}
