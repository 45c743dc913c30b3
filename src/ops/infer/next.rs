//! What a model says of the token that comes next, after given tokens: one forward pass. For those who look at an
//! answer afterwards; no step does this.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use pipe_kernels::sampler::log_softmax;
use pipe_kernels::{KvCache, Logits, PackedModel, Slice, Want};
use pipe_store::Store;
use serde::Serialize;

use crate::key::Inputs;
use crate::model::Detokenizer;
use crate::ops::fetch::FetchEnv;
use crate::ops::{Device, OpError, World};
use crate::recipe::op::Infer;

/// How many of the likeliest tokens are named.
pub const TOP: usize = 5;

/// A token and how likely it is, before the sampler's temperature.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Likely {
    pub token: u32,
    pub text: String,
    pub p: f64,
}

/// The distribution at one place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Next {
    /// The likeliest tokens, likeliest first; the lower id first of equals.
    pub top: Vec<Likely>,
    /// Those that were asked for.
    pub asked: Vec<Likely>,
}

/// The vocabulary of an `infer` step's model, from its `model` port.
pub fn vocabulary(inputs: &Inputs, store: &Store, device: &Device) -> Result<Detokenizer, OpError> {
    with_world(store, device, |world| Ok(world.open_model(inputs)?.detokenizer()?))
}

/// What the step's model gives after `context`.
pub fn next(
    op: &Infer,
    inputs: &Inputs,
    context: &[u32],
    asked: &[u32],
    store: &Store,
    device: &Device,
) -> Result<Next, OpError> {
    with_world(store, device, |world| {
        let packed = world.open_one(inputs, "packed")?;
        let packed = PackedModel::open(&packed, op.spec)?;
        let words = world.open_model(inputs)?.detokenizer()?;
        let (mut cache, mut logits) = (KvCache::new(&packed.geometry), Logits::new());
        let slice = Slice { cache: &mut cache, tokens: context, want: Want::Last };
        device.engine()?.forward(&packed, &mut [slice], &mut logits)?;
        let ln_p = log_softmax(logits.row(0)).map_err(|e| OpError::input("logits", e))?;
        let likely = |token: u32| {
            let text = words.decode_text(&[token], false).unwrap_or_default();
            ln_p.get(token as usize).map(|ln_p| Likely { token, text, p: ln_p.exp() })
        };
        let mut ids: Vec<u32> = (0..ln_p.len() as u32).collect();
        ids.sort_by(|&a, &b| ln_p[b as usize].total_cmp(&ln_p[a as usize]).then(a.cmp(&b)));
        Ok(Next {
            top: ids.into_iter().take(TOP).filter_map(likely).collect(),
            asked: asked.iter().copied().filter_map(likely).collect(),
        })
    })
}

/// Nothing is fetched, and nothing is kept.
fn with_world<T>(
    store: &Store,
    device: &Device,
    look: impl FnOnce(&World<'_>) -> Result<T, OpError>,
) -> Result<T, OpError> {
    let (fetch, cancel) = (FetchEnv::default(), AtomicBool::new(false));
    look(&World { store, device, fetch: &fetch, partial: Path::new(""), cancel: &cancel, prefixes: None })
}
