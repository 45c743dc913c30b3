//! GGUF, versions 2 and 3, little-endian: header, typed access to metadata, tensor views.
//! Knows the format; `llama` knows what a Llama model keeps in it, `vocab` what a tokenizer does.

mod error;
mod header;
mod llama;
mod reader;
mod value;
mod vocab;

use pipe_kernels::weights::{RowOrder, TensorType, TensorView};

pub use error::{GgufError, GgufErrorKind};
pub use header::{Entry, Header, TENSOR_TYPES, TensorInfo};
pub use llama::tensor_name;
pub use value::{Value, ValueType};

use crate::model::Bytes;

type Result<T> = std::result::Result<T, GgufError>;

/// A checked GGUF file. Tensor data and long metadata stay in the map.
#[derive(Clone, Debug)]
pub struct Gguf {
    bytes: Bytes,
    pub header: Header,
}

impl Gguf {
    pub fn parse(bytes: Bytes) -> Result<Self> {
        let header = Header::parse(&bytes)?;
        Ok(Gguf { bytes, header })
    }

    /// Length of the file.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A tensor's bytes and shape. Tensors of more than two dimensions count the later ones as rows.
    pub fn view(&self, tensor: &TensorInfo) -> TensorView<'_> {
        let cols = tensor.dims[0] as usize;
        let rows = tensor.dims[1..].iter().product::<u64>() as usize;
        let data = &self.bytes[tensor.data.clone()];
        TensorView { ty: tensor.ty, rows, cols, order: RowOrder::AsStored, data }
    }

    /// A whole number; None when the key is absent.
    pub fn uint(&self, key: &str) -> Result<Option<u64>> {
        let Some(entry) = self.header.entry(key) else { return Ok(None) };
        match entry.value {
            Value::Uint(v) => Ok(Some(v)),
            Value::Int(v) if v >= 0 => Ok(Some(v as u64)),
            _ => Err(wrong(entry, "a whole number, not negative")),
        }
    }

    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        let Some(entry) = self.header.entry(key) else { return Ok(None) };
        match entry.value {
            Value::Float(v) => Ok(Some(v)),
            _ => Err(wrong(entry, "a float")),
        }
    }

    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        let Some(entry) = self.header.entry(key) else { return Ok(None) };
        match entry.value {
            Value::Bool(v) => Ok(Some(v)),
            _ => Err(wrong(entry, "a bool")),
        }
    }

    pub fn string(&self, key: &str) -> Result<Option<&str>> {
        let Some(entry) = self.header.entry(key) else { return Ok(None) };
        let Value::String(range) = &entry.value else { return Err(wrong(entry, "a string")) };
        let text = std::str::from_utf8(&self.bytes[range.clone()]);
        text.map(Some)
            .map_err(|_| GgufErrorKind::Utf8.at(format_args!("metadata `{key}`"), range.start as u64))
    }

    /// The strings of an array, borrowed from the file.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let Some(entry) = self.header.entry(key) else { return Ok(None) };
        let Value::Array { items: ValueType::String, count, range } = &entry.value else {
            return Err(wrong(entry, "an array of strings"));
        };
        // The header's walk has seen `count` strings end inside `range`.
        let mut out = Vec::with_capacity(*count as usize);
        let mut r = reader::Reader::new(&self.bytes[range.clone()]);
        for i in 0..*count {
            let field = format_args!("item {i} of metadata `{key}`");
            let at = range.start as u64 + r.pos();
            let item = r.string(u64::MAX, field)?;
            let item = &self.bytes[range.start + item.start..range.start + item.end];
            out.push(std::str::from_utf8(item).map_err(|_| GgufErrorKind::Utf8.at(field, at))?);
        }
        Ok(Some(out))
    }

    /// The numbers of an array of i32 or u32.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<i64>>> {
        let Some(entry) = self.header.entry(key) else { return Ok(None) };
        let Value::Array { items: items @ (ValueType::I32 | ValueType::U32), range, .. } = &entry.value
        else {
            return Err(wrong(entry, "an array of i32 or u32"));
        };
        let words =
            self.bytes[range.clone()].chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]));
        let signed = *items == ValueType::I32;
        Ok(Some(words.map(|w| if signed { (w as i32).into() } else { w.into() }).collect()))
    }

    /// Where a key stands, for messages; 0 when it does not.
    fn at(&self, key: &str) -> u64 {
        self.header.entry(key).map_or(0, |entry| entry.at)
    }

    fn missing(&self, key: &str) -> GgufError {
        GgufErrorKind::Missing.at(format_args!("metadata `{key}`"), 0)
    }

    fn unsupported(&self, key: &str, why: impl Into<String>) -> GgufError {
        GgufErrorKind::Unsupported(why.into()).at(format_args!("metadata `{key}`"), self.at(key))
    }
}

fn wrong(entry: &Entry, expected: &'static str) -> GgufError {
    GgufErrorKind::Type { expected, found: entry.value.kind() }
        .at(format_args!("metadata `{}`", entry.key), entry.at)
}

/// The number of a type in a file.
pub fn type_number(ty: TensorType) -> Option<u32> {
    TENSOR_TYPES.iter().find(|(_, t)| *t == ty).map(|(n, _)| *n)
}
