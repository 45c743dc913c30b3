//! `pipe export` and `pipe import`: a bundle as one CAR file.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::PathBuf;

use super::error::{CliError, Exit};
use super::{Context, out, show};
use crate::bundle;
use crate::publish::{self, Wanted};

/// Write a run's bundle, and what it carries, to a CAR file
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe export --output result.car\n  pipe export 0194 --with-inputs --output all.car"
)]
pub struct ExportArgs {
    /// A run's id (or the start of it) or a bundle's CID [default: the last run]
    run: Option<String>,
    /// The file to write [default: CID.car]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also the bytes that anyone could fetch or derive again: weights, packed weights
    #[arg(long)]
    with_inputs: bool,
}

/// Bring a bundle in from a CAR file; every block is checked against its CID
#[derive(clap::Args)]
pub struct ImportArgs {
    /// The CAR file
    file: PathBuf,
}

pub fn export(args: ExportArgs, context: &Context) -> Result<Exit, CliError> {
    let store = context.open_store()?;
    let found = show::find(&store, args.run.as_deref())?;
    let (Some(cid), Some(bundle)) = (found.cid, &found.bundle) else {
        return Err(CliError::new(Exit::Usage, "this run has no bundle: a step failed")
            .hint("`pipe log` lists the runs"));
    };
    let path = args.output.unwrap_or_else(|| format!("{cid}.car").into());
    let io = |e: std::io::Error| CliError::new(Exit::Step, format!("{}: {e}", path.display()));
    // Written beside its place and renamed, so that a half-written CAR never bears the name.
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let mut file = out::shared_file(folder).map_err(io)?;
    let mut writer = BufWriter::new(file.as_file_mut());
    let recipe = found.run.as_ref().and_then(|(_, body)| body.recipe.as_deref());
    let blocks = bundle::export(bundle, &store, args.with_inputs, &mut writer)
        .map_err(|e| super::publish::lost(e, recipe))?;
    writer.flush().map_err(io)?;
    drop(writer);
    let length = file.as_file().metadata().map_err(io)?.len();
    file.persist(&path).map_err(|e| io(e.error))?;
    match context.out.json {
        true => context.out.value(&serde_json::json!({
            "cid": cid.to_string(), "file": path, "blocks": blocks, "bytes": length,
        }))?,
        false => {
            context.out.line(cid.to_string())?;
            context.out.note(format!("{}: {blocks} blocks, {}", path.display(), out::bytes(length)));
        }
    }
    Ok(Exit::Ok)
}

pub fn import(args: ImportArgs, context: &Context) -> Result<Exit, CliError> {
    let store = context.open_store()?;
    let path = args.file.display();
    let file = File::open(&args.file).map_err(|e| CliError::new(Exit::Usage, format!("{path}: {e}")))?;
    let received =
        publish::receive(BufReader::new(file), &Wanted { whole: true, ..Wanted::default() }, &store)
            .map_err(|e| {
                CliError::new(Exit::Step, format!("{path}: {e}")).hint("nothing of it was taken as true")
            })?;
    match context.out.json {
        true => context.out.value(&serde_json::json!({
            "cid": received.cid.to_string(), "bundle": received.bundle_cid.to_string(),
            "key": received.manifest.as_ref().map(|m| m.key), "entries": received.entries,
            "blocks": received.blocks,
        }))?,
        false => {
            context.out.line(received.cid.to_string())?;
            context.out.note(format!("{} blocks; `pipe show {}` shows it", received.blocks, received.cid));
        }
    }
    Ok(Exit::Ok)
}
