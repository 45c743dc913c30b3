//! Which steps differ, in what, and whether by themselves or by what they were given.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Cause, First, InputDiff, On, OutputDiff, Side, StepDiff};
use crate::key::{self, Change};
use crate::pipeline::{Canonical, CanonicalStep, order};
use crate::recipe::Kind;

/// The steps of both in an order in which every step stands behind what feeds it. Where the two contradict each
/// other, by name.
pub fn causal_order(a: &Canonical, b: &Canonical) -> Vec<String> {
    let all = || a.steps.iter().chain(&b.steps);
    let names: Vec<&str> =
        all().map(|step| step.name.as_str()).collect::<BTreeSet<_>>().into_iter().collect();
    let number = |name: &str| names.binary_search(&name).ok();
    let edge = |step: &CanonicalStep, from: &str| Some((number(from)?, number(&step.name)?));
    let edges: BTreeSet<_> =
        all().flat_map(|step| step.inputs.iter().filter_map(move |input| edge(step, &input.step))).collect();
    let edges: Vec<_> = edges.into_iter().collect();
    let mut order = order::order(names.len(), &edges);
    let placed: BTreeSet<_> = order.iter().copied().collect();
    order.extend((0..names.len()).filter(|n| !placed.contains(n)));
    order.into_iter().map(|n| names[n].to_owned()).collect()
}

/// What differs in the pipeline beside its steps.
pub fn pipeline_fields(a: &Side, b: &Side) -> Vec<Change> {
    let text = |side: &Side| key::text_of(&json!({ "name": side.pipeline.name }));
    key::changes(&text(a), &text(b))
}

/// How many steps there are, and those that differ, in causal order.
pub fn steps(a: &Side, b: &Side) -> (usize, Vec<StepDiff>) {
    let order = causal_order(&a.pipeline, &b.pipeline);
    let in_recipe = [by_name(&a.pipeline), by_name(&b.pipeline)];
    let mut found: Vec<StepDiff> = Vec::new();
    for name in &order {
        let both = [in_recipe[0].get(name.as_str()).copied(), in_recipe[1].get(name.as_str()).copied()];
        if let Some(step) = compare(name, both, [a, b]) {
            found.push(step);
        }
    }
    excuse_what_the_compiler_put_in(&mut found, &in_recipe);
    follow(&mut found, &in_recipe);
    (order.len(), found)
}

type ByName<'a> = BTreeMap<&'a str, &'a CanonicalStep>;

fn by_name(pipeline: &Canonical) -> ByName<'_> {
    pipeline.steps.iter().map(|step| (step.name.as_str(), step)).collect()
}

/// The name of the op, as a recipe writes it.
fn op_name(step: &CanonicalStep) -> String {
    let op = serde_json::to_value(&step.op).expect("BUG: an op is plain data");
    op["op"].as_str().unwrap_or_default().to_owned()
}

/// No recipe can name the op: the compiler put the step in, for those it feeds.
fn is_put_in(op: &str) -> bool {
    !Kind::ALL.iter().any(|kind| kind.name() == op)
}

/// What a recipe says of a step, a field a line.
fn fields(step: &CanonicalStep, of: &Side) -> String {
    // By way of text, so that an f32 shows the digits it was written with.
    let op = serde_json::to_string(&step.op).expect("BUG: an op is plain data");
    let mut value: Value = serde_json::from_str(&op).expect("BUG: just written");
    let mut ports: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for input in &step.inputs {
        let producer = of.pipeline.steps.iter().find(|other| other.name == input.step);
        if producer.is_some_and(|producer| is_put_in(&op_name(producer))) {
            continue;
        }
        let output = input.output.as_ref().map_or_else(String::new, |output| format!(".{output}"));
        ports.entry(&input.port).or_default().push(format!("{}{output}", input.step));
    }
    if let (Some(object), false) = (value.as_object_mut(), ports.is_empty()) {
        let ports = ports.into_iter().map(|(port, from)| (port.to_owned(), from.join(", ").into()));
        object.insert("inputs".into(), Value::Object(ports.collect()));
    }
    key::text_of(&value)
}

fn compare(name: &str, both: [Option<&CanonicalStep>; 2], [a, b]: [&Side; 2]) -> Option<StepDiff> {
    let op = both.into_iter().flatten().next().map(op_name)?;
    let [sealed_a, sealed_b] = [a.steps.get(name), b.steps.get(name)];
    let mut step = StepDiff {
        step: name.to_owned(),
        op,
        on: On::Both,
        causes: Vec::new(),
        fields: Vec::new(),
        follows: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        outputs_known: sealed_a.is_some() && sealed_b.is_some(),
    };
    let (recipe_a, recipe_b) = match both {
        [Some(in_a), Some(in_b)] => (in_a, in_b),
        [Some(_), None] => {
            return Some(StepDiff { on: On::OnlyA, causes: vec![Cause::Presence], ..step });
        }
        _ => return Some(StepDiff { on: On::OnlyB, causes: vec![Cause::Presence], ..step }),
    };
    step.fields = key::changes(&fields(recipe_a, a), &fields(recipe_b, b));
    if let (Some(a), Some(b)) = (sealed_a, sealed_b) {
        let flat = |step: &crate::bundle::SealedStep| -> BTreeMap<(String, String), pipe_store::Digest> {
            let ports = step.inputs.iter();
            let files = |(port, files): (&String, &BTreeMap<String, pipe_store::Digest>)| {
                files.iter().map(|(name, d)| ((port.clone(), name.clone()), *d)).collect::<Vec<_>>()
            };
            ports.flat_map(files).collect()
        };
        step.inputs = unequal(&flat(a), &flat(b))
            .into_iter()
            .map(|((port, name), a, b)| InputDiff { port, name, a, b })
            .collect();
    }
    let (out_a, out_b) = (a.outputs(name), b.outputs(name));
    let file = step.op == "file";
    if step.outputs_known || (file && !out_a.is_empty() && !out_b.is_empty()) {
        step.outputs = unequal(&out_a, &out_b)
            .into_iter()
            .map(|(name, a, b)| OutputDiff { name: name.to_owned(), a, b, detail: None })
            .collect();
        step.outputs_known = true;
    }
    if !step.fields.is_empty() {
        step.causes.push(Cause::Fields);
    }
    if file && !step.outputs.is_empty() {
        step.causes.push(Cause::Contents);
    } else if let (Some(a), Some(b)) = (sealed_a, sealed_b) {
        if a.key == b.key && !step.outputs.is_empty() {
            step.causes.push(Cause::OtherBytes);
        } else if a.key != b.key && step.fields.is_empty() && step.inputs.is_empty() {
            step.causes.push(Cause::Version);
        }
    }
    let differs = !(step.causes.is_empty() && step.inputs.is_empty() && step.outputs.is_empty());
    differs.then_some(step)
}

/// Entries that two maps do not share.
fn unequal<K: Ord + Clone>(
    a: &BTreeMap<K, pipe_store::Digest>,
    b: &BTreeMap<K, pipe_store::Digest>,
) -> Vec<(K, Option<pipe_store::Digest>, Option<pipe_store::Digest>)> {
    let keys: BTreeSet<&K> = a.keys().chain(b.keys()).collect();
    let both = keys.into_iter().map(|key| (key.clone(), a.get(key).copied(), b.get(key).copied()));
    both.filter(|(_, a, b)| a != b).collect()
}

/// A step of the compiler's that only one side has is there for what its consumers ask: it follows from them.
fn excuse_what_the_compiler_put_in(found: &mut [StepDiff], in_recipe: &[ByName<'_>; 2]) {
    let caused: BTreeSet<String> = found
        .iter()
        .filter(|step| !step.causes.is_empty() && !is_put_in(&step.op))
        .map(|step| step.step.clone())
        .collect();
    for step in found.iter_mut().filter(|step| is_put_in(&step.op)) {
        if !step.causes.iter().all(|cause| matches!(cause, Cause::Presence | Cause::Fields)) {
            continue;
        }
        let feeds = |other: &&&CanonicalStep| other.inputs.iter().any(|input| input.step == step.step);
        let consumers = in_recipe.iter().flat_map(|recipe| recipe.values().filter(feeds));
        let for_whom: BTreeSet<&str> =
            consumers.map(|other| other.name.as_str()).filter(|name| caused.contains(*name)).collect();
        if !step.causes.is_empty() && !for_whom.is_empty() {
            step.follows = for_whom.into_iter().map(str::to_owned).collect();
            step.causes.clear();
        }
    }
}

/// Names, for every step that was given something else, the steps where that began.
fn follow(found: &mut [StepDiff], in_recipe: &[ByName<'_>; 2]) {
    for at in 0..found.len() {
        let step = &found[at];
        if step.on != On::Both || step.inputs.is_empty() {
            continue;
        }
        let ports: BTreeSet<&str> = step.inputs.iter().map(|input| input.port.as_str()).collect();
        let recipes = in_recipe.iter().filter_map(|recipe| recipe.get(step.step.as_str()));
        let inputs = recipes.flat_map(|recipe| &recipe.inputs);
        let producers: BTreeSet<&str> = inputs
            .filter(|input| ports.contains(input.port.as_str()))
            .map(|input| input.step.as_str())
            .collect();
        let mut roots = BTreeSet::new();
        for producer in found.iter().filter(|other| producers.contains(other.step.as_str())) {
            if producer.on == On::Both && producer.outputs_known && producer.outputs.is_empty() {
                continue;
            }
            if !producer.causes.is_empty() {
                roots.insert(producer.step.clone());
            }
            roots.extend(producer.follows.iter().cloned());
        }
        roots.remove(&step.step);
        found[at].follows = roots.into_iter().collect();
    }
}

/// Where it begins.
pub fn first(pipeline: &[Change], steps: &[StepDiff]) -> Option<First> {
    let by_itself = steps.iter().find(|step| !step.causes.is_empty());
    if let Some(step) = by_itself.or(steps.first()) {
        return Some(First { step: Some(step.step.clone()), what: what(step) });
    }
    pipeline.first().map(|change| First { step: None, what: told(change) })
}

/// A changed field in a line.
pub fn told(Change { field, before, after }: &Change) -> String {
    let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "(absent)".into());
    format!("{field}: {} -> {}", side(before), side(after))
}

fn what(step: &StepDiff) -> String {
    let outputs = || step.outputs.iter().map(|o| o.name.as_str()).collect::<Vec<_>>().join(", ");
    match step.causes.first() {
        Some(Cause::Fields) => step.fields.iter().map(told).collect::<Vec<_>>().join("; "),
        Some(Cause::Presence) if step.on == On::OnlyA => "only A has this step".into(),
        Some(Cause::Presence) => "only B has this step".into(),
        Some(Cause::Contents) => format!("the file has other contents: {}", outputs()),
        Some(Cause::Version) => "another version of the op: same recipe, same inputs, another key".into(),
        Some(Cause::OtherBytes) => format!("one key, other bytes: {}", outputs()),
        None => format!("follows from {}", step.follows.join(", ")),
    }
}
