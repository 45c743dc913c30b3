//! Recipe to Pipeline: references become edges, and a `pack` step is put in front of `infer`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::Path;

use petgraph::graph::{DiGraph, NodeIndex};

use pipe_kernels::Spec;

use crate::recipe::op::{Checksum, Introspect, Pack, Score};
use crate::recipe::{Diagnostic, Entry, Mistake, Op, Recipe, Reference, diagnostics};

use super::order::order;
use super::resolve::{Resolved, output_name, resolve};
use super::{Link, Pipeline, Step};

/// Freezes a recipe, or reports all its mistakes at once, those of its text included.
///
/// Looks whether local files are there; reads none. The result depends on names and parameters, never on
/// the order of the text.
pub fn compile(recipe: &Recipe) -> Result<Pipeline, Vec<Diagnostic>> {
    let mut mistakes = recipe.mistakes.clone();
    let edges = resolve(recipe, &mut mistakes);
    unreadable(recipe, &mut mistakes);
    if !mistakes.is_empty() {
        return Err(diagnostics(&recipe.file, &recipe.text, &mistakes));
    }
    Ok(freeze(recipe, &edges))
}

/// Local files that are not there. Each path is looked at once.
fn unreadable(recipe: &Recipe, mistakes: &mut Vec<Mistake>) {
    let mut seen: HashMap<&Path, Option<String>> = HashMap::new();
    for entry in &recipe.entries {
        let (Some(Op::File(file)), Some(span)) = (&entry.op, entry.path) else { continue };
        let why = seen.entry(&file.path).or_insert_with(|| readable(&file.path).err().map(|e| e.to_string()));
        if let Some(why) = why {
            let message = format!("cannot read `{}`: {why}", file.path.display());
            let hint = "relative paths begin at the recipe's folder";
            mistakes.push(Mistake::new(span, message).expected("a readable file or folder").hint(hint));
        }
    }
}

fn readable(path: &Path) -> io::Result<()> {
    let what = fs::metadata(path)?;
    if what.is_dir() {
        fs::read_dir(path).map(drop)
    } else if what.is_file() {
        fs::File::open(path).map(drop)
    } else {
        // Opening a pipe or a device could wait for ever, and its contents are no input twice.
        Err(io::Error::other("it is neither a file nor a folder"))
    }
}

/// Outputs of `infer` that a score takes.
const ANSWERS: &str = "answers.json";
const LIKELIHOOD: &str = "log_likelihood.json";

/// A name, its op, and its inputs as (port, producer's name, output).
pub(super) type Node<'r> = (String, Op, Vec<Feed<'r>>);

/// Port, producer's name, and which of its outputs.
pub(super) type Feed<'r> = (Cow<'r, str>, String, Option<&'r str>);

fn freeze(recipe: &Recipe, edges: &[Resolved<'_>]) -> Pipeline {
    let mut nodes: Vec<Node<'_>> = Vec::with_capacity(recipe.entries.len() + 8);
    let mut packs: BTreeMap<String, Node<'_>> = BTreeMap::new();
    let mut checksums: BTreeMap<String, Node<'_>> = BTreeMap::new();
    let mut edges = edges.iter().peekable();
    for (number, entry) in recipe.entries.iter().enumerate() {
        // Without mistakes every entry has its op.
        let Some(mut op) = entry.op.clone() else { continue };
        let mut inputs = Vec::with_capacity(3);
        while let Some(edge) = edges.next_if(|edge| edge.to == number) {
            let reference = edge.reference;
            let output = reference.output.as_deref();
            match (&mut op, reference.port) {
                (Op::Infer(infer), "model") => {
                    let pack = Pack { width: infer.spec.width(), through: infer.weights };
                    inputs.push(("packed".into(), packed(pack, reference, &mut packs), None));
                }
                (Op::Introspect(introspect), "of") => {
                    let of = &recipe.entries[edge.from];
                    looked_into(introspect, of, &mut inputs, &mut packs);
                    sum_up("introspection", of, &entry.name, &mut checksums);
                    continue;
                }
                (Op::Score(score), "of") => {
                    let of = &recipe.entries[edge.from];
                    scored(score, of, &mut inputs, &mut packs);
                    sum_up("scores", of, &entry.name, &mut checksums);
                    continue;
                }
                _ => {}
            }
            inputs.push((reference.port.into(), reference.step.clone(), output));
        }
        inputs.sort();
        nodes.push((entry.name.clone(), op, inputs));
    }
    nodes.extend(packs.into_values());
    for (_, _, inputs) in checksums.values_mut() {
        inputs.sort();
    }
    nodes.extend(checksums.into_values());
    nodes.sort_by(|a, b| a.0.cmp(&b.0));
    assemble(&recipe.name, nodes)
}

/// The name of the step that packs a model so, which is added when it is not there.
fn packed<'r>(pack: Pack, model: &'r Reference, packs: &mut BTreeMap<String, Node<'r>>) -> String {
    // A step's name has no dot, so this one is free.
    let through = pack.through.map_or_else(String::new, |width| format!("-of-{width}"));
    let name = format!("{}.pack-{}{through}", output_name(model), pack.width);
    packs.entry(name.clone()).or_insert_with(|| {
        let input = ("model".into(), model.step.clone(), model.output.as_deref());
        (name.clone(), Op::Pack(pack), vec![input])
    });
    name
}

/// What a score takes of an inference: what it left, what it was given, and the weights that say how sure it was.
fn scored<'r>(
    score: &Score,
    of: &'r Entry,
    inputs: &mut Vec<Feed<'r>>,
    packs: &mut BTreeMap<String, Node<'r>>,
) {
    // Without mistakes it is an infer step.
    let Some(Op::Infer(infer)) = &of.op else { return };
    inputs.push(("answers".into(), of.name.clone(), Some(ANSWERS)));
    if infer.log_likelihood {
        inputs.push(("likelihood".into(), of.name.clone(), Some(LIKELIHOOD)));
    }
    for reference in &of.references {
        match reference.port {
            "tokens" => inputs.push(("tokens".into(), reference.step.clone(), reference.output.as_deref())),
            "model" if infer.max_tokens > 0 => {
                let pack = Pack { width: infer.spec.width(), through: infer.weights };
                inputs.push(("packed".into(), packed(pack, reference, packs), None));
                if score.kl_to_f32 {
                    let pack = Pack { width: Spec::F32.width(), through: None };
                    inputs.push(("packed_f32".into(), packed(pack, reference, packs), None));
                }
            }
            _ => {}
        }
    }
}

/// What a look inside takes of an inference: all that it left and was given.
fn looked_into<'r>(
    introspect: &mut Introspect,
    of: &'r Entry,
    inputs: &mut Vec<Feed<'r>>,
    packs: &mut BTreeMap<String, Node<'r>>,
) {
    // Without mistakes it is an infer step.
    let Some(Op::Infer(infer)) = &of.op else { return };
    introspect.infer = Some(infer.clone());
    inputs.push(("answer".into(), of.name.clone(), None));
    for reference in &of.references {
        if reference.port == "model" {
            let pack = Pack { width: infer.spec.width(), through: infer.weights };
            inputs.push(("packed".into(), packed(pack, reference, packs), None));
        }
        inputs.push((reference.port.into(), reference.step.clone(), reference.output.as_deref()));
    }
}

/// Has the checksum of an inference cover what another step found out about it. The step that computes it is added
/// when it is not there.
fn sum_up(what: &str, of: &Entry, step: &str, checksums: &mut BTreeMap<String, Node<'_>>) {
    // A step's name has no dot, so this one is free.
    let name = format!("{}.checksum", of.name);
    let (_, _, inputs) = checksums.entry(name.clone()).or_insert_with(|| {
        let op = Op::Checksum(Checksum { of: of.name.clone() });
        (name, op, vec![("answer".into(), of.name.clone(), None)])
    });
    inputs.push((format!("{what}.{step}").into(), step.to_owned(), None));
}

/// Nodes sorted by name to the graph.
pub(super) fn assemble(name: &str, nodes: Vec<Node<'_>>) -> Pipeline {
    let numbers: HashMap<String, usize> =
        nodes.iter().enumerate().map(|(i, node)| (node.0.clone(), i)).collect();
    let mut graph = DiGraph::with_capacity(nodes.len(), nodes.len() * 2);
    let mut edges = Vec::with_capacity(nodes.len() * 2);
    let mut links = Vec::with_capacity(nodes.len() * 2);
    for (to, (name, op, inputs)) in nodes.into_iter().enumerate() {
        graph.add_node(Step { name, op });
        for (port, producer, output) in inputs {
            if let Some(from) = numbers.get(&producer) {
                edges.push((*from, to));
                links.push(Link { port: port.to_string(), output: output.map(str::to_string) });
            }
        }
    }
    for ((from, to), link) in edges.iter().zip(links) {
        graph.add_edge(NodeIndex::new(*from), NodeIndex::new(*to), link);
    }
    let order = order(graph.node_count(), &edges).into_iter().map(NodeIndex::new).collect();
    Pipeline { name: name.to_string(), graph, order }
}
