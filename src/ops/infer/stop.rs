//! Where an answer ends, and its text.

use super::StoppedBy;
use crate::model::{Detokenizer, Model, TokenizerError};
use crate::recipe::op::Infer;

/// When an answer of a step ends.
pub struct Ending<'a> {
    op: &'a Infer,
    detokenizer: &'a Detokenizer,
    end_tokens: Vec<u32>,
    context: usize,
}

impl<'a> Ending<'a> {
    pub fn new(op: &'a Infer, model: &Model, detokenizer: &'a Detokenizer) -> Self {
        let end_tokens = if op.stop_at_eos { model.stop_ids() } else { vec![] };
        Ending { op, detokenizer, end_tokens, context: model.geometry().context }
    }

    pub fn watch(&self) -> Watch<'a> {
        Watch::new(&self.op.stop)
    }

    /// May no token follow the `made` ones, whose next would stand at `position`?
    pub fn before(&self, position: usize, made: usize) -> Option<StoppedBy> {
        match made >= self.op.max_tokens as usize {
            true => Some(StoppedBy::MaxTokens),
            false => (position >= self.context).then_some(StoppedBy::Context),
        }
    }

    /// Does the answer end with this token, the last of `made`?
    pub fn after(
        &self,
        watch: &mut Watch<'_>,
        token: u32,
        made: usize,
    ) -> Result<Option<StoppedBy>, TokenizerError> {
        if self.end_tokens.contains(&token) {
            return Ok(Some(StoppedBy::EndToken));
        }
        if watch.push(self.detokenizer.piece(token)?) {
            return Ok(Some(StoppedBy::StopText));
        }
        Ok((made == self.op.max_tokens as usize).then_some(StoppedBy::MaxTokens))
    }

    /// After how many of its tokens an answer ends, and why. None if it goes on after all of them, or one of
    /// them is not in the vocabulary.
    pub fn of(&self, prompt: usize, tokens: &[u32]) -> Option<(usize, StoppedBy)> {
        let mut watch = self.watch();
        for (i, &token) in tokens.iter().enumerate() {
            if let Some(reason) = self.before(prompt + i, i) {
                return Some((i, reason));
            }
            if let Some(reason) = self.after(&mut watch, token, i + 1).ok()? {
                return Some((i + 1, reason));
            }
        }
        self.before(prompt + tokens.len(), tokens.len()).map(|reason| (tokens.len(), reason))
    }
}

/// The bytes of the tokens, special tokens left out, cut before the first stop text.
pub fn cut(detokenizer: &Detokenizer, tokens: &[u32], stops: &[String]) -> Result<Vec<u8>, TokenizerError> {
    let mut bytes = detokenizer.decode(tokens, true)?;
    if let Some(at) = stops.iter().filter_map(|stop| find(&bytes, stop.as_bytes())).min() {
        bytes.truncate(at);
    }
    Ok(bytes)
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    if text.is_empty() {
        return None;
    }
    bytes.windows(text.len()).position(|window| window == text)
}

/// Watches an answer grow for a stop text.
pub struct Watch<'a> {
    stops: &'a [String],
    /// The answer's bytes so far.
    bytes: Vec<u8>,
}

impl<'a> Watch<'a> {
    pub fn new(stops: &'a [String]) -> Self {
        Watch { stops, bytes: Vec::new() }
    }

    /// Add a token's bytes; is a stop text complete?
    pub fn push(&mut self, token: &[u8]) -> bool {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        if longest == 0 {
            return false;
        }
        // A stop text may have begun in earlier tokens, but no further back than its own length.
        let from = self.bytes.len().saturating_sub(longest - 1);
        self.bytes.extend_from_slice(token);
        self.stops.iter().any(|stop| find(&self.bytes[from..], stop.as_bytes()).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_text_may_span_tokens() {
        let stops = ["\n\nQ:".to_owned()];
        let mut watch = Watch::new(&stops);
        assert!(!watch.push(b"Paris.\n"));
        assert!(!watch.push(b"\nQ"));
        assert!(watch.push(b": next"));
    }

    #[test]
    fn no_stop_text_never_stops() {
        assert!(!Watch::new(&[]).push(b"anything"));
        assert!(!Watch::new(&[String::new()]).push(b"anything"));
    }
}
