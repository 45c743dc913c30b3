//! The sections of a recipe: `[pipeline]` and `[steps.NAME]`. Which keys an op has is said by its own module.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::Mistake;
use super::near::did_you_mean;
use super::op::{LocalFile, Op};
use super::span::Span;
use super::syntax::{Document, only_section};
use super::table::{Subject, Table, either, wrong_type};
use super::{Entry, Kind, Reference};
use super::{fetch, infer, introspect, score, tokenize};

const FILE_KEYS: &[&str] = &["op", "path"];

/// Which keys name other steps; they are the ports of the graph as well.
fn ports(kind: Kind) -> &'static [(&'static str, Option<&'static str>)] {
    const MODEL: &str = "the step that gives the model, such as model = \"weights\"";
    const TOKENS: &str = "the tokenize step that gives the prompts, such as tokens = \"tokens\"";
    const OF: &str = "the infer step that it is about, such as of = \"answer\"";
    match kind {
        Kind::Fetch | Kind::File => &[],
        // `prompts` is one of four ways, so it is never missing by itself.
        Kind::Tokenize => &[("model", Some(MODEL)), ("prompts", None)],
        Kind::Infer => &[("model", Some(MODEL)), ("tokens", Some(TOKENS))],
        Kind::Score => &[("of", Some(OF)), ("references", None), ("introspection", None)],
        Kind::Introspect => &[("of", Some(OF)), ("baseline", None)],
    }
}

/// Name and steps, sorted by name.
pub fn read(
    text: &str,
    document: &Document<'_>,
    folder: &Path,
    mistakes: &mut Vec<Mistake>,
) -> (String, Vec<Entry>) {
    let start = Span::default();
    let root = Table { subject: Subject::Recipe, span: start, inner: &document.root, damaged: document.torn };
    root.only(&["pipeline", "steps", "publish"], mistakes);
    let name = pipeline_name(root, document, mistakes).unwrap_or_default();
    let mut entries = Vec::new();
    match root.value("steps").map(|value| (value, value.get_ref())) {
        None => root.missing("steps", "write [steps.NAME] with an op", mistakes),
        Some((value, DeValue::Table(steps))) => {
            if steps.is_empty() && !document.torn {
                let message = "a recipe needs at least one step";
                mistakes.push(Mistake::new(value.span(), message).hint("write [steps.NAME] with an op"));
            }
            entries.reserve(steps.len());
            for (key, value) in steps.iter() {
                let name: &str = key.get_ref();
                let twice = document.twice.iter().filter(|twice| twice.path == ["steps", name]);
                let mut sections: Vec<Span> = twice.flat_map(|twice| [twice.first, twice.second]).collect();
                if sections.is_empty() {
                    entries.push(entry(key.span().into(), name, value, document, folder, mistakes));
                    continue;
                }
                // Both copies are read by themselves: the parser's tree mixes them.
                sections.sort();
                sections.dedup();
                for section in sections {
                    copy(text, section, name, document, folder, mistakes, &mut entries);
                }
            }
        }
        Some((value, _)) => wrong_type("steps", value, "a table of steps", mistakes),
    }
    (name, entries)
}

fn copy(
    text: &str,
    section: Span,
    name: &str,
    document: &Document<'_>,
    folder: &Path,
    mistakes: &mut Vec<Mistake>,
    entries: &mut Vec<Entry>,
) {
    let alone = only_section(text, section);
    let (root, _) = DeTable::parse_recoverable(&alone);
    let steps = root.get_ref().get("steps").and_then(|steps| steps.get_ref().as_table());
    if let Some((key, value)) = steps.and_then(|steps| steps.get_key_value(name)) {
        entries.push(entry(key.span().into(), name, value, document, folder, mistakes));
    }
}

fn pipeline_name(
    root: Table<'_, '_>,
    document: &Document<'_>,
    mistakes: &mut Vec<Mistake>,
) -> Option<String> {
    let hint = "write [pipeline] and name = \"…\"";
    let Some(value) = root.value("pipeline") else {
        root.missing("pipeline", hint, mistakes);
        return None;
    };
    let DeValue::Table(inner) = value.get_ref() else {
        wrong_type("pipeline", value, "a table", mistakes);
        return None;
    };
    let span = Span::from(value.span());
    let damaged = document.damaged(span.start);
    let table = Table { subject: Subject::Pipeline, span, inner, damaged };
    table.only(&["name"], mistakes);
    let (name, span) = table.required_string("name", "results are shown under this name", mistakes)?;
    if !is_word(name, &['.', '_', '-']) {
        let message = format!("`{}` cannot name a pipeline", name);
        mistakes.push(Mistake::new(span, message).expected("letters, digits, `.`, `_` and `-`"));
    }
    Some(name.to_string())
}

fn entry(
    span: Span,
    name: &str,
    value: &Spanned<DeValue<'_>>,
    document: &Document<'_>,
    folder: &Path,
    mistakes: &mut Vec<Mistake>,
) -> Entry {
    let mut entry =
        Entry { name: name.to_string(), span, kind: None, op: None, references: Vec::new(), path: None };
    if !is_word(name, &['_', '-']) {
        let message = format!("`{}` cannot name a step", name);
        mistakes.push(Mistake::new(span, message).expected("letters, digits, `_` and `-`"));
    }
    let DeValue::Table(inner) = value.get_ref() else {
        wrong_type(name, value, "a table with an `op`", mistakes);
        return entry;
    };
    let table = Table { subject: Subject::Step(name), span, inner, damaged: document.damaged(span.start) };
    let known = Kind::ALL.map(Kind::name);
    let hint = format!("op is {}", either(&known));
    let Some((op, op_span)) = table.required_string("op", &hint, mistakes) else { return entry };
    let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == op) else {
        let message = format!("`{}` is not an op", op);
        let near = did_you_mean(op, known);
        mistakes.push(Mistake::new(op_span, message).expected(either(&known)).maybe_hint(near));
        return entry;
    };
    entry.kind = Some(kind);
    for (port, needed) in ports(kind) {
        if let Some(hint) = needed.filter(|_| !inner.contains_key(*port)) {
            table.missing(port, hint, mistakes);
        }
        entry.references.extend(reference(table, port, mistakes));
    }
    entry.op = match kind {
        Kind::Fetch => {
            table.only(fetch::KEYS, mistakes);
            fetch::fetch(table, folder, mistakes).map(Op::Fetch)
        }
        Kind::File => {
            table.only(FILE_KEYS, mistakes);
            let path =
                table.required_string("path", "a file or folder, from the recipe's folder on", mistakes);
            entry.path = path.map(|(_, span)| span);
            path.map(|(path, _)| Op::File(LocalFile { path: folder.join(path) }))
        }
        Kind::Tokenize => {
            table.only(tokenize::KEYS, mistakes);
            tokenize::tokenize(table, mistakes).map(Op::Tokenize)
        }
        Kind::Infer => {
            table.only(infer::KEYS, mistakes);
            infer::infer(table, mistakes).map(Op::Infer)
        }
        Kind::Score => {
            table.only(score::KEYS, mistakes);
            score::score(table, mistakes).map(Op::Score)
        }
        Kind::Introspect => {
            table.only(introspect::KEYS, mistakes);
            introspect::introspect(table, mistakes).map(Op::Introspect)
        }
    };
    entry
}

/// `step` or `step.output`; step names have no dot, output names may.
fn reference(table: Table<'_, '_>, port: &'static str, mistakes: &mut Vec<Mistake>) -> Option<Reference> {
    let (text, span) = table.string(port, mistakes)?;
    let (step, output) = text.split_once('.').map_or((text, None), |(step, output)| (step, Some(output)));
    if step.is_empty() || output == Some("") {
        // A string that could not be read is empty as well; that was reported.
        if !table.damaged {
            let message = format!("`{port}` names no step");
            mistakes.push(Mistake::new(span, message).expected("STEP or STEP.OUTPUT"));
        }
        return None;
    }
    Some(Reference { port, step: step.to_string(), output: output.map(str::to_string), span })
}

/// One or more ASCII letters, digits and `more`.
fn is_word(text: &str, more: &[char]) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
}
