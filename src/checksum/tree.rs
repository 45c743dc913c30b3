//! The tree over the leaves, its root, and proofs. Knows no JSON and no file.

use pipe_store::Digest;
use serde::{Deserialize, Serialize};

use super::Leaf;

/// First field of a proof; a change of the tree's shape changes the version.
const FORMAT: &str = "pipe/proof@1";
const DOMAIN: &[u8] = b"pipe/checksum@1";
/// A path longer than this is nobody's.
const LONGEST_PATH: usize = 1 << 12;

/// Hash of a leaf: a byte 0, the path's length as u32 little-endian, the path, the value's digest.
fn leaf(path: &str, value: &Digest) -> Digest {
    let length = (path.len() as u32).to_le_bytes();
    Digest::of(&[&[0][..], &length, path.as_bytes(), &value.0].concat())
}

/// Hash of two nodes: a byte 1 and both.
fn node(left: &Digest, right: &Digest) -> Digest {
    Digest::of(&[&[1][..], &left.0, &right.0].concat())
}

/// The checksum: domain, a byte 2, the number of leaves as u64 little-endian, the top node.
fn root(count: u64, top: &Digest) -> Digest {
    Digest::of(&[DOMAIN, &[2], &count.to_le_bytes(), &top.0].concat())
}

/// All levels, the leaves' first. Nodes are joined in pairs; the last of an odd number goes up as it is.
pub struct Tree {
    leaves: Vec<Leaf>,
    levels: Vec<Vec<Digest>>,
}

/// That a leaf belongs to a checksum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    pub format: String,
    pub checksum: Digest,
    pub path: String,
    /// BLAKE3 of the leaf's value.
    pub value: Digest,
    pub leaf: u64,
    pub leaves: u64,
    /// The other node of each pair on the way up.
    pub siblings: Vec<Digest>,
}

/// A proof that proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    #[error("its format is `{0}`; this pipe reads {FORMAT}")]
    Format(String),
    #[error("leaf {leaf} is not one of {leaves}")]
    Leaf { leaf: u64, leaves: u64 },
    #[error("it has {found} siblings where leaf {leaf} of {leaves} takes {expected}")]
    Siblings { leaf: u64, leaves: u64, expected: usize, found: usize },
    #[error("its path is {0} bytes long")]
    Path(usize),
    #[error("leaf `{path}` with that value and these siblings gives the checksum {found}, not {expected}")]
    Checksum { path: String, expected: Digest, found: Digest },
}

impl Tree {
    /// The tree over these leaves, in their order.
    ///
    /// # Panics
    /// Without leaves.
    pub fn new(leaves: Vec<Leaf>) -> Self {
        assert!(!leaves.is_empty(), "a checksum is of something");
        let mut levels = vec![leaves.iter().map(|l| leaf(&l.path, &l.value)).collect::<Vec<_>>()];
        while let Some(last) = levels.last().filter(|last| last.len() > 1) {
            let up = last.chunks(2).map(|pair| match pair {
                [left, right] => node(left, right),
                alone => alone[0],
            });
            let up = up.collect();
            levels.push(up);
        }
        Tree { leaves, levels }
    }

    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    pub fn checksum(&self) -> Digest {
        root(self.leaves.len() as u64, &self.levels[self.levels.len() - 1][0])
    }

    /// The proof of the leaf with this path.
    pub fn prove(&self, path: &str) -> Option<Proof> {
        let at = self.leaves.iter().position(|leaf| leaf.path == path)?;
        let mut index = at;
        let mut siblings = Vec::new();
        for level in &self.levels {
            siblings.extend(level.get(index ^ 1));
            index /= 2;
        }
        Some(Proof {
            format: FORMAT.into(),
            checksum: self.checksum(),
            path: path.into(),
            value: self.leaves[at].value,
            leaf: at as u64,
            leaves: self.leaves.len() as u64,
            siblings,
        })
    }
}

impl Proof {
    /// Does the leaf belong to the checksum that the proof names? Takes time of the logarithm of the number of leaves.
    pub fn check(&self) -> Result<(), ProofError> {
        if self.format != FORMAT {
            return Err(ProofError::Format(self.format.clone()));
        }
        if self.path.len() > LONGEST_PATH {
            return Err(ProofError::Path(self.path.len()));
        }
        let (leaf, leaves) = (self.leaf, self.leaves);
        if leaf >= leaves {
            return Err(ProofError::Leaf { leaf, leaves });
        }
        let (mut index, mut width) = (leaf, leaves);
        let mut siblings = self.siblings.iter();
        let mut found = self::leaf(&self.path, &self.value);
        let mut taken = 0;
        while width > 1 {
            if index ^ 1 < width {
                taken += 1;
                if let Some(other) = siblings.next() {
                    found = if index % 2 == 0 { node(&found, other) } else { node(other, &found) };
                }
            }
            index /= 2;
            width = width.div_ceil(2);
        }
        if taken != self.siblings.len() {
            return Err(ProofError::Siblings { leaf, leaves, expected: taken, found: self.siblings.len() });
        }
        let found = root(leaves, &found);
        if found != self.checksum {
            return Err(ProofError::Checksum { path: self.path.clone(), expected: self.checksum, found });
        }
        Ok(())
    }
}
