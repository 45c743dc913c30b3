//! Ids back to bytes. Needs the vocabulary only, never the merges, and so is ready in a millisecond.

use super::bytes::byte_of;
use super::{TokenKind, TokenizerError, Vocabulary};

/// The bytes of every token.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    bytes: Vec<u8>,
    /// Token i is `bytes[ends[i - 1]..ends[i]]`.
    ends: Vec<usize>,
    special: Vec<bool>,
}

impl Detokenizer {
    pub fn new(vocabulary: &Vocabulary) -> Self {
        let mut out = Detokenizer { bytes: Vec::new(), ends: Vec::new(), special: Vec::new() };
        for (token, kind) in vocabulary.tokens.iter().zip(&vocabulary.kinds) {
            let start = out.bytes.len();
            let spelled = *kind == TokenKind::Normal && {
                let mut chars = token.chars();
                chars.all(|c| byte_of(c).map(|b| out.bytes.push(b)).is_some())
            };
            // Special tokens are plain text; so is a token with a character outside the alphabet.
            if !spelled {
                out.bytes.truncate(start);
                out.bytes.extend_from_slice(token.as_bytes());
            }
            out.ends.push(out.bytes.len());
            out.special.push(*kind == TokenKind::Control);
        }
        out
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of one token; not always whole characters.
    pub fn piece(&self, id: u32) -> Result<&[u8], TokenizerError> {
        let outside = TokenizerError::Id { id, vocab: self.len() };
        let i = id as usize;
        let end = *self.ends.get(i).ok_or(outside)?;
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        Ok(&self.bytes[start..end])
    }

    /// Is it a control token, one that a reader of the answer does not want to see?
    pub fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    /// The bytes of a sequence, exactly.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<Vec<u8>, TokenizerError> {
        let mut out = Vec::new();
        for &id in ids {
            let piece = self.piece(id)?;
            if !(skip_special && self.is_special(id)) {
                out.extend_from_slice(piece);
            }
        }
        Ok(out)
    }

    /// The text of a sequence; what is no UTF-8 becomes U+FFFD.
    pub fn decode_text(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        Ok(String::from_utf8_lossy(&self.decode(ids, skip_special)?).into_owned())
    }
}

/// Bytes that arrive in pieces, out as text: a character is held back until it is whole.
/// All pushes and the finish together equal `String::from_utf8_lossy` of all bytes.
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    pending: Vec<u8>,
}

impl Utf8Stream {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes; returns the text that is now certain.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut out = String::new();
        let mut done = 0;
        for chunk in self.pending.utf8_chunks() {
            out.push_str(chunk.valid());
            done += chunk.valid().len();
            let bad = chunk.invalid();
            let at_end = done + bad.len() == self.pending.len();
            if bad.is_empty() || (at_end && is_incomplete(bad)) {
                break;
            }
            out.push('\u{fffd}');
            done += bad.len();
        }
        self.pending.drain(..done);
        out
    }

    /// The end: a character that never became whole is U+FFFD.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

/// Could more bytes still make these a character?
fn is_incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}
