//! Probes made ready for a model: which blocks are looked at, and what is kept of their rows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pipe_kernels::{Block, BlockGraph, Geometry};

use super::draw;
use super::pick::Pick;
use super::select::{Part, Source};
use super::spec::{Layers, Probe};

/// A probe that has nothing to look at in this model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error(
        "probe `{probe}`: `{selector}` names a layer that the model does not have; it has {layers}, numbered from 0; \
         near: {near}"
    )]
    Layer { probe: String, selector: String, layers: u32, near: String },
}

/// What one probe keeps of one source.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its place in the plan's list of probes.
    pub probe: usize,
    pub source: Source,
    /// Where in the row of the tapped block it begins.
    pub from: usize,
    /// Rows it is made of: heads, or 1.
    pub groups: usize,
    /// Elements of each in the tapped block's row; of attention weights, those of a query.
    pub width: usize,
    pub pick: Pick,
}

impl Entry {
    pub fn weights(&self) -> bool {
        self.source.part == Part::Weights
    }

    /// Floats of the tapped row that belong to it.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.from..self.from + self.groups * self.width
    }

    /// Elements of a row, `seen` positions being visible.
    pub fn elements(&self, seen: usize) -> usize {
        if self.weights() { seen } else { self.width }
    }

    /// Names of the axes of its samples.
    pub fn axes(&self) -> Vec<&'static str> {
        let last = match (&self.pick, self.weights()) {
            (Pick::Projection(..), _) => "output",
            (Pick::Top(_), _) => "rank",
            (_, true) => "seen_position",
            (_, false) => "element",
        };
        if self.heads() { vec!["position", "head", last] } else { vec!["position", last] }
    }

    /// Is there an axis of heads?
    pub fn heads(&self) -> bool {
        matches!(self.source.part, Part::Heads | Part::Weights)
    }
}

/// All probes of a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Sorted by name.
    pub probes: Vec<(String, Probe)>,
    /// Probe by probe, each in the schedule's order.
    pub entries: Vec<Entry>,
    /// For each tapped block its entries.
    pub taps: HashMap<Block, Vec<usize>>,
}

impl Plan {
    pub fn new(probes: &BTreeMap<String, Probe>, g: &Geometry) -> Result<Self, PlanError> {
        let mut plan = Plan::default();
        let graph = BlockGraph::new(g);
        let places: HashMap<Block, usize> =
            graph.schedule().iter().enumerate().map(|(place, block)| (*block, place)).collect();
        for (name, probe) in probes {
            let mut sources: BTreeMap<(usize, Part), Source> = BTreeMap::new();
            for selector in &probe.at {
                let layers = g.layers as u32;
                let found = selector.sources(layers).ok_or_else(|| PlanError::Layer {
                    probe: name.clone(),
                    selector: selector.to_string(),
                    layers,
                    near: near(selector, layers),
                })?;
                sources.extend(found.into_iter().map(|s| ((places[&s.block], s.part), s)));
            }
            let kept = kept(probe.layers, sources.values());
            sources.retain(|_, source| source.block.layer().is_none_or(|layer| kept.contains(&layer)));
            for source in sources.into_values() {
                let (from, groups, width) = source.extent(g);
                let widest = if source.part == Part::Weights { g.context } else { width };
                let pick = Pick::new(probe.elements, widest);
                plan.taps.entry(source.tapped()).or_default().push(plan.entries.len());
                plan.entries.push(Entry { probe: plan.probes.len(), source, from, groups, width, pick });
            }
            plan.probes.push((name.clone(), probe.clone()));
        }
        Ok(plan)
    }

    /// Must every token of a prompt go through the model?
    pub fn whole_prompt(&self) -> bool {
        self.probes.iter().any(|(_, probe)| probe.tokens.within_prompt())
    }

    /// The first position whose logits must be computed, of a prompt of so many tokens.
    pub fn first_logits(&self, prompt: usize) -> usize {
        match self.heads().next() {
            Some(_) if self.all_logits() => 0,
            Some(_) => prompt.saturating_sub(1),
            None => usize::MAX,
        }
    }

    /// Must the logits of every position of a prompt be computed?
    pub fn all_logits(&self) -> bool {
        self.heads().any(|entry| self.probes[entry.probe].1.tokens.within_prompt())
    }

    /// Entries of the blocks that exist only where logits are wanted.
    fn heads(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| matches!(entry.source.block, Block::FinalNorm | Block::LmHead))
    }

    /// Bytes that wait in memory for each position of a pass, at most; of attention weights, what they come from.
    pub fn row_bytes(&self) -> usize {
        let of = |e: &Entry| match e.weights() {
            true => e.groups * e.width * 4,
            false => e.groups * (e.pick.count(e.width) * 8 + self.probes[e.probe].1.features.len() * 8),
        };
        self.entries.iter().map(of).sum()
    }
}

/// The layers a rule leaves of those that sources lie in.
fn kept<'s>(rule: Layers, sources: impl Iterator<Item = &'s Source>) -> BTreeSet<u32> {
    let layers: BTreeSet<u32> = sources.filter_map(|source| source.block.layer()).collect();
    let list: Vec<u32> = layers.iter().copied().collect();
    match rule {
        Layers::All => layers,
        Layers::Every(n) => list.into_iter().step_by(n as usize).collect(),
        Layers::Stratified { n, seed } => draw::stratified(&list, n as usize, seed).into_iter().collect(),
    }
}

/// The same name in the first and the last layer.
fn near(selector: &super::Selector, layers: u32) -> String {
    let text = selector.to_string();
    let name = text.rsplit_once('/').map_or("", |(_, name)| name);
    format!("`layer.00/{name}`, `layer.{:02}/{name}`, `layer.*/{name}`", layers.saturating_sub(1))
}
