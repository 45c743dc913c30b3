//! `[steps.NAME] op = "tokenize"` as a recipe writes it: where the prompts come from.

use toml::Spanned;
use toml::de::DeValue;

use super::diagnostic::Mistake;
use super::op::{Message, Prompts, Tokenize};
use super::table::{Subject, Table, integer, wrong_type};

pub const KEYS: &[&str] = &["op", "model", "prompt", "text", "ids", "prompts"];

const ONE_OF: &[&str] = &["prompt", "text", "ids", "prompts"];

/// None when something is wrong; all of it is reported.
pub fn tokenize(table: Table<'_, '_>, mistakes: &mut Vec<Mistake>) -> Option<Tokenize> {
    let hint = "`prompt` goes through the chat template, `text` is raw, `ids` are token ids, `prompts` is a step with JSONL";
    let key = table.exactly_one(ONE_OF, hint, mistakes)?;
    let value = table.value(key)?;
    let prompts = match key {
        "prompt" => Prompts::Chat(chat(table, value, mistakes)?),
        "text" => match table.string(key, mistakes)? {
            ("", span) => {
                mistakes.push(Mistake::new(span, "`text` is empty").expected("at least one character"));
                return None;
            }
            (text, _) => Prompts::Text(text.to_string()),
        },
        "ids" => Prompts::Ids(ids(value, mistakes)?),
        // The step it names is an edge, read with the other references.
        _ => Prompts::Jsonl,
    };
    Some(Tokenize { prompts })
}

fn chat(
    table: Table<'_, '_>,
    value: &Spanned<DeValue<'_>>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Vec<Message>> {
    let messages = match value.get_ref() {
        DeValue::String(content) => {
            return Some(vec![Message { role: "user".into(), content: content.to_string() }]);
        }
        DeValue::Array(messages) if !messages.is_empty() => messages,
        DeValue::Array(_) => {
            mistakes.push(Mistake::new(value.span(), "`prompt` is empty").expected("at least one message"));
            return None;
        }
        _ => {
            wrong_type("prompt", value, "a string or an array of { role, content }", mistakes);
            return None;
        }
    };
    let before = mistakes.len();
    let mut chat = Vec::with_capacity(messages.len());
    for message in messages.iter() {
        let DeValue::Table(inner) = message.get_ref() else {
            wrong_type("prompt", message, "a table { role, content }", mistakes);
            continue;
        };
        let one = table.inside(Subject::Part("prompt"), message.span().into(), inner);
        one.only(&["role", "content"], mistakes);
        let role = one.required_string("role", "such as \"system\", \"user\" or \"assistant\"", mistakes);
        let content = one.required_string("content", "what is said", mistakes);
        if let Some(("", span)) = role {
            mistakes.push(Mistake::new(span, "`role` is empty").expected("such as \"user\""));
        }
        if let (Some((role, _)), Some((content, _))) = (role, content) {
            chat.push(Message { role: role.to_string(), content: content.to_string() });
        }
    }
    (mistakes.len() == before).then_some(chat)
}

fn ids(value: &Spanned<DeValue<'_>>, mistakes: &mut Vec<Mistake>) -> Option<Vec<u32>> {
    let DeValue::Array(values) = value.get_ref() else {
        wrong_type("ids", value, "an array of token ids", mistakes);
        return None;
    };
    if values.is_empty() {
        mistakes.push(Mistake::new(value.span(), "`ids` is empty").expected("at least one token id"));
        return None;
    }
    let before = mistakes.len();
    let id = |value, mistakes: &mut Vec<Mistake>| integer("ids", value, 0, u32::MAX.into(), mistakes);
    let ids = values.iter().filter_map(|value| id(value, mistakes)).map(|id| id as u32).collect();
    (mistakes.len() == before).then_some(ids)
}
