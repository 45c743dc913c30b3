//! The basic blocks of a transformer as data: their names, their layer, the width of what they give out.
//! Knows no arithmetic and no thread.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::geometry::Geometry;

/// Which half of a layer a norm or a residual addition belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Half {
    Attention,
    Ffn,
}

/// One basic block; those of a layer carry its number, from 0.
///
/// Written `embed`, `layer.05/attention`, `layer.05/ffn.residual`, `final_norm`…, which is also how it is
/// serialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Block {
    Embed,
    RmsNorm { layer: u32, half: Half },
    Qkv { layer: u32 },
    Rope { layer: u32 },
    Attention { layer: u32 },
    OProj { layer: u32 },
    Residual { layer: u32, half: Half },
    GateUp { layer: u32 },
    SwiGlu { layer: u32 },
    Down { layer: u32 },
    FinalNorm,
    LmHead,
    Sample,
}

impl Block {
    /// The blocks of one layer, in the order data flows.
    pub fn of_layer(layer: u32) -> [Block; 11] {
        [
            Block::RmsNorm { layer, half: Half::Attention },
            Block::Qkv { layer },
            Block::Rope { layer },
            Block::Attention { layer },
            Block::OProj { layer },
            Block::Residual { layer, half: Half::Attention },
            Block::RmsNorm { layer, half: Half::Ffn },
            Block::GateUp { layer },
            Block::SwiGlu { layer },
            Block::Down { layer },
            Block::Residual { layer, half: Half::Ffn },
        ]
    }

    /// The layer the block belongs to, if it belongs to one.
    pub fn layer(self) -> Option<u32> {
        use Block::*;
        match self {
            RmsNorm { layer, .. } | Residual { layer, .. } => Some(layer),
            Qkv { layer } | Rope { layer } | Attention { layer } | OProj { layer } => Some(layer),
            GateUp { layer } | SwiGlu { layer } | Down { layer } => Some(layer),
            Embed | FinalNorm | LmHead | Sample => None,
        }
    }

    /// The kind of block, without the layer: `attention`, `ffn.residual`.
    pub fn kind(self) -> &'static str {
        use Block::*;
        match self {
            Embed => "embed",
            RmsNorm { half: Half::Attention, .. } => "attn.rms_norm",
            RmsNorm { half: Half::Ffn, .. } => "ffn.rms_norm",
            Qkv { .. } => "qkv",
            Rope { .. } => "rope",
            Attention { .. } => "attention",
            OProj { .. } => "o_proj",
            Residual { half: Half::Attention, .. } => "attn.residual",
            Residual { half: Half::Ffn, .. } => "ffn.residual",
            GateUp { .. } => "gate_up",
            SwiGlu { .. } => "swiglu",
            Down { .. } => "down",
            FinalNorm => "final_norm",
            LmHead => "lm_head",
            Sample => "sample",
        }
    }

    /// Elements of the block's output per position. `qkv` gives q, k and v; `rope` the rotated q and k;
    /// `gate_up` gate, then up; `sample` one token.
    pub fn width(self, g: &Geometry) -> usize {
        use Block::*;
        match self {
            Embed | RmsNorm { .. } | OProj { .. } | Residual { .. } | Down { .. } | FinalNorm => g.width,
            Qkv { .. } => (g.heads + 2 * g.kv_heads) * g.head_dim,
            Rope { .. } => (g.heads + g.kv_heads) * g.head_dim,
            Attention { .. } => g.heads * g.head_dim,
            GateUp { .. } => 2 * g.ffn,
            SwiGlu { .. } => g.ffn,
            LmHead => g.vocab,
            Sample => 1,
        }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer() {
            Some(layer) => write!(f, "layer.{layer:02}/{}", self.kind()),
            None => f.write_str(self.kind()),
        }
    }
}

/// A name that is no block's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no block; names look like `embed`, `layer.05/attention` or `layer.05/ffn.residual`")]
pub struct UnknownBlock(pub String);

impl FromStr for Block {
    type Err = UnknownBlock;
    fn from_str(s: &str) -> Result<Self, UnknownBlock> {
        let unknown = || UnknownBlock(s.to_owned());
        let found = match s.strip_prefix("layer.").and_then(|rest| rest.split_once('/')) {
            Some((number, _)) => {
                let layer = number.parse().map_err(|_| unknown())?;
                Block::of_layer(layer).into_iter().find(|b| b.to_string() == s)
            }
            None => [Block::Embed, Block::FinalNorm, Block::LmHead, Block::Sample]
                .into_iter()
                .find(|b| b.kind() == s),
        };
        found.ok_or_else(unknown)
    }
}

impl From<Block> for String {
    fn from(b: Block) -> String {
        b.to_string()
    }
}

impl TryFrom<String> for Block {
    type Error = UnknownBlock;
    fn try_from(s: String) -> Result<Self, UnknownBlock> {
        s.parse()
    }
}
