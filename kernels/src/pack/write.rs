//! Writing a packed model: header first, then tensor after tensor, a few panels in memory at a time.

use std::io::Write;

use half::{bf16, f16};
use rayon::prelude::*;

use super::layout::{ALIGN, Content, Entry, Form, LAYOUT, entries};
use super::{PackError, rope};
use crate::cpu::linear::PANEL;
use crate::geometry::Geometry;
use crate::matrix::{BLOCK, Format, NARROW, SCALES, WIDE, narrow_at, wide_at};
use crate::quant::{self, Block};
use crate::spec::Width;
use crate::weights::{ModelWeights, RowOrder, TensorView};

/// Bytes of panels made at once.
const BATCH: usize = 8 << 20;

/// What to pack a model's weights as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    pub width: Width,
    /// Quantise to this width first: f32 of the very weights that a narrower spec computes with.
    pub through: Option<Width>,
}

impl From<Width> for Packing {
    fn from(width: Width) -> Self {
        Self { width, through: None }
    }
}

/// Writes the packed model to `out`: safetensors, layout [`LAYOUT`], tensor data on a 64-byte boundary. Memory
/// stays at some megabytes; rayon's current pool helps; the bytes depend on neither.
pub fn pack(
    w: &ModelWeights<'_>,
    g: &Geometry,
    packing: Packing,
    out: &mut impl Write,
) -> Result<(), PackError> {
    g.check()?;
    let sources = Sources { w, g, packing };
    let entries = entries(g);
    sources.check()?;
    out.write_all(&header(&sources, &entries))?;
    for entry in &entries {
        match entry.content {
            Content::Rope => write_rope(g, out)?,
            Content::AttnNorm(i) => write_row(&entry.name, &w.layers[i].attn_norm, out)?,
            Content::FfnNorm(i) => write_row(&entry.name, &w.layers[i].ffn_norm, out)?,
            Content::FinalNorm => write_row(&entry.name, &w.final_norm, out)?,
            _ => write_panels(&sources, entry, out)?,
        }
    }
    Ok(())
}

/// Bytes of the file [`pack`] writes.
pub fn packed_len(w: &ModelWeights<'_>, g: &Geometry, packing: Packing) -> Result<u64, PackError> {
    g.check()?;
    let sources = Sources { w, g, packing };
    sources.check()?;
    let entries = entries(g);
    let tensors = entries.iter().filter_map(|e| e.bytes(sources.format(e.content))).sum::<usize>();
    Ok((header(&sources, &entries).len() + tensors) as u64)
}

/// Length word, JSON, spaces up to a multiple of 64.
fn header(sources: &Sources<'_>, entries: &[Entry]) -> Vec<u8> {
    let g = sources.g;
    let quote = |s: &str| serde_json::Value::from(s).to_string();
    let geometry = serde_json::to_string(g).unwrap_or_default();
    let matrices = entries.iter().filter(|e| e.is_matrix());
    let formats: Vec<&str> = matrices.map(|e| sources.format(e.content).name()).collect();
    let metadata = [
        ("layout", LAYOUT.to_owned()),
        ("width", sources.packing.width.name().to_owned()),
        ("formats", formats.join(",")),
        ("geometry", geometry),
        // The two numbers that are no integers, once more as bits: decimal text is a detour.
        ("rope_base_bits", format!("{:016x}", g.rope_base.to_bits())),
        ("norm_eps_bits", format!("{:08x}", g.norm_eps.to_bits())),
    ];
    let fields: Vec<String> = metadata.iter().map(|(k, v)| format!("{}:{}", quote(k), quote(v))).collect();
    let mut json = format!("{{\"__metadata__\":{{{}}}", fields.join(","));
    let mut at = 0;
    for e in entries {
        let format = sources.format(e.content);
        let (dtype, shape) = e.tensor(format);
        let end = at + e.bytes(format).unwrap_or(0);
        let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
        json += &format!(
            ",{}:{{\"dtype\":\"{dtype}\",\"shape\":[{}],\"data_offsets\":[{at},{end}]}}",
            quote(&e.name),
            shape.join(",")
        );
        at = end;
    }
    json.push('}');
    let padded = (8 + json.len()).next_multiple_of(ALIGN) - 8;
    json.extend(std::iter::repeat_n(' ', padded - json.len()));
    let mut bytes = (padded as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    bytes
}

fn write_floats(floats: &[f32], bytes: &mut Vec<u8>, out: &mut impl Write) -> Result<(), PackError> {
    bytes.clear();
    bytes.extend(floats.iter().flat_map(|f| f.to_le_bytes()));
    Ok(out.write_all(bytes)?)
}

fn write_rope(g: &Geometry, out: &mut impl Write) -> Result<(), PackError> {
    let frequencies = rope::frequencies(g);
    let (mut row, mut bytes) = (Vec::new(), Vec::new());
    for position in 0..g.context {
        row.clear();
        rope::row(&frequencies, position, &mut row);
        write_floats(&row, &mut bytes, out)?;
    }
    Ok(())
}

fn write_row(name: &str, view: &TensorView<'_>, out: &mut impl Write) -> Result<(), PackError> {
    let mut row = vec![0.0; view.cols];
    view.row(0, &mut row);
    finite(name, 0, &row)?;
    write_floats(&row, &mut Vec::new(), out)
}

fn finite(tensor: &str, row: usize, weights: &[f32]) -> Result<(), PackError> {
    match weights.iter().position(|w| !w.is_finite()) {
        None => Ok(()),
        Some(col) => Err(PackError::NotFinite { tensor: tensor.to_owned(), row, col }),
    }
}

fn write_panels(sources: &Sources<'_>, entry: &Entry, out: &mut impl Write) -> Result<(), PackError> {
    let Form::Matrix { panels, k } = entry.form else { return Ok(()) };
    let format = sources.format(entry.content);
    let size = format.panel_bytes(k);
    let batch = (BATCH / size).clamp(1, panels);
    let mut bytes = vec![0u8; batch * size];
    for start in (0..panels).step_by(batch) {
        let now = &mut bytes[..batch.min(panels - start) * size];
        now.fill(0);
        now.par_chunks_mut(size).enumerate().try_for_each(|(i, panel)| {
            let mut row = vec![0.0; k];
            for lane in 0..PANEL {
                let source = sources.output(entry.content, start + i, lane);
                match (format.is_float(), source) {
                    (true, Some((view, r))) => {
                        sources.floats(entry, view, r, &mut row)?;
                        put_floats(panel, format, lane, &row);
                    }
                    (false, source) => {
                        for b in 0..k.div_ceil(BLOCK) {
                            let block = source.map_or(Ok(Block::ZERO), |(view, r)| {
                                block(&entry.name, view, r, b, format, &mut row)
                            })?;
                            put_block(panel, format, k, lane, b, &block);
                        }
                    }
                    (true, None) => {}
                }
            }
            Ok::<(), PackError>(())
        })?;
        out.write_all(now)?;
    }
    Ok(())
}

/// One output's weights into a panel of floats. 16-bit formats are chosen only where all sources are theirs, so
/// narrowing is exact.
fn put_floats(panel: &mut [u8], format: Format, lane: usize, row: &[f32]) {
    let slots = |panel: &mut [u8], bytes: usize, put: &dyn Fn(&mut [u8], f32)| {
        for (slot, &w) in panel.chunks_exact_mut(bytes).skip(lane).step_by(PANEL).zip(row) {
            put(slot, w);
        }
    };
    match format {
        Format::F16 => slots(panel, 2, &|slot, w| slot.copy_from_slice(&f16::from_f32(w).to_le_bytes())),
        Format::Bf16 => slots(panel, 2, &|slot, w| slot.copy_from_slice(&bf16::from_f32(w).to_le_bytes())),
        _ => slots(panel, 4, &|slot, w| slot.copy_from_slice(&w.to_le_bytes())),
    }
}

/// Block `b` of a stored row: as it is where the format allows, else dequantised into `row` (all of it, with the
/// first block) and quantised.
fn block(
    tensor: &str,
    view: &TensorView<'_>,
    r: usize,
    b: usize,
    format: Format,
    row: &mut [f32],
) -> Result<Block, PackError> {
    let bytes = view.stored_row(r);
    let size = bytes.len() / view.cols.div_ceil(BLOCK);
    let stored = quant::stored(view.ty, &bytes[b * size..(b + 1) * size], format);
    let made = match stored {
        Some(block) => block,
        None => {
            if b == 0 {
                view.row(r, row);
                finite(tensor, r, row)?;
            }
            quant::quantise(&row[b * BLOCK..view.cols.min((b + 1) * BLOCK)], format)
        }
    };
    match made.is_finite() {
        true => Ok(made),
        false => Err(PackError::NotFinite { tensor: tensor.to_owned(), row: r, col: b * BLOCK }),
    }
}

/// One output's block into its panel.
fn put_block(panel: &mut [u8], format: Format, k: usize, lane: usize, b: usize, block: &Block) {
    let wide = format == Format::Q8;
    let integers = if wide { WIDE } else { NARROW };
    for (i, &q) in block.q.iter().enumerate() {
        let stored = (i32::from(q) + format.offset()) as u8;
        if wide {
            panel[b * WIDE + wide_at(i, lane)] = stored;
        } else {
            let (at, high) = narrow_at(i, lane);
            panel[b * NARROW + at] |= if high { stored << 4 } else { stored };
        }
    }
    let blocks = k.div_ceil(BLOCK);
    let scale = blocks * integers + b * SCALES + lane * 2;
    panel[scale..scale + 2].copy_from_slice(&block.d.to_le_bytes());
    if format == Format::Q4Min {
        let minimum = scale + blocks * SCALES;
        panel[minimum..minimum + 2].copy_from_slice(&block.m.to_le_bytes());
    }
}

/// Where each output of a packed matrix comes from.
struct Sources<'a> {
    w: &'a ModelWeights<'a>,
    g: &'a Geometry,
    packing: Packing,
}

impl<'a> Sources<'a> {
    /// The tensors a packed matrix is made of.
    fn parts(&self, content: Content) -> Vec<&'a TensorView<'a>> {
        let layer = |i: usize| &self.w.layers[i];
        match content {
            Content::Qkv(i) => vec![&layer(i).q, &layer(i).k, &layer(i).v],
            Content::GateUp(i) => vec![&layer(i).gate, &layer(i).up],
            Content::OProj(i) => vec![&layer(i).o],
            Content::Down(i) => vec![&layer(i).down],
            Content::LmHead => vec![self.w.lm_head.as_ref().unwrap_or(&self.w.embed)],
            Content::Embed => vec![&self.w.embed],
            Content::AttnNorm(_) | Content::FfnNorm(_) | Content::FinalNorm | Content::Rope => vec![],
        }
    }

    /// The format a matrix takes at a width.
    fn format_at(&self, content: Content, width: Width) -> Format {
        let types: Vec<_> = self.parts(content).iter().map(|v| v.ty).collect();
        width.format(&types, matches!(content, Content::LmHead | Content::Embed))
    }

    /// The format a matrix is packed in.
    fn format(&self, content: Content) -> Format {
        match self.packing {
            Packing { width: Width::F32, through: Some(through) } if through != Width::F32 => Format::F32,
            Packing { width, .. } => self.format_at(content, width),
        }
    }

    /// A stored row as floats, quantised and dequantised again where the packing goes through another width.
    fn floats(
        &self,
        entry: &Entry,
        view: &TensorView<'_>,
        r: usize,
        row: &mut [f32],
    ) -> Result<(), PackError> {
        view.row(r, row);
        finite(&entry.name, r, row)?;
        let Some(through) = self.packing.through.filter(|&w| w != Width::F32) else { return Ok(()) };
        let format = self.format_at(entry.content, through);
        let mut scratch = vec![0.0; row.len()];
        for b in 0..row.len().div_ceil(BLOCK) {
            let block = block(&entry.name, view, r, b, format, &mut scratch)?;
            for (i, w) in row[b * BLOCK..].iter_mut().take(BLOCK).enumerate() {
                *w = block.weight(i, format);
            }
        }
        Ok(())
    }

    /// The tensor and row that make one output, or None for padding.
    fn output(&self, content: Content, panel: usize, lane: usize) -> Option<(&'a TensorView<'a>, usize)> {
        let n = panel * PANEL + lane;
        let (view, row) = match content {
            Content::Qkv(i) => {
                let l = &self.w.layers[i];
                let (q, k) = (l.q.rows, l.k.rows);
                if n < q {
                    (&l.q, n)
                } else if n < q + k {
                    (&l.k, n - q)
                } else {
                    (&l.v, n - q - k)
                }
            }
            Content::GateUp(i) => {
                let l = &self.w.layers[i];
                (if panel.is_multiple_of(2) { &l.gate } else { &l.up }, panel / 2 * PANEL + lane)
            }
            Content::OProj(i) => (&self.w.layers[i].o, n),
            Content::Down(i) => (&self.w.layers[i].down, n),
            Content::LmHead => (self.w.lm_head.as_ref().unwrap_or(&self.w.embed), n),
            Content::Embed => (&self.w.embed, n),
            _ => return None,
        };
        (row < view.rows).then(|| (view, self.stored(view, row)))
    }

    /// The stored row that holds output `row`, where pairs stand as (2i, 2i+1) within a head.
    fn stored(&self, view: &TensorView<'_>, row: usize) -> usize {
        match view.order {
            RowOrder::AsStored => row,
            RowOrder::HalvesToPairs => {
                let d = self.g.head_dim;
                let (head, r) = (row / d, row % d);
                head * d + r / 2 + r % 2 * (d / 2)
            }
        }
    }

    /// Every tensor has the shape the geometry asks for, and the bytes of that shape.
    fn check(&self) -> Result<(), PackError> {
        let (w, g) = (self.w, self.g);
        if w.layers.len() != g.layers {
            return Err(PackError::Layers { found: w.layers.len(), expected: g.layers });
        }
        match (&w.lm_head, g.tied) {
            (Some(_), true) => return Err(PackError::Tied("separate")),
            (None, false) => return Err(PackError::Tied("missing")),
            _ => {}
        }
        let (heads, kv) = (g.heads * g.head_dim, g.kv_heads * g.head_dim);
        check("embed", &w.embed, g.vocab, g.width)?;
        check("final_norm", &w.final_norm, 1, g.width)?;
        if let Some(head) = &w.lm_head {
            check("lm_head", head, g.vocab, g.width)?;
        }
        for (i, l) in w.layers.iter().enumerate() {
            let parts = [
                ("attn_norm", &l.attn_norm, 1, g.width),
                ("q", &l.q, heads, g.width),
                ("k", &l.k, kv, g.width),
                ("v", &l.v, kv, g.width),
                ("o", &l.o, g.width, heads),
                ("ffn_norm", &l.ffn_norm, 1, g.width),
                ("gate", &l.gate, g.ffn, g.width),
                ("up", &l.up, g.ffn, g.width),
                ("down", &l.down, g.width, g.ffn),
            ];
            for (name, view, rows, cols) in parts {
                check(&format!("layer.{i:02}/{name}"), view, rows, cols)?;
            }
        }
        Ok(())
    }
}

fn check(tensor: &str, view: &TensorView<'_>, rows: usize, cols: usize) -> Result<(), PackError> {
    let tensor = || tensor.to_owned();
    if (view.rows, view.cols) != (rows, cols) {
        let (want_rows, want_cols) = (rows, cols);
        return Err(PackError::Shape {
            tensor: tensor(),
            rows: view.rows,
            cols: view.cols,
            want_rows,
            want_cols,
        });
    }
    if view.bytes() != Some(view.data.len()) {
        let expected = view.bytes().map_or_else(|| "no whole number of blocks".to_owned(), |n| n.to_string());
        return Err(PackError::Length { tensor: tensor(), found: view.data.len(), expected });
    }
    Ok(())
}
