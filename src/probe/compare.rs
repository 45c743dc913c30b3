//! The artifact that should be, against the bytes that are there.

use std::collections::BTreeSet;
use std::io::{self, Write};

use safetensors::SafeTensors;

use super::plan::Plan;
use super::write::{self, Dtype, Taken, Tensor};
use crate::trace::Records;

/// The first difference of a probe's artifact.
#[derive(Clone, Debug, PartialEq)]
pub enum Mismatch {
    /// Before or behind all tensors: from this byte on.
    File { at: usize, expected: usize, found: usize },
    Value {
        prompt: usize,
        /// As in the file, without the prompt's number.
        tensor: String,
        /// None in a list that belongs to no position.
        position: Option<usize>,
        /// In the position's part of the tensor.
        element: usize,
        expected: String,
        found: String,
    },
}

/// A writer that only looks whether the bytes are those already there.
struct Comparing<'a> {
    found: &'a [u8],
    at: usize,
    different: Option<usize>,
}

impl Write for Comparing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let there = self.found.get(self.at..).unwrap_or_default();
        let there = &there[..bytes.len().min(there.len())];
        if self.different.is_none() && there != bytes {
            let same = bytes.iter().zip(there).take_while(|(a, b)| a == b).count();
            self.different = Some(self.at + same);
        }
        self.at += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub fn compare(
    found: &[u8],
    spec: &str,
    plan: &Plan,
    taken: &[Taken],
    bytes: &Records,
) -> io::Result<Option<Mismatch>> {
    let tensors = write::tensors(plan, taken);
    let header = write::header(spec, plan, &tensors);
    let mut comparing = Comparing { found, at: 0, different: None };
    comparing.write_all(&header)?;
    for tensor in &tensors {
        let start = comparing.at;
        if comparing.different.is_none() {
            write::data(&mut comparing, plan, &taken[tensor.prompt], tensor, bytes)?;
        } else {
            comparing.at += tensor.shape.iter().product::<usize>() * tensor.dtype.size();
        }
        if let Some(at) = comparing.different.filter(|at| *at >= start && *at < found.len()) {
            let mut expected = Vec::new();
            write::data(&mut expected, plan, &taken[tensor.prompt], tensor, bytes)?;
            return Ok(Some(value(tensor, at - start, &expected, &found[start..])));
        }
    }
    let expected = comparing.at;
    let longer = (found.len() > expected).then_some(expected);
    let at = comparing.different.or(longer);
    Ok(at.map(|at| Mismatch::File { at, expected, found: found.len() }))
}

/// The tensors of some prompts only, by name, wherever in the file they lie.
pub fn compare_some(
    found: &[u8],
    plan: &Plan,
    taken: &[Taken],
    prompts: &BTreeSet<usize>,
    bytes: &Records,
) -> io::Result<Option<Mismatch>> {
    let other = |prompt: usize, tensor: &str, expected: String, found: String| {
        let tensor = tensor.to_owned();
        Ok(Some(Mismatch::Value { prompt, tensor, position: None, element: 0, expected, found }))
    };
    let there = match SafeTensors::deserialize(found) {
        Ok(there) => there,
        Err(e) => return other(0, "header", "a readable file".into(), e.to_string()),
    };
    for tensor in write::tensors(plan, taken).iter().filter(|tensor| prompts.contains(&tensor.prompt)) {
        let mut expected = Vec::new();
        write::data(&mut expected, plan, &taken[tensor.prompt], tensor, bytes)?;
        let (_, name) = tensor.name.split_once('/').unwrap_or_default();
        let shaped = there.tensor(&tensor.name).ok().filter(|found| {
            found.shape() == tensor.shape && found.dtype().to_string() == tensor.dtype.name()
        });
        let Some(found) = shaped else {
            let expected = format!("{} {:?}", tensor.dtype.name(), tensor.shape);
            return other(tensor.prompt, name, expected, "no such tensor".into());
        };
        if let Some(at) = expected.iter().zip(found.data()).position(|(a, b)| a != b) {
            return Ok(Some(value(tensor, at, &expected, found.data())));
        }
    }
    Ok(None)
}

fn value(tensor: &Tensor, at: usize, expected: &[u8], found: &[u8]) -> Mismatch {
    let size = tensor.dtype.size();
    let row = tensor.row_bytes();
    let number = |bytes: &[u8]| {
        let start = at / size * size;
        number(tensor.dtype, bytes.get(start..start + size).unwrap_or_default())
    };
    let (position, element) = match tensor.positions.get(at / row) {
        Some(position) => (Some(*position as usize), at % row / size),
        None => (None, at / size),
    };
    let name = tensor.name.split_once('/').map_or("", |(_, name)| name).to_owned();
    let (expected, found) = (number(expected), number(found));
    Mismatch::Value { prompt: tensor.prompt, tensor: name, position, element, expected, found }
}

fn number(dtype: Dtype, bytes: &[u8]) -> String {
    let of = match dtype {
        Dtype::F64 => bytes.try_into().map(f64::from_le_bytes).map(|x| x.to_string()),
        Dtype::F32 => bytes.try_into().map(f32::from_le_bytes).map(|x| x.to_string()),
        Dtype::U32 => bytes.try_into().map(u32::from_le_bytes).map(|x| x.to_string()),
    };
    of.unwrap_or_else(|_| "nothing".into())
}
