//! `[steps.NAME] op = "fetch"` as a recipe writes it: sources and the hash that decides.

use std::path::Path;

use pipe_store::{Digest, unhex32};
use toml::Spanned;
use toml::de::DeValue;

use super::diagnostic::Mistake;
use super::op::{Expected, Fetch, FetchFile, Source};
use super::source::{is_inner_path, parse_source};
use super::span::Span;
use super::table::{Subject, Table, string, wrong_type};

pub const KEYS: &[&str] = &["op", "from", "sha256", "blake3", "files"];
const FILE_KEYS: &[&str] = &["from", "sha256", "blake3"];

/// The name of the only file of a fetch that names none.
pub const ONLY_FILE: &str = "file";

/// None when something is wrong; all of it is reported.
pub fn fetch(table: Table<'_, '_>, folder: &Path, mistakes: &mut Vec<Mistake>) -> Option<Fetch> {
    let Some((_, files)) = table.key("files") else {
        return Some(Fetch { files: vec![file(table, ONLY_FILE, folder, mistakes)?] });
    };
    for key in FILE_KEYS {
        table.exclusive("files", key, mistakes);
    }
    let DeValue::Table(named) = files.get_ref() else {
        wrong_type("files", files, "a table of file names", mistakes);
        return None;
    };
    if named.is_empty() {
        mistakes.push(Mistake::new(files.span(), "`files` is empty").expected("at least one file"));
    }
    let before = mistakes.len();
    let mut all = Vec::with_capacity(named.len());
    for (key, value) in named.iter() {
        let name: &str = key.get_ref();
        if !is_inner_path(name) {
            let message = format!("`{}` cannot name a file", name);
            let wanted = "a relative path with forward slashes, without `..`";
            mistakes.push(Mistake::new(key.span(), message).expected(wanted));
        }
        let DeValue::Table(inner) = value.get_ref() else {
            wrong_type(name, value, "a table with `from` and a hash", mistakes);
            continue;
        };
        let one = table.inside(Subject::Part(name), key.span().into(), inner);
        one.only(FILE_KEYS, mistakes);
        all.extend(file(one, name, folder, mistakes));
    }
    (mistakes.len() == before && !all.is_empty()).then_some(Fetch { files: all })
}

fn file(table: Table<'_, '_>, name: &str, folder: &Path, mistakes: &mut Vec<Mistake>) -> Option<FetchFile> {
    let from = match table.value("from") {
        Some(value) => sources(value, folder, mistakes),
        None => {
            let hint = "one source or an array of them: file:, http(s)://, hf:OWNER/REPO@COMMIT/PATH, pypi:NAME==VERSION/PATH";
            table.missing("from", hint, mistakes);
            None
        }
    };
    let hint =
        "run `sha256sum FILE` or `b3sum FILE` on a copy you trust: the hash decides which bytes are accepted";
    let key = table.exactly_one(&["sha256", "blake3"], hint, mistakes);
    let expect = key.and_then(|key| {
        let (text, span) = table.string(key, mistakes)?;
        let bytes = hash(key, text, span, mistakes)?;
        Some(if key == "sha256" { Expected::Sha256(bytes) } else { Expected::Blake3(Digest(bytes)) })
    });
    Some(FetchFile { name: name.to_string(), from: from?, expect: expect? })
}

fn sources(value: &Spanned<DeValue<'_>>, folder: &Path, mistakes: &mut Vec<Mistake>) -> Option<Vec<Source>> {
    let one = std::slice::from_ref(value);
    let values = match value.get_ref() {
        DeValue::String(_) => one,
        DeValue::Array(values) if values.is_empty() => {
            mistakes.push(Mistake::new(value.span(), "`from` is empty").expected("at least one source"));
            return None;
        }
        DeValue::Array(values) => values,
        _ => {
            wrong_type("from", value, "a string or an array of strings", mistakes);
            return None;
        }
    };
    let mut sources = Vec::with_capacity(values.len());
    for value in values {
        let Some((text, span)) = string("from", value, mistakes) else { continue };
        match parse_source(text, folder) {
            Ok(source) => sources.push(source),
            Err(why) => mistakes.push(Mistake::new(span, why.message).hint(why.hint)),
        }
    }
    (sources.len() == values.len()).then_some(sources)
}

fn hash(key: &str, text: &str, span: Span, mistakes: &mut Vec<Mistake>) -> Option<[u8; 32]> {
    let bytes = unhex32(text);
    if bytes.is_none() {
        let wanted = "64 hex digits";
        let message = match text.chars().enumerate().find(|(_, c)| !c.is_ascii_hexdigit()) {
            Some((at, odd)) => format!("`{key}` has `{}` as digit {}", odd, at + 1),
            None => format!("`{key}` has {} digits", text.len()),
        };
        mistakes.push(Mistake::new(span, message).expected(wanted));
    }
    bytes
}
