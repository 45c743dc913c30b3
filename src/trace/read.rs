//! Reading a trace back. Its bytes may be anyone's: what they say is checked before it is used.

use std::collections::BTreeSet;
use std::ops::Range;
use std::str::FromStr;

use pipe_kernels::Block;
use pipe_store::Digest;
use safetensors::{Dtype, SafeTensors};

use super::FORMAT;
use crate::recipe::op::TraceLevel;

/// Bytes that are no trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    #[error("not a safetensors file: {0}")]
    Malformed(String),
    #[error("its metadata has no `{0}`")]
    NoField(&'static str),
    #[error("its {field} is `{found}`; this pipe reads {expected}")]
    Field { field: &'static str, found: String, expected: String },
    #[error("its list of blocks: {0}")]
    Blocks(String),
    #[error("it has no tensor `{0}`")]
    NoTensor(String),
    #[error("tensor `{tensor}` is {dtype} {shape:?}, not {expected}")]
    Tensor { tensor: String, dtype: String, shape: Vec<usize>, expected: String },
    #[error("it has {found} tensors where {expected} belong to its prompts")]
    Count { found: usize, expected: usize },
}

/// A trace, borrowed from its bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace<'a> {
    pub spec: String,
    pub level: TraceLevel,
    /// The covered blocks, in the schedule's order.
    pub blocks: Vec<Block>,
    pub prompts: Vec<TracedPrompt<'a>>,
}

/// What is known of one prompt's transcript.
#[derive(Debug, Clone, PartialEq)]
pub struct TracedPrompt<'a> {
    pub tokens: Vec<u32>,
    /// Positions that went through the model.
    pub computed: usize,
    blocks: usize,
    /// `[computed, blocks, 32]`
    digests: &'a [u8],
    kept: Vec<Kept<'a>>,
}

/// The rows of one block.
#[derive(Debug, Clone, PartialEq)]
struct Kept<'a> {
    slot: usize,
    /// Elements per row.
    width: usize,
    /// f32 little-endian.
    rows: &'a [u8],
}

impl<'a> Trace<'a> {
    pub fn open(bytes: &'a [u8]) -> Result<Self, TraceError> {
        let malformed = |e: safetensors::SafeTensorError| TraceError::Malformed(e.to_string());
        let (length, header) = SafeTensors::read_metadata(bytes).map_err(malformed)?;
        let file = File { header: &header, data: &bytes[8 + length..] };
        file.known("format", |format| (format == FORMAT).then_some(()), FORMAT)?;
        let spec = file.field("spec")?.to_owned();
        let level = file.known("level", TraceLevel::from_name, "digests, blocks, layers or full")?;
        let blocks = blocks(file.field("blocks")?)?;

        let mut prompts = Vec::new();
        let mut tensors = 0;
        while header.info(&format!("{}/tokens", prompts.len())).is_some() {
            let prompt = file.prompt(prompts.len(), level, &blocks)?;
            tensors += 2 + prompt.kept.len();
            prompts.push(prompt);
        }
        let found = header.tensors().len();
        if found != tensors {
            return Err(TraceError::Count { found, expected: tensors });
        }
        Ok(Trace { spec, level, blocks, prompts })
    }
}

impl<'a> TracedPrompt<'a> {
    /// The digest of a block's row. None when the position did not go through the model.
    pub fn digest(&self, position: usize, slot: usize) -> Option<Digest> {
        let at = position.checked_mul(self.blocks)?.checked_add(slot)?.checked_mul(32)?;
        let digest = self.digests.get(at..)?.first_chunk()?;
        (slot < self.blocks).then_some(Digest(*digest))
    }

    /// Bytes of a block's row, f32 little-endian, if rows of that block are kept.
    pub fn row(&self, position: usize, slot: usize) -> Option<&'a [u8]> {
        let kept = &self.kept[self.kept.binary_search_by_key(&slot, |kept| kept.slot).ok()?];
        let length = kept.width * 4;
        kept.rows.get(position.checked_mul(length)?..)?.get(..length)
    }

    /// The root that follows from what stands here.
    pub fn root(&self) -> Digest {
        let digests: Vec<Digest> =
            self.digests.as_chunks().0.iter().map(|digest: &[u8; 32]| Digest(*digest)).collect();
        super::digest::root(self.tokens.iter().copied(), &digests, self.blocks)
    }
}

fn blocks(text: &str) -> Result<Vec<Block>, TraceError> {
    let names: Vec<String> = serde_json::from_str(text).map_err(|e| TraceError::Blocks(e.to_string()))?;
    let parse = |name: &String| Block::from_str(name).map_err(|e| TraceError::Blocks(e.to_string()));
    let blocks = names.iter().map(parse).collect::<Result<Vec<Block>, _>>()?;
    if blocks.is_empty() || blocks.iter().collect::<BTreeSet<_>>().len() != blocks.len() {
        return Err(TraceError::Blocks("it is empty, or names a block twice".into()));
    }
    Ok(blocks)
}

/// A header whose offsets have been checked, and the data they point into.
struct File<'a, 'h> {
    header: &'h safetensors::tensor::Metadata,
    data: &'a [u8],
}

impl<'a> File<'a, '_> {
    fn field(&self, name: &'static str) -> Result<&str, TraceError> {
        let fields = self.header.metadata().as_ref();
        fields.and_then(|f| f.get(name)).map(String::as_str).ok_or(TraceError::NoField(name))
    }

    fn known<T>(
        &self,
        field: &'static str,
        read: impl Fn(&str) -> Option<T>,
        expected: &str,
    ) -> Result<T, TraceError> {
        let found = self.field(field)?;
        let wrong = || TraceError::Field { field, found: found.into(), expected: expected.into() };
        read(found).ok_or_else(wrong)
    }

    /// A tensor's shape and bytes.
    fn tensor(&self, name: String, dtype: Dtype, expected: &str) -> Result<Tensor<'a>, TraceError> {
        let info = self.header.info(&name).ok_or_else(|| TraceError::NoTensor(name.clone()))?;
        let range = Range { start: info.data_offsets.0, end: info.data_offsets.1 };
        let bytes = self.data.get(range).unwrap_or_default();
        let tensor = Tensor { name, dtype: info.dtype, shape: info.shape.clone(), bytes };
        if tensor.dtype == dtype { Ok(tensor) } else { Err(tensor.wrong(expected)) }
    }

    fn prompt(&self, i: usize, level: TraceLevel, blocks: &[Block]) -> Result<TracedPrompt<'a>, TraceError> {
        let tokens = self.tensor(format!("{i}/tokens"), Dtype::U32, "U32 [positions]")?;
        let [positions] = tokens.shape[..] else { return Err(tokens.wrong("U32 [positions]")) };
        let expected = format!("U8 [at most {positions}, {}, 32]", blocks.len());
        let digests = self.tensor(format!("{i}/digests"), Dtype::U8, &expected)?;
        let computed = match digests.shape[..] {
            [computed, n, 32] if n == blocks.len() && computed <= positions => computed,
            _ => return Err(digests.wrong(&expected)),
        };
        let kept = blocks.iter().enumerate().filter(|(_, block)| super::layout::keeps(level, **block));
        let kept = kept.map(|(slot, block)| {
            let expected = format!("F32 [{computed}, elements]");
            let rows = self.tensor(format!("{i}/{block}"), Dtype::F32, &expected)?;
            match rows.shape[..] {
                [n, width] if n == computed => Ok(Kept { slot, width, rows: rows.bytes }),
                _ => Err(rows.wrong(&expected)),
            }
        });
        let words = tokens.bytes.as_chunks().0.iter();
        Ok(TracedPrompt {
            tokens: words.map(|word| u32::from_le_bytes(*word)).collect(),
            computed,
            blocks: blocks.len(),
            digests: digests.bytes,
            kept: kept.collect::<Result<_, _>>()?,
        })
    }
}

struct Tensor<'a> {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: &'a [u8],
}

impl Tensor<'_> {
    fn wrong(&self, expected: &str) -> TraceError {
        TraceError::Tensor {
            tensor: self.name.clone(),
            dtype: format!("{:?}", self.dtype),
            shape: self.shape.clone(),
            expected: expected.into(),
        }
    }
}
