//! Diagnostics as text for a person: the line, a pointer, what to do. Returns text, prints nothing.

use ariadne::{CharSet, Color, Config, IndexType, Label, Report, ReportKind, Source};

use super::diagnostic::Diagnostic;

/// Renders all diagnostics against the recipe's text; with `colour`, in ANSI escapes.
pub fn render(diagnostics: &[Diagnostic], text: &str, colour: bool) -> String {
    let text = printable(text);
    let file = diagnostics.first().map(|d| printable(&d.file)).unwrap_or_default();
    let mut source = (file.as_str(), Source::from(text.as_str()));
    let mut out = Vec::new();
    for diagnostic in diagnostics {
        let report = report(diagnostic, &file, &text, colour);
        // Writing into memory does not fail; if it ever does, one line still says everything.
        if report.write(&mut source, &mut out).is_err() {
            out.extend_from_slice(diagnostic.to_string().as_bytes());
            out.push(b'\n');
        }
    }
    let out = String::from_utf8_lossy(&out);
    // Trailing blanks are of no use to anybody and get lost in copies.
    out.lines().flat_map(|line| [line.trim_end(), "\n"]).collect()
}

fn report<'a>(
    diagnostic: &'a Diagnostic,
    file: &'a str,
    text: &str,
    colour: bool,
) -> Report<'a, (&'a str, std::ops::Range<usize>)> {
    let config =
        Config::default().with_color(colour).with_index_type(IndexType::Byte).with_char_set(CharSet::Unicode);
    let at = |start: u32, end: u32| {
        let start = (start as usize).min(text.len());
        // The pointer stays on its first line: a span over many lines would show them all.
        let line = text[start..].find('\n').map_or(text.len(), |i| start + i);
        (file, start..(end as usize).clamp(start, line))
    };
    let expected = diagnostic.expected.as_ref().map_or("here".to_string(), |what| format!("expected {what}"));
    let place = at(diagnostic.span.start, diagnostic.span.end);
    let mut labels =
        vec![(place.1.start, Label::new(place.clone()).with_message(expected).with_color(Color::Red))];
    for related in &diagnostic.related {
        let place = at(related.span.start, related.span.end);
        let start = place.1.start;
        labels.push((start, Label::new(place).with_message(&related.message).with_color(Color::Blue)));
    }
    // In the order of the text, or the drawing starts anew for each.
    labels.sort_by_key(|(start, _)| *start);
    let mut report = Report::build(ReportKind::Error, place)
        .with_config(config)
        .with_message(&diagnostic.message)
        .with_labels(labels.into_iter().map(|(_, label)| label));
    if let Some(hint) = &diagnostic.hint {
        report = report.with_help(hint);
    }
    report.finish()
}

/// The text without characters that could steer a terminal or count as a line for some readers only,
/// each replaced by one of the same length so that all places stay.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        out.push(match c {
            '\n' | '\t' => c,
            '\r' if rest.peek() == Some(&'\n') => ' ',
            c if c.is_ascii_control() => '?',
            '\u{80}'..='\u{9f}' => '\u{bf}',
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c => c,
        });
    }
    out
}
