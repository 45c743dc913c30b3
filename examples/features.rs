//! Features of a trace as JSON: what `tests/features.py` compares with numpy.
//!
//!     cargo run --example features -- trace.safetensors logits.safetensors model.gguf
//!
//! The trace is of level `full`; the logits are those of the same step. Attention weights are not in a trace: they are
//! made here from the rotated q and k, as float64 rounded to float32.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;

use pipe::features::{self, head, row, token};
use pipe::model::{Bytes, Model, ModelFile};
use pipe::trace::{Trace, TracedPrompt};
use pipe_kernels::math::double;
use pipe_kernels::{Block, Geometry};
use pipe_store::Store;
use serde_json::{Value, json};

/// The threshold of L0 and sparsity, in RMS.
const RATIO: f64 = 0.1;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [trace, logits, model] = args.as_slice() else { return Err("give TRACE LOGITS MODEL".into()) };
    let model = read_model(Path::new(model))?;
    let bytes = std::fs::read(trace)?;
    let trace = Trace::open(&bytes)?;
    let logits = read_logits(&std::fs::read(logits)?, model.geometry().vocab)?;
    let prompts: Vec<Value> =
        trace.prompts.iter().map(|prompt| of_prompt(prompt, &trace.blocks, &model.geometry())).collect();
    println!("{}", json!({ "ratio": RATIO, "prompts": prompts, "logits": of_logits(&logits)? }));
    Ok(())
}

fn read_model(path: &Path) -> Result<Model, Box<dyn Error>> {
    let store = Store::memory();
    let digest = store.put(&std::fs::read(path)?)?;
    Ok(Model::open(&[ModelFile::new("model.gguf", Bytes::new(store.get(&digest)?))])?)
}

fn read_logits(bytes: &[u8], vocab: usize) -> Result<Vec<Vec<f32>>, Box<dyn Error>> {
    let file = safetensors::SafeTensors::deserialize(bytes)?;
    Ok(floats(file.tensor("logits")?.data()).chunks(vocab).map(<[f32]>::to_vec).collect())
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

/// The rows of a block at all positions.
fn rows(prompt: &TracedPrompt<'_>, slot: usize) -> Vec<Vec<f32>> {
    (0..prompt.computed).filter_map(|position| prompt.row(position, slot)).map(floats).collect()
}

fn of_prompt(prompt: &TracedPrompt<'_>, blocks: &[Block], geometry: &Geometry) -> Value {
    let mut of_blocks = serde_json::Map::new();
    let mut of_heads = serde_json::Map::new();
    for (slot, block) in blocks.iter().enumerate() {
        let rows = rows(prompt, slot);
        let before = slot.checked_sub(1).map(|slot| self::rows(prompt, slot));
        let all: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        let positions: Vec<Value> = rows
            .iter()
            .enumerate()
            .map(|(position, x)| {
                // Rows of one width only can be compared with what came before them.
                let before = before.as_ref().map(|before| &before[position]).filter(|b| b.len() == x.len());
                json!({
                    "rms": row::rms(x),
                    "outlier_ratio": row::outlier_ratio(x),
                    "kurtosis": row::kurtosis(x),
                    "l0": row::l0(x, RATIO),
                    "sparsity": row::sparsity(x, RATIO),
                    "cosine": before.map(|before| row::cosine(before, x)),
                    "gini": features::gini(&wide(x)),
                    "rank_correlation": before.map(|b| features::rank_correlation(&wide(b), &wide(x))),
                })
            })
            .collect();
        let rank = row::effective_rank(&all);
        of_blocks.insert(block.to_string(), json!({ "effective_rank": rank, "positions": positions }));
        if let Block::Rope { layer } = block {
            of_heads.insert(layer.to_string(), of_layer(&rows, &prompt.tokens, geometry));
        }
    }
    json!({ "blocks": of_blocks, "heads": of_heads })
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Features of every head at every position, `[head][position]`.
fn of_layer(rope: &[Vec<f32>], tokens: &[u32], g: &Geometry) -> Value {
    let of_head = |h: usize| -> Vec<Value> {
        (0..rope.len())
            .map(|t| {
                let p = weights(rope, g, h, t);
                json!({
                    "entropy": head::entropy(&p),
                    "renyi2": head::renyi2(&p),
                    "sink_mass": head::sink_mass(&p),
                    "previous_token": head::previous_token(&p),
                    "duplicate_token": head::duplicate_token(&p, tokens),
                    "induction": head::induction(&p, tokens),
                })
            })
            .collect()
    };
    (0..g.heads).map(of_head).collect()
}

/// softmax(q·k / √head_dim) over the positions up to t.
fn weights(rope: &[Vec<f32>], g: &Geometry, h: usize, t: usize) -> Vec<f32> {
    let d = g.head_dim;
    let key = (g.heads + h / (g.heads / g.kv_heads)) * d;
    let scale = (d as f64).sqrt();
    let score = |s: usize| {
        let (q, k) = (&rope[t][h * d..(h + 1) * d], &rope[s][key..key + d]);
        q.iter().zip(k).fold(0.0, |sum, (&q, &k)| sum + f64::from(q) * f64::from(k)) / scale
    };
    let scores: Vec<f64> = (0..=t).map(score).collect();
    let max = scores.iter().fold(f64::NEG_INFINITY, |max: f64, &s| if s > max { s } else { max });
    let exps: Vec<f64> = scores.iter().map(|s| double::exp(s - max)).collect();
    let sum = exps.iter().fold(0.0, |sum, e| sum + e);
    exps.iter().map(|e| (e / sum) as f32).collect()
}

/// Of each prompt's row: how it sees some tokens, and how far it is from the next prompt's row.
fn of_logits(logits: &[Vec<f32>]) -> Result<Vec<Value>, Box<dyn Error>> {
    let of_row = |(i, row): (usize, &Vec<f32>)| {
        let next = &logits[(i + 1) % logits.len()];
        let tokens = (0..row.len() as u32).step_by(row.len() / 7);
        let seen: Result<Vec<_>, _> = tokens.clone().map(|t| token::distribution(row, t)).collect();
        let few: Vec<u32> = tokens.clone().collect();
        let kl_restricted = token::kl_restricted(row, next, &few)?;
        Ok(
            json!({ "tokens": few, "seen": seen?, "kl": token::kl(row, next)?, "kl_restricted": kl_restricted }),
        )
    };
    logits.iter().enumerate().map(of_row).collect()
}
