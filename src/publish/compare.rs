//! Where two contents that should be one first differ: block and position of a trace, tensor and element of another
//! safetensors file, byte of anything else. Knows no store.

use std::fmt;

use safetensors::{Dtype, SafeTensors};
use serde::Serialize;

use crate::trace::Trace;

/// The first difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "at", rename_all = "snake_case")]
pub enum Place {
    /// In a trace, in causal order: the prompt's number, the position, the block as the trace names it.
    Block {
        prompt: usize,
        position: usize,
        block: String,
        #[serde(flatten)]
        number: Option<Number>,
    },
    Tensor {
        tensor: String,
        #[serde(flatten)]
        number: Number,
    },
    /// The files hold other tensors, or of other shapes.
    Shape {
        tensor: String,
        expected: String,
        found: String,
    },
    Byte {
        offset: usize,
        expected: Option<u8>,
        found: Option<u8>,
    },
}

/// An element of a tensor, and how far apart the two are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Number {
    pub element: usize,
    pub expected: f64,
    pub found: f64,
    /// Representable numbers from one to the other; None for integers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ulp: Option<u64>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Block { prompt, position, block, number } => {
                write!(f, "prompt {prompt}, position {position}, {block}")?;
                number.as_ref().map_or(Ok(()), |number| write!(f, ", {number}"))
            }
            Place::Tensor { tensor, number } => write!(f, "tensor {tensor}, {number}"),
            Place::Shape { tensor, expected, found } => {
                write!(f, "tensor {tensor}: expected {expected}, found {found}")
            }
            Place::Byte { offset, expected, found } => {
                let byte = |b: &Option<u8>| b.map_or_else(|| "the end".to_owned(), |b| format!("{b:#04x}"));
                write!(f, "byte {offset}: expected {}, found {}", byte(expected), byte(found))
            }
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Number { element, expected, found, ulp } = self;
        write!(f, "element {element}: expected {expected}, found {found}")?;
        ulp.map_or(Ok(()), |ulp| write!(f, ", {ulp} ulp apart"))
    }
}

/// None if they are the same.
pub fn first_difference(name: &str, expected: &[u8], found: &[u8]) -> Option<Place> {
    if expected == found {
        return None;
    }
    let special =
        name.ends_with(".safetensors").then(|| trace(expected, found).or_else(|| tensors(expected, found)));
    let at = expected.iter().zip(found).take_while(|(a, b)| a == b).count();
    let byte = Place::Byte { offset: at, expected: expected.get(at).copied(), found: found.get(at).copied() };
    special.flatten().or(Some(byte))
}

/// By prompt, then position, then block: what comes later may follow from what comes first.
fn trace(expected: &[u8], found: &[u8]) -> Option<Place> {
    let (a, b) = (Trace::open(expected).ok()?, Trace::open(found).ok()?);
    if a.blocks != b.blocks || a.prompts.len() != b.prompts.len() {
        return None;
    }
    for (prompt, (p, q)) in a.prompts.iter().zip(&b.prompts).enumerate() {
        for position in 0..p.tokens.len().max(q.tokens.len()) {
            let block = |block: String, number| Some(Place::Block { prompt, position, block, number });
            if p.tokens.get(position) != q.tokens.get(position) {
                return block("token".into(), None);
            }
            for (slot, name) in a.blocks.iter().enumerate() {
                if p.digest(position, slot) != q.digest(position, slot)
                    || p.row(position, slot) != q.row(position, slot)
                {
                    let rows = p.row(position, slot).zip(q.row(position, slot));
                    return block(name.to_string(), rows.and_then(|(a, b)| number(Dtype::F32, a, b)));
                }
            }
        }
    }
    None
}

/// By the name of the tensor, then by element.
fn tensors(expected: &[u8], found: &[u8]) -> Option<Place> {
    let (a, b) = (SafeTensors::deserialize(expected).ok()?, SafeTensors::deserialize(found).ok()?);
    let mut names: Vec<&str> = a.names().into_iter().chain(b.names()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let describe = |t: Option<&safetensors::tensor::TensorView<'_>>| {
            t.map_or_else(|| "none".to_owned(), |t| format!("{:?} {:?}", t.dtype(), t.shape()))
        };
        let (p, q) = (a.tensor(name).ok(), b.tensor(name).ok());
        let (expected, found) = (describe(p.as_ref()), describe(q.as_ref()));
        let tensor = name.to_owned();
        if expected != found {
            return Some(Place::Shape { tensor, expected, found });
        }
        if let (Some(p), Some(q)) = (p, q)
            && let Some(number) = number(p.dtype(), p.data(), q.data())
        {
            return Some(Place::Tensor { tensor, number });
        }
    }
    None
}

/// The first element that differs, bit by bit; None if none does or the type is not read here.
fn number(dtype: Dtype, expected: &[u8], found: &[u8]) -> Option<Number> {
    let width = match dtype {
        Dtype::U8 | Dtype::I8 | Dtype::BOOL => 1,
        Dtype::F16 | Dtype::BF16 | Dtype::U16 | Dtype::I16 => 2,
        Dtype::F32 | Dtype::U32 | Dtype::I32 => 4,
        Dtype::F64 | Dtype::U64 | Dtype::I64 => 8,
        _ => return None,
    };
    let element = expected.chunks(width).zip(found.chunks(width)).position(|(a, b)| a != b)?;
    let bits = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..width].copy_from_slice(&bytes[element * width..][..width]);
        u64::from_le_bytes(word)
    };
    let value = |bits: u64| match dtype {
        Dtype::F16 => half::f16::from_bits(bits as u16).to_f64(),
        Dtype::BF16 => half::bf16::from_bits(bits as u16).to_f64(),
        Dtype::F32 => f64::from(f32::from_bits(bits as u32)),
        Dtype::F64 => f64::from_bits(bits),
        Dtype::I8 => f64::from(bits as i8),
        Dtype::I16 => f64::from(bits as i16),
        Dtype::I32 => f64::from(bits as i32),
        Dtype::I64 => bits as i64 as f64,
        _ => bits as f64,
    };
    let (a, b) = (bits(expected), bits(found));
    let float = matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64);
    let ulp = (float && value(a).is_finite() && value(b).is_finite()).then(|| {
        let (a, b) = (ordered(a, width), ordered(b, width));
        u64::try_from(a.abs_diff(b)).unwrap_or(u64::MAX)
    });
    Some(Number { element, expected: value(a), found: value(b), ulp })
}

/// Floats in the order of their values: as integers, both zeros being 0.
fn ordered(bits: u64, width: usize) -> i128 {
    let sign = 1u64 << (8 * width - 1);
    match bits & sign {
        0 => i128::from(bits),
        _ => -i128::from(bits ^ sign),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(values: &[f32]) -> Vec<u8> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![values.len()], &bytes).unwrap();
        safetensors::serialize([("x", view)], None).unwrap()
    }

    #[test]
    fn the_first_difference_is_named() {
        let one = file(&[1.0, -0.5, 2.0]);
        assert_eq!(first_difference("a.safetensors", &one, &one), None);
        let next = f32::from_bits(0.5f32.to_bits() + 3);
        let place = first_difference("a.safetensors", &one, &file(&[1.0, -next, 7.0])).unwrap();
        let number = Number { element: 1, expected: -0.5, found: f64::from(-next), ulp: Some(3) };
        assert_eq!(place, Place::Tensor { tensor: "x".into(), number });
        let signs = first_difference("a.safetensors", &file(&[0.0]), &file(&[-f32::from_bits(1)])).unwrap();
        assert!(matches!(signs, Place::Tensor { number: Number { ulp: Some(1), .. }, .. }), "{signs}");
        let shape = first_difference("a.safetensors", &one, &file(&[1.0])).unwrap();
        assert!(matches!(shape, Place::Shape { .. }), "{shape}");
        let byte = first_difference("a.json", b"abc", b"ab").unwrap();
        assert_eq!(byte, Place::Byte { offset: 2, expected: Some(b'c'), found: None });
    }
}
