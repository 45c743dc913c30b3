//! The header: metadata and tensor descriptions, checked against each other and against the file's length.
//! Knows no architecture.

use std::collections::HashMap;
use std::ops::Range;

use pipe_kernels::weights::TensorType;

use super::error::{GgufError, GgufErrorKind};
use super::reader::Reader;
use super::value::Value;
use crate::model::stored;

type Result<T> = std::result::Result<T, GgufError>;

/// Limits far above any real model and far below anything that hurts.
const MAX_KEYS: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 20;
const MAX_NAME: u64 = 1 << 10;

/// Bytes that the smallest metadata entry and the smallest tensor description take.
const MIN_ENTRY: u64 = 8 + 4 + 1;
const MIN_TENSOR: u64 = 8 + 4 + 8 + 4 + 8;

/// One metadata entry.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub value: Value,
    /// Where it starts in the file.
    pub at: u64,
}

/// One tensor's description; its data lies inside the file.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    pub name: String,
    pub ty: TensorType,
    /// As in the file: the fastest dimension first.
    pub dims: Vec<u64>,
    /// Of the whole file.
    pub data: Range<usize>,
    /// Where its description starts in the file.
    pub at: u64,
}

impl TensorInfo {
    /// Rows and columns, when it is a matrix or a vector.
    pub fn shape(&self) -> Option<[u64; 2]> {
        match self.dims[..] {
            [cols] => Some([1, cols]),
            [cols, rows] => Some([rows, cols]),
            _ => None,
        }
    }
}

/// Everything before the tensor data.
#[derive(Clone, Debug)]
pub struct Header {
    pub version: u32,
    pub entries: Vec<Entry>,
    pub tensors: Vec<TensorInfo>,
    keys: HashMap<String, usize>,
    names: HashMap<String, usize>,
}

impl Header {
    /// Reads and checks the whole header. Time and memory are bounded by the header's true length.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        if !bytes.starts_with(b"GGUF") {
            return Err(GgufErrorKind::Magic(bytes[..bytes.len().min(4)].to_vec()).at("magic", 0));
        }
        r.take(4, format_args!("magic"))?;
        let version = r.u32(format_args!("version"))?;
        match version {
            2 | 3 => {}
            v if v.swap_bytes() <= 3 => return Err(GgufErrorKind::BigEndian.at("version", 4)),
            v => return Err(GgufErrorKind::Version(v).at("version", 4)),
        }
        let tensor_count = r.count(MIN_TENSOR, MAX_TENSORS, format_args!("tensor count"))?;
        let entry_count = r.count(MIN_ENTRY, MAX_KEYS, format_args!("metadata count"))?;

        let mut header = Header {
            version,
            entries: Vec::new(),
            tensors: Vec::new(),
            keys: HashMap::new(),
            names: HashMap::new(),
        };
        for i in 0..entry_count {
            header.read_entry(&mut r, bytes, i)?;
        }
        let alignment = header.alignment()?;
        let mut offsets = Vec::new();
        for i in 0..tensor_count {
            offsets.push(header.read_tensor(&mut r, bytes, i, alignment)?);
        }
        header.place(r.pos(), bytes.len() as u64, alignment, &offsets)?;
        header.check_overlap()?;
        Ok(header)
    }

    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.keys.get(key).map(|i| &self.entries[*i])
    }

    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.names.get(name).map(|i| &self.tensors[*i])
    }

    fn read_entry(&mut self, r: &mut Reader<'_>, bytes: &[u8], i: u64) -> Result<()> {
        let at = r.pos();
        let field = format_args!("key of metadata entry {i}");
        let key = text(bytes, r.string(u16::MAX.into(), field)?)
            .ok_or_else(|| GgufErrorKind::Utf8.at(field, at))?;
        let value = Value::read(r, bytes, &key)?;
        if let Some(earlier) = self.keys.insert(key.clone(), self.entries.len()) {
            let first = self.entries[earlier].at;
            return Err(GgufErrorKind::Duplicate { first }.at(format_args!("metadata `{key}`"), at));
        }
        self.entries.push(Entry { key, value, at });
        Ok(())
    }

    fn alignment(&self) -> Result<u64> {
        let Some(entry) = self.entry("general.alignment") else { return Ok(32) };
        match entry.value {
            Value::Uint(v) if v.is_power_of_two() && (8..=65536).contains(&v) => Ok(v),
            Value::Uint(v) => Err(GgufErrorKind::Alignment(v).at("metadata `general.alignment`", entry.at)),
            _ => Err(GgufErrorKind::Type { expected: "an unsigned number", found: entry.value.kind() }
                .at("metadata `general.alignment`", entry.at)),
        }
    }

    /// Reads one description; returns its offset and length in the tensor data.
    fn read_tensor(
        &mut self,
        r: &mut Reader<'_>,
        bytes: &[u8],
        i: u64,
        alignment: u64,
    ) -> Result<(u64, u64)> {
        let at = r.pos();
        let field = format_args!("name of tensor {i}");
        let name =
            text(bytes, r.string(MAX_NAME, field)?).ok_or_else(|| GgufErrorKind::Utf8.at(field, at))?;
        let rank_at = r.pos();
        let rank = r.u32(format_args!("rank of tensor `{name}`"))?;
        if !(1..=4).contains(&rank) {
            return Err(GgufErrorKind::Rank(rank).at(format_args!("tensor `{name}`"), rank_at));
        }
        let dims_at = r.pos();
        let mut dims = Vec::with_capacity(rank as usize);
        for d in 0..rank {
            dims.push(r.u64(format_args!("dimension {d} of tensor `{name}`"))?);
        }
        let type_at = r.pos();
        let number = r.u32(format_args!("type of tensor `{name}`"))?;
        let ty = tensor_type(number).ok_or_else(|| {
            GgufErrorKind::TensorType(ggml_name(number)).at(format_args!("tensor `{name}`"), type_at)
        })?;
        let offset_at = r.pos();
        let offset = r.u64(format_args!("offset of tensor `{name}`"))?;
        if offset % alignment != 0 {
            let kind = GgufErrorKind::Misaligned { offset, alignment };
            return Err(kind.at(format_args!("tensor `{name}`"), offset_at));
        }
        let rows = dims[1..].iter().try_fold(1u64, |n, d| n.checked_mul(*d)).filter(|n| *n > 0);
        let (Some(rows), true) = (rows, dims[0] > 0) else {
            return Err(GgufErrorKind::Dimensions(dims).at(format_args!("tensor `{name}`"), dims_at));
        };
        let (block, _) = ty.unit();
        if !dims[0].is_multiple_of(block as u64) {
            let kind = GgufErrorKind::Block { cols: dims[0], ty: stored::name(ty), block };
            return Err(kind.at(format_args!("tensor `{name}`"), dims_at));
        }
        let Some(length) = stored::byte_len(ty, rows, dims[0]) else {
            return Err(GgufErrorKind::Dimensions(dims).at(format_args!("tensor `{name}`"), dims_at));
        };
        if let Some(earlier) = self.names.insert(name.clone(), self.tensors.len()) {
            let first = self.tensors[earlier].at;
            return Err(GgufErrorKind::Duplicate { first }.at(format_args!("tensor `{name}`"), at));
        }
        self.tensors.push(TensorInfo { name, ty, dims, data: 0..0, at });
        Ok((offset, length))
    }

    /// Turns offsets into ranges of the file, now that the header's end is known.
    fn place(&mut self, header_end: u64, file: u64, alignment: u64, offsets: &[(u64, u64)]) -> Result<()> {
        let start = header_end.next_multiple_of(alignment).min(file);
        let data = file - start;
        for (tensor, &(offset, bytes)) in self.tensors.iter_mut().zip(offsets) {
            let end = offset.checked_add(bytes).filter(|end| *end <= data);
            let Some(end) = end else {
                let kind = GgufErrorKind::Outside { offset, bytes, data };
                return Err(kind.at(format_args!("tensor `{}`", tensor.name), tensor.at));
            };
            tensor.data = (start + offset) as usize..(start + end) as usize;
        }
        Ok(())
    }

    fn check_overlap(&self) -> Result<()> {
        let mut order: Vec<&TensorInfo> = self.tensors.iter().collect();
        order.sort_by_key(|t| t.data.start);
        for pair in order.windows(2) {
            if pair[0].data.end > pair[1].data.start {
                let kind = GgufErrorKind::Overlap { other: pair[0].name.clone() };
                return Err(kind.at(format_args!("tensor `{}`", pair[1].name), pair[1].at));
            }
        }
        Ok(())
    }
}

fn text(bytes: &[u8], range: Range<usize>) -> Option<String> {
    std::str::from_utf8(&bytes[range]).ok().map(str::to_owned)
}

/// ggml's type numbers that can be read.
pub const TENSOR_TYPES: [(u32, TensorType); 11] = [
    (0, TensorType::F32),
    (1, TensorType::F16),
    (2, TensorType::Q4_0),
    (3, TensorType::Q4_1),
    (6, TensorType::Q5_0),
    (7, TensorType::Q5_1),
    (8, TensorType::Q8_0),
    (12, TensorType::Q4_K),
    (13, TensorType::Q5_K),
    (14, TensorType::Q6_K),
    (30, TensorType::BF16),
];

fn tensor_type(number: u32) -> Option<TensorType> {
    TENSOR_TYPES.iter().find(|(n, _)| *n == number).map(|(_, ty)| *ty)
}

/// Names of the types that are known but not read, so that a message says what the file holds.
fn ggml_name(number: u32) -> String {
    let name = match number {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        other => return format!("type number {other}"),
    };
    name.into()
}
