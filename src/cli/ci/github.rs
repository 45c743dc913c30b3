//! What GitHub reads of a job: workflow commands on stderr, Markdown in the summary's file.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use super::{Case, Verdict};
use crate::cli::out::millis;

/// Where an annotation belongs.
pub struct Place<'a> {
    pub file: &'a str,
    pub line: Option<u32>,
    pub column: Option<u32>,
}

/// An error annotation. On stderr, which the runner reads as it reads stdout: results stay by themselves.
pub fn error(place: &Place<'_>, title: &str, message: &str) {
    // Nothing can be done about a closed stderr.
    let _ = writeln!(io::stderr(), "{}", annotation(place, title, message));
}

fn annotation(place: &Place<'_>, title: &str, message: &str) -> String {
    let mut fields = vec![format!("file={}", property(place.file))];
    fields.extend(place.line.map(|line| format!("line={line}")));
    fields.extend(place.column.map(|column| format!("col={column}")));
    fields.push(format!("title={}", property(title)));
    format!("::error {}::{}", fields.join(","), data(message))
}

/// As the runner takes the text of a command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// Adds a table of the steps to the job's summary.
pub fn summary(
    path: &Path,
    name: &str,
    cases: &[Case],
    wall_ms: u64,
    bundle: Option<&str>,
) -> io::Result<()> {
    let failed = cases.iter().filter(|case| matches!(case.verdict, Verdict::Failed(_))).count();
    let verdict = match failed {
        0 => "ok".to_owned(),
        n => format!("{n} failed"),
    };
    let mut text = format!("### pipe: {} {verdict} in {}\n\n", cell(name), millis(wall_ms));
    if let Some(cid) = bundle {
        text += &format!("Bundle `{}`\n\n", cell(cid));
    }
    text += "| step | op | outcome | time | |\n|---|---|---|---|---|\n";
    for case in cases {
        let why = match &case.verdict {
            Verdict::Passed => String::new(),
            Verdict::Failed(why) | Verdict::Skipped(why) => cell(why),
        };
        let (name, op) = (cell(&case.name), &case.op);
        text += &format!("| {name} | {op} | {} | {} | {why} |\n", case.outcome, millis(case.wall_ms));
    }
    OpenOptions::new().create(true).append(true).open(path)?.write_all((text + "\n").as_bytes())
}

/// Text inside a table: no markup, no new cell, no new line.
fn cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' => out.push(' '),
            '<' => out.push_str("&lt;"),
            '|' | '`' | '*' | '_' | '[' | ']' | '\\' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_cannot_be_broken_out_of() {
        let place = Place { file: "a,b:c.toml", line: Some(3), column: None };
        assert_eq!(
            annotation(&place, "step x: y", "100 %\n::error::z"),
            "::error file=a%2Cb%3Ac.toml,line=3,title=step x%3A y::100 %25%0A::error::z"
        );
        assert_eq!(cell("a|b\n<i>`x`"), "a\\|b &lt;i>\\`x\\`");
    }
}
