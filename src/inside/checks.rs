//! Checks of the inside: that it hangs together as the model says. Each gives what it compared. Exact, but for the
//! sum of attention weights, which has a bound.

use std::sync::{Mutex, PoisonError};

use pipe_kernels::{Block, BlockOutput, Half, Logits, PackedModel, Slice, Tap, Want, oracle};
use rayon::prelude::*;

use super::record::{Record, logits_from};
use super::{Check, InsideError, Look};

/// Positions whose attention is computed again: evenly over the window, the last one among them.
const SAMPLED: usize = 8;

pub fn checks(look: &Look<'_>, record: &mut Record) -> Result<Vec<Check>, InsideError> {
    Ok(vec![
        residual_stream(record),
        weights_sum_to_one(record),
        no_look_ahead(record),
        logits_follow(look.model, record),
        finite(record),
        keys_and_values(look, record)?,
        tokens_follow(record),
    ])
}

/// Counts comparisons, and remembers the first that failed.
#[derive(Default)]
struct Tally {
    compared: u64,
    failed: Option<String>,
}

impl Tally {
    fn note(&mut self, ok: bool, what: impl FnOnce() -> String) {
        self.compared += 1;
        if !ok && self.failed.is_none() {
            self.failed = Some(what());
        }
    }

    fn join(mut self, other: Tally) -> Tally {
        self.compared += other.compared;
        self.failed = self.failed.or(other.failed);
        self
    }

    fn check(self, name: &str, holds: &str) -> Check {
        let passed = self.failed.is_none() && self.compared > 0;
        let evidence = match self.failed {
            Some(failed) => failed,
            None if passed => holds.to_owned(),
            None => "there was nothing to compare".to_owned(),
        };
        Check { name: name.to_owned(), passed, compared: self.compared, evidence }
    }
}

/// x ← x + o_proj, x ← x + down: every element of every row, by its bits.
fn residual_stream(record: &Record) -> Check {
    let mut tally = Tally::default();
    for (i, layer) in record.layers.iter().enumerate() {
        for p in record.window() {
            let halves = [
                (record.before(i).at(p), layer.o_proj.at(p), layer.middle.at(p), "attention"),
                (layer.middle.at(p), layer.down.at(p), layer.stream.at(p), "feed-forward"),
            ];
            for (before, added, after, half) in halves {
                for (e, ((b, a), x)) in before.iter().zip(added).zip(after).enumerate() {
                    tally.note((b + a).to_bits() == x.to_bits(), || {
                        format!("layer {i}, {half}, position {p}, element {e}: {b} + {a} is not {x}")
                    });
                }
            }
        }
    }
    tally.check("residual_stream", "the stream is the exact sum of its parts, bit for bit")
}

/// Rounding of a sum in 16 parts and of a division, over n weights that are not negative.
fn bound(n: usize) -> f64 {
    (n as f64 / 16.0 + 6.0) * f64::from(f32::EPSILON) / 2.0
}

fn weights_sum_to_one(record: &Record) -> Check {
    let of_layer = |layer: usize| {
        let mut tally = Tally::default();
        for p in record.window() {
            for (head, weights) in record.weights(layer, p).chunks_exact(p + 1).enumerate() {
                let sum = weights.iter().fold(0.0, |sum, &w| sum + f64::from(w));
                let ok = (sum - 1.0).abs() <= bound(weights.len()) && weights.iter().all(|&w| w >= 0.0);
                tally.note(ok, || format!("layer {layer}, head {head}, position {p}: they sum to {sum}"));
            }
        }
        tally
    };
    let tally = (0..record.g.layers).into_par_iter().map(of_layer).collect::<Vec<_>>();
    let tally = tally.into_iter().fold(Tally::default(), Tally::join);
    let holds = "each row of attention weights sums to one within (n/16 + 6)·2^-24";
    tally.check("attention_sums", holds)
}

/// The context of a position, computed again from the keys and values up to it, has the same bits: it cannot
/// depend on any later one.
fn no_look_ahead(record: &Record) -> Check {
    let window = record.window();
    let step = window.len().div_ceil(SAMPLED).max(1);
    let sampled: Vec<usize> = window.rev().step_by(step).collect();
    let g = &record.g;
    let of_layer = |layer: usize| {
        let mut tally = Tally::default();
        let rows = &record.layers[layer];
        for &p in &sampled {
            for head in 0..g.heads {
                let at = head / (g.heads / g.kv_heads) * g.head_dim;
                let values: Vec<&[f32]> = (0..=p).map(|t| &rows.v.at(t)[at..at + g.head_dim]).collect();
                let (q, keys) = record.query(layer, head, p);
                let expected = oracle::attention_context(q, keys, &values);
                let found = &rows.context.at(p)[head * g.head_dim..(head + 1) * g.head_dim];
                let same = expected.iter().zip(found).all(|(a, b)| a.to_bits() == b.to_bits());
                tally.note(same, || {
                    format!("layer {layer}, head {head}, position {p}: the context is not that of 0..={p}")
                });
            }
        }
        tally
    };
    let tally = (0..g.layers).into_par_iter().map(of_layer).collect::<Vec<_>>();
    let tally = tally.into_iter().fold(Tally::default(), Tally::join);
    tally.check("no_look_ahead", "contexts computed again from earlier positions alone are the same bits")
}

fn logits_follow(model: &PackedModel<'_>, record: &Record) -> Check {
    let of = |p: usize| {
        let prediction = record.prediction(p);
        let expected = logits_from(model, record.last().at(p), &prediction.likeliest);
        let mut tally = Tally::default();
        for ((token, a), b) in prediction.likeliest.iter().zip(&expected).zip(&prediction.logits) {
            tally.note(a.to_bits() == b.to_bits(), || {
                format!("position {p}, token {token}: the last stream gives {a}, the logit is {b}")
            });
        }
        tally
    };
    let tally = record.window().into_par_iter().map(of).collect::<Vec<_>>();
    let tally = tally.into_iter().fold(Tally::default(), Tally::join);
    tally.check("logits", "the likeliest tokens' logits follow from the last stream, bit for bit")
}

fn finite(record: &Record) -> Check {
    let mut tally = Tally::default();
    for p in record.window() {
        let whole = |x: &[f32]| x.iter().all(|x| x.is_finite());
        tally.note(whole(record.embed.at(p)), || format!("embed, position {p}"));
        for (i, l) in record.layers.iter().enumerate() {
            let rows = [
                (&l.q, "q"),
                (&l.k, "k"),
                (&l.v, "v"),
                (&l.context, "attention"),
                (&l.o_proj, "o_proj"),
                (&l.middle, "attn.residual"),
                (&l.hidden, "swiglu"),
                (&l.down, "down"),
                (&l.stream, "ffn.residual"),
            ];
            for (rows, name) in rows {
                tally.note(whole(rows.at(p)), || format!("layer {i}, {name}, position {p}: not finite"));
            }
        }
    }
    tally.check("finite", "every number is finite")
}

/// The last position once more, alone, from what the others left in the cache: keys, values and streams are the
/// same bits.
fn keys_and_values(look: &Look<'_>, record: &mut Record) -> Result<Check, InsideError> {
    let last = record.end() - 1;
    let mut cache = std::mem::replace(&mut record.cache, pipe_kernels::KvCache::new(&record.g));
    cache.truncate(last);
    let tally = Mutex::new(Tally::default());
    let (heads, kv) = (record.g.heads * record.g.head_dim, record.g.kv_heads * record.g.head_dim);
    let see = |output: BlockOutput<'_>| {
        let Some(layer) = output.block.layer() else { return };
        let rows = &record.layers[layer as usize];
        for (_, row) in output.rows() {
            let (found, recorded) = match output.block {
                Block::Qkv { .. } => (&row[heads + kv..], rows.v.at(last)),
                Block::Rope { .. } => (&row[heads..], rows.k.at(last)),
                _ => (row, rows.stream.at(last)),
            };
            let same = found.iter().zip(recorded).all(|(a, b)| a.to_bits() == b.to_bits());
            let what = || format!("{}, position {last}: computed alone it has other bits", output.block);
            tally.lock().unwrap_or_else(PoisonError::into_inner).note(same, what);
        }
    };
    let wants = |block| {
        matches!(block, Block::Qkv { .. } | Block::Rope { .. } | Block::Residual { half: Half::Ffn, .. })
    };
    let tokens = [record.fed[last]];
    let slice = Slice { cache: &mut cache, tokens: &tokens, want: Want::None };
    let tap = Tap { wants: &wants, see: &see };
    look.engine.observed(look.model, &mut [slice], &mut Logits::new(), Some(tap))?;
    look.passed(1)?;
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    record.cache = cache;
    let holds = "the last position, computed alone from the cache, has the same keys, values and streams";
    Ok(tally.check("kv_chain", holds))
}

fn tokens_follow(record: &Record) -> Check {
    let mut tally = Tally::default();
    for choice in &record.choices {
        tally.note(choice.chosen == choice.found, || {
            format!(
                "position {}: the rule chooses token {}, the answer has {}",
                choice.position, choice.chosen, choice.found
            )
        });
    }
    let mut check = tally.check("tokens", "every token of the answer is the rule's choice");
    // An answer without tokens claims none.
    if record.choices.is_empty() {
        check.passed = true;
        check.evidence = "the answer has no tokens in the window".to_owned();
    }
    check
}
