//! The artifact `trace.safetensors`: metadata, and for each prompt its tokens, its digests and the rows it keeps.

use std::io::{self, Write};

use pipe_store::Digest;

use super::header::Header;
use super::spool::Records;
use super::{FORMAT, Layout};

/// One prompt's part of the artifact.
pub struct Written<'a> {
    /// Of the whole transcript.
    pub tokens: &'a [u32],
    /// For each position that went through the model, one for each covered block.
    pub digests: &'a [Digest],
    /// For each such position its record of kept rows.
    pub records: &'a [usize],
}

impl Written<'_> {
    /// Positions that went through the model.
    fn computed(&self, layout: &Layout) -> usize {
        self.digests.len() / layout.blocks.len().max(1)
    }
}

/// Writes safetensors. The same traces give the same bytes.
pub fn write(
    out: &mut impl Write,
    spec: &str,
    layout: &Layout,
    prompts: &[Written<'_>],
    records: Option<&Records>,
) -> io::Result<()> {
    out.write_all(&header(spec, layout, prompts))?;
    for prompt in prompts {
        let tokens: Vec<u8> = prompt.tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
        out.write_all(&tokens)?;
        for digest in prompt.digests {
            out.write_all(&digest.0)?;
        }
        let Some(records) = records else { continue };
        let mut at = 0;
        for (_, _, width) in layout.kept() {
            for &record in prompt.records {
                out.write_all(records.part(record, at, width * 4))?;
            }
            at += width * 4;
        }
    }
    out.flush()
}

fn header(spec: &str, layout: &Layout, prompts: &[Written<'_>]) -> Vec<u8> {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let blocks: Vec<String> = layout.blocks.iter().map(|block| quote(&block.to_string())).collect();
    let blocks = format!("[{}]", blocks.join(","));
    let fields = [("format", FORMAT), ("spec", spec), ("level", layout.level.name()), ("blocks", &blocks)];
    let mut header = Header::new(&fields);
    for (i, prompt) in prompts.iter().enumerate() {
        let computed = prompt.computed(layout);
        header.tensor(&format!("{i}/tokens"), "U32", &[prompt.tokens.len()], 4);
        header.tensor(&format!("{i}/digests"), "U8", &[computed, layout.blocks.len(), 32], 1);
        for (_, block, width) in layout.kept() {
            header.tensor(&format!("{i}/{block}"), "F32", &[computed, width], 4);
        }
    }
    header.finish()
}
