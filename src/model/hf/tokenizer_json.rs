//! tokenizer.json, for byte-level BPE: vocabulary, merges and the cut. Everything the file may hold beside
//! them (templates, truncation, padding) takes no part: ids are those of the text and nothing else.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value as Json;

use super::{ModelError, Result, TOKENIZER, field_error, json};
use crate::model::tokenizer::{Cut, Merges, TokenKind, Vocabulary};

#[derive(Deserialize)]
pub struct TokenizerJson {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Json,
    #[serde(default)]
    pre_tokenizer: Json,
    #[serde(default)]
    decoder: Json,
    model: Bpe,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

#[derive(Deserialize)]
struct Bpe {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
    #[serde(default)]
    ignore_merges: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
}

/// "a b" in older files, ["a", "b"] in newer ones.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair([String; 2]),
    Text(String),
}

fn wrong(field: &str, message: impl Into<String>) -> ModelError {
    field_error(TOKENIZER, field, message.into())
}

impl TokenizerJson {
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let file: TokenizerJson = json(TOKENIZER, bytes)?;
        if file.model.kind.as_deref().is_some_and(|kind| kind != "BPE") {
            return Err(wrong("model.type", "only byte-level BPE is supported"));
        }
        if file.model.byte_fallback {
            return Err(wrong("model.byte_fallback", "SentencePiece vocabularies are not supported"));
        }
        if file.model.dropout.is_some_and(|p| p != 0.0) {
            return Err(wrong("model.dropout", "random merges are not supported"));
        }
        let affixes = [&file.model.continuing_subword_prefix, &file.model.end_of_word_suffix];
        if affixes.into_iter().flatten().any(|text| !text.is_empty()) {
            return Err(wrong("model", "prefixes and suffixes of words are not supported"));
        }
        if !mentions(&file.decoder, &["ByteLevel"]) {
            return Err(wrong("decoder", "only ByteLevel is supported"));
        }
        Ok(file)
    }

    /// Tokens by id; rows of the embedding table without a token are unused.
    pub fn vocabulary(&self, rows: usize) -> Result<Vocabulary> {
        let mut tokens = vec![String::new(); rows];
        let mut kinds = vec![TokenKind::Unused; rows];
        let mut put = |field: &str, text: &str, id: u32, kind: TokenKind| {
            let Some(slot) = tokens.get_mut(id as usize) else {
                return Err(wrong(
                    field,
                    format!("token {id} ({text:?}) is outside the vocabulary of {rows}"),
                ));
            };
            if kinds[id as usize] != TokenKind::Unused && slot != text {
                return Err(wrong(field, format!("token {id} is both {slot:?} and {text:?}")));
            }
            text.clone_into(slot);
            kinds[id as usize] = kind;
            Ok(())
        };
        for (text, id) in &self.model.vocab {
            put("model.vocab", text, *id, TokenKind::Normal)?;
        }
        for added in &self.added_tokens {
            if added.single_word || added.lstrip || added.rstrip {
                let why = "added tokens that take white space or whole words are not supported";
                return Err(wrong("added_tokens", format!("{:?}: {why}", added.content)));
            }
            let kind = if added.special { TokenKind::Control } else { TokenKind::UserDefined };
            put("added_tokens", &added.content, added.id, kind)?;
        }
        for (id, token) in tokens.iter_mut().enumerate().filter(|(id, _)| kinds[*id] == TokenKind::Unused) {
            *token = format!("[unused {id}]");
        }
        Ok(Vocabulary { tokens, kinds })
    }

    pub fn cut(&self) -> Result<Cut> {
        let pre_kinds = ["Sequence", "Split", "Digits", "ByteLevel"];
        if !mentions(&self.pre_tokenizer, &pre_kinds) {
            return Err(wrong("pre_tokenizer", format!("only {} are supported", pre_kinds.join(", "))));
        }
        let normal_kinds = ["Sequence", "NFC", "NFD", "NFKC", "NFKD"];
        if !self.normalizer.is_null() && !mentions(&self.normalizer, &normal_kinds) {
            return Err(wrong("normalizer", format!("only {} are supported", normal_kinds.join(", "))));
        }
        let pre = serde_json::from_value(self.pre_tokenizer.clone());
        let normalizer = serde_json::from_value(self.normalizer.clone());
        Ok(Cut {
            normalizer: normalizer.map_err(|e| wrong("normalizer", e.to_string()))?,
            pre: pre.map_err(|e| wrong("pre_tokenizer", e.to_string()))?,
            ignore_merges: self.model.ignore_merges,
        })
    }

    pub fn merges(self) -> Result<Merges> {
        let split = |(i, merge): (usize, Merge)| match merge {
            Merge::Pair([left, right]) => Ok((left, right)),
            Merge::Text(text) => match text.split_once(' ') {
                Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
                None => Err(wrong("model.merges", format!("item {i} ({text:?}) is no pair"))),
            },
        };
        self.model.merges.into_iter().enumerate().map(split).collect()
    }
}

/// Is this a component of a known type, and are all inside it?
fn mentions(component: &Json, known: &[&str]) -> bool {
    let kind = component.get("type").and_then(Json::as_str);
    let inside = ["pretokenizers", "normalizers", "decoders"].iter().find_map(|key| component.get(key));
    match inside.and_then(Json::as_array) {
        Some(all) => kind == Some("Sequence") && all.iter().all(|c| mentions(c, known)),
        None => kind.is_some_and(|kind| known.contains(&kind)),
    }
}
