//! The components that the answer is a sum of: attention heads and feed-forward networks. Knows no arithmetic.

use std::fmt;
use std::str::FromStr;

use pipe_kernels::Geometry;
use serde::{Deserialize, Serialize};

/// A part of the model that adds to the residual stream; written `layer.05/head.3` and `layer.05/ffn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Component {
    Head { layer: usize, head: usize },
    Ffn { layer: usize },
}

impl Component {
    /// All of a model's, layer by layer, the heads of a layer before its feed-forward network.
    pub fn all(g: &Geometry) -> Vec<Component> {
        let of_layer = |layer| {
            let heads = (0..g.heads).map(move |head| Component::Head { layer, head });
            heads.chain(std::iter::once(Component::Ffn { layer }))
        };
        (0..g.layers).flat_map(of_layer).collect()
    }

    /// Where it stands in [`Component::all`].
    pub fn index(self, g: &Geometry) -> usize {
        match self {
            Component::Head { layer, head } => layer * (g.heads + 1) + head,
            Component::Ffn { layer } => layer * (g.heads + 1) + g.heads,
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Component::Head { layer, head } => write!(f, "layer.{layer:02}/head.{head}"),
            Component::Ffn { layer } => write!(f, "layer.{layer:02}/ffn"),
        }
    }
}

/// A name that is no component's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no component; names look like `layer.05/head.3` or `layer.05/ffn`")]
pub struct UnknownComponent(pub String);

impl FromStr for Component {
    type Err = UnknownComponent;
    fn from_str(s: &str) -> Result<Self, UnknownComponent> {
        let parse = || {
            let (layer, what) = s.strip_prefix("layer.")?.split_once('/')?;
            let layer = layer.parse().ok()?;
            let component = match what.strip_prefix("head.") {
                Some(head) => Component::Head { layer, head: head.parse().ok()? },
                None => Component::Ffn { layer },
            };
            (component.to_string() == s).then_some(component)
        };
        parse().ok_or_else(|| UnknownComponent(s.to_owned()))
    }
}

impl From<Component> for String {
    fn from(c: Component) -> String {
        c.to_string()
    }
}

impl TryFrom<String> for Component {
    type Error = UnknownComponent;
    fn try_from(s: String) -> Result<Self, UnknownComponent> {
        s.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_its_component_back() {
        let g = Geometry {
            layers: 3,
            width: 8,
            heads: 4,
            kv_heads: 2,
            head_dim: 2,
            ffn: 8,
            vocab: 10,
            context: 16,
            rope_base: 1e4,
            norm_eps: 1e-5,
            tied: true,
        };
        for (i, component) in Component::all(&g).into_iter().enumerate() {
            assert_eq!(component.to_string().parse(), Ok(component));
            assert_eq!(component.index(&g), i);
        }
        for bad in ["", "layer.1/ffn", "layer.01/head", "layer.01/head.01", "layer.01/attention"] {
            assert!(bad.parse::<Component>().is_err(), "{bad}");
        }
    }
}
