//! Where an answer's text ends.

use crate::model::{Detokenizer, TokenizerError};

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
