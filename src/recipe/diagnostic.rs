//! A mistake in a recipe as plain data: where, what, what was expected, what to do. Prints nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::span::Span;

/// One mistake, ready for a person (see [`super::render`]) or for `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// The recipe as the user named it.
    pub file: String,
    /// Bytes of the recipe's text.
    pub span: Span,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    pub message: String,
    /// What should have stood at the span.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expected: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
    /// Other places that take part in the mistake.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub related: Vec<Related>,
}

/// Another place of the same recipe, and what it has to do with the mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Related {
    pub span: Span,
    pub line: u32,
    pub column: u32,
    pub message: String,
}

impl fmt::Display for Diagnostic {
    /// One line, as compilers and editors know it: `file:line:column: message`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        if let Some(expected) = &self.expected {
            write!(f, "; expected {expected}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

/// A mistake while it is being collected: lines and columns are worked out once, at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    span: Span,
    message: String,
    expected: Option<String>,
    hint: Option<String>,
    related: Vec<(Span, String)>,
}

impl Mistake {
    pub fn new(span: impl Into<Span>, message: impl Into<String>) -> Self {
        let (expected, hint, related) = (None, None, Vec::new());
        Mistake { span: span.into(), message: plain(message), expected, hint, related }
    }

    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(plain(expected));
        self
    }

    pub fn span(&self) -> Span {
        self.span
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(plain(hint));
        self
    }

    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.map(plain).or(self.hint);
        self
    }

    pub fn related(mut self, span: impl Into<Span>, message: impl Into<String>) -> Self {
        self.related.push((span.into(), plain(message)));
        self
    }
}

/// A recipe may come from a stranger: what it quotes must not steer a terminal.
fn plain(text: impl Into<String>) -> String {
    let text = text.into();
    if !text.contains(char::is_control) {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

/// Mistakes in the order of the text, each with its line and column.
pub fn diagnostics(file: &str, text: &str, mistakes: &[Mistake]) -> Vec<Diagnostic> {
    let mut sorted: Vec<&Mistake> = mistakes.iter().collect();
    sorted.sort_by(|a, b| (a.span, &a.message).cmp(&(b.span, &b.message)));
    sorted.dedup();
    let lines = Lines::of(text);
    let related = |(span, message): &(Span, String)| {
        let (line, column) = lines.place(span.start as usize);
        Related { span: *span, line, column, message: message.clone() }
    };
    let diagnostic = |mistake: &Mistake| {
        let (line, column) = lines.place(mistake.span.start as usize);
        Diagnostic {
            file: file.to_string(),
            span: mistake.span,
            line,
            column,
            message: mistake.message.clone(),
            expected: mistake.expected.clone(),
            hint: mistake.hint.clone(),
            related: mistake.related.iter().map(related).collect(),
        }
    };
    sorted.into_iter().map(diagnostic).collect()
}

/// Where the lines of a text start.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let after = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        Lines { text, starts: std::iter::once(0).chain(after).collect() }
    }

    /// Line and column of a byte, both from 1; a byte inside a character counts as that character.
    fn place(&self, byte: usize) -> (u32, u32) {
        let byte = byte.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= byte) - 1;
        let before = &self.text.as_bytes()[self.starts[line]..byte];
        // Every byte but a continuation byte of UTF-8 begins a character.
        let characters = before.iter().filter(|b| (**b as i8) >= -0x40).count();
        (line as u32 + 1, characters as u32 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_from_one() {
        let lines = Lines::of("ab\nüx\n\nlast");
        assert_eq!(lines.place(0), (1, 1));
        assert_eq!(lines.place(2), (1, 3));
        assert_eq!(lines.place(3), (2, 1));
        assert_eq!(lines.place(5), (2, 2), "ü is two bytes and one column");
        assert_eq!(lines.place(7), (3, 1));
        assert_eq!(lines.place(99), (4, 5), "past the end is the end");
        assert_eq!(Lines::of("").place(0), (1, 1));
    }
}
