//! The `tokenize` op: prompts to token ids, by the model's own vocabulary and chat template.

use serde::{Deserialize, Serialize};

use super::corpus::{self, Asked, How};
use super::{Done, OpError, World, json};
use crate::key::Inputs;
use crate::model::{Model, Tokenizer};
use crate::recipe::op::{Prompts, Tokenize};
use crate::score::is_space;

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continuation: Option<Continuation>,
}

/// The end of a prompt whose likelihood is asked for, given what stands before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continuation {
    /// The line it is of.
    pub of: String,
    /// Its number among the choices; absent for a text from its first token on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<usize>,
    /// The choice, or the text, without the white space in front of it that belongs to the template.
    pub text: String,
    /// Its first token.
    pub from: usize,
}

pub fn run(op: &Tokenize, inputs: &Inputs, world: &World<'_>) -> Result<Done, OpError> {
    let model = world.open_model(inputs)?;
    let asked = match &op.prompts {
        Prompts::Jsonl => corpus::asked(&world.open_one(inputs, "prompts")?)?,
        one => vec![Asked { id: "0".to_owned(), how: How::Prompt(one.clone()) }],
    };
    let needs_text = asked.iter().any(|a| !matches!(a.how, How::Prompt(Prompts::Ids(_))));
    let tokenizer = if needs_text { Some(model.tokenizer()?) } else { None };
    let cutter = Cutter { model: &model, tokenizer: tokenizer.as_ref() };
    let mut tokens = Tokens { prompts: Vec::with_capacity(asked.len()) };
    for Asked { id, how } in asked {
        world.check_cancelled()?;
        match how {
            How::Prompt(prompt) => tokens.prompts.push(cutter.prompt(id, prompt)?),
            How::Choices(prompt, choices) => {
                for (number, choice) in choices.into_iter().enumerate() {
                    tokens.prompts.push(cutter.choice(&id, &prompt, number, choice)?);
                }
            }
            How::Rolling(text) => tokens.prompts.push(cutter.rolling(id, text)?),
        }
    }
    let output = world.put(OUTPUT, json::MEDIA_TYPE, &json::write(&tokens))?;
    let count: usize = tokens.prompts.iter().map(|p| p.tokens.len()).sum();
    let log = format!("{} prompts, {count} tokens\n", tokens.prompts.len());
    Ok(Done { outputs: vec![output], log, ..Done::default() })
}

/// What cuts text into tokens.
struct Cutter<'a> {
    model: &'a Model,
    tokenizer: Option<&'a Tokenizer>,
}

impl Cutter<'_> {
    fn prompt(&self, id: String, prompt: Prompts) -> Result<TokenizedPrompt, OpError> {
        if let Prompts::Ids(tokens) = prompt {
            return self.check(TokenizedPrompt { id, text: None, tokens, continuation: None });
        }
        let text = self.text(&id, &prompt)?;
        let tokens = self.encode(&id, &text)?;
        self.check(TokenizedPrompt { id, text: Some(text), tokens, continuation: None })
    }

    /// The text of a prompt, after the template.
    fn text(&self, id: &str, prompt: &Prompts) -> Result<String, OpError> {
        let wrong = |e: &dyn ToString| OpError::input(format!("prompt {id}"), e.to_string());
        match prompt {
            Prompts::Text(text) => Ok(text.clone()),
            Prompts::Chat(messages) => match self.model.chat_template()? {
                Some(template) => template.render(messages).map_err(|e| wrong(&e)),
                None => Err(wrong(&"the model has no chat template; give the prompt as `text`")),
            },
            Prompts::Ids(_) | Prompts::Jsonl => Err(wrong(&"it has no text")),
        }
    }

    fn encode(&self, id: &str, text: &str) -> Result<Vec<u32>, OpError> {
        let tokenizer = self.tokenizer.expect("BUG: made for every prompt with text");
        tokenizer.encode(text).map_err(|e| OpError::input(format!("prompt {id}"), e))
    }

    /// A prompt with one choice after it, cut as lm-evaluation-harness 0.4.13 cuts a pair (`_encode_pair` and
    /// `construct_requests`): a space between a plain text and the choice, nothing after a chat template; white space
    /// at the end of the prompt goes to the choice; the choice's tokens are those of both texts together, after as many
    /// as the prompt alone has.
    fn choice(
        &self,
        of: &str,
        prompt: &Prompts,
        number: usize,
        choice: String,
    ) -> Result<TokenizedPrompt, OpError> {
        let id = format!("{of}#{number}");
        let context = self.text(of, prompt)?;
        let delimiter = if matches!(prompt, Prompts::Chat(_)) { "" } else { " " };
        let whole = format!("{context}{delimiter}{choice}");
        let (mut tokens, mut rest);
        if context.is_empty() {
            tokens = vec![self.prefix(&id)?];
            rest = self.encode(&id, &whole)?;
            if rest.first() == tokens.first() {
                rest.remove(0);
            }
        } else {
            tokens = self.encode(&id, context.trim_end_matches(is_space))?;
            rest = self.encode(&id, &whole)?;
            rest.drain(..tokens.len().min(rest.len()));
        }
        let from = tokens.len();
        if from == 0 || rest.is_empty() {
            let why = "the choice has no tokens of its own after the prompt";
            return Err(OpError::input(format!("prompt {id}"), why));
        }
        tokens.append(&mut rest);
        let continuation = Some(Continuation { of: of.to_owned(), choice: Some(number), text: choice, from });
        self.check(TokenizedPrompt { id, text: Some(whole), tokens, continuation })
    }

    /// A text after the model's beginning-of-text token, else its end-of-text token, as the harness's
    /// `loglikelihood_rolling` has it, in one window.
    fn rolling(&self, id: String, text: String) -> Result<TokenizedPrompt, OpError> {
        let mut tokens = vec![self.prefix(&id)?];
        tokens.extend(self.encode(&id, &text)?);
        if tokens.len() < 2 {
            return Err(OpError::input(format!("prompt {id}"), "the text has no tokens"));
        }
        let continuation = Some(Continuation { of: id.clone(), choice: None, text: text.clone(), from: 1 });
        self.check(TokenizedPrompt { id, text: Some(text), tokens, continuation })
    }

    fn prefix(&self, id: &str) -> Result<u32, OpError> {
        let specials = self.model.specials();
        let why = "the model names no beginning-of-text and no end-of-text token to stand before it";
        specials.bos.or(specials.eos).ok_or_else(|| OpError::input(format!("prompt {id}"), why))
    }

    /// Every id must be a row of the embedding table, and there must be one.
    fn check(&self, prompt: TokenizedPrompt) -> Result<TokenizedPrompt, OpError> {
        let what = || format!("prompt {}", prompt.id);
        if prompt.tokens.is_empty() {
            return Err(OpError::input(what(), "it has no tokens; a prompt needs at least one"));
        }
        let vocab = self.model.geometry().vocab;
        if let Some((i, token)) = prompt.tokens.iter().enumerate().find(|(_, t)| **t as usize >= vocab) {
            return Err(OpError::input(what(), format!("token {i} is {token}; the vocabulary has {vocab}")));
        }
        Ok(prompt)
    }
}
