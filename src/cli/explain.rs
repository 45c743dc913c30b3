//! `pipe explain`: why a step runs, as the difference between its preimage and the nearest earlier one.

use std::path::PathBuf;

use pipe_store::{Digest, Record, Store};

use super::error::{CliError, Exit};
use super::{Context, recipe, show};
use crate::key::{self, Change};
use crate::plan::{self, Fate};

/// Say why a step ran, or would run: what changed in its key
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe explain answer                          the last run's step\n  pipe explain answer --recipe edited.toml     what a run of this recipe would do"
)]
pub struct Args {
    /// The step
    step: String,
    /// Explain what a run of this recipe would do, instead of what a run did
    #[arg(long, value_name = "FILE", conflicts_with = "run")]
    recipe: Option<PathBuf>,
    /// The run [default: the last]
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
}

pub fn main(args: Args, context: &Context) -> Result<Exit, CliError> {
    let store = context.open_store()?;
    match &args.recipe {
        Some(path) => would(&args.step, path, &store, context)?,
        None => did(&args.step, args.run.as_deref(), &store, context)?,
    }
    Ok(Exit::Ok)
}

/// What a run of a recipe would do with the step.
fn would(step: &str, path: &std::path::Path, store: &Store, context: &Context) -> Result<(), CliError> {
    let pipeline = recipe::load(path, context.out)?;
    let node = plan::named(&pipeline, &[step.to_owned()])?[0];
    let plan = plan::plan(&pipeline, store, &[])?;
    let fate = plan.steps.into_iter().find(|s| s.node == node).expect("BUG: a plan holds every step").fate;
    match fate {
        Fate::Hit { key, record } => {
            tell(step, &key, "is recorded: nothing would run", None, &record.preimage, context)
        }
        Fate::Waits { on } => context.out.line(format!(
            "{step}: its key is not known before {} ran; if their outputs come out the same, it is a hit",
            on.join(", ")
        )),
        Fate::Miss { key, text, .. } => {
            let earlier = plan::nearest(store, step, &text)?;
            tell(step, &key, "would run", earlier, &text, context)
        }
    }
}

/// What the step's key was in a run that was made.
fn did(step: &str, run: Option<&str>, store: &Store, context: &Context) -> Result<(), CliError> {
    let found = show::find(store, run)?;
    let Some((entry, body)) = found.run else {
        return Err(CliError::new(Exit::Usage, "a bundle has no history; name a run")
            .hint("`pipe log` lists the runs"));
    };
    let done = body.steps.iter().find(|s| s.name == step);
    // Hits of a run with a bundle are told by the bundle alone.
    let sealed = found.bundle.as_ref().and_then(|b| b.steps.get(step));
    let (key, outcome) = match (done, sealed) {
        (Some(done), _) => (done.key, done.error.as_deref().unwrap_or(&done.outcome)),
        (None, Some(sealed)) => (Some(sealed.key), "hit"),
        (None, None) => {
            let all = body.steps.iter().map(|s| &s.name);
            let all = all.chain(found.bundle.iter().flat_map(|b| b.steps.keys()));
            let has: std::collections::BTreeSet<_> = all.map(String::as_str).collect();
            let has = has.into_iter().collect::<Vec<_>>().join(", ");
            return Err(CliError::new(Exit::Usage, format!("run {} has no step `{step}`", entry.id))
                .hint(format!("its steps are {has}")));
        }
    };
    let record = key.map(|key| store.record(&key)).transpose()?.flatten();
    let (Some(key), Some(record)) = (key, record) else {
        return context.out.line(format!("{step}: has no record: {outcome}"));
    };
    let earlier = store.records_of_step(step, usize::MAX)?.into_iter();
    let earlier = earlier
        .filter(|(other, r)| *other != key && r.created_ms <= record.created_ms)
        .min_by_key(|(_, r)| key::changes(&r.preimage, &record.preimage).len());
    let verdict = format!("{outcome} in run {}", entry.id);
    tell(step, &key, &verdict, earlier, &record.preimage, context)
}

fn tell(
    step: &str,
    key: &Digest,
    verdict: &str,
    earlier: Option<(Digest, Record)>,
    preimage: &str,
    context: &Context,
) -> Result<(), CliError> {
    let changes = earlier.as_ref().map(|(_, record)| key::changes(&record.preimage, preimage));
    if context.out.json {
        return context.out.value(&serde_json::json!({
            "step": step, "key": key, "verdict": verdict, "nearest": earlier.map(|(k, _)| k),
            "changes": changes, "preimage": preimage,
        }));
    }
    context.out.line(format!("{step}: {verdict}\nkey {key}"))?;
    match (&earlier, changes) {
        (Some((nearest, _)), Some(changes)) => {
            context.out.line(format!("against the nearest earlier key {nearest}:"))?;
            for Change { field, before, after } in changes {
                let side = |v: Option<String>| v.unwrap_or_else(|| "(absent)".into());
                context.out.line(format!("  {field}: {} -> {}", side(before), side(after)))?;
            }
        }
        _ => {
            context.out.line("no earlier key of this step; its preimage:")?;
            for line in preimage.lines() {
                context.out.line(format!("  {line}"))?;
            }
        }
    }
    Ok(())
}
