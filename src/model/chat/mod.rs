//! A model's chat template: messages in, prompt text out, by the conventions of Hugging Face's
//! `apply_chat_template`. A rendering depends on the messages only, never on the day.

mod json;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, context};
use serde::Serialize;
use thiserror::Error as ThisError;

/// A template and the texts of the special tokens it may name.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    pub source: String,
    pub bos: Option<String>,
    pub eos: Option<String>,
    pub unk: Option<String>,
    pub pad: Option<String>,
}

#[derive(Debug, ThisError)]
pub enum ChatError {
    #[error("the model has no chat template; give the prompt as `text` instead of messages")]
    Missing,
    #[error("the chat template does not parse, line {line}: {message}")]
    Syntax { line: usize, message: String },
    #[error("the chat template refuses these messages, line {line}: {message}")]
    Refused { line: usize, message: String },
    #[error(
        "the chat template asks for today's date (strftime_now, line {line}), so its prompt would change from \
         day to day; give the prompt as `text`"
    )]
    Date { line: usize },
    #[error("the chat template failed, line {line}: {message}")]
    Render { line: usize, message: String },
}

/// Marks an error that `raise_exception` made.
const REFUSED: &str = "refused by the template: ";

impl ChatTemplate {
    /// The prompt for these messages, ending where the answer begins.
    pub fn render<M: Serialize>(&self, messages: &[M]) -> Result<String, ChatError> {
        let mut env = environment().map_err(|e| explain(&e))?;
        let source = without_generation_tags(&self.source);
        env.add_template("chat", &source).map_err(|e| explain(&e))?;
        let text = |token: &Option<String>| token.clone().unwrap_or_default();
        let values = context! {
            messages => Serde(messages),
            add_generation_prompt => true,
            tools => (),
            documents => (),
            bos_token => text(&self.bos),
            eos_token => text(&self.eos),
            unk_token => text(&self.unk),
            pad_token => text(&self.pad),
        };
        env.get_template("chat").and_then(|t| t.render(values)).map_err(|e| explain(&e))
    }
}

/// Jinja as transformers sets it up. `strftime_now` is left undefined: a template that asks whether it exists
/// takes its own fixed date, one that just calls it is refused.
fn environment() -> Result<Environment<'static>, Error> {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    let mut env = Environment::new();
    env.set_syntax(syntax);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_recursion_limit(128);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.add_filter("tojson", json::tojson);
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, format!("{REFUSED}{message}")))
    });
    Ok(env)
}

fn explain(error: &Error) -> ChatError {
    let line = error.line().unwrap_or(0);
    let detail = error.detail().unwrap_or_default();
    if let Some(message) = detail.strip_prefix(REFUSED) {
        return ChatError::Refused { line, message: message.into() };
    }
    if error.kind() == ErrorKind::UnknownFunction && detail.contains("strftime_now") {
        return ChatError::Date { line };
    }
    let message =
        if detail.is_empty() { error.kind().to_string() } else { format!("{}: {detail}", error.kind()) };
    match error.kind() {
        ErrorKind::SyntaxError => ChatError::Syntax { line, message },
        _ => ChatError::Render { line, message },
    }
}

/// `{% generation %}` marks the assistant's words for training and prints nothing; Jinja itself does not know
/// it, so it becomes `{% if true %}`, white-space control kept.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(len) = rest[start..].find("%}") else { break };
        let (tag, after) = (&rest[start + 2..start + len], &rest[start + len + 2..]);
        let word = tag.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        let with = match word {
            "generation" => tag.replace("generation", "if true"),
            "endgeneration" => tag.replace("endgeneration", "endif"),
            _ => tag.to_owned(),
        };
        out.push_str(&rest[..start]);
        out.push_str(&format!("{{%{with}%}}"));
        rest = after;
    }
    out + rest
}
