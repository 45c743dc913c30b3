//! `pipe specs`: the card of every version of a model's arithmetic, as a table, as JSON and as a picture.

pub mod child;
mod judge;
mod subject;
mod table;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use pipe_kernels::Spec;
use pipe_store::Digest;

use super::error::{CliError, Exit};
use super::model::{self, LoadArgs};
use super::progress::Phases;
use super::{Context, run};
use crate::measure::rate;
use crate::model::Model;
use crate::run::Facts;
use crate::specs::{self, Against, By, Card, Memory, Row, TextFacts};
use child::{Ask, Measurer};
use judge::{Judge, Judged};

/// Compare the versions of a model's arithmetic: speed, memory, fidelity
///
/// For each spec: tokens per second in prefill and decode (medians; rounds alternate between the specs), peak memory
/// of a process that does nothing else, bytes of weights, and how far its predictions are from those of f32 over a
/// text: mean KL divergence and how often the likeliest token is the same. Once against f32 with the weights the
/// spec has, which is what its arithmetic adds; once against f32 with the weights as stored, which is what narrowing
/// them costs, too.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pipe specs                                      the model of the last run
  pipe specs pipelines/smollm2.toml --threads 1   the model of a recipe that has run
  pipe specs model.gguf --spec f32,q8,q4 --json
  pipe specs model.gguf --svg specs.svg           speed against fidelity; add --json for the figures too")]
pub struct Args {
    /// A recipe, a GGUF file, a Hugging Face folder, a run's id or a bundle's CID [default: the last run]
    #[arg(value_name = "RUN|RECIPE|MODEL")]
    of: Option<String>,
    /// The specs [default: all]
    #[arg(long, value_name = "SPEC,…", value_delimiter = ',', value_parser = model::spec)]
    spec: Vec<Spec>,
    /// The text that fidelity is judged over [default: the pinned one]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Write the card as a picture to this file, instead of the table to stdout
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The speed that the picture and the Pareto front are of
    #[arg(long, default_value = "decode", value_parser = by())]
    by: By,
    /// The weights of the f32 that they are judged against: the spec's own, or as stored
    #[arg(long, default_value = "same", value_parser = against())]
    against: Against,
    /// The infer step whose model it is, where a recipe has several models
    #[arg(long, value_name = "STEP")]
    step: Option<String>,
    #[command(flatten)]
    load: LoadArgs,
}

fn by() -> impl TypedValueParser<Value = By> {
    PossibleValuesParser::new(By::NAMES).map(|name| By::named(&name).expect("BUG: a possible value"))
}

fn against() -> impl TypedValueParser<Value = Against> {
    PossibleValuesParser::new(Against::NAMES)
        .map(|name| Against::named(&name).expect("BUG: a possible value"))
}

pub fn main(args: Args, context: &Context) -> Result<Exit, CliError> {
    // What can be wrong is found before anything takes long.
    let text = text(args.text.as_deref())?;
    if let Some(path) = &args.svg {
        writable(path)?;
    }
    let subject = subject::find(args.of.as_deref(), args.step.as_deref(), context)?;
    let fail = |e: &dyn std::fmt::Display| CliError::new(Exit::Step, format!("{}: {e}", subject.name));
    let model = Model::open(&subject.files).map_err(|e| fail(&e))?;
    args.load.check(&model.geometry())?;
    let windows = windows(&text.1, &model)?;
    let cancel = run::watch_interrupt(context)?;

    let folder = tempfile::Builder::new().prefix("pipe-specs-").tempdir();
    let folder = folder.map_err(|e| fail(&e))?;
    let phases = Phases::new(context.out);
    let wanted: Vec<_> =
        Spec::ALL.into_iter().filter(|s| args.spec.is_empty() || args.spec.contains(s)).collect();
    let device = args.load.device.device();
    let judged = Judge {
        model: &model,
        engine: device.engine().map_err(|e| fail(&e))?,
        windows: &windows,
        folder: folder.path(),
        cancel: &cancel,
        begin: &|what, steps| phases.begin(what, steps),
        beat: &|done| phases.beat(done),
    }
    .judge(&wanted)?;
    let measured = measure(&judged, &args.load, &cancel, &phases)?;
    phases.clear();

    let card = Card {
        model: model.describe().map_err(|e| fail(&e))?.name.unwrap_or(subject.name),
        files: subject.files.iter().map(|f| (f.name.clone(), Digest::of(&f.bytes))).collect(),
        text: TextFacts {
            blake3: Digest::of(text.1.as_bytes()),
            name: text.0,
            positions: windows.iter().map(Vec::len).sum(),
            window: windows.iter().map(Vec::len).max().unwrap_or(0),
        },
        prompt: args.load.prompt as usize,
        generate: args.load.r#gen as usize,
        reps: args.load.reps as usize,
        facts: Facts::gather(None, device.threads, &device.implementation.to_string()),
        by: args.by,
        against: args.against,
        specs: judged
            .iter()
            .zip(measured)
            .map(|(judged, measured)| row(judged, &measured, &args.load))
            .collect(),
    }
    .mark();
    show(&card, args.svg.as_deref(), context)?;
    Ok(Exit::Ok)
}

/// The text and what it is called.
fn text(path: Option<&Path>) -> Result<(String, String), CliError> {
    let Some(path) = path else { return Ok(("pinned".into(), specs::PINNED.into())) };
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) if text.is_empty() => Err(CliError::new(Exit::Usage, format!("{name}: the text is empty"))),
        Ok(text) => Ok((name, text)),
        Err(e) => Err(CliError::new(Exit::Usage, format!("{name}: {e}"))),
    }
}

fn writable(path: &Path) -> Result<(), CliError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (folder.is_dir(), path.is_dir()) {
        (true, false) => Ok(()),
        (false, _) => Err(CliError::new(Exit::Usage, format!("--svg: no folder {}", folder.display()))),
        (_, true) => Err(CliError::new(Exit::Usage, format!("--svg: {} is a folder", path.display()))),
    }
}

fn windows(text: &str, model: &Model) -> Result<Vec<Vec<u32>>, CliError> {
    let fail = |e: &dyn std::fmt::Display| CliError::new(Exit::Step, format!("the text: {e}"));
    let tokenizer = model.tokenizer().map_err(|e| CliError::new(Exit::Step, e))?;
    let tokens = tokenizer
        .encode(text)
        .map_err(|e| fail(&e).hint("--text FILE takes a text of your own that the model can spell"))?;
    let specials = model.specials();
    let bos = specials.bos.filter(|_| specials.add_bos);
    Ok(specs::windows(&tokens, bos, model.geometry().context))
}

/// What a process of its own says of a spec.
struct Measured {
    bytes_per_token: u64,
    prefill: Vec<Duration>,
    decode: Vec<Duration>,
    memory: Option<Memory>,
}

/// Rounds of all specs in turn, so that a slow minute of the machine hits each. The first warms up and does not
/// count.
fn measure(
    judged: &[Judged],
    load: &LoadArgs,
    cancel: &AtomicBool,
    phases: &Phases,
) -> Result<Vec<Measured>, CliError> {
    // A child that an interrupt ended is no failure of its own.
    let stop = |e: CliError| if cancel.load(Ordering::Relaxed) { judge::stopped() } else { e };
    let start = |j: &Judged| Measurer::start(j.spec, &j.packed, load);
    let mut measurers = judged.iter().map(start).collect::<Result<Vec<_>, _>>().map_err(stop)?;
    let mut times = vec![(Vec::new(), Vec::new()); judged.len()];
    let rounds = load.reps as usize + 1;
    phases.begin("speed and memory", rounds * measurers.len());
    for round in 0..rounds {
        for (i, (measurer, (prefill, decode))) in measurers.iter_mut().zip(&mut times).enumerate() {
            let both = measurer.time(Ask::Prefill).and_then(|p| Ok((p, measurer.time(Ask::Decode)?)));
            let (p, d) = both.map_err(stop)?;
            if round > 0 {
                prefill.push(p);
                decode.push(d);
            }
            phases.beat(round * judged.len() + i + 1);
            if cancel.load(Ordering::Relaxed) {
                return Err(judge::stopped());
            }
        }
    }
    let measured = measurers.iter_mut().zip(times).map(|(measurer, (prefill, decode))| {
        let memory = measurer.memory()?;
        Ok(Measured { bytes_per_token: measurer.bytes_per_token, prefill, decode, memory })
    });
    measured.collect::<Result<_, CliError>>().map_err(stop)
}

fn row(judged: &Judged, measured: &Measured, load: &LoadArgs) -> Row {
    let rate = |tokens: u32, times: &[Duration]| rate(tokens as usize, times.to_vec()).unwrap_or_default();
    Row {
        spec: judged.spec,
        prefill_tokens_per_s: rate(load.prompt, &measured.prefill),
        decode_tokens_per_s: rate(load.r#gen, &measured.decode),
        weights_bytes: judged.weights_bytes,
        bytes_per_token: measured.bytes_per_token,
        memory: measured.memory,
        same_weights: judged.same_weights,
        stored_weights: judged.stored_weights,
        pareto: false,
    }
}

fn show(card: &Card, svg: Option<&Path>, context: &Context) -> Result<(), CliError> {
    if let Some(path) = svg {
        std::fs::write(path, specs::svg(card))
            .map_err(|e| CliError::new(Exit::Step, format!("{}: {e}", path.display())))?;
        context.out.note(format!("wrote {}", path.display()));
    }
    match (context.out.json, svg) {
        (true, _) => context.out.value(card),
        (false, None) => context.out.line(table::table(card).trim_end()),
        (false, Some(_)) => Ok(()),
    }
}
