//! `pipe why`: what made an artifact, and what used it.

use std::str::FromStr;

use pipe_store::{Digest, Store};

use super::error::{CliError, Exit};
use super::{Context, out, show};
use crate::bundle::{Bundle, car};
use crate::lineage::{Act, Steps};

/// Say what made an artifact (step, op, key, inputs, runs) and what used it
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pipe why answer/answers.json              an output of the last run
  pipe why model/file --run 0194            an output of that run
  pipe why 181c2e9c                         whatever has a digest that begins so
  pipe why bafkr4i…                         by its CID

Exit codes: 0 found, 2 this store knows no such artifact.")]
pub struct Args {
    /// STEP/NAME of a run's output, a digest (or the start of it), a CID
    artifact: String,
    /// The run, or bundle, that STEP/NAME is of [default: the last run]
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
}

pub fn main(args: Args, context: &Context) -> Result<Exit, CliError> {
    let store = context.open_store()?;
    let steps = Steps::read(&store)?;
    let digest = named(&args, &steps, &store)?;
    let lineage = steps.of(&digest, &store)?;
    if lineage.made_by.is_empty() && lineage.used_by.is_empty() {
        return Err(CliError::new(Exit::Usage, format!("no record, run or bundle here names {digest}"))
            .hint("`pipe show` lists what a run made; `pipe import FILE.car` brings in a bundle"));
    }
    if context.out.json {
        context.out.value(&lineage)?;
        return Ok(Exit::Ok);
    }
    let here = lineage.length.map_or_else(|| "its bytes are not here".into(), out::bytes);
    context.out.line(format!("{digest}  {here}"))?;
    tell("made by", &lineage.made_by, context)?;
    tell("used by", &lineage.used_by, context)?;
    Ok(Exit::Ok)
}

/// The artifact a user means.
fn named(args: &Args, steps: &Steps, store: &Store) -> Result<Digest, CliError> {
    let name = args.artifact.as_str();
    if name.contains('/') {
        let found = show::find(store, args.run.as_deref())?;
        let outputs = || found.bundle.iter().flat_map(Bundle::outputs);
        let output = outputs().find(|(step, output, _)| name == format!("{step}/{output}"));
        return output.map(|(_, _, sealed)| sealed.digest).ok_or_else(|| {
            let has: Vec<_> = outputs().map(|(step, output, _)| format!("{step}/{output}")).collect();
            let hint = match has.is_empty() {
                true => "the run has no bundle: a step failed. Name another with --run".to_owned(),
                false => format!("there are {}", has.join(", ")),
            };
            CliError::new(Exit::Usage, format!("no output `{name}`")).hint(hint)
        });
    }
    if let Ok(digest) = name.parse::<Digest>() {
        return Ok(digest);
    }
    if let Some(digest) = cid::Cid::from_str(name).ok().and_then(|cid| car::digest_of(&cid)) {
        return Ok(digest);
    }
    let hex = name.len() >= 4 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let found = if hex { steps.starting(name) } else { Vec::new() };
    match found.as_slice() {
        [digest] => Ok(*digest),
        [] => Err(CliError::new(Exit::Usage, format!("no artifact `{name}`"))
            .hint("name STEP/NAME of a run, a digest or at least four of its first digits, or a CID")),
        many => {
            let many: Vec<_> = many.iter().map(Digest::to_string).collect();
            Err(CliError::new(Exit::Usage, format!("several artifacts begin with {name}"))
                .hint(format!("they are {}", many.join(", "))))
        }
    }
}

fn tell(what: &str, acts: &[Act], context: &Context) -> Result<(), CliError> {
    if acts.is_empty() {
        return context.out.line(format!("{what} nothing that this store knows of"));
    }
    for act in acts {
        let step = if act.step.is_empty() { String::new() } else { format!("{} ", act.step) };
        context.out.line(format!("{what} {step}({}) as {}", act.op, act.role))?;
        context.out.line(format!("    key {}", act.key))?;
        for (input, digest) in &act.inputs {
            context.out.line(format!("    from {input}  {digest}"))?;
        }
        if !act.runs.is_empty() {
            context.out.line(format!("    in runs {}", act.runs.join(", ")))?;
        }
        let cids = act.bundles.iter().map(|digest| car::cid_of(car::DAG_CBOR, digest));
        for cid in cids {
            context.out.line(format!("    in bundle {cid}"))?;
        }
    }
    Ok(())
}
