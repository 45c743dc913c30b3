//! What a Llama-family model consists of: which tensors, of which shape, within which limits.
//! Knows no file format; both formats fill the same slots.

use pipe_kernels::Geometry;
use pipe_kernels::weights::{LayerWeights, ModelWeights, TensorView};

/// One of a layer's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    AttnNorm,
    Q,
    K,
    V,
    O,
    FfnNorm,
    Gate,
    Up,
    Down,
}

impl Part {
    pub const ALL: [Part; 9] = {
        use Part::*;
        [AttnNorm, Q, K, V, O, FfnNorm, Gate, Up, Down]
    };
}

/// A place for one tensor of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    Embed,
    Layer(usize, Part),
    FinalNorm,
    LmHead,
}

impl Slot {
    /// Rows (outputs) and columns (inputs); a norm has one row.
    pub fn shape(self, g: &Geometry) -> [u64; 2] {
        let (q, kv) = (g.heads * g.head_dim, g.kv_heads * g.head_dim);
        let [rows, cols] = match self {
            Slot::Embed | Slot::LmHead => [g.vocab, g.width],
            Slot::FinalNorm | Slot::Layer(_, Part::AttnNorm | Part::FfnNorm) => [1, g.width],
            Slot::Layer(_, Part::Q) => [q, g.width],
            Slot::Layer(_, Part::K | Part::V) => [kv, g.width],
            Slot::Layer(_, Part::O) => [g.width, q],
            Slot::Layer(_, Part::Gate | Part::Up) => [g.ffn, g.width],
            Slot::Layer(_, Part::Down) => [g.width, g.ffn],
        };
        [rows as u64, cols as u64]
    }

    pub fn is_norm(self) -> bool {
        matches!(self, Slot::FinalNorm | Slot::Layer(_, Part::AttnNorm | Part::FfnNorm))
    }

    /// Are its rows laid out in rotary pairs?
    pub fn is_rotary(self) -> bool {
        matches!(self, Slot::Layer(_, Part::Q | Part::K))
    }
}

/// Every slot of a model of this shape, in the order of the computation.
pub fn slots(g: &Geometry) -> impl Iterator<Item = Slot> {
    let layers = (0..g.layers).flat_map(|l| Part::ALL.into_iter().map(move |part| Slot::Layer(l, part)));
    let head = (!g.tied).then_some(Slot::LmHead);
    [Slot::Embed].into_iter().chain(layers).chain([Slot::FinalNorm]).chain(head)
}

/// Fills every slot by asking `get`.
pub fn assemble<'a, E>(
    g: &Geometry,
    mut get: impl FnMut(Slot) -> Result<TensorView<'a>, E>,
) -> Result<ModelWeights<'a>, E> {
    let embed = get(Slot::Embed)?;
    let mut layers = Vec::new();
    for l in 0..g.layers {
        let mut part = |p| get(Slot::Layer(l, p));
        layers.push(LayerWeights {
            attn_norm: part(Part::AttnNorm)?,
            q: part(Part::Q)?,
            k: part(Part::K)?,
            v: part(Part::V)?,
            o: part(Part::O)?,
            ffn_norm: part(Part::FfnNorm)?,
            gate: part(Part::Gate)?,
            up: part(Part::Up)?,
            down: part(Part::Down)?,
        });
    }
    let final_norm = get(Slot::FinalNorm)?;
    let lm_head = if g.tied { None } else { Some(get(Slot::LmHead)?) };
    Ok(ModelWeights { embed, layers, final_norm, lm_head })
}

/// The dimensions as a file states them, before anything is believed.
#[derive(Clone, Copy, Debug)]
pub struct Claimed {
    pub layers: u64,
    pub width: u64,
    pub heads: u64,
    pub kv_heads: u64,
    /// None: width / heads.
    pub head_dim: Option<u64>,
    pub ffn: u64,
    pub vocab: u64,
    pub context: u64,
    pub rope_base: f64,
    pub norm_eps: f64,
    pub tied: bool,
}

/// A dimension that cannot be: its name here, and what is wrong with it.
pub struct BadDimension {
    pub name: &'static str,
    pub why: String,
}

impl Claimed {
    /// Checks every number against sane limits and against the others.
    pub fn check(self) -> Result<Geometry, BadDimension> {
        let within = |name: &'static str, value: u64, limit: u64| match value {
            0 => Err(BadDimension { name, why: "must not be 0".into() }),
            v if v > limit => {
                Err(BadDimension { name, why: format!("{v} is more than the limit of {limit}") })
            }
            v => Ok(v as usize),
        };
        let bad = |name, why: String| Err(BadDimension { name, why });
        let width = within("width", self.width, 1 << 20)?;
        let heads = within("heads", self.heads, 1 << 12)?;
        let kv_heads = within("kv_heads", self.kv_heads, 1 << 12)?;
        if heads % kv_heads != 0 {
            return bad("kv_heads", format!("{heads} heads cannot share {kv_heads} key/value heads evenly"));
        }
        let head_dim = match self.head_dim {
            Some(dim) => within("head_dim", dim, 1 << 12)?,
            None if width % heads == 0 => within("head_dim", (width / heads) as u64, 1 << 12)?,
            None => return bad("heads", format!("a width of {width} is no multiple of {heads} heads")),
        };
        if head_dim % 2 != 0 {
            return bad("head_dim", format!("must be even for rotary pairs, not {head_dim}"));
        }
        if !(self.rope_base.is_finite() && self.rope_base > 0.0) {
            return bad("rope_base", format!("must be a positive number, not {}", self.rope_base));
        }
        let norm_eps = self.norm_eps as f32;
        if !(norm_eps.is_finite() && norm_eps > 0.0 && norm_eps < 1.0) {
            return bad("norm_eps", format!("must lie between 0 and 1, not {}", self.norm_eps));
        }
        Ok(Geometry {
            layers: within("layers", self.layers, 1 << 12)?,
            width,
            heads,
            kv_heads,
            head_dim,
            ffn: within("ffn", self.ffn, 1 << 22)?,
            vocab: within("vocab", self.vocab, 1 << 24)?,
            context: within("context", self.context, 1 << 24)?,
            rope_base: self.rope_base,
            norm_eps,
            tied: self.tied,
        })
    }
}
