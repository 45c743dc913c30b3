//! A comparison as one HTML page: both sides next to each other, on a phone below each other. Needs no other file,
//! no script and no network.

use std::fmt::Write;

use super::report;
use super::{AnswerDiff, Detail, Diff, Distributions, Judged, Named, PromptDiff, StepDiff, Token};
use crate::markup::escape;
use crate::ops::Next;

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8886;--a:#b3541e;--b:#1e6bb3}\
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:0 auto;padding:1rem}\
h1{font-size:1.3rem}h2{font-size:1.1rem;margin:1.5rem 0 .3rem}h3{font-size:1rem;margin:1rem 0 .3rem}\
.two{display:grid;grid-template-columns:1fr 1fr;gap:.8rem}\
@media(max-width:40rem){.two{grid-template-columns:1fr}}\
.side{border:1px solid var(--line);border-left:4px solid var(--a);padding:.5rem;border-radius:4px;min-width:0;\
overflow-wrap:anywhere}.side.b{border-left-color:var(--b)}\
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.3rem 0;font:13px/1.45 ui-monospace,monospace}\
.text{white-space:pre-wrap}mark{padding:0 .1em}\
.bar{display:flex;gap:.5rem;align-items:center;font:13px ui-monospace,monospace;margin:.15rem 0}\
.bar code{flex:0 0 9rem;overflow:hidden;text-overflow:ellipsis;white-space:pre}.bar span{flex:0 0 4.5rem}\
.bar i{height:.7rem;background:var(--a);min-width:1px;flex:0 1 auto;border-radius:2px}\
.b .bar i{background:var(--b)}.track{flex:1 1 auto;display:flex;min-width:2rem}\
section.follows{opacity:.8}";

/// The page.
pub fn page(diff: &Diff, judged: &[Judged]) -> String {
    let mut out = String::new();
    let title = format!("{} and {}", diff.a.name, diff.b.name);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{}</title><style>{STYLE}</style></head><body>\n",
        escape(&title)
    );
    let _ = writeln!(out, "<h1>{}</h1>", escape(&report::verdict(diff)));
    two(&mut out, &named(&diff.a), &named(&diff.b));
    let scores = report::scores(diff, judged);
    if !scores.is_empty() {
        let _ = writeln!(out, "<h2>Scores</h2><pre>{}</pre>", escape(&scores.join("\n")));
    }
    for change in &diff.pipeline {
        let side = |v: &Option<String>| escape(v.as_deref().unwrap_or("(absent)"));
        let _ = writeln!(out, "<h2>pipeline: {}</h2>", escape(&change.field));
        two(&mut out, &side(&change.before), &side(&change.after));
    }
    let (by_itself, following): (Vec<_>, Vec<_>) = diff.steps.iter().partition(|s| !s.causes.is_empty());
    by_itself.into_iter().for_each(|step| section(&mut out, step, "causes"));
    following.into_iter().for_each(|step| section(&mut out, step, "follows"));
    out.push_str("</body></html>\n");
    out
}

fn named(side: &Named) -> String {
    let cid = side.cid.as_ref().filter(|cid| **cid != side.name);
    let cid = cid.map_or_else(String::new, |cid| format!("<pre>{}</pre>", escape(cid)));
    format!("<b>{}</b>{cid}", escape(&side.name))
}

/// Both sides; what is given is HTML.
fn two(out: &mut String, a: &str, b: &str) {
    let _ = writeln!(
        out,
        "<div class=\"two\"><div class=\"side a\">{a}</div><div class=\"side b\">{b}</div></div>"
    );
}

fn section(out: &mut String, step: &StepDiff, class: &str) {
    let _ = writeln!(out, "<section class=\"{class}\"><h2>{}</h2>", escape(&report::head(step)));
    let mut lines = String::new();
    report::body(&mut lines, step);
    plain(out, &lines);
    for output in &step.outputs {
        match &output.detail {
            Some(Detail::Answers { answers, .. }) => {
                answers.iter().for_each(|found| answer(out, &output.name, found));
            }
            Some(Detail::Prompts { prompts }) => {
                prompts.iter().for_each(|found| prompt(out, &output.name, found));
            }
            _ => {
                let mut lines = String::new();
                report::output(&mut lines, output);
                plain(out, &lines);
            }
        }
    }
    out.push_str("</section>\n");
}

fn plain(out: &mut String, lines: &str) {
    if !lines.is_empty() {
        let lines: Vec<_> = lines.lines().map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
        let _ = writeln!(out, "<pre>{}</pre>", escape(&lines.join("\n")));
    }
}

fn answer(out: &mut String, name: &str, found: &AnswerDiff) {
    let what = match found.parts_at {
        Some(at) => format!("parts at generated token {at}"),
        None if found.stopped_by[0] != found.stopped_by[1] => "ends for another reason".into(),
        None => "the same tokens, another inside".into(),
    };
    let _ = writeln!(out, "<h3>{}: prompt {}: {what}</h3>", escape(name), escape(&found.id));
    let computed = |i: usize| match &found.distributions {
        Some(Distributions::Computed { a, b }) => distribution([a, b][i]),
        Some(Distributions::Not { not_computed }) => {
            format!("<p>distribution not computed: {}</p>", escape(not_computed))
        }
        None => String::new(),
    };
    let texts = marked(&found.texts[0], &found.texts[1]);
    let sides: Vec<String> = (0..2)
        .map(|i| {
            let at = found.parts_at.map(|_| match &found.tokens[i] {
                None => format!("ended: {}", found.stopped_by[i]),
                Some(Token { token, text }) => format!("{:?} ({token})", text.as_deref().unwrap_or("?")),
            });
            let at = at.map_or_else(String::new, |at| format!("<p>there: <code>{}</code></p>", escape(&at)));
            format!("<div class=\"text\">{}</div>{at}{}", texts[i], computed(i))
        })
        .collect();
    two(out, &sides[0], &sides[1]);
}

fn prompt(out: &mut String, name: &str, found: &PromptDiff) {
    let _ = writeln!(out, "<h3>{}: prompt {}</h3>", escape(name), escape(&found.id));
    let text = |i: usize| match &found.texts[i] {
        Some(text) => text.clone(),
        None => format!("{} tokens, given as ids", found.lengths[i]),
    };
    let [a, b] = marked(&text(0), &text(1));
    let side = |text: &str| format!("<div class=\"text\">{text}</div>");
    two(out, &side(&a), &side(&b));
}

/// Both texts, with what stands behind their common beginning marked.
fn marked(a: &str, b: &str) -> [String; 2] {
    let same: usize = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum();
    [a, b].map(|text| match text.split_at(same) {
        (all, "") => escape(all),
        (same, rest) => format!("{}<mark>{}</mark>", escape(same), escape(rest)),
    })
}

fn distribution(next: &Next) -> String {
    let mut out = String::from("<div>");
    let further = next.asked.iter().filter(|l| !next.top.iter().any(|top| top.token == l.token));
    for likely in next.top.iter().chain(further) {
        let _ = write!(
            out,
            "<div class=\"bar\"><code>{}</code><span>{:.4}</span>\
             <div class=\"track\"><i style=\"width:{:.2}%\"></i></div></div>",
            escape(&format!("{:?}", likely.text)),
            likely.p,
            100.0 * likely.p
        );
    }
    out + "</div>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_marked_where_they_part_and_cannot_speak_html() {
        let [a, b] = marked("é <b>x", "é <i>");
        assert_eq!(a, "é &lt;<mark>b&gt;x</mark>");
        assert_eq!(b, "é &lt;<mark>i&gt;</mark>");
        assert_eq!(marked("a", "ab"), ["a".to_owned(), "a<mark>b</mark>".to_owned()]);
        assert_eq!(escape("<script>&\""), "&lt;script&gt;&amp;&quot;");
    }
}
