//! `pipe reproduce`: a published result derived again on this machine, step by step beside what was published.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipe_store::{Object, Store};
use serde_json::json;
use tempfile::TempDir;

use super::error::{CliError, Exit};
use super::ipfs::{Located, OriginArgs, secret_key};
use super::progress::Progress;
use super::run::{self as cli_run, DeviceArgs, now_ms};
use super::{Context, show};
use crate::bundle::{self, Bundle};
use crate::ops::fetch::FetchEnv;
use crate::pipeline::{CanonicalOp, Op, Pipeline, op::Source};
use crate::publish::verdict::{self, StepVerdict, Verdict};
use crate::publish::{Claim, Manifest, chain};
use crate::run::{self, Event, Facts, Options, Run, Stage};

/// Derive a published result again and compare every step
///
/// Takes a CID, a CAR file or a run. Manifest and bundle come from the store, an IPFS node or a gateway, and are
/// checked: every hash, every link, every signature. Then the bundle's pipeline runs in a fresh store, as on a machine
/// that has never seen it, and each step is compared with what was published. Inputs are taken by hash, from the
/// store or from their public sources.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pipe reproduce bafyr4i…
  pipe reproduce result.car --ipfs off
  pipe reproduce 0194 --threads 1 --json
  pipe reproduce bafyr4i… --attest --in-toto statement.json

Exit codes: 0 every step identical, 1 something differs or could not run, 4 what came in is not to be believed,
6 nobody has it.")]
pub struct Args {
    /// A CID, a CAR file, or a run's id (or the start of it) [default: the last run]
    what: Option<String>,
    #[command(flatten)]
    origins: OriginArgs,
    /// Run in the store, where what is recorded is not computed again
    #[arg(long)]
    reuse: bool,
    /// Where the file or folder of a `file` step lies here, if it was too long to travel (may be given several times)
    #[arg(long, value_name = "STEP=PATH", value_parser = input)]
    input: Vec<(String, PathBuf)>,
    /// Sign that every step was identical, as the next entry of this store's chain
    #[arg(long)]
    attest: bool,
    /// Write what was found as an in-toto Statement
    #[arg(long, value_name = "FILE")]
    in_toto: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

fn input(text: &str) -> Result<(String, PathBuf), String> {
    let (step, path) = text.split_once('=').ok_or("expected STEP=PATH")?;
    Ok((step.to_owned(), path.into()))
}

pub fn main(args: Args, context: &Context) -> Result<Exit, CliError> {
    let store = context.open_store()?;
    let located = args.origins.locate(args.what.as_deref(), &store)?;
    let how = How { reuse: args.reuse, input: &args.input, device: &args.device };
    let again = again(&located, &how, &store, context)?;
    for verdict in &again.verdicts {
        report(verdict, context)?;
    }
    let statement = args.in_toto.as_deref().map(|path| again.write_in_toto(path, &located)).transpose();
    let attested = match (args.attest, again.whole) {
        (true, true) => Some(again.attest(&located, &store, context)?),
        (true, false) => {
            context.out.note("not signed: not every step is identical");
            None
        }
        (false, _) => None,
    };
    statement?;
    again.summary(&located, attested, context)?;
    Ok(if again.whole { Exit::Ok } else { Exit::Differ })
}

/// How to derive it again.
pub struct How<'a> {
    pub reuse: bool,
    pub input: &'a [(String, PathBuf)],
    pub device: &'a DeviceArgs,
}

/// What came of it.
pub struct Again {
    pub verdicts: Vec<StepVerdict>,
    /// Is all of the bundle the same, to its address?
    pub whole: bool,
    facts: Facts,
    started_ms: u64,
    wall_ms: u64,
}

/// Run a bundle's pipeline and compare.
pub fn again(located: &Located, how: &How<'_>, store: &Store, context: &Context) -> Result<Again, CliError> {
    let bundle = &located.bundle;
    let failed = |e: std::io::Error| CliError::new(Exit::Store, format!("{}: {e}", context.root.display()));
    let folder = tempfile::Builder::new().prefix("reproduce-").tempdir_in(&context.root).map_err(failed)?;
    let fresh = match how.reuse {
        true => store.clone(),
        false => Store::open(&folder.path().join("store"))?,
    };
    let inputs = Inputs { bundle, store, folder: &folder, given: how.input };
    let local = inputs.local_files()?;
    let path = |step: &str| local.get(step).cloned().unwrap_or_else(|| folder.path().join("not-carried"));
    let mut pipeline = bundle.pipeline.revive(&path).map_err(|e| {
        CliError::new(Exit::Step, format!("{}: {e}", located.cid)).hint("no recipe compiles to this bundle")
    })?;
    inputs.nearby_sources(&mut pipeline)?;

    let device = how.device.device();
    let cancel = cli_run::watch_interrupt(context)?;
    let progress = Progress::new(context.out);
    let quiet = context.out.json;
    let tell = |event: Event| {
        if !quiet {
            progress.tell(&event);
        }
    };
    let partial = context.root.join("partial");
    let stage = Stage {
        store: &fresh,
        device: &device,
        fetch: &FetchEnv::from_process(),
        partial: &partial,
        cancel: &cancel,
        tell: &tell,
        now_ms: now_ms(),
        prefixes: true,
    };
    let options = Options { jobs: cli_run::cores(), keep_going: true, ..Options::default() };
    let run = run::run(&pipeline, &options, format!("reproduce-{}", located.cid), &stage)?;
    progress.clear();
    if cancel.load(std::sync::atomic::Ordering::Relaxed) && !run.ok() {
        return Err(CliError::new(Exit::Interrupted, "stopped"));
    }
    let mut verdicts = verdict::verdicts(bundle, &pipeline, &run, store, &fresh);
    for verdict in &mut verdicts {
        if let (Verdict::CouldNotRun { why }, Some(reason)) =
            (&mut verdict.verdict, inputs.missing(&verdict.step))
        {
            *why = reason;
        }
    }
    let same = verdicts.iter().all(|v| v.verdict == Verdict::Identical);
    let whole = same && sealed_same(located, &pipeline, &run, &fresh, &mut verdicts)?;
    let mut facts = Facts::gather(None, device.threads, &device.implementation.to_string());
    facts.binary = cli_run::binary(store);
    Ok(Again { verdicts, whole, facts, started_ms: run.started_ms, wall_ms: run.wall_ms })
}

/// Every step is identical: then the bundle is, or it says something untrue about them.
fn sealed_same(
    located: &Located,
    pipeline: &Pipeline,
    run: &Run,
    fresh: &Store,
    verdicts: &mut Vec<StepVerdict>,
) -> Result<bool, CliError> {
    let Some((cid, _)) = bundle::keep(pipeline, run, fresh, run.started_ms)? else { return Ok(false) };
    if cid == located.cid {
        return Ok(true);
    }
    let (expected, found) = (located.cid.to_string(), cid.to_string());
    let verdict = Verdict::Differs { output: "bundle".into(), expected, found, place: None };
    verdicts.push(StepVerdict { step: "bundle".into(), op: "seal".into(), verdict });
    Ok(false)
}

/// Where the inputs of a bundle lie on this machine.
struct Inputs<'a> {
    bundle: &'a Bundle,
    store: &'a Store,
    folder: &'a TempDir,
    given: &'a [(String, PathBuf)],
}

impl Inputs<'_> {
    /// The contents of `file` steps, as files; those that are nowhere are left out.
    fn local_files(&self) -> Result<BTreeMap<String, PathBuf>, CliError> {
        let steps = self.bundle.pipeline.steps.iter().filter(|s| matches!(s.op, CanonicalOp::File));
        let mut found = BTreeMap::new();
        for (number, step) in steps.enumerate() {
            if let Some((_, path)) = self.given.iter().find(|(name, _)| *name == step.name) {
                found.insert(step.name.clone(), path.clone());
                continue;
            }
            let Some(sealed) = self.bundle.steps.get(&step.name) else { continue };
            let single = sealed.outputs.len() == 1 && sealed.outputs.contains_key("file");
            let place = self.folder.path().join("inputs").join(number.to_string());
            let mut whole = true;
            for (name, output) in &sealed.outputs {
                if !crate::recipe::is_inner_path(name) {
                    let message = format!("step `{}`: `{name}` cannot name a file", step.name);
                    return Err(CliError::new(Exit::Step, message));
                }
                let path = if single { place.clone() } else { place.join(name) };
                match self.store.has(&output.digest)? {
                    true => write(&path, &self.store.get(&output.digest)?)?,
                    false => whole = false,
                }
            }
            if whole {
                found.insert(step.name.clone(), place);
            }
        }
        if let Some((step, _)) = self.given.iter().find(|(step, _)| !found.contains_key(step)) {
            return Err(CliError::new(Exit::Usage, format!("--input {step}: no `file` step has this name")));
        }
        Ok(found)
    }

    /// What a fetch may take from this store: its hash decides, as for any other source.
    fn nearby_sources(&self, pipeline: &mut Pipeline) -> Result<(), CliError> {
        let mut number = 0;
        for step in pipeline.graph.node_weights_mut() {
            let (Op::Fetch(fetch), Some(sealed)) = (&mut step.op, self.bundle.steps.get(&step.name)) else {
                continue;
            };
            for file in &mut fetch.files {
                let digest = sealed.outputs.get(&file.name).map(|output| output.digest);
                let Some(digest) = digest.filter(|d| self.store.has(d).unwrap_or(false)) else { continue };
                let object: Object = self.store.get(&digest)?;
                let path = match object.path() {
                    Some(path) => path.to_owned(),
                    None => {
                        number += 1;
                        let path = self.folder.path().join("fetched").join(number.to_string());
                        write(&path, &object)?;
                        path
                    }
                };
                file.from.insert(0, Source::File(path));
            }
        }
        Ok(())
    }

    /// Why a `file` step has nothing to read.
    fn missing(&self, step: &str) -> Option<String> {
        let file = self.bundle.pipeline.steps.iter().find(|s| s.name == step)?;
        let given = self.given.iter().any(|(name, _)| name == step);
        let sealed = self.bundle.steps.get(step).filter(|_| !given && file.op == CanonicalOp::File)?;
        let absent = |digest| !self.store.has(digest).unwrap_or(false);
        let (name, output) = sealed.outputs.iter().find(|(_, output)| absent(&output.digest))?;
        let (length, digest) = (output.length, output.digest);
        Some(format!(
            "{name} ({length} bytes, BLAKE3 {digest}) was too long to travel; --input {step}=PATH names it"
        ))
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(path, bytes));
    written.map_err(|e| CliError::new(Exit::Store, format!("{}: {e}", path.display())))
}

pub fn report(verdict: &StepVerdict, context: &Context) -> Result<(), CliError> {
    if context.out.json {
        return context.out.value(verdict);
    }
    let StepVerdict { step, op, verdict } = verdict;
    match verdict {
        Verdict::Identical => context.out.line(format!("{step:24} {op:9} identical")),
        Verdict::Differs { output, expected, found, place } => {
            let place = place.as_ref().map_or_else(String::new, |place| format!(": {place}"));
            context.out.line(format!("{step:24} {op:9} differs in {output}{place}"))?;
            context.out.line(format!("    expected {expected}"))?;
            context.out.line(format!("    found    {found}"))
        }
        Verdict::CouldNotRun { why } => context.out.line(format!("{step:24} {op:9} could not run: {why}")),
    }
}

impl Again {
    /// The statement's CID.
    fn attest(&self, located: &Located, store: &Store, context: &Context) -> Result<cid::Cid, CliError> {
        let of = located.manifest.as_ref().map(|(cid, _)| *cid);
        let mut draft = Manifest::draft(Claim::Reproduced { of }, located.cid, self.facts.clone(), now_ms());
        (draft.started_ms, draft.wall_ms) = (self.started_ms, self.wall_ms);
        // A bundle of which nothing travelled to here by itself stays all the same.
        bundle::Parcel::new(&located.bundle, store)
            .hold(&BTreeMap::new(), &format!("attested with {}", located.cid))
            .map_err(|e| super::publish::lost(e, None))?;
        let signed = chain::append(store, &secret_key(context)?, draft);
        signed.map(|(cid, _)| cid).map_err(|e| CliError::new(Exit::Store, e))
    }

    fn write_in_toto(&self, path: &Path, located: &Located) -> Result<(), CliError> {
        let manifest = located.manifest.as_ref().map(|(cid, _)| cid);
        let (digest, verdicts) = (located.digest(), &self.verdicts);
        let statement = verdict::in_toto(&located.cid, &digest, manifest, verdicts, self.whole);
        write(path, format!("{statement:#}\n").as_bytes())
    }

    fn summary(
        &self,
        located: &Located,
        attested: Option<cid::Cid>,
        context: &Context,
    ) -> Result<(), CliError> {
        let identical = self.verdicts.iter().filter(|v| v.verdict == Verdict::Identical).count();
        if context.out.json {
            return context.out.value(&json!({
                "bundle": located.cid.to_string(),
                "manifest": located.manifest.as_ref().map(|(cid, m)| show::described(cid, m)),
                "entries": located.entries, "from": located.from,
                "steps": self.verdicts.len(), "identical": identical, "ok": self.whole,
                "attested": attested.map(|cid| cid.to_string()), "wall_ms": self.wall_ms,
            }));
        }
        let of = self.verdicts.len();
        let whole = if self.whole { "identical" } else { "not the same" };
        context.out.line(format!("{}: {whole}, {identical} of {of} steps identical", located.cid))?;
        if let Some((_, manifest)) = &located.manifest {
            context.out.note(format!("{} by {}, from {}", manifest.claim.name(), manifest.key, located.from));
        }
        attested.map_or(Ok(()), |cid| context.out.line(format!("attested {cid}")))
    }
}
