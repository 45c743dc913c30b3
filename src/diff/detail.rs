//! What exactly differs in an output, by what kind of file it is.

use pipe_store::{Digest, Object};
use serde::Serialize;

use super::score::{self, SCORES, Scores};
use super::tensors::{self, TensorsDiff};
use super::text::{self, AnswerDiff, PromptDiff};
use super::trace::{self, TraceDiff};
use super::{DiffError, Side};
use crate::key::{self, Change};
use crate::model::Bytes;
use crate::ops::{ANSWERS, Device, TRACE};

/// How many fields of a JSON file are told.
const FIELDS_MAX: usize = 20;

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Detail {
    Answers {
        answers: Vec<AnswerDiff>,
        only: [usize; 2],
    },
    Prompts {
        prompts: Vec<PromptDiff>,
    },
    Trace(TraceDiff),
    Tensors(TensorsDiff),
    Scores(Scores),
    Json(JsonDiff),
    Bytes {
        /// The first that is not the same.
        first: u64,
        lengths: [u64; 2],
    },
    /// The bytes are not here.
    Absent {
        sides: Vec<String>,
    },
}

/// Fields of two JSON files.
#[derive(Clone, Debug, Serialize)]
pub struct JsonDiff {
    pub changes: Vec<Change>,
    /// Further ones, not told.
    pub more: usize,
}

pub fn detail(
    step: &str,
    name: &str,
    digests: [&Digest; 2],
    sides: [&Side; 2],
    device: &Device,
) -> Result<Detail, DiffError> {
    let (a, b) = match (sides[0].open(digests[0])?, sides[1].open(digests[1])?) {
        (Some(a), Some(b)) => (a, b),
        (a, b) => {
            let absent =
                [(a.is_none(), sides[0]), (b.is_none(), sides[1])].into_iter().filter(|(gone, _)| *gone);
            return Ok(Detail::Absent { sides: absent.map(|(_, side)| side.name.clone()).collect() });
        }
    };
    // A file that is not what its name says is compared as plainer things.
    if name == ANSWERS
        && let Ok((answers, only)) = text::answers(step, [&a, &b], sides, device)?
        && !(answers.is_empty() && only == [0, 0])
    {
        return Ok(Detail::Answers { answers, only });
    }
    Ok(plain(step, name, a, b))
}

fn plain(step: &str, name: &str, a: Object, b: Object) -> Detail {
    if name == TRACE
        && let Ok(trace) = trace::diff(&a, &b)
    {
        return Detail::Trace(trace);
    }
    if name.ends_with(".safetensors")
        && let Ok(tensors) = tensors::safetensors(&a, &b)
    {
        return Detail::Tensors(tensors);
    }
    if name == "tokens.json"
        && let Ok(prompts) = text::prompts(&a, &b)
        && !prompts.is_empty()
    {
        return Detail::Prompts { prompts };
    }
    let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok();
    if name.ends_with(".json")
        && let (Some(x), Some(y)) = (json(&a), json(&b))
    {
        let scores = score::changed(step, &x, &y);
        if name == SCORES && !scores.changed.is_empty() {
            return Detail::Scores(scores);
        }
        let mut changes = key::changes(&key::text_of(&x), &key::text_of(&y));
        let more = changes.len().saturating_sub(FIELDS_MAX);
        changes.truncate(FIELDS_MAX);
        if !changes.is_empty() {
            return Detail::Json(JsonDiff { changes, more });
        }
    }
    let first = a.iter().zip(b.iter()).take_while(|(x, y)| x == y).count() as u64;
    let bytes = Detail::Bytes { first, lengths: [a.len() as u64, b.len() as u64] };
    if a.starts_with(b"GGUF")
        && let Ok(tensors) = tensors::gguf(Bytes::new(a), Bytes::new(b))
        && !(tensors.tensors.is_empty() && tensors.only_a.is_empty() && tensors.only_b.is_empty())
    {
        return Detail::Tensors(tensors);
    }
    bytes
}
