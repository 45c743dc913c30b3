//! The card as a table.

use std::fmt::Write;

use crate::specs::{Card, Fidelity, Memory, Row, size};

/// Header lines, a line a spec, a line that explains the mark.
pub fn table(card: &Card) -> String {
    let mut out = String::new();
    let facts = &card.facts;
    let s = if facts.threads == 1 { "" } else { "s" };
    let _ = writeln!(out, "{}: {}, {} thread{s}", card.model, facts.implementation, facts.threads);
    let _ = writeln!(
        out,
        "speed: prompt of {} tokens, {} generated; median of {}",
        card.prompt, card.generate, card.reps
    );
    let _ = writeln!(
        out,
        "fidelity: {} positions of the {} text, {}\n",
        card.text.positions, card.text.name, card.text.blake3
    );
    let _ = writeln!(
        out,
        "{:8} {:^17}   {:^36}   {:^19}   {:^19}",
        "", "tokens/s", "memory", "f32, same weights", "f32, stored weights"
    );
    let _ = writeln!(
        out,
        "{:8} {:>8} {:>8}   {:>8} {:>9} {:>8} {:>8}   {:>9} {:>9}   {:>9} {:>9}",
        "spec",
        "prefill",
        "decode",
        "weights",
        "per token",
        "peak",
        "beyond",
        "mean KL",
        "top-1",
        "mean KL",
        "top-1"
    );
    for row in &card.specs {
        line(&mut out, row);
    }
    let _ = write!(
        out,
        "\n* on the Pareto front: no other spec is at least as good in {}, mean KL ({} weights) and weights",
        card.by.name(),
        card.against.name()
    );
    if card.specs.iter().any(|row| row.memory.is_none()) {
        out.push_str("\n- not measured: this system does not tell a process its peak memory");
    }
    out
}

fn line(out: &mut String, row: &Row) {
    let mark = if row.pareto { "*" } else { " " };
    let memory = |of: fn(&Memory) -> u64| row.memory.as_ref().map_or("-".into(), |m| size(of(m)));
    let (same, stored) = (columns(&row.same_weights), columns(&row.stored_weights));
    let _ = writeln!(
        out,
        "{mark} {:6} {:>8.1} {:>8.1}   {:>8} {:>9} {:>8} {:>8}   {same}   {stored}",
        row.spec.name(),
        row.prefill_tokens_per_s,
        row.decode_tokens_per_s,
        size(row.weights_bytes),
        size(row.bytes_per_token),
        memory(|m| m.peak_bytes),
        memory(|m| m.beyond_weights_bytes),
    );
}

fn columns(fidelity: &Fidelity) -> String {
    let kl = if fidelity.mean_kl == 0.0 { "0".into() } else { format!("{:.2e}", fidelity.mean_kl) };
    format!("{kl:>9} {:>8.2}%", fidelity.top1_agreement)
}
