//! A line of JSONL: a prompt, a reference for it, or both. `tokenize` takes the prompts, `score` the references, so one
//! file can serve both.

use serde::Deserialize;

use super::OpError;
use crate::recipe::op::{Message, Prompts};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Option<serde_json::Value>,
    prompt: Option<String>,
    messages: Option<Vec<Message>>,
    text: Option<String>,
    ids: Option<Vec<u32>>,
    rolling: Option<String>,
    choices: Option<Vec<String>>,
    expected: Option<Vec<String>>,
    answer: Option<usize>,
}

/// What a line asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// As given, else the line's number from 0, empty lines not counted.
    pub id: String,
    pub how: How,
}

#[derive(Clone, Debug, PartialEq)]
pub enum How {
    Prompt(Prompts),
    /// How likely is each of these after the prompt?
    Choices(Prompts, Vec<String>),
    /// How likely is the text from its first token on?
    Rolling(String),
}

/// What a line says is right.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    pub id: String,
    pub expected: Option<Vec<String>>,
    /// The right one of the choices, from 0.
    pub answer: Option<usize>,
}

/// The lines that are not empty, each with its id and its place for messages.
fn lines(name: &str, bytes: &[u8]) -> Result<Vec<(String, String, Line)>, OpError> {
    let text = std::str::from_utf8(bytes).map_err(|e| OpError::input(name, e))?;
    let mut lines = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let at = format!("{name}, line {}", i + 1);
        let line: Line = serde_json::from_str(line).map_err(|e| OpError::input(&at, e))?;
        let id = match &line.id {
            None => lines.len().to_string(),
            Some(serde_json::Value::String(s)) => s.clone(),
            Some(serde_json::Value::Number(n)) => n.to_string(),
            Some(_) => return Err(OpError::input(at, "`id` must be a string or a number")),
        };
        lines.push((at, id, line));
    }
    if lines.is_empty() {
        return Err(OpError::input(name, "the file has no lines"));
    }
    Ok(lines)
}

/// The prompts of a file.
pub fn asked(bytes: &[u8]) -> Result<Vec<Asked>, OpError> {
    let one = |(at, id, line): (String, String, Line)| {
        let user = |content| Prompts::Chat(vec![Message { role: "user".into(), content }]);
        let given = [line.prompt.map(user), line.messages.map(Prompts::Chat), line.text.map(Prompts::Text)];
        let given = given.into_iter().flatten().chain(line.ids.map(Prompts::Ids)).map(How::Prompt);
        let mut given = given.chain(line.rolling.map(How::Rolling));
        let how = match (given.next(), given.next(), line.choices) {
            (Some(how), None, None) => how,
            (Some(How::Prompt(Prompts::Ids(_)) | How::Rolling(_)), None, Some(_)) => {
                return Err(OpError::input(at, "`choices` go with `prompt`, `messages` or `text`"));
            }
            (Some(How::Prompt(prompt)), None, Some(choices)) => {
                if choices.is_empty() || choices.iter().any(String::is_empty) {
                    return Err(OpError::input(at, "`choices` needs at least one text, and none empty"));
                }
                How::Choices(prompt, choices)
            }
            _ => {
                return Err(OpError::input(at, "give one of `prompt`, `messages`, `text`, `ids`, `rolling`"));
            }
        };
        Ok(Asked { id, how })
    };
    lines("prompts", bytes)?.into_iter().map(one).collect()
}

/// The references of a file; lines without one are left out. An id twice is an error.
pub fn references(bytes: &[u8]) -> Result<Vec<Reference>, OpError> {
    let mut references: Vec<Reference> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for (at, id, line) in lines("references", bytes)? {
        if line.expected.is_none() && line.answer.is_none() {
            continue;
        }
        if line.expected.as_ref().is_some_and(Vec::is_empty) {
            return Err(OpError::input(at, "`expected` needs at least one text"));
        }
        if let (Some(answer), Some(choices)) = (line.answer, &line.choices)
            && answer >= choices.len()
        {
            return Err(OpError::input(at, format!("`answer` is {answer}, of {} choices", choices.len())));
        }
        if !seen.insert(id.clone()) {
            return Err(OpError::input(at, format!("a second reference for `{id}`")));
        }
        references.push(Reference { id, expected: line.expected, answer: line.answer });
    }
    Ok(references)
}
