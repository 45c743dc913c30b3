//! Opening a packed model: borrowed views into mapped bytes, everything checked, nothing copied, and no page
//! of weights touched.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::PackError;
use super::layout::{ALIGN, Content, Entry, Form, LAYOUT, count, entries};
use crate::geometry::Geometry;
use crate::matrix::{Format, Matrix};
use crate::spec::{Spec, Width};

/// A longer header than any model's.
const MAX_HEADER: usize = 16 << 20;

/// The weights of one layer.
#[derive(Clone, Copy, Debug)]
pub struct PackedLayer<'a> {
    pub attn_norm: &'a [f32],
    pub qkv: Matrix<'a>,
    pub o_proj: Matrix<'a>,
    pub ffn_norm: &'a [f32],
    /// Panel 2i is panel i of gate, panel 2i + 1 of up.
    pub gate_up: Matrix<'a>,
    pub down: Matrix<'a>,
}

/// A model ready to compute: views into the bytes of a packed file.
#[derive(Clone, Debug)]
pub struct PackedModel<'a> {
    pub geometry: Geometry,
    pub spec: Spec,
    pub layers: Vec<PackedLayer<'a>>,
    pub final_norm: &'a [f32],
    pub lm_head: Matrix<'a>,
    /// The embedding table; lm_head again where the model shares it.
    pub embed: Matrix<'a>,
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
    /// Checks the header against the layout and the spec, and every tensor's place against the header.
    pub fn open(bytes: &'a [u8], spec: Spec) -> Result<Self, PackError> {
        let (header, data) = split(bytes)?;
        let geometry = metadata(&header.metadata, spec.width())?;
        let found = header.tensors.len();
        if found != count(&geometry) {
            let expected = count(&geometry);
            return Err(PackError::Header(format!("{found} tensors where the geometry asks for {expected}")));
        }
        let mut model = Self {
            geometry,
            spec,
            layers: Vec::with_capacity(geometry.layers),
            final_norm: &[],
            lm_head: Matrix::EMPTY,
            embed: Matrix::EMPTY,
            rope: &[],
        };
        let layer = PackedLayer {
            attn_norm: &[],
            qkv: Matrix::EMPTY,
            o_proj: Matrix::EMPTY,
            ffn_norm: &[],
            gate_up: Matrix::EMPTY,
            down: Matrix::EMPTY,
        };
        model.layers.resize(geometry.layers, layer);

        let entries = entries(&geometry);
        let mut formats = formats(&header.metadata, &entries, spec.width())?.into_iter();
        let (mut rest, mut at) = (data, 0usize);
        for entry in &entries {
            let format = if entry.is_matrix() { formats.next().unwrap_or(Format::F32) } else { Format::F32 };
            let tensor = take(entry, format, &header, &mut rest, &mut at)?;
            let matrix = match entry.form {
                Form::Matrix { k, .. } => Matrix { format, k, data: tensor },
                Form::Vector(_) => Matrix::EMPTY,
            };
            match entry.content {
                Content::LmHead => model.lm_head = matrix,
                Content::Qkv(i) => model.layers[i].qkv = matrix,
                Content::OProj(i) => model.layers[i].o_proj = matrix,
                Content::GateUp(i) => model.layers[i].gate_up = matrix,
                Content::Down(i) => model.layers[i].down = matrix,
                Content::Embed => model.embed = matrix,
                Content::AttnNorm(i) => model.layers[i].attn_norm = floats(tensor)?,
                Content::FfnNorm(i) => model.layers[i].ffn_norm = floats(tensor)?,
                Content::FinalNorm => model.final_norm = floats(tensor)?,
                Content::Rope => model.rope = floats(tensor)?,
            }
        }
        if !rest.is_empty() {
            return Err(PackError::Header(format!("{} bytes follow the last tensor", rest.len())));
        }
        if geometry.tied {
            model.embed = model.lm_head;
        }
        Ok(model)
    }

    /// All matrices, in the order of the computation.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = Matrix<'a>> {
        let layers = self.layers.iter().flat_map(|l| [l.qkv, l.o_proj, l.gate_up, l.down]);
        layers.chain([self.lm_head])
    }

    /// Bytes of weights that one decoded token reads.
    pub fn bytes_per_token(&self) -> usize {
        let norms = (2 * self.layers.len() + 1) * self.geometry.width * 4;
        self.matrices().map(|m| m.data.len()).sum::<usize>() + norms
    }
}

/// The bytes of the next tensor, whose description must be what the layout says.
fn take<'a>(
    entry: &Entry,
    format: Format,
    header: &Header,
    rest: &mut &'a [u8],
    at: &mut usize,
) -> Result<&'a [u8], PackError> {
    let bad = |problem: String| PackError::Tensor { tensor: entry.name.clone(), problem };
    let info = header.tensors.get(&entry.name).ok_or_else(|| bad("is missing".to_owned()))?;
    let (dtype, shape) = entry.tensor(format);
    if info.dtype != dtype || info.shape != shape {
        return Err(bad(format!("is {} {:?}, not {dtype} {shape:?}", info.dtype, info.shape)));
    }
    let bytes = entry.bytes(format).unwrap_or(usize::MAX);
    let end = at.checked_add(bytes).unwrap_or(usize::MAX);
    if info.data_offsets != [*at, end] {
        return Err(bad(format!("lies at {:?}, not at {:?}", info.data_offsets, [*at, end])));
    }
    let Some((tensor, after)) = rest.split_at_checked(bytes) else {
        return Err(bad(format!("ends at byte {end}, after the end of the data")));
    };
    (*rest, *at) = (after, end);
    Ok(tensor)
}

/// Header and tensor data.
fn split(bytes: &[u8]) -> Result<(Header, &[u8]), PackError> {
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
    if cfg!(target_endian = "big") {
        return Err(bad("its little-endian floats cannot be mapped on this machine"));
    }
    // Every tensor is a multiple of 4 bytes, so one look at the start is enough.
    floats(&data[..data.len() & !3])?;
    Ok((header, data))
}

/// Mapped bytes as floats.
fn floats(bytes: &[u8]) -> Result<&[f32], PackError> {
    // SAFETY: every bit pattern is an f32; `align_to` keeps to what is aligned, the rest is refused.
    let (before, floats, after) = unsafe { bytes.align_to::<f32>() };
    if before.is_empty() && after.is_empty() { Ok(floats) } else { Err(PackError::Alignment) }
}

fn field<'h>(fields: &'h BTreeMap<String, String>, name: &'static str) -> Result<&'h str, PackError> {
    let found = fields.get(name).ok_or_else(|| PackError::Header(format!("its metadata has no `{name}`")))?;
    Ok(found)
}

/// The format of each matrix, in the layout's order.
fn formats(
    fields: &BTreeMap<String, String>,
    entries: &[Entry],
    width: Width,
) -> Result<Vec<Format>, PackError> {
    let list = field(fields, "formats")?;
    let known = |name: &str| {
        let found =
            Format::ALL.into_iter().find(|f| f.name() == name && f.is_float() == (width == Width::F32));
        found.ok_or_else(|| PackError::Header(format!("`{name}` is no format of width {width}")))
    };
    let formats = list.split(',').map(known).collect::<Result<Vec<_>, _>>()?;
    let expected = entries.iter().filter(|e| e.is_matrix()).count();
    if formats.len() != expected {
        let found = formats.len();
        return Err(PackError::Header(format!("{found} formats for {expected} matrices")));
    }
    Ok(formats)
}

fn metadata(fields: &BTreeMap<String, String>, width: Width) -> Result<Geometry, PackError> {
    for (name, expected) in [("layout", LAYOUT), ("width", width.name())] {
        let found = field(fields, name)?;
        if found != expected {
            let (found, expected) = (found.to_owned(), expected.to_owned());
            return Err(PackError::Version { field: name, found, expected });
        }
    }
    let mut geometry: Geometry = serde_json::from_str(field(fields, "geometry")?)
        .map_err(|e| PackError::Header(format!("geometry: {e}")))?;
    let hex = |name: &'static str| {
        u64::from_str_radix(field(fields, name)?, 16).map_err(|e| PackError::Header(format!("{name}: {e}")))
    };
    geometry.rope_base = f64::from_bits(hex("rope_base_bits")?);
    geometry.norm_eps = f32::from_bits(hex("norm_eps_bits")? as u32);
    geometry.check()?;
    Ok(geometry)
}
