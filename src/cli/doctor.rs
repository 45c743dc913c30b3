//! `pipe doctor`: can this machine compute, keep, fetch and publish? Exit code 70 if its arithmetic is wrong.

use std::process::Command;
use std::time::{Duration, Instant};

use pipe_kernels::Implementation;
use serde::Serialize;

use super::Context;
use super::error::{CliError, Exit};
use super::run::cores;
use crate::publish::node::Node;

/// Check this machine: arithmetic, CPU, store, pip, GPU, IPFS node
#[derive(clap::Args)]
pub struct Args {}

#[derive(Serialize)]
struct Report {
    arithmetic: Check,
    cpu: Cpu,
    store: Check,
    pip: Check,
    gpu: Check,
    ipfs: Check,
}

#[derive(Serialize)]
struct Cpu {
    cores: usize,
    implementations: Vec<String>,
    chosen: String,
}

#[derive(Serialize)]
struct Check {
    ok: bool,
    what: String,
}

/// How long an IPFS node may take to say its version.
const NODE_PATIENCE: Duration = Duration::from_millis(500);

pub fn main(_: Args, context: &Context) -> Result<Exit, CliError> {
    let report = Report {
        arithmetic: arithmetic(),
        cpu: Cpu {
            cores: cores(),
            implementations: Implementation::available().map(|i| i.to_string()).collect(),
            chosen: Implementation::detect().to_string(),
        },
        store: store(context),
        pip: pip(),
        gpu: gpu(),
        ipfs: ipfs(),
    };
    if context.out.json {
        context.out.value(&report)?;
    } else {
        let line = |name: &str, check: &Check| {
            context.out.line(format!("{:4}  {name:11} {}", if check.ok { "ok" } else { "-" }, check.what))
        };
        line("arithmetic", &report.arithmetic)?;
        let cpu = &report.cpu;
        let what = format!("{} cores; {}; uses {}", cpu.cores, cpu.implementations.join(", "), cpu.chosen);
        line("cpu", &Check { ok: true, what })?;
        line("store", &report.store)?;
        line("pip", &report.pip)?;
        line("gpu", &report.gpu)?;
        line("ipfs", &report.ipfs)?;
    }
    Ok(match (report.arithmetic.ok, report.store.ok) {
        (false, _) => Exit::Bug,
        (_, false) => Exit::Store,
        _ => Exit::Ok,
    })
}

/// The start-up vectors, with every implementation this machine has.
fn arithmetic() -> Check {
    let start = Instant::now();
    match Implementation::available().try_for_each(pipe_kernels::selftest::run) {
        Ok(()) => Check {
            ok: true,
            what: format!("the start-up vectors pass, {} µs", start.elapsed().as_micros()),
        },
        Err(e) => Check { ok: false, what: e.to_string() },
    }
}

fn store(context: &Context) -> Check {
    let checked = context.open_store().and_then(|store| Ok((!store.is_read_only(), store.stats()?)));
    match checked {
        Ok((writable, stats)) => {
            let read_only = if writable { "" } else { ", read-only" };
            Check {
                ok: true,
                what: format!("{}{read_only}: {}", context.root.display(), super::store::summary(&stats)),
            }
        }
        Err(e) => Check { ok: false, what: e.message },
    }
}

fn pip() -> Check {
    let asked = Command::new("python3").args(["-m", "pip", "--version"]).output();
    match asked {
        Ok(out) if out.status.success() => {
            let text = String::from_utf8_lossy(&out.stdout);
            let what = text.split(" from ").next().unwrap_or_default().trim().to_owned();
            Check { ok: true, what }
        }
        _ => Check { ok: false, what: "not found; `pypi:` sources need `python3 -m pip`".into() },
    }
}

fn gpu() -> Check {
    match std::fs::read_to_string("/proc/driver/nvidia/version") {
        Ok(text) => {
            let driver = text.lines().next().unwrap_or_default().trim().to_owned();
            Check { ok: true, what: format!("{driver}; not used by this version") }
        }
        Err(_) => Check { ok: false, what: "none found".into() },
    }
}

/// Asks the node of this machine.
fn ipfs() -> Check {
    let address = super::ipfs::local_address();
    match Node::new(&address, NODE_PATIENCE).and_then(|node| Ok((node.version()?, node.url().to_owned()))) {
        Ok((version, url)) => Check { ok: true, what: format!("{version} at {url}") },
        Err(e) => Check { ok: false, what: e.to_string() },
    }
}
