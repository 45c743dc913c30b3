//! Tensors of two files, safetensors or GGUF, by name: what differs, by how much, where it begins.

use std::collections::BTreeSet;

use pipe_kernels::dequant::dequantise;
use safetensors::{Dtype, SafeTensors};
use serde::Serialize;

use super::numbers::{self, Numbers};
use crate::key::{self, Change};
use crate::model::gguf::Gguf;
use crate::model::{Bytes, stored};

/// Two files of tensors.
#[derive(Clone, Debug, Serialize)]
pub struct TensorsDiff {
    /// Tensors that are the same to the bit.
    pub same: usize,
    pub only_a: Vec<String>,
    pub only_b: Vec<String>,
    /// Tensors that differ, in the order of A's file.
    pub tensors: Vec<TensorDiff>,
    /// Fields of the file's metadata.
    pub metadata: Vec<Change>,
}

/// A tensor that differs.
#[derive(Clone, Debug, Serialize)]
pub struct TensorDiff {
    pub name: String,
    pub dtype: String,
    pub shape: [Vec<usize>; 2],
    /// Over what both have: where only the first axis differs, its shorter length. None: not comparable.
    pub numbers: Option<Numbers>,
}

/// Two safetensors files.
pub fn safetensors(a: &[u8], b: &[u8]) -> Result<TensorsDiff, String> {
    let open = |bytes| SafeTensors::deserialize(bytes).map_err(|e| e.to_string());
    let (file_a, file_b) = (open(a)?, open(b)?);
    let metadata = |bytes| -> Result<String, String> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
        Ok(key::text_of(&serde_json::to_value(header.metadata()).unwrap_or_default()))
    };
    let mut found = missing(file_a.names(), file_b.names());
    found.metadata = key::changes(&metadata(a)?, &metadata(b)?);
    let mut names: Vec<_> = file_a.iter().map(|(name, tensor)| (tensor.data().as_ptr(), name)).collect();
    names.sort();
    for (_, name) in names {
        let Ok(tensor_b) = file_b.tensor(name) else { continue };
        let tensor_a = file_a.tensor(name).map_err(|e| e.to_string())?;
        let (shape_a, shape_b) = (tensor_a.shape(), tensor_b.shape());
        let same_type = tensor_a.dtype() == tensor_b.dtype();
        if same_type && shape_a == shape_b && tensor_a.data() == tensor_b.data() {
            found.same += 1;
            continue;
        }
        let shared = shared_shape(shape_a, shape_b).filter(|_| same_type);
        found.tensors.push(TensorDiff {
            name: name.to_owned(),
            dtype: dtypes(tensor_a.dtype(), tensor_b.dtype()),
            shape: [shape_a.to_vec(), shape_b.to_vec()],
            numbers: shared.map(|s| numbers::compare(tensor_a.dtype(), &s, tensor_a.data(), tensor_b.data())),
        });
    }
    Ok(found)
}

fn missing<S: AsRef<str>>(a: Vec<S>, b: Vec<S>) -> TensorsDiff {
    let set = |names: &[S]| names.iter().map(|n| n.as_ref().to_owned()).collect::<BTreeSet<_>>();
    let (a, b) = (set(&a), set(&b));
    TensorsDiff {
        same: 0,
        only_a: a.difference(&b).cloned().collect(),
        only_b: b.difference(&a).cloned().collect(),
        tensors: Vec::new(),
        metadata: Vec::new(),
    }
}

fn dtypes(a: Dtype, b: Dtype) -> String {
    if a == b { format!("{a:?}") } else { format!("{a:?} -> {b:?}") }
}

/// What can be compared: row-major, so that a longer first axis only adds behind.
fn shared_shape(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    match (a, b) {
        ([], []) => Some(vec![]),
        ([n, rest @ ..], [m, other @ ..]) if rest == other => {
            Some([&[*n.min(m)], rest].concat().into_iter().collect())
        }
        _ => None,
    }
}

/// Two GGUF files: stored weights are compared as the numbers they stand for.
pub fn gguf(a: Bytes, b: Bytes) -> Result<TensorsDiff, String> {
    let open = |bytes| Gguf::parse(bytes).map_err(|e| e.to_string());
    let (file_a, file_b) = (open(a)?, open(b)?);
    let names = |file: &Gguf| file.header.tensors.iter().map(|t| t.name.clone()).collect::<Vec<_>>();
    let mut found = missing(names(&file_a), names(&file_b));
    for info in &file_a.header.tensors {
        let Some(other) = file_b.header.tensor(&info.name) else { continue };
        let (view_a, view_b) = (file_a.view(info), file_b.view(other));
        let (shape_a, shape_b) = ([view_a.rows, view_a.cols], [view_b.rows, view_b.cols]);
        let comparable = view_a.ty == view_b.ty && shape_a == shape_b;
        if comparable && view_a.data == view_b.data {
            found.same += 1;
            continue;
        }
        let numbers = comparable.then(|| {
            let floats = |bytes: &[u8]| {
                let mut out = vec![0.0; view_a.rows * view_a.cols];
                dequantise(view_a.ty, bytes, &mut out);
                out
            };
            numbers::compare_f32(&shape_a, &floats(view_a.data), &floats(view_b.data))
        });
        let (ty_a, ty_b) = (stored::name(view_a.ty), stored::name(view_b.ty));
        found.tensors.push(TensorDiff {
            name: info.name.clone(),
            dtype: if ty_a == ty_b { ty_a.to_owned() } else { format!("{ty_a} -> {ty_b}") },
            shape: [shape_a.to_vec(), shape_b.to_vec()],
            numbers,
        });
    }
    Ok(found)
}
