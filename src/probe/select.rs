//! Selectors: which blocks, and which parts inside them. `layer.*.ffn.residual`, `layer.{0,15,29}/qkv.q`, `embed`.

use std::fmt;
use std::str::FromStr;

use pipe_kernels::{Block, Geometry};
use serde::{Deserialize, Serialize};

/// What of a block's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    Whole,
    Q,
    K,
    V,
    Gate,
    Up,
    /// The context by heads.
    Heads,
    /// The attention weights by heads, over positions: no block gives them out.
    Weights,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Whole => "",
            Part::Q => "q",
            Part::K => "k",
            Part::V => "v",
            Part::Gate => "gate",
            Part::Up => "up",
            Part::Heads => "heads",
            Part::Weights => "weights",
        }
    }

    fn of(block: Block) -> &'static [Part] {
        match block {
            Block::Qkv { .. } => &[Part::Q, Part::K, Part::V],
            Block::Rope { .. } => &[Part::Q, Part::K],
            Block::GateUp { .. } => &[Part::Gate, Part::Up],
            Block::Attention { .. } => &[Part::Heads, Part::Weights],
            _ => &[],
        }
    }
}

/// A block or a part of it: what a probe takes rows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    pub block: Block,
    pub part: Part,
}

impl Source {
    /// The block whose output is looked at.
    pub fn tapped(self) -> Block {
        match (self.block, self.part) {
            (Block::Attention { layer }, Part::Weights) => Block::Rope { layer },
            (block, _) => block,
        }
    }

    /// Where in the tapped row it begins, how many groups it has (heads), and elements of each. Of the attention
    /// weights: of the queries they come from.
    pub fn extent(self, g: &Geometry) -> (usize, usize, usize) {
        let (heads, kv) = (g.heads * g.head_dim, g.kv_heads * g.head_dim);
        match self.part {
            Part::Whole => (0, 1, self.block.width(g)),
            Part::Q => (0, 1, heads),
            Part::K => (heads, 1, kv),
            Part::V => (heads + kv, 1, kv),
            Part::Gate => (0, 1, g.ffn),
            Part::Up => (g.ffn, 1, g.ffn),
            Part::Heads | Part::Weights => (0, g.heads, g.head_dim),
        }
    }

    /// The name without the layer.
    fn name(self) -> String {
        match self.part {
            Part::Whole => self.block.kind().into(),
            part => format!("{}.{}", self.block.kind(), part.name()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            Part::Whole => self.block.fmt(f),
            part => write!(f, "{}.{}", self.block, part.name()),
        }
    }
}

/// The blocks that stand in no layer and have rows.
const OUTSIDE: [Block; 3] = [Block::Embed, Block::FinalNorm, Block::LmHead];

/// Blocks and parts of a layer.
fn inside(layer: u32) -> impl Iterator<Item = Source> {
    Block::of_layer(layer).into_iter().flat_map(|block| {
        let parts = std::iter::once(Part::Whole).chain(Part::of(block).iter().copied());
        parts.map(move |part| Source { block, part })
    })
}

/// Every name a selector can end in; those of layers with `layer.*.` before them.
pub fn names() -> Vec<String> {
    let outside = OUTSIDE.iter().map(|block| block.kind().to_owned());
    outside.chain(inside(0).map(|source| format!("layer.*.{}", source.name()))).collect()
}

/// Whole blocks if the pattern names any, else parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Selector {
    /// `*`: every whole block.
    Every,
    /// Outside the layers.
    Outside { pattern: String },
    Inside {
        layers: LayerSet,
        /// `.` between the words of a name; `*` stands for any characters.
        pattern: String,
    },
}

/// Numbers of layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerSet {
    All,
    /// Ranges, both ends included, as they were written.
    Some(Vec<(u32, u32)>),
}

/// A text that selects nothing in any model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("`{text}` selects no block")]
    Unknown { text: String },
    #[error("`{layers}` is no layer, and no set of layers")]
    Layers { layers: String },
    #[error("`sample` has no rows to look at: the tokens are in answers.json")]
    Sample,
}

impl FromStr for Selector {
    type Err = SelectorError;
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let unknown = || SelectorError::Unknown { text: text.to_owned() };
        let plain = |rest: &str| rest.replace('/', ".");
        let selector = match text.strip_prefix("layer.").or_else(|| text.strip_prefix("layer/")) {
            _ if text == "*" => return Ok(Selector::Every),
            _ if text == "sample" => return Err(SelectorError::Sample),
            None => Selector::Outside { pattern: plain(text) },
            Some(rest) => {
                let end = match rest.starts_with('{') {
                    true => rest.find('}').ok_or_else(unknown)? + 1,
                    false => rest.find(['.', '/']).ok_or_else(unknown)?,
                };
                let (layers, rest) = rest.split_at(end);
                let pattern = rest.strip_prefix(['.', '/']).ok_or_else(unknown)?;
                Selector::Inside { layers: layers.parse()?, pattern: plain(pattern) }
            }
        };
        if selector.kinds().is_empty() { Err(unknown()) } else { Ok(selector) }
    }
}

impl FromStr for LayerSet {
    type Err = SelectorError;
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let wrong = || SelectorError::Layers { layers: text.to_owned() };
        let number = |digits: &str| {
            let digits = digits.trim();
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            if plain { digits.parse::<u32>().map_err(|_| wrong()) } else { Err(wrong()) }
        };
        if text == "*" {
            return Ok(LayerSet::All);
        }
        let Some(inner) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
            let layer = number(text)?;
            return Ok(LayerSet::Some(vec![(layer, layer)]));
        };
        let range = |item: &str| {
            let (from, to) = item.split_once("..").unwrap_or((item, item));
            let (from, to) = (number(from)?, number(to)?);
            if from <= to { Ok((from, to)) } else { Err(wrong()) }
        };
        inner.split(',').map(range).collect::<Result<_, _>>().map(LayerSet::Some)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Every => f.write_str("*"),
            Selector::Outside { pattern } => f.write_str(pattern),
            Selector::Inside { layers, pattern } => write!(f, "layer.{layers}/{pattern}"),
        }
    }
}

impl fmt::Display for LayerSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = match self {
            LayerSet::All => return f.write_str("*"),
            LayerSet::Some(ranges) => ranges,
        };
        if let [(one, other)] = ranges[..]
            && one == other
        {
            return write!(f, "{one:02}");
        }
        let text = |(from, to): &(u32, u32)| match from == to {
            true => from.to_string(),
            false => format!("{from}..{to}"),
        };
        write!(f, "{{{}}}", ranges.iter().map(text).collect::<Vec<_>>().join(","))
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> String {
        selector.to_string()
    }
}

impl TryFrom<String> for Selector {
    type Error = SelectorError;
    fn try_from(text: String) -> Result<Self, SelectorError> {
        text.parse()
    }
}

impl Selector {
    /// The sources of this kind, in any one layer.
    fn kinds(&self) -> Vec<Source> {
        let whole = |block: Block| Source { block, part: Part::Whole };
        match self {
            Selector::Every => {
                OUTSIDE.into_iter().map(whole).chain(inside(0).filter(|s| s.part == Part::Whole)).collect()
            }
            Selector::Outside { pattern } => {
                OUTSIDE.into_iter().filter(|block| matches(pattern, block.kind())).map(whole).collect()
            }
            Selector::Inside { pattern, .. } => {
                let (blocks, parts): (Vec<Source>, Vec<Source>) =
                    inside(0).filter(|s| matches(pattern, &s.name())).partition(|s| s.part == Part::Whole);
                if blocks.is_empty() { parts } else { blocks }
            }
        }
    }

    /// May it select attention weights?
    pub fn weights(&self) -> bool {
        self.kinds().iter().any(|source| source.part == Part::Weights)
    }

    /// Does it select only these?
    pub fn only_weights(&self) -> bool {
        self.kinds().iter().all(|source| source.part == Part::Weights)
    }

    /// What it selects in a model of so many layers. None if it names a layer that is not there.
    pub fn sources(&self, layers: u32) -> Option<Vec<Source>> {
        let wanted: Vec<u32> = match self {
            Selector::Inside { layers: LayerSet::Some(ranges), .. } => {
                if ranges.iter().any(|(_, to)| *to >= layers) {
                    return None;
                }
                ranges.iter().flat_map(|(from, to)| *from..=*to).collect()
            }
            _ => (0..layers).collect(),
        };
        let in_layer = |kind: &Source, layer: u32| {
            let place = inside(0).position(|source| source == *kind)?;
            inside(layer).nth(place)
        };
        let of_kind = |kind: Source| -> Vec<Source> {
            match kind.block.layer() {
                None => vec![kind],
                Some(_) => wanted.iter().filter_map(|layer| in_layer(&kind, *layer)).collect(),
            }
        };
        Some(self.kinds().into_iter().flat_map(of_kind).collect())
    }
}

/// Does a name fit a pattern in which `*` stands for any characters?
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(first) else { return false };
    let pieces: Vec<&str> = rest.split('*').collect();
    let Some((last, middle)) = pieces.split_last() else { return true };
    for piece in middle {
        match left.find(piece) {
            Some(at) => left = &left[at + piece.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(text: &str) -> Vec<String> {
        let selector: Selector = text.parse().unwrap();
        assert_eq!(selector.to_string().parse(), Ok(selector.clone()), "{selector} reads back");
        selector.sources(3).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn patterns_select_what_they_say() {
        let all = ["layer.00/ffn.residual", "layer.01/ffn.residual", "layer.02/ffn.residual"];
        for text in ["layer.*.ffn.residual", "layer/*/ffn.residual", "layer.{0..2}/ffn/residual"] {
            assert_eq!(selected(text), all);
        }
        for text in ["layer.1.qkv.k", "layer.01/qkv.k", "layer.{1}.qkv.k", "layer.001.*.k"] {
            assert!(selected(text).contains(&"layer.01/qkv.k".into()), "{text}");
        }
        assert_eq!(selected("layer.{0,2}.rope.q"), ["layer.00/rope.q", "layer.02/rope.q"]);
        assert_eq!(selected("layer.2.*.residual"), ["layer.02/attn.residual", "layer.02/ffn.residual"]);
        assert_eq!(
            selected("layer.0.attention.*"),
            ["layer.00/attention.heads", "layer.00/attention.weights"]
        );
        assert_eq!(selected("layer.0.*").len(), 11, "whole blocks, not their parts");
        assert_eq!(selected("*").len(), 3 + 3 * 11);
        assert_eq!(selected("*norm"), ["final_norm"]);
        assert_eq!(selected("embed"), ["embed"]);
    }

    #[test]
    fn texts_that_select_nothing_are_refused() {
        for bad in [
            "",
            "layer",
            "layer.",
            "layer.5",
            "layer.*.",
            "layer.*.fnn.residual",
            "layers.*.qkv",
            "attention",
            "layer.*.qkv.w",
            "layer.{0.qkv",
            "embed.x",
            "layer.*qkv",
        ] {
            assert!(matches!(bad.parse::<Selector>(), Err(SelectorError::Unknown { .. })), "{bad}");
        }
        for bad in ["layer.x.qkv", "layer.{}.qkv", "layer.{3..1}.qkv", "layer.{1-2}.qkv", "layer.-1.qkv"] {
            assert!(matches!(bad.parse::<Selector>(), Err(SelectorError::Layers { .. })), "{bad}");
        }
        assert_eq!("sample".parse::<Selector>(), Err(SelectorError::Sample));
        let beyond: Selector = "layer.{1,3}.qkv".parse().unwrap();
        assert_eq!(beyond.sources(3), None);
    }
}
