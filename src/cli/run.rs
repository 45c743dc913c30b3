//! `pipe run`: a recipe to an answer and a bundle.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use pipe_kernels::Implementation;
use pipe_store::{Store, StoreError};

use super::ci::Report;
use super::error::{CliError, Exit};
use super::out::Out;
use super::progress::Progress;
use super::{Context, out, recipe, scores, show};
use crate::bundle;
use crate::ops::Device;
use crate::ops::fetch::FetchEnv;
use crate::pipeline::{Pipeline, Shard};
use crate::run::{self, Event, Facts, Options, Outcome, Run, Stage, StepError};

/// Run a recipe: print the answer and the CID of its bundle
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pipe run pipelines/tiny.toml
  pipe run pipelines/smollm2.toml --threads 1 --force answer
  pipe run pipelines/tiny.toml --ci --junit pipe.xml
  pipe run pipelines/tiny.toml --shard 2/3
  pipe run pipelines/tiny.toml --json | jq -r 'select(.event == \"run_finished\").bundle'")]
pub struct Args {
    /// The recipe
    recipe: PathBuf,
    /// Steps that may run at once [default: the number of cores]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Go on with steps that do not need a failed one
    #[arg(long, short)]
    keep_going: bool,
    /// Run this step although it is recorded, and compare (may be given several times)
    #[arg(long, value_name = "STEP")]
    force: Vec<String>,
    /// Run every step that runs a second time and compare
    #[arg(long)]
    check: bool,
    /// Compute every prompt from its first token, and keep no computed prefixes in the store
    #[arg(long)]
    no_prefixes: bool,
    /// For CI: no colour, annotations of what failed, a summary where $GITHUB_STEP_SUMMARY says
    #[arg(long)]
    ci: bool,
    /// Write a JUnit report, a case for each step
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Run a part: what falls to the I-th of N, and what that needs. `pipe store export` and `import` join them
    #[arg(long, value_name = "I/N", value_parser = |text: &str| text.parse::<Shard>())]
    shard: Option<Shard>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// What computes; none of it changes a bit of the result.
#[derive(clap::Args)]
pub struct DeviceArgs {
    /// Threads that compute [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub threads: Option<u16>,
    /// Implementation of the kernels [default: the fastest this machine has]
    #[arg(long = "impl", value_name = "NAME", value_parser = implementation)]
    pub implementation: Option<Implementation>,
}

fn implementation(name: &str) -> Result<Implementation, String> {
    let has = || Implementation::available().map(|i| i.to_string()).collect::<Vec<_>>().join(", ");
    let found = name.parse::<Implementation>().ok().filter(|i| i.is_available());
    found.ok_or_else(|| format!("this machine has {}", has()))
}

impl DeviceArgs {
    pub fn device(&self) -> Device {
        let threads = self.threads.map_or_else(cores, usize::from);
        Device::new(threads, self.implementation.unwrap_or_else(Implementation::detect))
    }
}

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The clock, read at the edge and handed down.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

pub fn main(args: Args, context: &Context) -> Result<Exit, CliError> {
    let context = &Context { out: Out { plain: args.ci, ..context.out }, root: context.root.clone() };
    let report = Report { ci: args.ci, junit: args.junit.as_deref(), recipe: &args.recipe, out: context.out };
    let mut pipeline = recipe::load(&args.recipe, context.out).or_else(|e| report.mistakes(e))?;
    if let Some(shard) = args.shard {
        let whole = pipeline;
        pipeline = shard.of(&whole);
        let (n, of) = (pipeline.order.len(), whole.order.len());
        context.out.note(format!("shard {shard}: {n} of {of} steps"));
    }
    let store = context.open_store()?;
    let device = args.device.device();
    let options = Options {
        jobs: args.jobs.map_or_else(cores, usize::from),
        keep_going: args.keep_going,
        force: args.force.clone(),
        check: args.check,
    };
    let cancel = watch_interrupt(context)?;
    let fetch = FetchEnv::from_process();
    let partial = context.root.join("partial");
    let progress = Progress::new(context.out);
    let tell = |event: Event| progress.tell(&event);
    let stage = Stage {
        store: &store,
        device: &device,
        fetch: &fetch,
        partial: &partial,
        cancel: &cancel,
        tell: &tell,
        now_ms: now_ms(),
        prefixes: !args.no_prefixes,
    };
    let facts = std::thread::scope(|scope| {
        let facts = scope
            .spawn(|| Facts::gather(Some(&args.recipe), device.threads, &device.implementation.to_string()));
        let run = run::run(&pipeline, &options, run_id(stage.now_ms), &stage);
        run.map(|run| (run, facts.join().unwrap_or_default()))
    });
    let (run, mut facts) = facts?;
    facts.binary = binary(&store);
    progress.clear();
    let bundle = finish(&args, &pipeline, &run, facts, &store, context, &progress)?;
    let verdict = verdict(&run, &pipeline, cancel.load(Ordering::Relaxed));
    report.run(&pipeline, &run, bundle.as_deref())?;
    verdict
}

/// Digest of this program; the store remembers it until the file changes.
pub fn binary(store: &Store) -> Option<pipe_store::Digest> {
    let path = std::env::current_exe().ok()?;
    store.file_digest(&path).ok().map(|(digest, _)| digest)
}

/// A recorded output without bytes is as good as one with, until its address is needed.
fn unsealed(e: StoreError, run: &Run, args: &Args) -> CliError {
    let StoreError::Missing { digest: gone } = e else { return e.into() };
    let all = run.steps.iter().flat_map(|step| step.outputs.iter().map(move |output| (step, output)));
    match all.into_iter().find(|(_, output)| output.artifact.digest == gone) {
        Some((step, output)) => {
            let (step, name) = (&step.name, &output.name);
            let message =
                format!("no bundle: the bytes of {step}/{name} ({gone}) are no longer in the store");
            let recipe = args.recipe.display();
            CliError::new(Exit::Store, message)
                .hint(format!("`pipe run {recipe} --force {step}` makes them again"))
        }
        None => StoreError::Missing { digest: gone }.into(),
    }
}

/// Seal, keep, and show. The bundle's CID, if there is one.
fn finish(
    args: &Args,
    pipeline: &Pipeline,
    run: &Run,
    facts: Facts,
    store: &Store,
    context: &Context,
    progress: &Progress,
) -> Result<Option<String>, CliError> {
    let sealed = bundle::keep(pipeline, run, store, run.started_ms).map_err(|e| unsealed(e, run, args))?;
    let recipe = args.recipe.canonicalize().ok().map(|p| p.display().to_string());
    let body = run::keep(run, pipeline, recipe, facts, sealed, store)?;
    progress.tell(&Event::RunFinished {
        run: run.id.clone(),
        ok: run.ok(),
        bundle: body.bundle.clone(),
        hits: run.count("hit"),
        ran: run.count("ran"),
        wall_ms: run.wall_ms,
    });
    if let (Some(cid), false) = (&body.bundle, context.out.json) {
        let named = |name: &str| {
            let all = run.steps.iter().flat_map(|s| s.outputs.iter().map(move |o| (s, o)));
            let made = all.filter(|(_, o)| o.name == name);
            made.map(|(s, o)| (s.name.clone(), o.artifact.digest)).collect::<Vec<_>>()
        };
        show::answers(named(crate::ops::ANSWERS), store, context.out)?;
        scores::tables(named(crate::ops::SCORES), store, context.out)?;
        context.out.line(cid)?;
    }
    context.out.note(format!(
        "run {}: {} steps, {} hits, {} ran, {}",
        run.id,
        run.steps.len(),
        run.count("hit"),
        run.count("ran"),
        out::millis(run.wall_ms)
    ));
    Ok(body.bundle)
}

/// The exit code of a run, by its first step that did not come to its outputs.
fn verdict(run: &Run, pipeline: &Pipeline, interrupted: bool) -> Result<Exit, CliError> {
    if interrupted && !run.ok() {
        return Err(CliError::new(Exit::Interrupted, "stopped; what is done is recorded")
            .hint("run the same command again to go on from there"));
    }
    let bad = |s: &&run::StepRun| matches!(s.outcome, Outcome::Failed(_) | Outcome::Disagreed);
    let failed: Vec<_> = run.steps.iter().filter(bad).collect();
    let Some(first) = failed.first() else { return Ok(Exit::Ok) };
    let op = pipeline.graph[first.node].op.name();
    let error = match &first.outcome {
        Outcome::Failed(error) => {
            let exit = match error {
                StepError::Op(e) if e.is_network() => Exit::Network,
                StepError::Op(e) if e.is_store() => Exit::Store,
                StepError::Plan(crate::plan::PlanError::Store(_)) => Exit::Store,
                StepError::Panic(_) => Exit::Bug,
                StepError::Op(_) | StepError::Plan(_) => Exit::Step,
            };
            CliError::new(exit, format!("step `{}` ({op}): {error}", first.name))
        }
        _ => CliError::new(
            Exit::Differ,
            format!("step `{}` ({op}) gave other bytes than recorded", first.name),
        )
        .hint("the record stands; `pipe doctor` checks this machine"),
    };
    let rest = failed.len() - 1;
    Err(match rest {
        0 => error,
        _ => CliError { message: format!("{}; and {rest} more failed", error.message), ..error },
    })
}

/// Ctrl-C asks the run to stop; a second one ends the program at once. The store needs no goodbye.
pub fn watch_interrupt(context: &Context) -> Result<Arc<AtomicBool>, CliError> {
    let cancel = Arc::new(AtomicBool::new(false));
    let (flag, out) = (Arc::clone(&cancel), context.out);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(Exit::Interrupted as i32);
        }
        out.note("stopping; once more to stop at once");
    })
    .map_err(|e| CliError::new(Exit::Bug, format!("signal handler: {e}")))?;
    Ok(cancel)
}

/// Sorts by time; the process id keeps two runs of one millisecond apart.
fn run_id(now_ms: u64) -> String {
    format!("{now_ms:012x}-{:04x}", std::process::id() & 0xffff)
}
