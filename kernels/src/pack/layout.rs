//! Which tensors a packed model consists of, in what order and shape: one list, which the writer fills and the
//! reader demands. Layout `panels16@2`.
//!
//! A matrix of n outputs by k inputs is cut into panels of 16 outputs, each in one of the formats of
//! [`crate::matrix::Format`]; the last panel is padded with zeros. Fused matrices: `qkv` stacks the rows of q, k
//! and v; `gate_up` alternates panels of gate and up, so that one share of it holds both factors of swiglu.
//! Matrices come first and are multiples of 32 bytes, so all of them are aligned; vectors follow, in f32.

use crate::cpu::linear::PANEL;
use crate::geometry::Geometry;
use crate::matrix::Format;
use crate::pack::PackError;

/// Name and version of the layout, as the file's metadata holds it.
pub const LAYOUT: &str = "panels16@2";
/// Alignment of the tensor data in the file.
pub(crate) const ALIGN: usize = 64;

/// What a tensor holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    LmHead,
    Qkv(usize),
    OProj(usize),
    GateUp(usize),
    Down(usize),
    /// Only of untied models.
    Embed,
    AttnNorm(usize),
    FfnNorm(usize),
    FinalNorm,
    /// `[context, head_dim/2, 2]`: cos and sin of each pair's angle at each position.
    Rope,
}

/// What an entry's tensor looks like.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// `panels` panels of 16 outputs by `k` inputs.
    Matrix { panels: usize, k: usize },
    /// f32 of this shape.
    Vector(Vec<usize>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub content: Content,
    pub name: String,
    pub form: Form,
}

impl Entry {
    pub fn is_matrix(&self) -> bool {
        matches!(self.form, Form::Matrix { .. })
    }

    /// The safetensors type and shape of the tensor, a matrix being in `format`.
    pub fn tensor(&self, format: Format) -> (&'static str, Vec<usize>) {
        let dtype = match (&self.form, format) {
            (Form::Vector(_), _) | (_, Format::F32) => "F32",
            (_, Format::F16) => "F16",
            (_, Format::Bf16) => "BF16",
            _ => "U8",
        };
        let shape = match &self.form {
            Form::Vector(shape) => shape.clone(),
            Form::Matrix { panels, k } if format.is_float() => vec![*panels, *k, PANEL],
            Form::Matrix { panels, k } => vec![*panels, format.panel_bytes(*k)],
        };
        (dtype, shape)
    }

    /// Bytes of the tensor; None on overflow.
    pub fn bytes(&self, format: Format) -> Option<usize> {
        match &self.form {
            Form::Vector(shape) => shape.iter().try_fold(4usize, |n, &d| n.checked_mul(d)),
            Form::Matrix { panels, k } => format.panel_bytes(*k).checked_mul(*panels),
        }
    }
}

impl Geometry {
    /// Rejects shapes that no model has and sizes that overflow.
    pub fn check(&self) -> Result<(), PackError> {
        let bad = |what: &'static str| Err(PackError::Geometry { what, geometry: Box::new(*self) });
        let sizes = [self.layers, self.width, self.heads, self.kv_heads, self.head_dim, self.ffn, self.vocab];
        // 2^24 each, so that a product of two with the size of a float cannot overflow.
        if sizes.iter().chain([&self.context]).any(|&n| n == 0 || n > 1 << 24) {
            return bad("every size must lie between 1 and 2^24");
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return bad("heads must be a multiple of kv_heads");
        }
        if !self.head_dim.is_multiple_of(2) {
            return bad("head_dim must be even");
        }
        if (self.heads + 2 * self.kv_heads).saturating_mul(self.head_dim) > 1 << 24 {
            return bad("the heads together must be at most 2^24 wide");
        }
        if self.context > 1 << 20 {
            return bad("context must be at most 2^20, the range of the angle reduction");
        }
        if !(self.rope_base.is_finite() && self.rope_base >= 1.0) {
            return bad("rope_base must be at least 1");
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            return bad("norm_eps must be finite and not negative");
        }
        Ok(())
    }
}

/// How many tensors [`entries`] lists.
pub(crate) fn count(g: &Geometry) -> usize {
    g.layers * 6 + 3 + usize::from(!g.tied)
}

/// All tensors in file order. The geometry is checked.
pub(crate) fn entries(g: &Geometry) -> Vec<Entry> {
    let panels = |n: usize| n.div_ceil(PANEL);
    let matrix = |content, name: String, panels: usize, k: usize| Entry {
        content,
        name,
        form: Form::Matrix { panels, k },
    };
    let vector =
        |content, name: String, shape: &[usize]| Entry { content, name, form: Form::Vector(shape.to_vec()) };
    let heads = g.heads * g.head_dim;
    let qkv = heads + 2 * g.kv_heads * g.head_dim;
    let mut all = Vec::with_capacity(count(g));
    for i in 0..g.layers {
        let name = |what: &str| format!("layer.{i:02}/{what}");
        all.push(matrix(Content::Qkv(i), name("qkv"), panels(qkv), g.width));
        all.push(matrix(Content::OProj(i), name("o_proj"), panels(g.width), heads));
        all.push(matrix(Content::GateUp(i), name("gate_up"), 2 * panels(g.ffn), g.width));
        all.push(matrix(Content::Down(i), name("down"), panels(g.width), g.ffn));
    }
    all.push(matrix(Content::LmHead, "lm_head".into(), panels(g.vocab), g.width));
    if !g.tied {
        all.push(matrix(Content::Embed, "embed".into(), panels(g.vocab), g.width));
    }
    for i in 0..g.layers {
        all.push(vector(Content::AttnNorm(i), format!("layer.{i:02}/attn.rms_norm"), &[g.width]));
        all.push(vector(Content::FfnNorm(i), format!("layer.{i:02}/ffn.rms_norm"), &[g.width]));
    }
    all.push(vector(Content::FinalNorm, "final_norm".into(), &[g.width]));
    all.push(vector(Content::Rope, "rope".into(), &[g.context, g.head_dim / 2, 2]));
    all
}
