//! From names to edges: who is meant by a reference, whether it can serve there, and who waits for whom.

use std::collections::{HashMap, HashSet};

use crate::recipe::{Entry, Kind, Mistake, ONLY_FILE, Op, Recipe, Reference, did_you_mean};

use super::order::{cycles, order};

/// A reference whose step is there: numbers of entries.
#[derive(Clone, Copy, Debug)]
pub struct Resolved<'r> {
    pub from: usize,
    pub to: usize,
    pub reference: &'r Reference,
}

/// Near misses are looked for this often at most: each costs a walk over all names.
const MOST_SUGGESTIONS: usize = 50;

/// All references that name a step, in the order of entries; everything wrong with them is reported.
pub fn resolve<'r>(recipe: &'r Recipe, mistakes: &mut Vec<Mistake>) -> Vec<Resolved<'r>> {
    let entries = &recipe.entries;
    let mut numbers: HashMap<&str, usize> = HashMap::with_capacity(entries.len());
    for (number, entry) in entries.iter().enumerate() {
        numbers.entry(&entry.name).or_insert(number);
    }
    let mut resolved = Vec::with_capacity(entries.len() * 2);
    let mut unknown: HashMap<&str, Option<String>> = HashMap::new();
    for (to, entry) in entries.iter().enumerate() {
        for reference in &entry.references {
            match numbers.get(reference.step.as_str()) {
                Some(from) => resolved.push(Resolved { from: *from, to, reference }),
                // The step may be in a part of the text that could not be read.
                None if recipe.torn => {}
                None => mistakes.push(stranger(entries, reference, &mut unknown)),
            }
        }
    }
    let knotted = knots(entries, &resolved, mistakes);
    for edge in &resolved {
        if !knotted.contains(&(edge.from, edge.to)) {
            mistakes.extend(misfit(entries, edge));
        }
    }
    resolved
}

fn stranger<'r>(
    entries: &[Entry],
    reference: &'r Reference,
    unknown: &mut HashMap<&'r str, Option<String>>,
) -> Mistake {
    let name = reference.step.as_str();
    let full = unknown.len() >= MOST_SUGGESTIONS;
    let known = || entries.iter().map(|entry| entry.name.as_str());
    let near = match unknown.get(name) {
        Some(near) => near.clone(),
        None if full => None,
        None => unknown.entry(name).or_insert(did_you_mean(name, known())).clone(),
    };
    let message = format!("no step is named `{}`", name);
    Mistake::new(reference.span, message).hint(candidates(entries, reference.port)).maybe_hint(near)
}

/// Which ops can serve at a port.
fn servers(port: &str) -> &'static [Kind] {
    match port {
        "tokens" => &[Kind::Tokenize],
        "of" => &[Kind::Infer],
        "introspection" | "baseline" => &[Kind::Introspect, Kind::Fetch, Kind::File],
        _ => &[Kind::Fetch, Kind::File],
    }
}

/// The first steps that could stand at a port.
fn candidates(entries: &[Entry], port: &str) -> String {
    let fits = |entry: &&Entry| entry.kind.is_some_and(|kind| servers(port).contains(&kind));
    let names: Vec<String> =
        entries.iter().filter(fits).take(3).map(|entry| format!("`{}`", entry.name)).collect();
    match names.is_empty() {
        true => format!("no step here can serve as `{port}`; it takes {}", ops(port)),
        false => format!("`{port}` could be {}", names.join(", ")),
    }
}

fn ops(port: &str) -> &'static str {
    match port {
        "tokens" => "a tokenize step",
        "of" => "an infer step",
        "introspection" | "baseline" => "an introspect, fetch or file step",
        _ => "a fetch or file step",
    }
}

/// A step that cannot serve where it is named, or an output that it does not have.
fn misfit(entries: &[Entry], edge: &Resolved<'_>) -> Option<Mistake> {
    let (producer, reference) = (&entries[edge.from], edge.reference);
    // A step whose op is unknown may turn out to be right.
    let kind = producer.kind?;
    let port = reference.port;
    if !servers(port).contains(&kind) {
        let article = if matches!(kind, Kind::Infer | Kind::Introspect) { "an" } else { "a" };
        let message =
            format!("`{port}` cannot be `{}`: that is {article} {} step", producer.name, kind.name());
        let mistake = Mistake::new(reference.span, message).expected(ops(port));
        return Some(mistake.related(producer.span, "it is here").hint(candidates(entries, port)));
    }
    if let ("of", Some(output)) = (port, &reference.output) {
        let message = format!("`of` takes the whole step `{}`, not its `{output}`", producer.name);
        return Some(Mistake::new(reference.span, message).expected(&producer.name));
    }
    let Some(Op::Fetch(fetch)) = &producer.op else { return None };
    let names: Vec<&str> = fetch.files.iter().map(|file| file.name.as_str()).collect();
    let shown = |name: &str| format!("`{}.{}`", producer.name, name);
    let outputs = || names.iter().take(8).map(|name| shown(name)).collect::<Vec<_>>().join(", ");
    match &reference.output {
        Some(output) if !names.contains(&output.as_str()) => {
            let message = format!("step `{}` has no output `{}`", producer.name, output);
            let near = did_you_mean(output, names.iter().copied());
            let mistake = Mistake::new(reference.span, message).related(producer.span, "it is here");
            Some(mistake.hint(format!("its outputs are {}", outputs())).maybe_hint(near))
        }
        // A model may be a folder of files; prompts are one file.
        None if matches!(port, "prompts" | "references") && names.len() > 1 => {
            let message = format!("step `{}` has {} files, `{port}` takes one", producer.name, names.len());
            let wanted = format!("{}.FILE", producer.name);
            Some(
                Mistake::new(reference.span, message).expected(wanted).hint(format!("such as {}", outputs())),
            )
        }
        _ => None,
    }
}

/// Reports every cycle with its path; returns the edges that take part.
fn knots(
    entries: &[Entry],
    resolved: &[Resolved<'_>],
    mistakes: &mut Vec<Mistake>,
) -> HashSet<(usize, usize)> {
    let edges: Vec<(usize, usize)> = resolved.iter().map(|edge| (edge.from, edge.to)).collect();
    let mut knotted = HashSet::new();
    if order(entries.len(), &edges).len() == entries.len() {
        return knotted;
    }
    // A path reads as the recipe does: `a → b` where a names b.
    let named: Vec<(usize, usize)> = edges.iter().map(|(from, to)| (*to, *from)).collect();
    for cycle in cycles(entries.len(), &named) {
        let after = cycle.iter().cycle().skip(1);
        let pairs: Vec<(usize, usize)> = cycle.iter().copied().zip(after.copied()).collect();
        let at =
            |(to, from): &(usize, usize)| resolved.iter().find(|edge| edge.to == *to && edge.from == *from);
        let mut references = pairs.iter().filter_map(at);
        let Some(first) = references.next() else { continue };
        let name = |number: &usize| entries[*number].name.as_str();
        let hint = "a step can only use what is there before it; take one of these references out";
        let mut mistake = match cycle.as_slice() {
            [alone] => Mistake::new(first.reference.span, format!("step `{}` waits for itself", name(alone)))
                .hint(hint),
            _ => {
                let path: Vec<&str> = cycle.iter().chain(cycle.first()).map(name).collect();
                let message = format!("steps wait for each other: {}", shortened(&path));
                Mistake::new(first.reference.span, message).hint(hint)
            }
        };
        for edge in references.take(8) {
            let note = format!("`{}` names `{}`", entries[edge.to].name, entries[edge.from].name);
            mistake = mistake.related(edge.reference.span, note);
        }
        mistakes.push(mistake);
        knotted.extend(pairs.iter().map(|(to, from)| (*from, *to)));
    }
    knotted
}

/// A path with its middle left out when nobody would read it.
fn shortened(path: &[&str]) -> String {
    match path.len() {
        0..=12 => path.join(" → "),
        n => format!("{} → … {} more … → {}", path[..6].join(" → "), n - 9, path[n - 3..].join(" → ")),
    }
}

/// The name by which an output is known in messages and names of added steps.
pub fn output_name(reference: &Reference) -> String {
    match &reference.output {
        Some(output) if output != ONLY_FILE => format!("{}.{output}", reference.step),
        _ => reference.step.clone(),
    }
}
