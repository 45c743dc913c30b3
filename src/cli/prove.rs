//! `pipe prove` and `pipe check-proof`: that one number of the inside belongs to an answer's checksum.

use std::io::Read;
use std::path::PathBuf;

use pipe_store::Digest;

use super::Context;
use super::error::{CliError, Exit};
use super::show::find;
use crate::bundle::{Bundle, SealedStep};
use crate::checksum::{Proof, Tree};
use crate::ops::checksum;
use crate::pipeline::CanonicalOp;

/// Prove that a part of an answer's inside belongs to its checksum
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe prove --list                                       what can be proved of the last run\n  pipe prove --list inside/                               what begins so\n  pipe prove 01a2 answer/trace.safetensors/0/12/layer.05/ffn.residual > proof.json\n  pipe check-proof proof.json"
)]
pub struct ProveArgs {
    /// A run's id or a bundle's CID, and the part; with one argument, a part of the last run
    #[arg(num_args = 0..=2, value_name = "[RUN] PATH")]
    what: Vec<String>,
    /// List the parts instead, or those that begin so
    #[arg(long)]
    list: bool,
}

/// Check a proof that `pipe prove` made; needs neither model nor store
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe check-proof proof.json\n  pipe check-proof proof.json --checksum 41ac…   the checksum that you trust\n  pipe check-proof proof.json --value row.bin    the bytes that are said to belong to it"
)]
pub struct CheckArgs {
    /// A proof; `-` reads stdin
    file: PathBuf,
    /// The checksum it must be of
    #[arg(long, value_name = "HEX")]
    checksum: Option<Digest>,
    /// A file with the part itself: as floats little-endian, or canonical JSON
    #[arg(long, value_name = "FILE")]
    value: Option<PathBuf>,
}

pub fn prove(args: ProveArgs, context: &Context) -> Result<Exit, CliError> {
    let store = context.open_store()?;
    let (run, path) = match args.what.as_slice() {
        [run, path] => (Some(run.as_str()), path.as_str()),
        // With --list one argument is a path if there is no such run.
        [one] => (None, one.as_str()),
        _ => (None, ""),
    };
    if path.is_empty() && !args.list {
        return Err(CliError::new(Exit::Usage, "which part is to be proved?")
            .hint("`pipe prove --list` names all there are"));
    }
    let found = find(&store, run)?;
    let bundle = found.bundle.ok_or_else(|| CliError::new(Exit::Usage, "the run has no bundle"))?;
    let mut trees = Vec::new();
    for (name, step) in &bundle.steps {
        if let Some(CanonicalOp::Checksum(op)) = op_of(&bundle, name) {
            let inputs = super::verify::inputs(&bundle, step);
            let tree = checksum::tree(&op.of, &inputs, &store)
                .map_err(|e| CliError::new(Exit::Store, format!("step `{name}`: {e}")))?;
            trees.push((name.as_str(), step, tree));
        }
    }
    if trees.is_empty() {
        return Err(CliError::new(Exit::Usage, "the run has no checksum")
            .hint("an `introspect` or `score` step of an `infer` step gives it one"));
    }
    if args.list {
        for leaf in trees.iter().flat_map(|(_, _, tree)| tree.leaves()) {
            if leaf.path.starts_with(path) {
                context.out.line(&leaf.path)?;
            }
        }
        return Ok(Exit::Ok);
    }
    match trees.iter().find_map(|(name, step, tree)| tree.prove(path).map(|proof| (name, step, tree, proof)))
    {
        Some((name, step, tree, proof)) => {
            recorded(name, step, tree, &store)?;
            context.out.value(&serde_json::to_value(&proof).expect("BUG: a proof is plain data"))?;
            Ok(Exit::Ok)
        }
        None => Err(CliError::new(Exit::Usage, format!("nothing is named `{path}`"))
            .hint("`pipe prove --list` names all there are")),
    }
}

fn op_of<'a>(bundle: &'a Bundle, name: &str) -> Option<&'a CanonicalOp> {
    bundle.pipeline.steps.iter().find(|step| step.name == name).map(|step| &step.op)
}

/// The tree just made must be the one that the run's answer names.
fn recorded(name: &str, step: &SealedStep, tree: &Tree, store: &pipe_store::Store) -> Result<(), CliError> {
    let damaged = |what: String| CliError::new(Exit::Store, format!("step `{name}`: {what}"));
    let output = step.outputs.get(checksum::ANSWER).ok_or_else(|| damaged("it has no answer.json".into()))?;
    let answer: serde_json::Value = serde_json::from_slice(&store.get(&output.digest)?)
        .map_err(|e| damaged(format!("{}: {e}", checksum::ANSWER)))?;
    let (said, is) = (answer["checksum"].as_str().unwrap_or_default(), tree.checksum().to_string());
    if said != is {
        return Err(damaged(format!("its answer says {said}, what it was made from gives {is}")));
    }
    Ok(())
}

pub fn check(args: CheckArgs, context: &Context) -> Result<Exit, CliError> {
    let name = args.file.display();
    let usage = |e: &dyn std::fmt::Display| CliError::new(Exit::Usage, format!("{name}: {e}"));
    let mut text = String::new();
    match args.file.as_os_str() == "-" {
        true => std::io::stdin().read_to_string(&mut text).map_err(|e| usage(&e))?,
        false => {
            let file = std::fs::File::open(&args.file).map_err(|e| usage(&e))?;
            file.take(1 << 20).read_to_string(&mut text).map_err(|e| usage(&e))?
        }
    };
    let proof: Proof = serde_json::from_str(&text).map_err(|e| usage(&format!("not a proof: {e}")))?;
    let mut why = proof.check().err().map(|e| e.to_string());
    if let Some(expected) = args.checksum.filter(|expected| *expected != proof.checksum) {
        why = why.or(Some(format!("it is of the checksum {}, not {expected}", proof.checksum)));
    }
    if let Some(path) = &args.value {
        let bytes = std::fs::read(path)
            .map_err(|e| CliError::new(Exit::Usage, format!("{}: {e}", path.display())))?;
        let found = Digest::of(&bytes);
        if found != proof.value {
            let shown = path.display();
            why = why.or(Some(format!("it is of a value with digest {}; {shown} has {found}", proof.value)));
        }
    }
    match context.out.json {
        true => context.out.value(&serde_json::json!({
            "ok": why.is_none(), "path": proof.path, "checksum": proof.checksum.to_string(), "reason": why,
        }))?,
        false => match &why {
            None => context.out.line(format!("ok: {} belongs to {}", proof.path, proof.checksum))?,
            Some(why) => context.out.line(format!("refused: {why}"))?,
        },
    }
    Ok(if why.is_none() { Exit::Ok } else { Exit::Differ })
}
