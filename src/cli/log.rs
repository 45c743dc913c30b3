//! `pipe log`: the runs of this store, newest first.

use super::error::{CliError, Exit};
use super::{Context, out};
use crate::run::RunBody;

/// List the runs of this store, newest first
#[derive(clap::Args)]
pub struct Args {
    /// How many
    #[arg(long, short = 'n', default_value_t = 20)]
    limit: usize,
}

pub fn main(args: Args, context: &Context) -> Result<Exit, CliError> {
    let runs = context.open_store()?.runs(args.limit)?;
    if runs.is_empty() {
        context.out.note("no runs yet; `pipe run pipelines/tiny.toml` makes one");
    }
    for run in runs {
        let body: RunBody = serde_json::from_str(&run.body)
            .map_err(|e| CliError::new(Exit::Store, format!("run {}: {e}", run.id)))?;
        if context.out.json {
            context.out.value(&serde_json::json!({
                "run": run.id, "pipeline": run.pipeline, "started_ms": run.started_ms, "details": body,
            }))?;
            continue;
        }
        let verdict = if body.ok { "ok" } else { "failed" };
        context.out.line(format!(
            "{}  {:6}  {:>8}  {}/{} hits  {}  {}",
            run.id,
            verdict,
            out::millis(body.wall_ms),
            body.hits,
            body.step_count,
            run.pipeline,
            body.bundle.as_deref().unwrap_or("-"),
        ))?;
    }
    Ok(Exit::Ok)
}
