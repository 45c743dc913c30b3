//! The main of what happened inside, as lines: checks, deciding layers, what the answer rests on, what is unusual, the
//! checksum.

use super::error::CliError;
use super::out::Out;
use crate::inside::Inside;
use crate::report::{self, Report, row_name, short};

/// How many of anything a line names.
const NAMED: usize = 5;

pub fn lines(report: &Report, out: Out) -> Result<(), CliError> {
    if let Some((step, inside)) = &report.inside {
        let of = report.answer.as_ref().map_or("", |card| card.step.as_str());
        out.line(format!("{step}: inside of {of}, prompt {}", inside.id))?;
        for (name, text) in rows(inside) {
            out.line(format!("  {name:12} {text}"))?;
        }
        if !report.others.is_empty() {
            out.line(format!("  {:12} {} other prompts: pipe report --prompt ID", "", report.others.len()))?;
        }
    }
    if let Some(card) = &report.checksum {
        out.line(format!("checksum {} over {} leaves", card.checksum, card.leaves))?;
    }
    Ok(())
}

fn rows(inside: &Inside) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    let failed: Vec<_> = inside.checks.iter().filter(|check| !check.passed).collect();
    let passed = inside.checks.len() - failed.len();
    rows.push(("checks", format!("{passed} of {} passed", inside.checks.len())));
    rows.extend(failed.iter().map(|check| ("", format!("FAILED {}: {}", check.name, check.evidence))));
    let positions = inside.lens.positions.len();
    let decided = |d: &crate::inside::Deciding| format!("{} {}", row_name(d.row), d.positions);
    let list = |all: Vec<String>| all.join(", ");
    if !inside.deciding.is_empty() {
        let layers = list(inside.deciding.iter().take(NAMED).map(decided).collect());
        rows.push(("decided by", format!("{layers} of {positions} positions")));
    }
    let (components, unit) = report::foremost(inside);
    if !components.is_empty() {
        let named = components.iter().take(NAMED).map(|(c, value)| format!("{c} {}", short(*value)));
        rows.push(("components", format!("{} {unit}", list(named.collect()))));
    }
    let tokens = report::foremost_tokens(inside);
    if !tokens.is_empty() {
        let named = tokens.iter().take(NAMED).map(|(_, text, kl)| format!("{text:?} {}", short(*kl)));
        rows.push(("rests on", format!("{} nats", list(named.collect()))));
    }
    for (i, one) in inside.unusual.iter().take(NAMED).enumerate() {
        rows.push((if i == 0 { "unusual" } else { "" }, report::sentence(one)));
    }
    if inside.unusual.len() > NAMED {
        rows.push(("", format!("and {} more", inside.unusual.len() - NAMED)));
    }
    rows
}
