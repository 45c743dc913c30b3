//! Opening a packed model: borrowed views into mapped bytes, everything checked, nothing copied, and no page
//! of weights touched.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::PackError;
use super::layout::{ALIGN, Content, LAYOUT, count, entries};
use crate::cpu::linear::PANEL;
use crate::geometry::Geometry;
use crate::spec::Spec;

/// A longer header than any model's.
const MAX_HEADER: usize = 16 << 20;

/// A matrix in panels of 16 outputs; see [`super::layout`].
#[derive(Clone, Copy, Debug)]
pub struct Panels<'a> {
    /// Inputs.
    pub k: usize,
    /// `panels · k · 16` floats.
    pub data: &'a [f32],
}

impl Panels<'_> {
    pub fn panels(&self) -> usize {
        self.data.len() / (self.k * PANEL)
    }

    /// The weight of output `n` for input `k`, `n` counting padding.
    pub fn at(&self, n: usize, k: usize) -> f32 {
        self.data[n / PANEL * self.k * PANEL + k * PANEL + n % PANEL]
    }
}

/// The weights of one layer.
#[derive(Clone, Copy, Debug)]
pub struct PackedLayer<'a> {
    pub attn_norm: &'a [f32],
    pub qkv: Panels<'a>,
    pub o_proj: Panels<'a>,
    pub ffn_norm: &'a [f32],
    /// Panel 2i is panel i of gate, panel 2i + 1 of up.
    pub gate_up: Panels<'a>,
    pub down: Panels<'a>,
}

/// A model ready to compute: views into the bytes of a packed file.
#[derive(Clone, Debug)]
pub struct PackedModel<'a> {
    pub geometry: Geometry,
    pub spec: Spec,
    pub layers: Vec<PackedLayer<'a>>,
    pub final_norm: &'a [f32],
    pub lm_head: Panels<'a>,
    /// Row-major `[vocab, width]`; None when lm_head serves as the table.
    pub embed: Option<&'a [f32]>,
    /// `[context, head_dim/2, 2]`: cos, sin.
    pub rope: &'a [f32],
}

#[derive(Deserialize)]
struct TensorInfo {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<String, TensorInfo>,
}

impl<'a> PackedModel<'a> {
    /// Checks the header against the layout, and every tensor's place against the header.
    pub fn open(bytes: &'a [u8]) -> Result<Self, PackError> {
        let (header, data) = split(bytes)?;
        let geometry = metadata(&header.metadata)?;
        let found = header.tensors.len();
        if found != count(&geometry) {
            let expected = count(&geometry);
            return Err(PackError::Header(format!("{found} tensors where the geometry asks for {expected}")));
        }
        let mut model = Self {
            geometry,
            spec: Spec::F32,
            layers: Vec::with_capacity(geometry.layers),
            final_norm: &[],
            lm_head: Panels { k: 1, data: &[] },
            embed: None,
            rope: &[],
        };
        let empty = Panels { k: 1, data: &[] };
        let layer = PackedLayer {
            attn_norm: &[],
            qkv: empty,
            o_proj: empty,
            ffn_norm: &[],
            gate_up: empty,
            down: empty,
        };
        model.layers.resize(geometry.layers, layer);

        let mut rest = data;
        let mut at = 0usize;
        for entry in entries(&geometry) {
            let bad = |problem: String| PackError::Tensor { tensor: entry.name.clone(), problem };
            let info = header.tensors.get(&entry.name).ok_or_else(|| bad("is missing".to_owned()))?;
            if info.dtype != "F32" || info.shape != entry.shape {
                return Err(bad(format!("is {} {:?}, not F32 {:?}", info.dtype, info.shape, entry.shape)));
            }
            let floats = entry.floats();
            let end = floats.checked_mul(4).and_then(|n| n.checked_add(at)).unwrap_or(usize::MAX);
            if info.data_offsets != [at, end] {
                return Err(bad(format!("lies at {:?}, not at {:?}", info.data_offsets, [at, end])));
            }
            let Some((tensor, after)) = rest.split_at_checked(floats) else {
                return Err(bad(format!("ends at byte {end}, after the end of the data")));
            };
            (rest, at) = (after, end);
            let panels = Panels { k: entry.shape.get(1).copied().unwrap_or(1), data: tensor };
            match entry.content {
                Content::LmHead => model.lm_head = panels,
                Content::Qkv(i) => model.layers[i].qkv = panels,
                Content::OProj(i) => model.layers[i].o_proj = panels,
                Content::GateUp(i) => model.layers[i].gate_up = panels,
                Content::Down(i) => model.layers[i].down = panels,
                Content::Embed => model.embed = Some(tensor),
                Content::AttnNorm(i) => model.layers[i].attn_norm = tensor,
                Content::FfnNorm(i) => model.layers[i].ffn_norm = tensor,
                Content::FinalNorm => model.final_norm = tensor,
                Content::Rope => model.rope = tensor,
            }
        }
        if !rest.is_empty() {
            return Err(PackError::Header(format!("{} bytes follow the last tensor", rest.len() * 4)));
        }
        Ok(model)
    }

    /// Bytes of weights that one decoded token reads.
    pub fn bytes_per_token(&self) -> usize {
        let layer = |l: &PackedLayer<'_>| {
            let matrices = [l.qkv, l.o_proj, l.gate_up, l.down].map(|m| m.data.len()).iter().sum::<usize>();
            matrices + l.attn_norm.len() + l.ffn_norm.len()
        };
        4 * (self.layers.iter().map(layer).sum::<usize>() + self.lm_head.data.len() + self.final_norm.len())
    }
}

/// Header and tensor data, the latter as floats.
fn split(bytes: &[u8]) -> Result<(Header, &[f32]), PackError> {
    let bad = |what: &str| PackError::Header(what.to_owned());
    let (word, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| bad("shorter than its length word"))?;
    let len = usize::try_from(u64::from_le_bytes(*word)).unwrap_or(usize::MAX);
    if len > MAX_HEADER {
        return Err(bad("the header's length is absurd"));
    }
    let (json, data) = rest.split_at_checked(len).ok_or_else(|| bad("it ends within its header"))?;
    if !(8 + len).is_multiple_of(ALIGN) {
        return Err(bad("its data does not start on a 64-byte boundary"));
    }
    let header = serde_json::from_slice(json).map_err(|e| PackError::Header(e.to_string()))?;
    if !data.len().is_multiple_of(4) {
        return Err(bad("its data is no whole number of floats"));
    }
    if cfg!(target_endian = "big") {
        return Err(bad("its little-endian floats cannot be mapped on this machine"));
    }
    // SAFETY: every bit pattern is an f32; `align_to` keeps to what is aligned, the rest is refused below.
    let (before, floats, after) = unsafe { data.align_to::<f32>() };
    if !before.is_empty() || !after.is_empty() {
        return Err(PackError::Alignment);
    }
    Ok((header, floats))
}

fn metadata(fields: &BTreeMap<String, String>) -> Result<Geometry, PackError> {
    let field = |name: &'static str| {
        fields.get(name).ok_or_else(|| PackError::Header(format!("its metadata has no `{name}`")))
    };
    for (name, expected) in [("layout", LAYOUT), ("spec", Spec::F32.id())] {
        let found = field(name)?;
        if found != expected {
            let (found, expected) = (found.clone(), expected.to_owned());
            return Err(PackError::Version { field: name, found, expected });
        }
    }
    let mut geometry: Geometry =
        serde_json::from_str(field("geometry")?).map_err(|e| PackError::Header(format!("geometry: {e}")))?;
    let hex = |name: &'static str| {
        u64::from_str_radix(field(name)?, 16).map_err(|e| PackError::Header(format!("{name}: {e}")))
    };
    geometry.rope_base = f64::from_bits(hex("rope_base_bits")?);
    geometry.norm_eps = f32::from_bits(hex("norm_eps_bits")? as u32);
    geometry.check()?;
    Ok(geometry)
}
