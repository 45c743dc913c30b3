//! `scores.json` as a table: a line per question, and one for all.

use pipe_store::{Digest, Store, StoreError};
use serde_json::Value;

use super::error::{CliError, Exit};
use super::out::Out;
use crate::ops::SCORES;
use crate::score::{Score, Scores, Three};

/// The tables of `score` steps, given by step name with the digest of their scores.
pub fn tables(mut made: Vec<(String, Digest)>, store: &Store, out: Out) -> Result<(), CliError> {
    made.sort();
    for (step, digest) in made {
        let scores: Scores = match store.get(&digest) {
            Ok(object) => serde_json::from_slice(&object)
                .map_err(|e| CliError::new(Exit::Store, format!("{step}/{SCORES}: {e}")))?,
            Err(e @ StoreError::Missing { .. }) => {
                out.note(format!("{step}: {e}; `pipe run --force {step}` makes it again"));
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        out.line(format!("{step}: scores of {}, {}", scores.of, scores.spec))?;
        for line in lines(&scores) {
            out.line(line)?;
        }
    }
    Ok(())
}

/// Aligned columns; those that nothing stands in are left out.
fn lines(scores: &Scores) -> Vec<String> {
    let three = |name: &str, s: &Three| {
        [
            name.to_owned(),
            number(s.fitness.value),
            number(s.beauty.value),
            number(s.relevance.value),
            parts(&s.fitness),
        ]
    };
    let head = ["", "fitness", "beauty", "relevance", "parts"].map(str::to_owned);
    let mut rows = vec![head];
    rows.extend(scores.prompts.iter().map(|prompt| three(&prompt.id, &prompt.scores)));
    rows.push(three("all", &scores.scores));
    let empty = |column: usize| column > 1 && rows[1..].iter().all(|row| row[column] == "-");
    let columns: Vec<usize> = (0..5).filter(|&column| !empty(column)).collect();
    let width = |&column: &usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = columns.iter().map(width).collect();
    let line = |row: &[String; 5]| {
        let cells = columns.iter().zip(&widths).map(|(&column, &width)| format!("{:width$}", row[column]));
        format!("  {}", cells.collect::<Vec<_>>().join("  ")).trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn number(value: Option<f64>) -> String {
    value.map_or("-".into(), |value| format!("{value:.4}"))
}

/// The parts that are one number, errors beside what they are of.
fn parts(score: &Score) -> String {
    let mut shown = Vec::new();
    for (name, value) in score.parts.iter().filter(|(name, _)| !name.ends_with("_stderr")) {
        match (value, score.parts.get(&format!("{name}_stderr"))) {
            (Value::Number(n), Some(Value::Number(error))) => {
                shown.push(format!("{name} {} ± {}", short(n), short(error)));
            }
            (Value::Number(n), _) => shown.push(format!("{name} {}", short(n))),
            (Value::Object(map), _) if name == "confidence" => {
                let of = |key: &str| map.get(key).and_then(Value::as_number).map_or("-".into(), short);
                shown.push(format!("p {} margin {}", of("mean_probability"), of("mean_margin")));
                if map.contains_key("fidelity_to_f32") {
                    shown.push(format!("fidelity {}", of("fidelity_to_f32")));
                }
            }
            _ => {}
        }
    }
    shown.join(", ")
}

fn short(n: &serde_json::Number) -> String {
    match (n.as_u64(), n.as_f64()) {
        (Some(whole), _) => whole.to_string(),
        (None, Some(x)) if x.fract() == 0.0 && x.abs() < 1e9 => format!("{x}"),
        (None, Some(x)) if x.abs() >= 1e6 => format!("{x:.4e}"),
        (None, Some(x)) => format!("{x:.4}"),
        (None, None) => n.to_string(),
    }
}
