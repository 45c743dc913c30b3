//! A run as JUnit XML: a case for each step.

use std::fmt::Write;

use super::{Case, Verdict};
use crate::markup::entity;

pub fn report(suite: &str, cases: &[Case], wall_ms: u64, bundle: Option<&str>) -> String {
    let count = |of: fn(&Verdict) -> bool| cases.iter().filter(|case| of(&case.verdict)).count();
    let failed = count(|v| matches!(v, Verdict::Failed(_)));
    let skipped = count(|v| matches!(v, Verdict::Skipped(_)));
    let totals = format!(
        "name=\"{}\" tests=\"{}\" failures=\"{failed}\" errors=\"0\" skipped=\"{skipped}\" time=\"{}\"",
        escape(suite),
        cases.len(),
        seconds(wall_ms)
    );
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {totals}>\n  <testsuite {totals}>\n"
    );
    if let Some(cid) = bundle {
        let property = format!("<property name=\"bundle\" value=\"{}\"/>", escape(cid));
        let _ = writeln!(out, "    <properties>{property}</properties>");
    }
    for case in cases {
        let _ = write!(
            out,
            "    <testcase classname=\"{}.{}\" name=\"{}\" time=\"{}\"",
            escape(suite),
            escape(&case.op),
            escape(&case.name),
            seconds(case.wall_ms)
        );
        let _ = match &case.verdict {
            Verdict::Passed => writeln!(out, "/>"),
            Verdict::Failed(why) => {
                let first = escape(why.lines().next().unwrap_or_default());
                writeln!(
                    out,
                    "><failure type=\"{}\" message=\"{first}\">{}</failure></testcase>",
                    case.outcome,
                    escape(why)
                )
            }
            Verdict::Skipped(why) => {
                writeln!(out, "><skipped message=\"{}\"/></testcase>", escape(why))
            }
        };
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// For text and attributes. What XML 1.0 cannot hold at all becomes U+FFFD.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if let Some(name) = entity(c) {
            out.push_str(name);
            continue;
        }
        match c {
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if (c as u32) < 0x20 => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
