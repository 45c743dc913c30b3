//! Writing a packed model: header first, then tensor after tensor, a few panels in memory at a time.

use std::io::Write;

use rayon::prelude::*;

use super::layout::{ALIGN, Content, Entry, LAYOUT, entries};
use super::{PackError, rope};
use crate::cpu::linear::PANEL;
use crate::geometry::Geometry;
use crate::spec::Spec;
use crate::weights::{ModelWeights, RowOrder, TensorView};

/// Bytes of panels made at once.
const BATCH: usize = 8 << 20;

/// Writes the packed model for `spec` to `out`: safetensors, layout [`LAYOUT`], tensor data on a 64-byte
/// boundary. Memory stays at some megabytes; rayon's current pool helps; the bytes depend on neither.
pub fn pack(w: &ModelWeights<'_>, g: &Geometry, spec: Spec, out: &mut impl Write) -> Result<(), PackError> {
    g.check()?;
    let sources = Sources { w, g };
    let entries = entries(g);
    sources.check()?;
    out.write_all(&header(g, spec, &entries))?;
    for entry in &entries {
        match entry.content {
            Content::Rope => write_rope(g, out)?,
            Content::Embed => write_rows("embed", &w.embed, out)?,
            Content::AttnNorm(i) => write_rows(&entry.name, &w.layers[i].attn_norm, out)?,
            Content::FfnNorm(i) => write_rows(&entry.name, &w.layers[i].ffn_norm, out)?,
            Content::FinalNorm => write_rows(&entry.name, &w.final_norm, out)?,
            _ => write_panels(&sources, entry, out)?,
        }
    }
    Ok(())
}

/// Bytes of the file [`pack`] writes for this geometry.
pub fn packed_len(g: &Geometry, spec: Spec) -> Result<u64, PackError> {
    g.check()?;
    let entries = entries(g);
    Ok(header(g, spec, &entries).len() as u64 + entries.iter().map(|e| e.floats() as u64 * 4).sum::<u64>())
}

/// Length word, JSON, spaces up to a multiple of 64.
fn header(g: &Geometry, spec: Spec, entries: &[Entry]) -> Vec<u8> {
    let quote = |s: &str| serde_json::Value::from(s).to_string();
    let geometry = serde_json::to_string(g).unwrap_or_default();
    let metadata = [
        ("layout", LAYOUT.to_owned()),
        ("spec", spec.id().to_owned()),
        ("geometry", geometry),
        // The two numbers that are no integers, once more as bits: decimal text is a detour.
        ("rope_base_bits", format!("{:016x}", g.rope_base.to_bits())),
        ("norm_eps_bits", format!("{:08x}", g.norm_eps.to_bits())),
    ];
    let fields: Vec<String> = metadata.iter().map(|(k, v)| format!("{}:{}", quote(k), quote(v))).collect();
    let mut json = format!("{{\"__metadata__\":{{{}}}", fields.join(","));
    let mut at = 0;
    for e in entries {
        let end = at + e.floats() * 4;
        let shape: Vec<String> = e.shape.iter().map(usize::to_string).collect();
        json += &format!(
            ",{}:{{\"dtype\":\"F32\",\"shape\":[{}],\"data_offsets\":[{at},{end}]}}",
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

fn write_rows(name: &str, view: &TensorView<'_>, out: &mut impl Write) -> Result<(), PackError> {
    let mut row = vec![0.0; view.cols];
    let mut bytes = Vec::new();
    for r in 0..view.rows {
        view.row(r, &mut row);
        finite(name, r, &row)?;
        write_floats(&row, &mut bytes, out)?;
    }
    Ok(())
}

fn finite(tensor: &str, row: usize, weights: &[f32]) -> Result<(), PackError> {
    match weights.iter().position(|w| !w.is_finite()) {
        None => Ok(()),
        Some(col) => Err(PackError::NotFinite { tensor: tensor.to_owned(), row, col }),
    }
}

fn write_panels(sources: &Sources<'_>, entry: &Entry, out: &mut impl Write) -> Result<(), PackError> {
    let (panels, k) = (entry.shape[0], entry.shape[1]);
    let batch = (BATCH / (k * PANEL * 4)).clamp(1, panels);
    let mut floats = vec![0.0f32; batch * k * PANEL];
    let mut bytes = Vec::new();
    for start in (0..panels).step_by(batch) {
        let now = batch.min(panels - start);
        floats[..now * k * PANEL].par_chunks_mut(k * PANEL).enumerate().try_for_each(|(i, panel)| {
            let mut row = vec![0.0; k];
            for lane in 0..PANEL {
                match sources.output(entry.content, start + i, lane) {
                    None => row.fill(0.0),
                    Some((view, r)) => {
                        view.row(r, &mut row);
                        finite(&entry.name, r, &row)?;
                    }
                }
                for (slot, &w) in panel.iter_mut().skip(lane).step_by(PANEL).zip(&row) {
                    *slot = w;
                }
            }
            Ok::<(), PackError>(())
        })?;
        write_floats(&floats[..now * k * PANEL], &mut bytes, out)?;
    }
    Ok(())
}

/// Where each output of a packed matrix comes from.
struct Sources<'a> {
    w: &'a ModelWeights<'a>,
    g: &'a Geometry,
}

impl<'a> Sources<'a> {
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
