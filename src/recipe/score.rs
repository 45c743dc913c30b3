//! `[steps.NAME] op = "score"` as a recipe writes it: of which answers, against what.

use toml::de::DeValue;

use super::diagnostic::Mistake;
use super::op::{Bootstrap, Matching, Score};
use super::table::{Subject, Table, string, wrong_type};

pub const KEYS: &[&str] = &[
    "op",
    "of",
    "expected",
    "references",
    "introspection",
    "ignore_case",
    "ignore_punctuation",
    "bootstrap",
    "kl_to_f32",
];

/// None when something is wrong; all of it is reported.
pub fn score(table: Table<'_, '_>, mistakes: &mut Vec<Mistake>) -> Option<Score> {
    let before = mistakes.len();
    table.exclusive("expected", "references", mistakes);
    let expected = expected(table, mistakes);
    let ignore_case = table.boolean("ignore_case", mistakes).unwrap_or(false);
    let ignore_punctuation = table.boolean("ignore_punctuation", mistakes).unwrap_or(false);
    let bootstrap = bootstrap(table, mistakes);
    let kl_to_f32 = table.boolean("kl_to_f32", mistakes).unwrap_or(false);
    // A step that is missing was reported with the other references.
    let of = table.value("of").and_then(|of| of.get_ref().as_str())?.to_owned();
    let matching = Matching { ignore_case, ignore_punctuation };
    (mistakes.len() == before).then_some(Score { of, expected, matching, bootstrap, kl_to_f32 })
}

fn expected(table: Table<'_, '_>, mistakes: &mut Vec<Mistake>) -> Option<Vec<String>> {
    let value = table.value("expected")?;
    let DeValue::Array(texts) = value.get_ref() else {
        wrong_type("expected", value, "an array of texts, any of which is right", mistakes);
        return None;
    };
    let mut expected = Vec::with_capacity(texts.len());
    for text in texts.iter() {
        match string("expected", text, mistakes) {
            Some(("", span)) => mistakes.push(
                Mistake::new(span, "an empty text in `expected` is in every answer").hint("leave it out"),
            ),
            Some((text, _)) => expected.push(text.to_owned()),
            None => {}
        }
    }
    if texts.is_empty() {
        mistakes.push(Mistake::new(value.span(), "`expected` is empty").expected("at least one text"));
    }
    Some(expected)
}

fn bootstrap(table: Table<'_, '_>, mistakes: &mut Vec<Mistake>) -> Bootstrap {
    let mut bootstrap = Bootstrap::default();
    let Some(value) = table.value("bootstrap") else { return bootstrap };
    let DeValue::Table(inner) = value.get_ref() else {
        wrong_type("bootstrap", value, "a table { resamples, seed }", mistakes);
        return bootstrap;
    };
    let inside = table.inside(Subject::Part("bootstrap"), value.span().into(), inner);
    inside.only(&["resamples", "seed"], mistakes);
    if let Some(resamples) = inside.integer("resamples", 0, 1_000_000, mistakes) {
        bootstrap.resamples = resamples as u32;
    }
    bootstrap.seed = inside.integer("seed", 0, u64::MAX, mistakes).unwrap_or(bootstrap.seed);
    bootstrap
}
