//! The `tokenize` op: prompts to token ids, by the model's own vocabulary and chat template.

use pipe_store::Object;
use serde::{Deserialize, Serialize};

use super::{Done, OpError, World, json};
use crate::key::Inputs;
use crate::model::Model;
use crate::recipe::op::{Message, Prompts, Tokenize};

/// The one output of `tokenize`.
pub const OUTPUT: &str = "tokens.json";

/// The artifact `tokens.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tokens {
    pub prompts: Vec<TokenizedPrompt>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenizedPrompt {
    /// From the JSONL line, else the prompt's number from 0.
    pub id: String,
    /// The text after the template; absent when token ids were given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    pub tokens: Vec<u32>,
}

/// One line of a JSONL file of prompts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Option<serde_json::Value>,
    prompt: Option<String>,
    messages: Option<Vec<Message>>,
    text: Option<String>,
    ids: Option<Vec<u32>>,
}

pub fn run(op: &Tokenize, inputs: &Inputs, world: &World<'_>) -> Result<Done, OpError> {
    let model = world.open_model(inputs)?;
    let prompts = match &op.prompts {
        Prompts::Jsonl => read_jsonl(&world.open_one(inputs, "prompts")?)?,
        one => vec![("0".to_owned(), one.clone())],
    };
    let needs_text = prompts.iter().any(|(_, p)| !matches!(p, Prompts::Ids(_)));
    let tokenizer = if needs_text { Some(model.tokenizer()?) } else { None };
    let mut tokens = Tokens { prompts: Vec::with_capacity(prompts.len()) };
    for (id, prompt) in prompts {
        world.check_cancelled()?;
        tokens.prompts.push(tokenize(id, prompt, &model, tokenizer.as_ref())?);
    }
    let output = world.put(OUTPUT, json::MEDIA_TYPE, &json::write(&tokens))?;
    let count: usize = tokens.prompts.iter().map(|p| p.tokens.len()).sum();
    let log = format!("{} prompts, {count} tokens\n", tokens.prompts.len());
    Ok(Done { outputs: vec![output], log, ..Done::default() })
}

fn tokenize(
    id: String,
    prompt: Prompts,
    model: &Model,
    tokenizer: Option<&crate::model::Tokenizer>,
) -> Result<TokenizedPrompt, OpError> {
    let text = match prompt {
        Prompts::Ids(tokens) => return check(TokenizedPrompt { id, text: None, tokens }, model),
        Prompts::Text(text) => text,
        Prompts::Chat(messages) => match model.chat_template()? {
            Some(template) => {
                template.render(&messages).map_err(|e| OpError::input(format!("prompt {id}"), e))?
            }
            None => {
                let hint = "the model has no chat template; give the prompt as `text`";
                return Err(OpError::input(format!("prompt {id}"), hint));
            }
        },
        Prompts::Jsonl => {
            return Err(OpError::input(format!("prompt {id}"), "a JSONL file within a JSONL file"));
        }
    };
    let tokenizer = tokenizer.expect("BUG: made for every prompt with text");
    let tokens = tokenizer.encode(&text).map_err(|e| OpError::input(format!("prompt {id}"), e))?;
    check(TokenizedPrompt { id, text: Some(text), tokens }, model)
}

/// Every id must be a row of the embedding table, and there must be one.
fn check(prompt: TokenizedPrompt, model: &Model) -> Result<TokenizedPrompt, OpError> {
    let what = || format!("prompt {}", prompt.id);
    if prompt.tokens.is_empty() {
        return Err(OpError::input(what(), "it has no tokens; a prompt needs at least one"));
    }
    let vocab = model.geometry().vocab;
    if let Some((i, token)) = prompt.tokens.iter().enumerate().find(|(_, t)| **t as usize >= vocab) {
        return Err(OpError::input(what(), format!("token {i} is {token}; the vocabulary has {vocab}")));
    }
    Ok(prompt)
}

fn read_jsonl(object: &Object) -> Result<Vec<(String, Prompts)>, OpError> {
    let text = std::str::from_utf8(object).map_err(|e| OpError::input("prompts", e))?;
    let mut prompts = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let what = || format!("prompts, line {}", i + 1);
        let line: Line = serde_json::from_str(line).map_err(|e| OpError::input(what(), e))?;
        let id = match line.id {
            None => prompts.len().to_string(),
            Some(serde_json::Value::String(s)) => s,
            Some(serde_json::Value::Number(n)) => n.to_string(),
            Some(_) => return Err(OpError::input(what(), "`id` must be a string or a number")),
        };
        let user = |content| Prompts::Chat(vec![Message { role: "user".into(), content }]);
        let given = [line.prompt.map(user), line.messages.map(Prompts::Chat), line.text.map(Prompts::Text)];
        let mut given = given.into_iter().flatten().chain(line.ids.map(Prompts::Ids));
        match (given.next(), given.next()) {
            (Some(prompt), None) => prompts.push((id, prompt)),
            _ => return Err(OpError::input(what(), "give one of `prompt`, `messages`, `text`, `ids`")),
        }
    }
    if prompts.is_empty() {
        return Err(OpError::input("prompts", "the file has no lines"));
    }
    Ok(prompts)
}
