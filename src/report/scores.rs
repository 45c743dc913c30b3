//! Scores as cards: a number in [0, 1], or why there is none, and its parts.

use serde_json::Value;

use super::Report;
use super::number::{count, score, short};
use super::page::Page;
use crate::score::{Score, Three};

const MEANINGS: [(&str, &str); 3] = [
    ("fitness", "how right the answer is"),
    ("beauty", "how little of the model explains it"),
    ("relevance", "how much it rests on the prompt"),
];

pub fn section(page: &mut Page, report: &Report) {
    if report.scores.is_empty() && report.scores_of_all.is_empty() {
        return;
    }
    page.raw("<section id=\"scores\"><h2>Scores</h2>\n");
    for (step, three) in &report.scores {
        if report.scores.len() > 1 {
            page.element("p", &[("class", &"sub")], step);
        }
        cards(page, three);
    }
    for (step, three) in &report.scores_of_all {
        page.element("p", &[("class", &"sub")], format_args!("{step}: all prompts together"));
        cards(page, three);
    }
    page.raw("</section>\n");
}

fn cards(page: &mut Page, three: &Three) {
    page.raw("<div class=\"scores\">");
    for ((name, meaning), of) in MEANINGS.iter().zip([&three.fitness, &three.beauty, &three.relevance]) {
        page.raw("<div class=\"score\">").element("h3", &[], name).element("small", &[], meaning);
        match of.value {
            Some(value) => {
                page.element("p", &[("class", &"value")], score(value));
                let width = format!("{:.2}", value.clamp(0.0, 1.0) * 100.0);
                page.raw("<svg viewBox=\"0 0 100 4\" preserveAspectRatio=\"none\" aria-hidden=\"true\">");
                page.raw("<rect class=\"track\" width=\"100\" height=\"4\"/>");
                page.open("rect", &[("class", &"meter"), ("width", &width), ("height", &4)])
                    .raw("</rect></svg>");
            }
            None => {
                page.raw("<p class=\"value none\">none</p>");
                page.note(of.reason.as_deref().unwrap_or_default());
            }
        }
        parts(page, of);
        page.raw("</div>");
    }
    page.raw("</div>\n");
}

fn parts(page: &mut Page, of: &Score) {
    let mut rows = Vec::new();
    for (name, value) in &of.parts {
        flat(name, value, &mut rows);
    }
    if rows.is_empty() {
        return;
    }
    page.raw("<dl>");
    for (name, value) in rows {
        page.element("dt", &[], name.replace('_', " ")).element("dd", &[], value);
    }
    page.raw("</dl>");
}

/// Fields of objects as parts of their own; lists by their length, as other sections show them.
fn flat(name: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    let text = match value {
        Value::Object(fields) => {
            return fields.iter().for_each(|(field, value)| flat(&format!("{name}: {field}"), value, rows));
        }
        Value::Array(items) if items.iter().all(Value::is_number) && items.len() <= 8 => {
            items.iter().filter_map(Value::as_f64).map(short).collect::<Vec<_>>().join(", ")
        }
        Value::Array(items) => format!("{} items", count(items.len() as u64)),
        Value::Number(n) => n.as_u64().map_or_else(|| short(n.as_f64().unwrap_or(f64::NAN)), count),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.into(),
        Value::String(text) => text.clone(),
        Value::Null => "none".into(),
    };
    rows.push((name.to_owned(), text));
}
