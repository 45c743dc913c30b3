//! Taking samples while the engine computes, on the engine's threads; position by position, whatever the passes.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use pipe_kernels::{BlockOutput, KvCache, Tap, attention_weights};
use pipe_store::{Staged, StoreError};

use super::compare::{self, Mismatch};
use super::plan::{Entry, Plan};
use super::write;
use crate::trace::{Part as Slice, Spool};

/// Bytes that may come of one call of the engine.
const PASS_MAX: usize = 64 << 20;

/// The samples of some prompts as they grow.
pub struct Collector {
    plan: Plan,
    /// Tokens of each prompt.
    lengths: Vec<usize>,
    /// For each prompt and each entry of the plan: positions, and where their samples are.
    taken: Vec<Vec<Vec<(u32, usize)>>>,
    /// Queries whose weights are computed when the pass is over: prompt, position, entry.
    queries: Vec<((usize, usize, usize), Vec<f32>)>,
    /// Records of a byte: samples differ in length.
    spool: Spool,
}

/// What a call of the engine gave.
#[derive(Default)]
struct Seen {
    samples: Vec<((usize, usize, usize), Vec<u8>)>,
    queries: Vec<((usize, usize, usize), Vec<f32>)>,
}

impl Collector {
    /// For prompts of so many tokens each. Without a file all samples stay in memory.
    pub fn new(plan: Plan, lengths: Vec<usize>, file: Option<Staged>) -> Self {
        let taken = vec![vec![Vec::new(); plan.entries.len()]; lengths.len()];
        Collector { plan, lengths, taken, queries: Vec::new(), spool: Spool::new(file, 1) }
    }

    /// One that takes nothing.
    pub fn none() -> Self {
        Collector::new(Plan::default(), Vec::new(), None)
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Most tokens that one call of the engine should be given.
    pub fn most_rows(&self) -> usize {
        PASS_MAX.checked_div(self.plan.row_bytes()).map_or(usize::MAX, |most| most.max(1))
    }

    /// Runs `forward`, which hands the tap to the engine with a batch of these slices, and takes what it saw. `tap`
    /// sees what it would have seen alone.
    pub fn observe<E: From<StoreError>>(
        &mut self,
        slices: &[Slice],
        tap: Tap<'_>,
        forward: impl FnOnce(Tap<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.plan.entries.is_empty() {
            return forward(tap);
        }
        let seen = Mutex::new(Seen::default());
        let (plan, lengths) = (&self.plan, &self.lengths);
        let see = |output: BlockOutput<'_>| {
            if let Some(entries) = plan.taps.get(&output.block) {
                let own = of_output(plan, lengths, slices, entries, &output);
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.samples.extend(own.samples);
                seen.queries.extend(own.queries);
            }
            if (tap.wants)(output.block) {
                (tap.see)(output);
            }
        };
        forward(Tap { wants: &|block| plan.taps.contains_key(&block) || (tap.wants)(block), see: &see })?;
        let mut seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        seen.samples.sort_unstable_by_key(|(at, _)| *at);
        for (at, bytes) in seen.samples {
            self.keep(at, &bytes)?;
        }
        self.queries.extend(seen.queries);
        self.queries.sort_unstable_by_key(|(at, _)| *at);
        Ok(())
    }

    /// Takes the attention weights of what was just observed of a prompt, given its cache and its transcript at least
    /// as far as that.
    pub fn attend(
        &mut self,
        prompt: usize,
        tokens: impl IntoIterator<Item = u32>,
        cache: &KvCache,
    ) -> Result<(), StoreError> {
        let queries: Vec<_> = self.queries.extract_if(.., |((p, ..), _)| *p == prompt).collect();
        if queries.is_empty() {
            return Ok(());
        }
        let tokens: Vec<u32> = tokens.into_iter().collect();
        for (at, q) in queries {
            let (_, position, entry) = at;
            let entry = &self.plan.entries[entry];
            let layer = entry.source.block.layer().unwrap_or_default() as usize;
            let weights = attention_weights(cache, layer, &q, position);
            let bytes = sample(&self.plan, entry, &weights, position + 1, &tokens);
            self.keep(at, &bytes)?;
        }
        Ok(())
    }

    fn keep(&mut self, at: (usize, usize, usize), bytes: &[u8]) -> Result<(), StoreError> {
        let (prompt, position, entry) = at;
        let start = self.spool.append(bytes)?;
        self.taken[prompt][entry].push((position as u32, start));
        Ok(())
    }

    /// Writes the artifact.
    pub fn write(mut self, out: &mut impl Write, spec: &str) -> io::Result<()> {
        let bytes = self.spool.read()?;
        write::write(out, spec, &self.plan, &self.taken, &bytes)
    }

    /// The first difference between the artifact and what was found in its place.
    pub fn compare(mut self, found: &[u8], spec: &str) -> io::Result<Option<Mismatch>> {
        let bytes = self.spool.read()?;
        compare::compare(found, spec, &self.plan, &self.taken, &bytes)
    }

    /// The same for the tensors of some prompts, where the others were not looked at.
    pub fn compare_some(mut self, found: &[u8], prompts: &BTreeSet<usize>) -> io::Result<Option<Mismatch>> {
        let bytes = self.spool.read()?;
        compare::compare_some(found, &self.plan, &self.taken, prompts, &bytes)
    }
}

/// What the entries of a block take of some of its rows.
fn of_output(
    plan: &Plan,
    lengths: &[usize],
    slices: &[Slice],
    entries: &[usize],
    output: &BlockOutput<'_>,
) -> Seen {
    let mut seen = Seen::default();
    for (place, row) in output.rows() {
        let prompt = slices[place.sequence].prompt;
        for &number in entries {
            let entry = &plan.entries[number];
            if !plan.probes[entry.probe].1.tokens.takes(place.position, lengths[prompt]) {
                continue;
            }
            let (at, row) = ((prompt, place.position, number), &row[entry.range()]);
            match entry.weights() {
                true => seen.queries.push((at, row.to_vec())),
                false => seen.samples.push((at, sample(plan, entry, row, entry.width, &[]))),
            }
        }
    }
    seen
}

/// Of one position: features, group by group; then numbers; then indices.
fn sample(plan: &Plan, entry: &Entry, row: &[f32], width: usize, tokens: &[u32]) -> Vec<u8> {
    let features = &plan.probes[entry.probe].1.features;
    let (mut bytes, mut values, mut indices) = (Vec::new(), Vec::new(), Vec::new());
    for group in row.chunks_exact(width) {
        for feature in features {
            bytes.extend_from_slice(&feature.of(group, tokens).to_le_bytes());
        }
        entry.pick.take(group, &mut values, &mut indices);
    }
    bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    bytes.extend(indices.iter().flat_map(|i| i.to_le_bytes()));
    bytes
}
