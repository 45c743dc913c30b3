//! The library in one page: a recipe to an answer and the address of its result, without the command line.
//!
//!     cargo run --example tutorial

#![allow(clippy::print_stdout)]

use std::path::Path;
use std::sync::atomic::AtomicBool;

use pipe::ops::fetch::FetchEnv;
use pipe::ops::{ANSWERS, Answers, Device, TRACE};
use pipe::run::{Event, Options, Stage};
use pipe::trace::Trace;
use pipe::{bundle, pipeline, plan, recipe, run};
use pipe_kernels::Implementation;
use pipe_store::Store;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // 1. A recipe is text. Parsing never fails: mistakes are kept, and compiling reports them all at once.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let text = std::fs::read_to_string(folder.join("tiny.toml"))?;
    let recipe = recipe::parse("tiny.toml", &folder, text);
    let pipeline = pipeline::compile(&recipe)
        .map_err(|mistakes| mistakes.iter().map(|m| m.to_string()).collect::<Vec<_>>().join("\n"))?;

    // 2. A store keeps what steps make. This one forgets; `Store::open(path)` does not.
    let store = Store::memory();
    let before = plan::plan(&pipeline, &store, &[])?;
    println!("planned: {} steps", before.steps.len());

    // 3. What computes, and what is told, are arguments. Neither can change a bit of the result.
    let device = Device::new(2, Implementation::detect());
    let tell = |event: Event| {
        if let Event::StepFinished { step, outputs, .. } = event {
            println!("ran {step}: {} output(s)", outputs.len());
        }
    };
    let partial = std::env::temp_dir();
    let stage = Stage {
        store: &store,
        device: &device,
        fetch: &FetchEnv::default(),
        partial: &partial,
        cancel: &AtomicBool::new(false),
        tell: &tell,
        now_ms: 0,
        prefixes: true,
    };
    let run = run::run(&pipeline, &Options { jobs: 2, ..Options::default() }, "tutorial".into(), &stage)?;

    // 4. Outputs are artifacts: a digest, a length, a media type. The store has the bytes.
    let made = run.steps.iter().flat_map(|s| &s.outputs).find(|o| o.name == ANSWERS).ok_or("no answer")?;
    let answers: Answers = serde_json::from_slice(&store.get(&made.artifact.digest)?)?;
    println!("answer: {:?}", answers.answers[0].text);

    // The trace is what every layer gave at every position, as digests; its root stands in the answer.
    let made = run.steps.iter().flat_map(|s| &s.outputs).find(|o| o.name == TRACE).ok_or("no trace")?;
    let bytes = store.get(&made.artifact.digest)?;
    let trace = Trace::open(&bytes)?;
    let (last, blocks) = (trace.prompts[0].computed - 1, &trace.blocks);
    println!("{} at position {last}: {:?}", blocks[1], trace.prompts[0].digest(last, 1));
    println!("root: {} = {}", trace.prompts[0].root(), answers.answers[0].trace);

    // 5. The bundle is the whole result. Its CID is the same on every machine.
    let (cid, _) = bundle::keep(&pipeline, &run, &store, 0)?.ok_or("a step failed")?;
    println!("bundle: {cid}");
    Ok(())
}
