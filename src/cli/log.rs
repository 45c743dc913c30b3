//! `pipe log`: the runs of this store, newest first.

use super::error::{CliError, Exit};
use super::{Context, ipfs, out, show};
use crate::publish::chain;
use crate::run::RunBody;

/// List the runs of this store, newest first
#[derive(clap::Args)]
pub struct Args {
    /// How many
    #[arg(long, short = 'n', default_value_t = 20)]
    limit: usize,
    /// The signed chain instead: of this store's key, or back from the manifest with this CID
    #[arg(long, value_name = "CID", num_args = 0..=1, default_missing_value = "")]
    chain: Option<String>,
}

pub fn main(args: Args, context: &Context) -> Result<Exit, CliError> {
    if let Some(from) = &args.chain {
        return chain(from, args.limit, context);
    }
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

/// A chain, newest first, each entry checked as it is shown.
fn chain(from: &str, limit: usize, context: &Context) -> Result<Exit, CliError> {
    let store = context.open_store()?;
    let head = match from {
        "" => {
            let key = ipfs::secret_key(context)?.public();
            chain::head(&store, &key).map_err(|e| CliError::new(Exit::Store, e))?
        }
        cid => Some(cid.parse().map_err(|_| CliError::new(Exit::Usage, format!("`{cid}` is no CID")))?),
    };
    let Some(head) = head else {
        context.out.note("nothing is signed yet; `pipe publish` signs a run");
        return Ok(Exit::Ok);
    };
    for entry in chain::walk(&store, head).take(limit) {
        let (cid, manifest) = match entry {
            Ok(entry) => entry,
            Err(e) if e.is_missing() => {
                let hint = "`pipe import FILE.car` brings in what a CAR has of a chain";
                return Err(CliError::new(Exit::Store, format!("the chain goes on: {e}")).hint(hint));
            }
            Err(e) => return Err(CliError::new(Exit::Differ, e)),
        };
        if context.out.json {
            context.out.value(&show::described(&cid, &manifest))?;
            continue;
        }
        let (number, claim) = (manifest.sequence, manifest.claim.name());
        context.out.line(format!("{number:5}  {claim:10}  {cid}  of {}", manifest.bundle))?;
    }
    Ok(Exit::Ok)
}
