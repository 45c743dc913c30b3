//! The artifact `probes.safetensors`. The same samples give the same bytes.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::FORMAT;
use super::plan::{Entry, Plan};
use super::spec::{Feature, Probe};
use crate::trace::Header;
use crate::trace::Records;

/// For each entry of a plan: positions, and where their samples begin.
pub type Taken = Vec<Vec<(u32, usize)>>;

/// A tensor of the file.
pub struct Tensor {
    pub name: String,
    pub prompt: usize,
    /// Positions of its first axis; none if it has no such axis.
    pub positions: Vec<u32>,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    holds: Holds,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    F64,
    F32,
    U32,
}

impl Dtype {
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F64 => "F64",
            Dtype::F32 => "F32",
            Dtype::U32 => "U32",
        }
    }

    pub fn size(self) -> usize {
        if self == Dtype::F64 { 8 } else { 4 }
    }
}

enum Holds {
    Positions,
    /// Of an entry, by number.
    Feature(usize, usize),
    Values(usize),
    /// Of every row, and those that are the same for all.
    RowIndices(usize),
    Indices(Vec<u32>),
}

impl Tensor {
    /// Bytes of one index of the first axis.
    pub fn row_bytes(&self) -> usize {
        self.shape.iter().skip(1).product::<usize>() * self.dtype.size()
    }
}

pub fn write(
    out: &mut impl Write,
    spec: &str,
    plan: &Plan,
    taken: &[Taken],
    bytes: &Records,
) -> io::Result<()> {
    let tensors = tensors(plan, taken);
    out.write_all(&header(spec, plan, &tensors))?;
    for tensor in &tensors {
        data(out, plan, &taken[tensor.prompt], tensor, bytes)?;
    }
    out.flush()
}

/// In the order of their bytes: numbers of 8 bytes first, so that all lie where their size divides.
pub fn tensors(plan: &Plan, taken: &[Taken]) -> Vec<Tensor> {
    let (mut wide, mut narrow) = (Vec::new(), Vec::new());
    for (prompt, taken) in taken.iter().enumerate() {
        for (number, (name, probe)) in plan.probes.iter().enumerate() {
            let entries = || plan.entries.iter().enumerate().filter(|(_, entry)| entry.probe == number);
            let positions: Vec<u32> = entries()
                .next()
                .map(|(first, _)| taken[first].iter().map(|(position, _)| *position).collect())
                .unwrap_or_default();
            let count = positions.len();
            let tensor = |name: String, dtype, shape, holds| {
                let positions = positions.clone();
                Tensor { name: format!("{prompt}/{name}"), prompt, positions, dtype, shape, holds }
            };
            narrow.push(tensor(format!("{name}/positions"), Dtype::U32, vec![count], Holds::Positions));
            // What the last position sees is the width of all attention weights.
            let seen = positions.last().map_or(0, |last| *last as usize + 1);
            for (i, entry) in entries() {
                let base = format!("{name}/{}", entry.source);
                let shape = |last: Option<usize>| {
                    let heads = entry.heads().then_some(entry.groups);
                    [Some(count), heads, last].into_iter().flatten().collect::<Vec<usize>>()
                };
                let width = entry.elements(seen);
                let kept = entry.pick.count(width);
                if entry.pick != super::pick::Pick::None {
                    narrow.push(tensor(base.clone(), Dtype::F32, shape(Some(kept)), Holds::Values(i)));
                }
                let indices = format!("{base}#indices");
                if entry.pick.with_indices() {
                    narrow.push(tensor(indices, Dtype::U32, shape(Some(kept)), Holds::RowIndices(i)));
                } else if let Some(all) = entry.pick.indices(width) {
                    let (shape, holds) = (vec![all.len()], Holds::Indices(all));
                    let mut tensor = tensor(indices, Dtype::U32, shape, holds);
                    tensor.positions.clear();
                    narrow.push(tensor);
                }
                for (f, feature) in probe.features.iter().enumerate() {
                    let name = format!("{base}@{}", Feature::name(*feature));
                    wide.push(tensor(name, Dtype::F64, shape(None), Holds::Feature(i, f)));
                }
            }
        }
    }
    wide.append(&mut narrow);
    wide
}

pub fn header(spec: &str, plan: &Plan, tensors: &[Tensor]) -> Vec<u8> {
    let probes: BTreeMap<&str, &Probe> =
        plan.probes.iter().map(|(name, probe)| (name.as_str(), probe)).collect();
    let mut axes: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for entry in &plan.entries {
        axes.insert(format!("{}/{}", plan.probes[entry.probe].0, entry.source), entry.axes());
    }
    let text = |value: Result<String, serde_json::Error>| value.expect("BUG: probes are plain data");
    let (probes, axes) = (text(serde_json::to_string(&probes)), text(serde_json::to_string(&axes)));
    let mut header = Header::new(&[("format", FORMAT), ("spec", spec), ("probes", &probes), ("axes", &axes)]);
    for tensor in tensors {
        header.tensor(&tensor.name, tensor.dtype.name(), &tensor.shape, tensor.dtype.size());
    }
    header.finish()
}

/// What a tensor holds, position by position.
pub fn data(
    out: &mut impl Write,
    plan: &Plan,
    taken: &Taken,
    tensor: &Tensor,
    bytes: &Records,
) -> io::Result<()> {
    let words = |out: &mut dyn Write, words: &[u32]| {
        out.write_all(&words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>())
    };
    let i = match &tensor.holds {
        Holds::Positions => return words(out, &tensor.positions),
        Holds::Indices(indices) => return words(out, indices),
        Holds::Feature(i, _) | Holds::Values(i) | Holds::RowIndices(i) => *i,
    };
    let entry = &plan.entries[i];
    let features = plan.probes[entry.probe].1.features.len();
    let wanted = tensor.shape.last().copied().unwrap_or_default();
    for &(position, start) in &taken[i] {
        let there = entry.pick.count(entry.elements(position as usize + 1));
        let sample = Sample { entry, features, there, bytes, start };
        match tensor.holds {
            Holds::Feature(_, f) => {
                (0..entry.groups).try_for_each(|g| out.write_all(sample.feature(g, f)))?
            }
            Holds::Values(_) => {
                for group in 0..entry.groups {
                    out.write_all(sample.values(group))?;
                    // What a position does not see has no weight.
                    words(out, &vec![0; wanted - there])?;
                }
            }
            _ => {
                for group in 0..entry.groups {
                    out.write_all(sample.indices(group))?;
                    words(out, &(there as u32..wanted as u32).collect::<Vec<u32>>())?;
                }
            }
        }
    }
    Ok(())
}

/// The samples of one position.
struct Sample<'a> {
    entry: &'a Entry,
    features: usize,
    /// Numbers of each group.
    there: usize,
    bytes: &'a Records,
    start: usize,
}

impl<'a> Sample<'a> {
    fn feature(&self, group: usize, feature: usize) -> &'a [u8] {
        self.bytes.part(0, self.start + (group * self.features + feature) * 8, 8)
    }

    fn values(&self, group: usize) -> &'a [u8] {
        self.words(0, group)
    }

    fn indices(&self, group: usize) -> &'a [u8] {
        self.words(self.entry.groups * self.there * 4, group)
    }

    fn words(&self, at: usize, group: usize) -> &'a [u8] {
        let start = self.start + self.entry.groups * self.features * 8 + at;
        self.bytes.part(0, start + group * self.there * 4, self.there * 4)
    }
}
