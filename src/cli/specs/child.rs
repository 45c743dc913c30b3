//! One version measured in a process of its own, so that its memory is its own. The process maps the packed
//! weights and does one round at a time, when told: a word a line in, JSON a line out.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use clap::Parser;
use memmap2::Mmap;
use pipe_kernels::{PackedModel, Spec};
use serde::{Deserialize, Serialize};

use super::judge::stopped;
use crate::cli::error::{CliError, Exit};
use crate::cli::model::{self, LoadArgs};
use crate::cli::out::Out;
use crate::measure::Bench;
use crate::specs::{Memory, memory};

/// The child's first argument. No command of `pipe`: users, help and completions never meet it.
const NAME: &str = "measure-spec";

#[derive(clap::Parser)]
struct Args {
    /// Packed weights
    packed: PathBuf,
    #[arg(long, value_parser = model::spec)]
    spec: Spec,
    #[command(flatten)]
    load: LoadArgs,
}

/// What the child is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    Prefill,
    Decode,
    Memory,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Ready { bytes_per_token: u64 },
    Took(Duration),
    Memory(Option<Memory>),
    Failed(String),
}

/// The child's side, if this process is one. It ends when nobody asks any more.
pub fn main_if_asked() -> Option<Exit> {
    std::env::args_os().nth(1).filter(|name| name == NAME)?;
    let args = Args::parse_from(std::env::args_os().skip(1));
    let out = Out { json: true, quiet: true, plain: true };
    match serve(&args, out).or_else(|e| out.value(&Answer::Failed(e.message))) {
        Ok(()) => Some(Exit::Ok),
        Err(e) => Some(e.exit),
    }
}

fn serve(args: &Args, out: Out) -> Result<(), CliError> {
    let fail = |e: &dyn std::fmt::Display| CliError::new(Exit::Step, e);
    let file = std::fs::File::open(&args.packed).map_err(|e| fail(&e))?;
    // SAFETY: the file is in a folder of its own, made by the process that started this one.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| fail(&e))?;
    let packed = PackedModel::open(&map, args.spec).map_err(|e| fail(&e))?;
    let device = args.load.device.device();
    let engine = device.engine().map_err(|e| fail(&e))?;
    let (prompt, generate) = (args.load.prompt as usize, args.load.r#gen as usize);
    let bench = Bench { engine, packed: &packed, prompt, generate };
    out.value(&Answer::Ready { bytes_per_token: packed.bytes_per_token() as u64 })?;
    for line in std::io::stdin().lock().lines() {
        let ask = serde_json::from_str(&line.map_err(|e| fail(&e))?).map_err(|e| fail(&e))?;
        out.value(&match ask {
            Ask::Prefill => Answer::Took(bench.prefill(None).map_err(|e| fail(&e))?),
            Ask::Decode => Answer::Took(bench.decode(None).map_err(|e| fail(&e))?),
            Ask::Memory => Answer::Memory(own_memory(&map)),
        })?;
    }
    Ok(())
}

/// What this process needed so far; None where the system does not tell.
fn own_memory(weights: &[u8]) -> Option<Memory> {
    let read = |name: &str| std::fs::read_to_string(Path::new("/proc/self").join(name)).ok();
    let range = weights.as_ptr_range();
    memory::parse(&read("status")?, &read("smaps")?, &(range.start as usize..range.end as usize))
}

/// The parent's side.
pub struct Measurer {
    pub spec: Spec,
    pub bytes_per_token: u64,
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Measurer {
    /// Starts the process and waits until the weights are mapped.
    pub fn start(spec: Spec, packed: &Path, load: &LoadArgs) -> Result<Self, CliError> {
        let fail =
            |e: std::io::Error| CliError::new(Exit::Step, format!("{spec}: starting its process: {e}"));
        let device = load.device.device();
        let mut command = Command::new(std::env::current_exe().map_err(fail)?);
        command.arg(NAME).arg(packed).args(["--spec", spec.name()]);
        command.args(["--prompt".to_owned(), load.prompt.to_string()]);
        command.args(["--gen".to_owned(), load.r#gen.to_string()]);
        command.args(["--threads".to_owned(), device.threads.to_string()]);
        command.args(["--impl".to_owned(), device.implementation.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(fail)?;
        let asks = child.stdin.take().expect("BUG: stdin is piped");
        let answers = BufReader::new(child.stdout.take().expect("BUG: stdout is piped"));
        let mut measurer = Measurer { spec, bytes_per_token: 0, child, asks, answers };
        match measurer.hear()? {
            Answer::Ready { bytes_per_token } => measurer.bytes_per_token = bytes_per_token,
            other => return Err(measurer.confused(&other)),
        }
        Ok(measurer)
    }

    /// One round.
    pub fn time(&mut self, what: Ask) -> Result<Duration, CliError> {
        match self.ask(what)? {
            Answer::Took(time) => Ok(time),
            other => Err(self.confused(&other)),
        }
    }

    pub fn memory(&mut self) -> Result<Option<Memory>, CliError> {
        match self.ask(Ask::Memory)? {
            Answer::Memory(memory) => Ok(memory),
            other => Err(self.confused(&other)),
        }
    }

    fn ask(&mut self, what: Ask) -> Result<Answer, CliError> {
        let line = serde_json::to_string(&what).expect("BUG: a word is plain data");
        // If it is gone, what follows says how it went.
        let _ = writeln!(self.asks, "{line}").and_then(|()| self.asks.flush());
        self.hear()
    }

    fn hear(&mut self) -> Result<Answer, CliError> {
        let (mut line, spec) = (String::new(), self.spec);
        let read = self.answers.read_line(&mut line);
        if !matches!(read, Ok(n) if n > 0) {
            let status = self.child.wait();
            // A terminal's Ctrl-C reaches the child, too, and may end it before anybody here knows of it.
            if status.as_ref().is_ok_and(interrupted) {
                return Err(stopped());
            }
            let status = status.map_or_else(|e| e.to_string(), |status| status.to_string());
            let message = format!("{spec}: the process that measured it ended ({status})");
            return Err(CliError::new(Exit::Step, message)
                .hint("if the machine ran out of memory, leave out the widest with --spec"));
        }
        match serde_json::from_str(&line) {
            Ok(Answer::Failed(message)) => Err(CliError::new(Exit::Step, format!("{spec}: {message}"))),
            Ok(answer) => Ok(answer),
            Err(e) => Err(CliError::new(Exit::Bug, format!("{spec}: its process said {line:?}: {e}"))),
        }
    }

    fn confused(&self, answer: &Answer) -> CliError {
        CliError::new(Exit::Bug, format!("{}: its process answered {answer:?}", self.spec))
    }
}

#[cfg(unix)]
fn interrupted(status: &ExitStatus) -> bool {
    const SIGINT: i32 = 2;
    std::os::unix::process::ExitStatusExt::signal(status) == Some(SIGINT)
}

#[cfg(not(unix))]
fn interrupted(_: &ExitStatus) -> bool {
    false
}

impl Drop for Measurer {
    fn drop(&mut self) {
        // It holds nothing that a kill could hurt.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
