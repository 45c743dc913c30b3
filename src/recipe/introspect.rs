//! `[steps.NAME] op = "introspect"` as a recipe writes it: into which inference, how far, and with which baseline.

use toml::de::DeValue;

use super::diagnostic::Mistake;
use super::op::Introspect;
use super::table::{Table, integer, wrong_type};

pub const KEYS: &[&str] = &["op", "of", "baseline", "window", "lens", "targets", "causes", "faithful"];

const WINDOW: u32 = 256;
const TARGETS: u32 = 16;
/// Prompts that are ablated: it takes a pass for every component.
const CAUSES: u32 = 1;
const FAITHFUL: f32 = 0.1;

/// None when something is wrong; all of it is reported.
pub fn introspect(table: Table<'_, '_>, mistakes: &mut Vec<Mistake>) -> Option<Introspect> {
    let before = mistakes.len();
    let mut whole = |key, least, usual: u32| {
        table.integer(key, least, u32::MAX.into(), mistakes).map_or(usual, |n| n as u32)
    };
    let (window, targets) = (whole("window", 1, WINDOW), whole("targets", 1, TARGETS));
    let causes = whole("causes", 0, CAUSES);
    let lens = layers(table, mistakes);
    let faithful = match table.number("faithful", mistakes) {
        Some((faithful, span)) if !(faithful > 0.0 && faithful.is_finite()) => {
            let message = format!("`faithful` is {faithful}: how far an explanation may be from the answer");
            mistakes.push(Mistake::new(span, message).expected("a number above 0, in nats, such as 0.1"));
            FAITHFUL
        }
        Some((faithful, _)) => faithful,
        None => FAITHFUL,
    };
    (mistakes.len() == before).then_some(Introspect { infer: None, window, lens, targets, causes, faithful })
}

fn layers(table: Table<'_, '_>, mistakes: &mut Vec<Mistake>) -> Vec<u32> {
    let Some(value) = table.value("lens") else { return Vec::new() };
    let DeValue::Array(items) = value.get_ref() else {
        wrong_type("lens", value, "an array of layers, whose lens looks at the whole vocabulary", mistakes);
        return Vec::new();
    };
    let layer = |item| integer("lens", item, 0, u32::MAX.into(), mistakes).map(|n| n as u32);
    items.iter().filter_map(layer).collect()
}
