//! `pipe report`: a run as a page that needs nothing else.

use std::io::Write;
use std::path::{Path, PathBuf};

use pipe_store::Digest;

use super::error::{CliError, Exit};
use super::show::find;
use super::{Context, gather, out};
use crate::report::{self, Report};
use crate::specs::Card;

/// Write a run as one HTML page: the answer, what happened inside, checks, scores, steps, addresses
///
/// The page needs no network and runs no script; it can be mailed, printed and kept. What it shows of the inside comes
/// from an `introspect` step; without one it shows what there is.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pipe report                          the last run, as PIPELINE-RUN.html here
  pipe report 01a2 --output page.html
  pipe report --prompt france          one of several prompts
  pipe specs --json > card.json && pipe report --specs card.json     with the versions of the model's arithmetic
  pipe report bafyr4i… --output -      a bundle's page, to stdout")]
pub struct Args {
    /// A run's id (or the start of it) or a bundle's CID [default: the last run]
    run: Option<String>,
    /// The file to write; `-` is stdout [default: PIPELINE-RUN.html]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Which prompt [default: the first]
    #[arg(long, value_name = "ID")]
    prompt: Option<String>,
    /// The infer step whose answers it is about [default: one that was looked into]
    #[arg(long, value_name = "STEP")]
    step: Option<String>,
    /// A card that `pipe specs --json` printed for the model: the versions of its arithmetic
    #[arg(long, value_name = "FILE")]
    specs: Option<PathBuf>,
}

pub fn main(args: Args, context: &Context) -> Result<Exit, CliError> {
    let store = context.open_store()?;
    let found = find(&store, args.run.as_deref())?;
    let mut report = gather::report(&found, args.step.as_deref(), args.prompt.as_deref(), &store)?;
    if let Some(path) = &args.specs {
        report.versions = Some(versions(path, &report)?);
    }
    report.missing.iter().for_each(|text| context.out.note(text));
    if report.inside.is_none() && report.answer.is_some() {
        context.out.note("this run did not look inside the model; an `introspect` step does");
    }
    let html = report::html(&report);
    let path = args.output.unwrap_or_else(|| file_name(&report).into());
    if path.as_os_str() == "-" {
        let written = std::io::stdout().lock().write_all(html.as_bytes());
        written.map_err(|e| CliError::new(Exit::Step, format!("stdout: {e}")))?;
        return Ok(Exit::Ok);
    }
    std::fs::write(&path, &html).map_err(|e| {
        CliError::new(Exit::Step, format!("{}: {e}", path.display()))
            .hint("--output FILE writes it elsewhere, --output - to stdout")
    })?;
    match context.out.json {
        true => context.out.value(&serde_json::json!({
            "file": path.display().to_string(),
            "bytes": html.len(),
            "run": report.run.as_ref().map(|run| &run.id),
            "cid": report.cid,
            "step": report.answer.as_ref().map(|card| &card.step),
            "prompt": report.answer.as_ref().map(|card| &card.answer.id),
            "inside": report.inside.is_some(),
            "missing": report.missing,
        }))?,
        false => {
            context.out.line(path.display().to_string())?;
            context.out.note(format!("{}, for any browser", out::bytes(html.len() as u64)));
        }
    }
    Ok(Exit::Ok)
}

/// A card, if it is of a model that the run has.
fn versions(path: &Path, report: &Report) -> Result<Card, CliError> {
    let usage = |e: &dyn std::fmt::Display| CliError::new(Exit::Usage, format!("{}: {e}", path.display()));
    let text = std::fs::read(path).map_err(|e| usage(&e))?;
    let mut card: Card = serde_json::from_slice(&text).map_err(|e| {
        usage(&format!("not a card: {e}"))
            .hint("`pipe specs --json` prints one for the model of the last run")
    })?;
    // As of the recipe, the name is enough.
    card.text.name = gather::file_name(&card.text.name);
    let made = |digest: &Digest| report.steps.iter().flat_map(|s| &s.outputs).any(|o| o.digest == *digest);
    match !card.files.is_empty() && card.files.values().all(made) {
        true => Ok(card),
        false => Err(usage(&format!("it is of {}, which this run does not use", card.model))
            .hint("`pipe specs RUN --json` prints one for a run's model")),
    }
}

/// Of the pipeline and the run, else the CID; nothing that could name another folder.
fn file_name(report: &Report) -> String {
    let safe = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
    };
    let of = match (&report.run, &report.cid) {
        (Some(run), _) => run.id.as_str(),
        // The end of a CID tells more than its beginning.
        (None, Some(cid)) => &cid[cid.len().saturating_sub(16)..],
        (None, None) => "run",
    };
    format!("{}-{}.html", safe(&report.pipeline), safe(of))
}
