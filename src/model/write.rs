//! Writes GGUF v3 files from plain values: for toy models and for tests. Checks nothing; reading does.

use pipe_kernels::weights::TensorType;

use super::gguf::{ValueType, type_number};

/// Where tensor data is aligned to.
pub const ALIGNMENT: usize = 32;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Meta {
    U32(u32),
    F32(f32),
    Bool(bool),
    String(String),
    Strings(Vec<String>),
    I32s(Vec<i32>),
}

impl From<&str> for Meta {
    fn from(text: &str) -> Self {
        Meta::String(text.into())
    }
}

/// A tensor: its bytes are already in the stored type.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub name: String,
    pub ty: TensorType,
    /// The fastest dimension (columns) first.
    pub dims: Vec<u64>,
    pub data: Vec<u8>,
}

/// The bytes of a file with these entries and tensors, in this order.
pub fn gguf(meta: &[(String, Meta)], tensors: &[Tensor]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((meta.len() as u64).to_le_bytes());
    for (key, value) in meta {
        string(&mut out, key);
        self::value(&mut out, value);
    }
    let mut offset = 0;
    for tensor in tensors {
        string(&mut out, &tensor.name);
        out.extend((tensor.dims.len() as u32).to_le_bytes());
        for dim in &tensor.dims {
            out.extend(dim.to_le_bytes());
        }
        // Every type has a number; u32::MAX would be refused when read.
        out.extend(type_number(tensor.ty).unwrap_or(u32::MAX).to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset += tensor.data.len().next_multiple_of(ALIGNMENT);
    }
    pad(&mut out);
    for tensor in tensors {
        out.extend_from_slice(&tensor.data);
        pad(&mut out);
    }
    out
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn number(out: &mut Vec<u8>, ty: ValueType) {
    out.extend((ty as u32).to_le_bytes());
}

fn value(out: &mut Vec<u8>, value: &Meta) {
    match value {
        Meta::U32(v) => {
            number(out, ValueType::U32);
            out.extend(v.to_le_bytes());
        }
        Meta::F32(v) => {
            number(out, ValueType::F32);
            out.extend(v.to_le_bytes());
        }
        Meta::Bool(v) => {
            number(out, ValueType::Bool);
            out.push(u8::from(*v));
        }
        Meta::String(text) => {
            number(out, ValueType::String);
            string(out, text);
        }
        Meta::Strings(items) => {
            array(out, ValueType::String, items.len());
            for item in items {
                string(out, item);
            }
        }
        Meta::I32s(items) => {
            array(out, ValueType::I32, items.len());
            for item in items {
                out.extend(item.to_le_bytes());
            }
        }
    }
}

fn array(out: &mut Vec<u8>, items: ValueType, len: usize) {
    number(out, ValueType::Array);
    number(out, items);
    out.extend((len as u64).to_le_bytes());
}
