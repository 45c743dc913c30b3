//! What a GGUF file says about its tokenizer: vocabulary, merges, pre-tokenizer, special ids, chat template.

use super::error::GgufErrorKind;
use super::{Gguf, Result};
use crate::model::Specials;
use crate::model::tokenizer::{Merges, PreTokenizer, TokenKind, Vocabulary};

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const PRE: &str = "tokenizer.ggml.pre";
const MODEL: &str = "tokenizer.ggml.model";

impl Gguf {
    /// The tokens alone; enough to turn ids into text.
    pub fn vocabulary(&self) -> Result<Vocabulary> {
        match self.string(MODEL)? {
            Some("gpt2") => {}
            Some("llama") => {
                let why =
                    "SentencePiece vocabularies (\"llama\") are not supported; byte-level BPE (\"gpt2\") is";
                return Err(self.unsupported(MODEL, why));
            }
            Some(other) => {
                let why =
                    format!("the tokenizer is \"{other}\"; only byte-level BPE (\"gpt2\") is supported");
                return Err(self.unsupported(MODEL, why));
            }
            None => return Err(self.missing(MODEL)),
        }
        let tokens = self.strings(TOKENS)?.ok_or_else(|| self.missing(TOKENS))?;
        let kinds = match self.numbers(TYPES)? {
            None => vec![TokenKind::Normal; tokens.len()],
            Some(types) if types.len() != tokens.len() => {
                let why = format!("has {} entries for {} tokens", types.len(), tokens.len());
                return Err(self.unsupported(TYPES, why));
            }
            Some(types) => types
                .iter()
                .enumerate()
                .map(|(i, ty)| match ty {
                    1 => Ok(TokenKind::Normal),
                    2 | 3 => Ok(TokenKind::Control),
                    4 => Ok(TokenKind::UserDefined),
                    5 => Ok(TokenKind::Unused),
                    other => Err(self.unsupported(TYPES, format!("token {i} has the unknown type {other}"))),
                })
                .collect::<Result<_>>()?,
        };
        Ok(Vocabulary { tokens: tokens.into_iter().map(str::to_owned).collect(), kinds })
    }

    /// The merges, best first, and how text is cut before they apply.
    pub fn merges(&self) -> Result<(Merges, PreTokenizer)> {
        let name = self.string(PRE)?.ok_or_else(|| self.missing(PRE))?;
        let pre = PreTokenizer::named(name).ok_or_else(|| {
            let known: Vec<_> = PreTokenizer::names().collect();
            self.unsupported(PRE, format!("unknown pre-tokenizer \"{name}\"; known: {}", known.join(", ")))
        })?;
        let merges = self.strings(MERGES)?.ok_or_else(|| self.missing(MERGES))?;
        let merges = merges.iter().enumerate().map(|(i, merge)| {
            // A piece may itself start with a space-like character, so the cut is the first space after it.
            let cut = merge.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(at, _)| at);
            cut.map(|at| (merge[..at].to_owned(), merge[at + 1..].to_owned())).ok_or_else(|| {
                GgufErrorKind::Unsupported("is no pair of tokens with a space between".into())
                    .at(format_args!("item {i} of metadata `{MERGES}`"), self.at(MERGES))
            })
        });
        Ok((merges.collect::<Result<_>>()?, pre))
    }

    /// The ids the file names, each checked to be a token.
    pub fn specials(&self, vocab: usize) -> Result<Specials> {
        let id = |name: &str| -> Result<Option<u32>> {
            let key = format!("tokenizer.ggml.{name}_token_id");
            match self.uint(&key)? {
                Some(id) if id >= vocab as u64 => {
                    Err(self.unsupported(&key, format!("token {id} is outside the vocabulary of {vocab}")))
                }
                id => Ok(id.map(|id| id as u32)),
            }
        };
        let mut stop = Vec::new();
        for name in ["eos", "eot", "eom"] {
            stop.extend(id(name)?);
        }
        let pre = self.string(PRE)?.and_then(PreTokenizer::named);
        let add_bos = self.boolean("tokenizer.ggml.add_bos_token")?;
        Ok(Specials {
            bos: id("bos")?,
            eos: id("eos")?,
            unk: id("unknown")?,
            pad: id("padding")?,
            add_bos: add_bos.unwrap_or(pre == Some(PreTokenizer::Llama3)),
            stop: Specials::sorted(stop),
        })
    }

    /// A token as the file spells it.
    pub fn token_text(&self, id: u32) -> Result<Option<&str>> {
        let tokens = self.strings(TOKENS)?;
        Ok(tokens.and_then(|tokens| tokens.get(id as usize).copied()))
    }

    pub fn chat_template(&self) -> Result<Option<&str>> {
        self.string("tokenizer.chat_template")
    }
}
