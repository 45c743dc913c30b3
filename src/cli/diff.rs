//! `pipe diff`: two runs, bundles, CARs or recipes: what differs, where it begins, what follows.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use pipe_store::Store;

use super::error::{CliError, Exit};
use super::run::DeviceArgs;
use super::{Context, recipe, show};
use crate::bundle;
use crate::diff::{self, Condition, ConditionError, DiffError, Judged, Kind, Side};

/// Compare two results or recipes: what differs, where it begins, and what follows from it
///
/// Steps are compared in causal order: first what differs by itself (a field of the recipe, a file's contents, other
/// bytes under one key), then what merely follows. Of tensors it tells the largest differences and where they are; of
/// answers the token at which they part, with what both models made of the place, if their weights are in the store.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pipe diff 0194                            a run against the last one
  pipe diff bafyr4ia… bafyr4ib…             two bundles of this store
  pipe diff theirs.car ours.car             two CARs; nothing of them is kept
  pipe diff old.toml new.toml               two recipes; nothing is run
  pipe diff last.car --fail-on 'fitness < -0.01' --html report.html

Exit codes: 0 the same, 1 different. With --fail-on: 1 only if a condition on the change of a score (B minus A) holds,
or cannot be told since a score has no value.")]
pub struct Args {
    /// A run's id (or the start of it), a bundle's CID, a CAR file, a recipe (x.toml)
    a: String,
    /// The same [default: the last run]
    b: Option<String>,
    /// Fail only if the change of a score is so: 'fitness < -0.01', 'STEP/beauty <= -0.1' (may be given several times)
    #[arg(long, value_name = "CONDITION", value_parser = |text: &str| text.parse::<Condition>())]
    fail_on: Vec<Condition>,
    /// Write a page with both sides next to each other; one file that needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn main(args: Args, context: &Context) -> Result<Exit, CliError> {
    let store = context.open_store()?;
    let a = side(Some(&args.a), &store, context)?;
    let b = side(args.b.as_deref(), &store, context)?;
    let found = diff::diff(&a, &b, &args.device.device()).map_err(|e| failed(&e))?;
    let judged = diff::judge(&args.fail_on, &found.scores).map_err(|e: ConditionError| {
        CliError::new(Exit::Usage, e).hint("`pipe diff A B` without --fail-on lists the scores")
    })?;
    if let Some(path) = &args.html {
        let written = std::fs::write(path, diff::page(&found, &judged));
        written.map_err(|e| CliError::new(Exit::Step, format!("{}: {e}", path.display())))?;
        context.out.note(format!("{}: the page", path.display()));
    }
    if context.out.json {
        let mut value = serde_json::to_value(&found).expect("BUG: a comparison is plain data");
        if !args.fail_on.is_empty() {
            value["fail_on"] = serde_json::to_value(&judged).expect("BUG: plain data");
        }
        context.out.value(&value)?;
    } else {
        context.out.line(diff::render(&found, &judged).trim_end())?;
    }
    let differs = match args.fail_on.is_empty() {
        true => !found.same,
        false => judged.iter().any(|Judged { holds, .. }| *holds),
    };
    Ok(if differs { Exit::Differ } else { Exit::Ok })
}

fn failed(e: &DiffError) -> CliError {
    let exit = match e {
        DiffError::Store(_) | DiffError::Unreadable { .. } => Exit::Store,
        DiffError::Distribution { .. } => Exit::Step,
    };
    CliError::new(exit, e)
}

/// What a user names; nothing is the last run.
fn side(name: Option<&str>, store: &Store, context: &Context) -> Result<Side, CliError> {
    let path = name.map(Path::new);
    let ends = |extension: &str| path.is_some_and(|p| p.extension().is_some_and(|e| e == extension));
    if let Some(path) = path.filter(|path| ends("toml") || ends("car") || path.is_file()) {
        let shown = path.display().to_string();
        if ends("toml") {
            let pipeline = recipe::load(path, context.out)?;
            return Ok(Side::of_recipe(&shown, &pipeline, store.clone()));
        }
        return car(path, &shown, store);
    }
    let found = show::find(store, name)?;
    let run = found.run.as_ref().map(|(entry, _)| entry.id.clone());
    let (kind, shown) = match (run, name) {
        (Some(id), _) => (Kind::Run, id),
        (None, name) => (Kind::Bundle, name.unwrap_or_default().to_owned()),
    };
    let bundle = found.bundle.ok_or_else(|| {
        CliError::new(Exit::Usage, format!("run {shown} has no bundle: a step failed"))
            .hint("`pipe log` lists the runs")
    })?;
    Ok(Side::of_bundle(&shown, kind, bundle, vec![store.clone()]))
}

/// A CAR's blocks are checked and kept in memory, for as long as this takes. What it does not carry, such as
/// weights, may be in the store.
fn car(path: &Path, shown: &str, store: &Store) -> Result<Side, CliError> {
    let file = File::open(path).map_err(|e| CliError::new(Exit::Usage, format!("{shown}: {e}")))?;
    let memory = Store::memory();
    let imported = bundle::import(BufReader::new(file), &memory).map_err(|e| {
        CliError::new(Exit::Step, format!("{shown}: {e}")).hint("is it a CAR of `pipe export`?")
    })?;
    Ok(Side::of_bundle(shown, Kind::Car, imported.bundle, vec![memory, store.clone()]))
}
