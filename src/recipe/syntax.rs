//! TOML text to a tree with spans, and its syntax mistakes in plain words. Knows no section and no op.
//!
//! The parser goes on after a mistake, so one slip can echo: here echoes are dropped, and what the rest
//! of the reading may not conclude from broken text is noted (`damaged`, `torn`).

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use toml::de::{DeTable, DeValue, Error};

use super::diagnostic::Mistake;
use super::span::Span;

/// Beyond this many the file is no recipe at all.
const MOST_MISTAKES: usize = 100;

/// A document, with what is known about its damage.
pub struct Document<'t> {
    pub root: DeTable<'t>,
    /// Names may be missing only because their section could not be read.
    pub torn: bool,
    /// Tables with one name, each pair once.
    pub twice: Vec<Twice>,
    headers: Vec<Header>,
    damage: BTreeSet<u32>,
    /// Text that was misread: what the tree says about it is no mistake of the user's.
    misread: Vec<Span>,
}

/// A table that stands twice.
pub struct Twice {
    pub path: Vec<String>,
    /// The text of each copy, up to the next header.
    pub first: Span,
    pub second: Span,
}

/// A `[table.header]` line.
struct Header {
    start: u32,
    /// Of the last key.
    key: Span,
    path: Vec<String>,
}

impl Document<'_> {
    /// Was the text at this place misread?
    pub fn misread(&self, span: Span) -> bool {
        self.misread.iter().any(|broken| (broken.start..=broken.end).contains(&span.start))
    }

    /// Is the section around this byte broken?
    pub fn damaged(&self, at: u32) -> bool {
        !self.damage.is_empty() && {
            let next = self.headers.partition_point(|header| header.start <= at);
            let start = next.checked_sub(1).map_or(0, |i| self.headers[i].start);
            let end = self.headers.get(next).map_or(u32::MAX, |header| header.start);
            self.damage.range(start..end).next().is_some()
        }
    }
}

/// Parses and reports. `patched` keeps the text alive that is read when some lines had to be left out.
pub fn parse<'t>(text: &'t str, patched: &'t OnceCell<String>, mistakes: &mut Vec<Mistake>) -> Document<'t> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut root = root.into_inner();
    if errors.is_empty() {
        let (headers, twice, misread) = (Vec::new(), Vec::new(), Vec::new());
        return Document { root, torn: false, twice, headers, damage: BTreeSet::new(), misread };
    }
    let mut slips: BTreeMap<Span, String> = BTreeMap::new();
    collect(&errors, &mut slips);
    // The parser reads nothing behind a key without a value; leave such lines out and read the rest.
    if slips.values().any(|message| message.starts_with(NO_VALUE)) {
        let lines = slips
            .iter()
            .filter(|(_, message)| message.starts_with(NO_VALUE))
            .map(|(span, _)| line(text, *span));
        let without = patched.get_or_init(|| blank(text, lines.collect()));
        let (rest, errors) = DeTable::parse_recoverable(without);
        root = rest.into_inner();
        collect(&errors, &mut slips);
    }
    report(text, root, slips, mistakes)
}

const NO_VALUE: &str = "key with no value";
const DUPLICATE: &str = "duplicate key";

fn collect(errors: &[Error], slips: &mut BTreeMap<Span, String>) {
    for error in errors {
        let span = error.span().unwrap_or_default();
        slips.entry(span.into()).or_insert_with(|| error.message().to_string());
    }
}

fn report<'t>(
    text: &str,
    root: DeTable<'t>,
    slips: BTreeMap<Span, String>,
    mistakes: &mut Vec<Mistake>,
) -> Document<'t> {
    let headers = headers(text);
    let (twice, damage, misread) = (Vec::new(), BTreeSet::new(), Vec::new());
    let mut document = Document { root, torn: false, twice, headers, damage, misread };
    // What follows a missing bracket up to where the parser gave up is one mistake.
    let unclosed: Vec<u32> =
        slips.iter().filter(|(_, m)| m.starts_with("unclosed")).map(|(s, _)| s.start).collect();
    let (mut last_line, mut last_unclosed) = (None, None);
    for (span, message) in slips.iter().take(MOST_MISTAKES) {
        if message == DUPLICATE {
            duplicate(text, &mut document, *span, mistakes);
            continue;
        }
        document.damage.insert(span.start);
        let line = line(text, *span);
        document.torn |= message.starts_with("unclosed") || text[line.range()].trim_start().starts_with('[');
        let group = unclosed.iter().find(|end| **end >= span.start);
        document
            .misread
            .push(Span { start: line.start, end: group.map_or(line.end, |end| line.end.max(*end)) });
        let echo = last_line == Some(line) || (group.is_some() && last_unclosed == group);
        (last_line, last_unclosed) = (Some(line), group);
        if !echo {
            // The end of the group says what is missing; its first place says where.
            let message = group
                .and_then(|end| slips.iter().find(|(s, m)| s.start == *end && m.starts_with("unclosed")));
            mistakes.push(slip(text, *span, message.map_or(&slips[span], |(_, message)| message)));
        }
    }
    if let Some((span, _)) = slips.iter().nth(MOST_MISTAKES) {
        let message = format!("{} more syntax mistakes from here on", slips.len() - MOST_MISTAKES);
        mistakes.push(Mistake::new(*span, message).expected("a TOML file"));
    }
    document
}

/// The parser's words, with what it expected apart, and plainer where they mislead.
fn slip(text: &str, span: Span, message: &str) -> Mistake {
    let raw = text.get(span.range()).unwrap_or_default();
    if raw.is_empty() && text[..span.start as usize].trim_end_matches([' ', '\t']).ends_with('=') {
        return Mistake::new(span, "the value is missing").expected("a value");
    }
    let bare = !raw.is_empty() && raw.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if bare && (message.starts_with("invalid boolean") || message.starts_with("string values must be quoted"))
    {
        let hint = format!("write \"{raw}\"");
        return Mistake::new(span, format!("`{raw}` needs quotes")).expected("a value").hint(hint);
    }
    match message.split_once(", expected ") {
        Some((what, expected)) => Mistake::new(span, what).expected(expected),
        None => Mistake::new(span, message),
    }
}

fn duplicate(text: &str, document: &mut Document<'_>, span: Span, mistakes: &mut Vec<Mistake>) {
    let next = document.headers.partition_point(|header| header.start <= span.start);
    let Some(at) = next.checked_sub(1) else { return key_twice(text, &document.root, span, mistakes) };
    let header = &document.headers[at];
    let first =
        document.headers.iter().position(|other| other.path == header.path).filter(|first| *first < at);
    if header.key != span {
        // Inside the second copy of a table every key seems to stand twice: the table was reported.
        if first.is_none() {
            key_twice(text, &document.root, span, mistakes);
        }
        return;
    }
    let path = header.path.clone();
    let name = path.last().map(|name| name.to_string()).unwrap_or_default();
    let mistake = match path.as_slice() {
        [steps, _] if steps == "steps" => Mistake::new(span, format!("two steps are named `{name}`"))
            .hint("rename one of them, and what refers to it"),
        _ => Mistake::new(span, format!("`[{}]` stands twice", path.join(".")))
            .hint("put all its keys under one header"),
    };
    let Some(first) = first else { return mistakes.push(mistake) };
    let section = |at: usize| {
        let end = document.headers.get(at + 1).map_or(text.len() as u32, |header| header.start);
        Span { start: document.headers[at].start, end }
    };
    mistakes.push(mistake.related(document.headers[first].key, "the first is here"));
    let (first, second) = (section(first), section(at));
    document.twice.push(Twice { path, first, second });
}

fn key_twice(text: &str, root: &DeTable<'_>, span: Span, mistakes: &mut Vec<Mistake>) {
    let raw = text.get(span.range()).unwrap_or_default();
    // Decoded the parser's way: the key may be quoted.
    let line = format!("{raw} = 0");
    let name =
        DeTable::parse(&line).ok().and_then(|t| t.get_ref().keys().next().map(|k| k.get_ref().to_string()));
    let mistake = Mistake::new(span, format!("`{}` stands twice", raw)).hint("keep one of them");
    let first = name.and_then(|name| first_key(root, &name, span));
    mistakes.push(match first {
        Some(first) => mistake.related(first, "the first is here"),
        None => mistake,
    });
}

/// The key `name` nearest before `span`, among tables that hold it.
fn first_key(table: &DeTable<'_>, name: &str, span: Span) -> Option<Span> {
    let here =
        table.get_key_value(name).map(|(key, _)| Span::from(key.span())).filter(|key| key.start < span.start);
    let below = table.values().filter_map(|value| match value.get_ref() {
        DeValue::Table(inner) => first_key(inner, name, span),
        DeValue::Array(values) => {
            let tables = values.iter().filter_map(|value| value.get_ref().as_table());
            tables.filter_map(|inner| first_key(inner, name, span)).max()
        }
        _ => None,
    });
    below.chain(here).max()
}

/// Every line that is a table header by itself.
fn headers(text: &str) -> Vec<Header> {
    let mut headers = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let indent = line.len() - line.trim_start().len();
        if line[indent..].starts_with('[')
            && let Ok(parsed) = DeTable::parse(line)
            && let Some((path, key)) = header_path(parsed.get_ref())
        {
            let key = Span::from(start + key.start as usize..start + key.end as usize);
            headers.push(Header { start: Span::from(start + indent..start).start, key, path });
        }
        start += line.len();
    }
    headers
}

/// The one path of a document that is a single header.
fn header_path(root: &DeTable<'_>) -> Option<(Vec<String>, Span)> {
    let (mut path, mut span, mut table) = (Vec::new(), None, root);
    while let Some((key, value)) = table.iter().next() {
        path.push(key.get_ref().to_string());
        span = Some(key.span().into());
        table = match value.get_ref() {
            DeValue::Table(inner) => inner,
            // [[…]] may repeat its name; an entry that no other equals keeps its place in the order.
            _ => {
                path.push(String::new());
                break;
            }
        };
    }
    Some((path, span?))
}

/// The whole line around a span.
fn line(text: &str, span: Span) -> Span {
    let at = (span.start as usize).min(text.len());
    let bytes = text.as_bytes();
    let start = bytes[..at].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    let end = bytes[at..].iter().position(|b| *b == b'\n').map_or(text.len(), |i| at + i);
    Span::from(start..end)
}

/// The text with these lines blank; all other bytes keep their place.
fn blank(text: &str, lines: Vec<Span>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for line in lines.into_iter().map(Span::range).filter(|line| !line.is_empty()) {
        if line.start >= done {
            out.push_str(&text[done..line.start]);
            out.extend(std::iter::repeat_n(' ', line.len()));
            done = line.end;
        }
    }
    out.push_str(&text[done..]);
    out
}

/// The text with everything outside a section blank; all bytes of the section keep their place.
pub fn only_section(text: &str, section: Span) -> String {
    let range = section.range();
    let mut out = " ".repeat(range.start);
    out.push_str(&text[range]);
    out
}
