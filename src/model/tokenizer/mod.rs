//! Text to token ids and back, for byte-level BPE. The algorithm is the `tokenizers` crate's; vocabulary,
//! merges and the way text is cut come from the model's own files. Knows no file format.

mod bytes;
mod decode;
mod pre;

use thiserror::Error;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper};

pub use bytes::{byte_of, char_of};
pub use decode::{Detokenizer, Utf8Stream};
pub use pre::PreTokenizer;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Spelled in the byte alphabet, made by merges.
    Normal,
    /// Plain text with a meaning of its own, found before anything else; hidden from readers.
    Control,
    /// Plain text found before anything else; shown to readers.
    UserDefined,
    /// Fills a row of the embedding table.
    Unused,
}

/// The tokens, by id.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    pub tokens: Vec<String>,
    /// As long as `tokens`.
    pub kinds: Vec<TokenKind>,
}

/// Pairs of tokens that join, best first.
pub type Merges = Vec<(String, String)>;

#[derive(Debug, Error)]
pub enum TokenizerError {
    #[error("token {id} does not exist: the vocabulary has {vocab} tokens")]
    Id { id: u32, vocab: usize },
    #[error("the vocabulary is damaged: tokens {first} and {second} are both {token:?}")]
    Twice { token: String, first: u32, second: u32 },
    #[error("the vocabulary is damaged: merge {index} ({left:?}, {right:?}) has no token for {absent:?}")]
    Merge { index: usize, left: String, right: String, absent: String },
    #[error(
        "the text has the byte {byte:#04x} at {at}, which the model's vocabulary cannot spell; remove it"
    )]
    Byte { byte: u8, at: usize },
    #[error("{count} white-space characters in a row, at byte {at}; at most {limit} can be cut reliably")]
    WhiteSpace { at: usize, count: usize, limit: usize },
    #[error("the tokenizers library: {0}")]
    Library(String),
}

impl TokenizerError {
    fn library(error: tokenizers::Error) -> Self {
        TokenizerError::Library(error.to_string())
    }
}

/// Longest run of white space. Beyond a million characters the regular expressions give up half-way and the
/// library goes on with what it has: other ids, silently. Below, the time is fine too.
const WHITE_SPACE_LIMIT: usize = 100_000;

/// What turns text into pieces before the merges: built here, or read from a tokenizer.json.
pub struct Cut {
    pub normalizer: Option<NormalizerWrapper>,
    pub pre: PreTokenizerWrapper,
    pub ignore_merges: bool,
}

impl Cut {
    pub fn named(pre: PreTokenizer) -> Result<Self, TokenizerError> {
        Ok(Cut { normalizer: None, pre: pre.build()?, ignore_merges: pre.ignores_merges() })
    }
}

/// Both directions. Building one costs some 100 ms for 49,000 tokens; a `Detokenizer` alone does not.
pub struct Tokenizer {
    library: tokenizers::Tokenizer,
    detokenizer: Detokenizer,
    unspelled: Vec<u8>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens)", self.detokenizer.len())
    }
}

impl Tokenizer {
    pub fn new(
        vocabulary: Vocabulary,
        merges: Vec<(String, String)>,
        cut: Cut,
    ) -> Result<Self, TokenizerError> {
        let detokenizer = Detokenizer::new(&vocabulary);
        let ids = index(&vocabulary)?;
        let unspelled = unspelled(&ids);
        check_merges(&ids, &merges)?;

        let bpe = BPE::builder().vocab_and_merges(ids, merges).ignore_merges(cut.ignore_merges).build();
        let mut library = tokenizers::Tokenizer::new(bpe.map_err(TokenizerError::library)?);
        library.with_pre_tokenizer(Some(cut.pre));
        library.with_normalizer(cut.normalizer).map_err(TokenizerError::library)?;
        let added =
            vocabulary.tokens.into_iter().zip(vocabulary.kinds).filter_map(|(token, kind)| match kind {
                _ if token.is_empty() => None,
                TokenKind::Control => Some(AddedToken::from(token, true)),
                TokenKind::UserDefined => Some(AddedToken::from(token, false).normalized(false)),
                TokenKind::Normal | TokenKind::Unused => None,
            });
        let (special, plain): (Vec<_>, Vec<_>) = added.partition(|token| token.special);
        library.add_special_tokens(special).map_err(TokenizerError::library)?;
        library.add_tokens(plain).map_err(TokenizerError::library)?;
        Ok(Tokenizer { library, detokenizer, unspelled })
    }

    /// Token ids of a text. Special tokens in it are recognised; none is added, no beginning-of-text either.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        check_white_space(text)?;
        if let Some(at) = text.bytes().position(|byte| self.unspelled.contains(&byte)) {
            return Err(TokenizerError::Byte { byte: text.as_bytes()[at], at });
        }
        let encoding = self.library.encode_fast(text, false).map_err(TokenizerError::library)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The id of a token by its exact text.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.library.token_to_id(token)
    }

    pub fn detokenizer(&self) -> &Detokenizer {
        &self.detokenizer
    }
}

fn index(vocabulary: &Vocabulary) -> Result<Vocab, TokenizerError> {
    let mut ids = Vocab::default();
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        let id = id as u32;
        if let Some(first) = ids.insert(token.clone(), id) {
            return Err(TokenizerError::Twice { token: token.clone(), first, second: id });
        }
    }
    Ok(ids)
}

/// The bytes that no token spells. Some vocabularies lack rare ones; the library would drop them silently.
fn unspelled(ids: &Vocab) -> Vec<u8> {
    (0..=255).filter(|byte| !ids.contains_key(&*char_of(*byte).to_string())).collect()
}

/// The library trusts its merges; a pair without its token would make it panic.
fn check_merges(ids: &Vocab, merges: &[(String, String)]) -> Result<(), TokenizerError> {
    let mut joined = String::new();
    for (index, (left, right)) in merges.iter().enumerate() {
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        if let Some(absent) = [left, right, &joined].into_iter().find(|part| !ids.contains_key(part.as_str()))
        {
            let absent = absent.clone();
            return Err(TokenizerError::Merge { index, left: left.clone(), right: right.clone(), absent });
        }
    }
    Ok(())
}

fn check_white_space(text: &str) -> Result<(), TokenizerError> {
    let (mut count, mut start) = (0, 0);
    for (at, c) in text.char_indices() {
        if !c.is_whitespace() {
            count = 0;
            continue;
        }
        if count == 0 {
            start = at;
        }
        count += 1;
        if count > WHITE_SPACE_LIMIT {
            let count = text[start..].chars().take_while(|c| c.is_whitespace()).count();
            return Err(TokenizerError::WhiteSpace { at: start, count, limit: WHITE_SPACE_LIMIT });
        }
    }
    Ok(())
}
