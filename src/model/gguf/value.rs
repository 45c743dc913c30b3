//! Metadata values: scalars by value, strings and arrays as ranges of the file. Knows no key.

use std::fmt::Arguments;
use std::ops::Range;

use super::error::{GgufError, GgufErrorKind};
use super::reader::Reader;

type Result<T> = std::result::Result<T, GgufError>;

/// Longest string and array a header may hold; both also have to fit into the file.
const MAX_STRING: u64 = 1 << 30;
const MAX_ITEMS: u64 = 1 << 30;

/// GGUF's value types, by their number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    const ALL: [ValueType; 13] = {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64]
    };

    pub fn name(self) -> &'static str {
        const NAMES: [&str; 13] =
            ["u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"];
        NAMES[self as usize]
    }

    fn read(r: &mut Reader<'_>, field: Arguments<'_>) -> Result<Self> {
        let at = r.pos();
        let number = r.u32(field)?;
        let ty = ValueType::ALL.get(number as usize).copied();
        ty.ok_or_else(|| GgufErrorKind::ValueType(number).at(field, at))
    }

    /// Bytes of one element; None for strings and arrays.
    fn size(self) -> Option<u64> {
        use ValueType::*;
        match self {
            U8 | I8 | Bool => Some(1),
            U16 | I16 => Some(2),
            U32 | I32 | F32 => Some(4),
            U64 | I64 | F64 => Some(8),
            String | Array => None,
        }
    }
}

/// A metadata value. Ranges are of the whole file.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Uint(u64),
    Int(i64),
    Float(f64),
    Bool(bool),
    String(Range<usize>),
    Array { items: ValueType, count: u64, range: Range<usize> },
}

impl Value {
    /// What it is, for messages.
    pub fn kind(&self) -> String {
        match self {
            Value::Uint(v) => format!("the unsigned number {v}"),
            Value::Int(v) => format!("the signed number {v}"),
            Value::Float(v) => format!("the number {v}"),
            Value::Bool(v) => v.to_string(),
            Value::String(_) => "a string".into(),
            Value::Array { items, count, .. } => format!("an array of {count} × {}", items.name()),
        }
    }

    pub(super) fn read(r: &mut Reader<'_>, bytes: &[u8], key: &str) -> Result<Self> {
        let field = format_args!("metadata `{key}`");
        let ty = ValueType::read(r, format_args!("type of metadata `{key}`"))?;
        Ok(match ty {
            ValueType::U8 => Value::Uint(r.u8(field)?.into()),
            ValueType::I8 => Value::Int((r.u8(field)? as i8).into()),
            ValueType::U16 => Value::Uint(r.u16(field)?.into()),
            ValueType::I16 => Value::Int((r.u16(field)? as i16).into()),
            ValueType::U32 => Value::Uint(r.u32(field)?.into()),
            ValueType::I32 => Value::Int((r.u32(field)? as i32).into()),
            ValueType::U64 => Value::Uint(r.u64(field)?),
            ValueType::I64 => Value::Int(r.u64(field)? as i64),
            ValueType::F32 => Value::Float(f32::from_bits(r.u32(field)?).into()),
            ValueType::F64 => Value::Float(f64::from_bits(r.u64(field)?)),
            ValueType::Bool => {
                let at = r.pos();
                match r.u8(field)? {
                    0 => Value::Bool(false),
                    1 => Value::Bool(true),
                    other => return Err(GgufErrorKind::Bool(other).at(field, at)),
                }
            }
            ValueType::String => Value::String(r.string(MAX_STRING, field)?),
            ValueType::Array => Self::read_array(r, bytes, key)?,
        })
    }

    fn read_array(r: &mut Reader<'_>, bytes: &[u8], key: &str) -> Result<Self> {
        let at = r.pos();
        let items = ValueType::read(r, format_args!("item type of metadata `{key}`"))?;
        let field = format_args!("length of metadata `{key}`");
        let (count, range) = match items {
            ValueType::Array => {
                return Err(GgufErrorKind::NestedArray.at(format_args!("metadata `{key}`"), at));
            }
            ValueType::String => {
                let count = r.count(8, MAX_ITEMS, field)?;
                let start = r.pos() as usize;
                for i in 0..count {
                    r.string(MAX_STRING, format_args!("item {i} of metadata `{key}`"))?;
                }
                (count, start..r.pos() as usize)
            }
            scalar => {
                let size = scalar.size().unwrap_or(1);
                let count = r.count(size, MAX_ITEMS, field)?;
                (count, r.take(count * size, field)?)
            }
        };
        if items == ValueType::Bool
            && let Some(i) = bytes[range.clone()].iter().position(|b| *b > 1)
        {
            let kind = GgufErrorKind::Bool(bytes[range.start + i]);
            return Err(kind.at(format_args!("item {i} of metadata `{key}`"), (range.start + i) as u64));
        }
        Ok(Value::Array { items, count, range })
    }
}
