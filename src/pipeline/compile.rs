//! Recipe to Pipeline: references become edges, and a `pack` step is put in front of `infer`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::Path;

use petgraph::graph::{DiGraph, NodeIndex};

use crate::recipe::op::Pack;
use crate::recipe::{Diagnostic, Mistake, Op, Recipe, diagnostics};

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

/// A name, its op, and its inputs as (port, producer's name, output).
pub(super) type Node<'r> = (String, Op, Vec<(&'r str, String, Option<&'r str>)>);

fn freeze(recipe: &Recipe, edges: &[Resolved<'_>]) -> Pipeline {
    let mut nodes: Vec<Node<'_>> = Vec::with_capacity(recipe.entries.len() + 8);
    let mut packs: BTreeMap<String, Node<'_>> = BTreeMap::new();
    let mut edges = edges.iter().peekable();
    for (number, entry) in recipe.entries.iter().enumerate() {
        // Without mistakes every entry has its op.
        let Some(op) = entry.op.clone() else { continue };
        let mut inputs = Vec::with_capacity(3);
        while let Some(edge) = edges.next_if(|edge| edge.to == number) {
            let reference = edge.reference;
            let output = reference.output.as_deref();
            if let (Op::Infer(infer), "model") = (&op, reference.port) {
                // A step's name has no dot, so this one is free.
                let pack = Pack { width: infer.spec.width(), through: infer.weights };
                let through = pack.through.map_or_else(String::new, |width| format!("-of-{width}"));
                let name = format!("{}.pack-{}{through}", output_name(reference), pack.width);
                packs.entry(name.clone()).or_insert_with(|| {
                    let input = ("model", reference.step.clone(), output);
                    (name.clone(), Op::Pack(pack), vec![input])
                });
                inputs.push(("packed", name, None));
            }
            inputs.push((reference.port, reference.step.clone(), output));
        }
        inputs.sort();
        nodes.push((entry.name.clone(), op, inputs));
    }
    nodes.extend(packs.into_values());
    nodes.sort_by(|a, b| a.0.cmp(&b.0));
    assemble(&recipe.name, nodes)
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
