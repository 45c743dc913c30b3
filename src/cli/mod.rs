//! The command line: the only place that prints and the only one that reads the environment.

mod bench;
mod cache;
mod ci;
mod diff;
mod doctor;
mod error;
mod explain;
mod gather;
mod inside;
mod ipfs;
mod key;
mod ladder;
mod log;
mod model;
mod out;
mod plan;
mod progress;
mod prove;
mod publish;
mod recipe;
mod report;
mod reproduce;
mod run;
mod scores;
mod show;
mod specs;
mod store;
mod transport;
mod verify;
mod why;

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};
use pipe_store::Store;

use error::{CliError, Exit};
use out::Out;

const EXAMPLES: &str = "\
Examples:
  pipe run pipelines/tiny.toml             run offline, in a second
  pipe run pipelines/smollm2.toml          fetch a real model and ask it something
  pipe plan pipelines/smollm2.toml         what would run, and why
  pipe show                                the last run
  pipe report                              the last run as a page: what happened inside
  pipe verify                              check the last run's answers in one pass
  pipe diff 0194 0195                      what differs between two runs, and where it begins
  pipe export --output result.car          the last run's bundle as a CAR
  pipe publish                             sign the last run, pin it on an IPFS node
  pipe reproduce bafyr4i…                  derive a published result again, and compare
  pipe specs pipelines/tiny.toml           speed, memory and fidelity of each arithmetic
  pipe doctor                              can this machine compute?

Exit codes: 0 ok, 1 the things compared differ, 2 usage, 3 recipe, 4 a step failed, 5 store, 6 network, 70 a bug.";

/// LLM inference as a reproducible pipeline: the same bits, from one address, on every machine.
#[derive(Parser)]
#[command(name = "pipe", version, after_help = EXAMPLES, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
struct Common {
    /// The store's folder [default: $PIPE_STORE, else the user's data folder]
    #[arg(long, global = true, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    json: bool,
    /// Print results and errors only
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    Plan(plan::Args),
    Explain(explain::Args),
    Show(show::Args),
    Verify(verify::Args),
    Prove(prove::ProveArgs),
    #[command(name = "check-proof")]
    CheckProof(prove::CheckArgs),
    Diff(diff::Args),
    Why(why::Args),
    Log(log::Args),
    Report(report::Args),
    Export(transport::ExportArgs),
    Import(transport::ImportArgs),
    Publish(publish::Args),
    Reproduce(reproduce::Args),
    Key(key::Args),
    Store(store::Args),
    Ci(ci::init::Args),
    Doctor(doctor::Args),
    Bench(bench::Args),
    Specs(specs::Args),
    Completions(CompletionsArgs),
}

/// Print a completion script for a shell
///
/// For bash: pipe completions bash > ~/.local/share/bash-completion/completions/pipe
#[derive(clap::Args)]
struct CompletionsArgs {
    shell: clap_complete::Shell,
}

/// What every command gets.
struct Context {
    out: Out,
    root: PathBuf,
}

impl Context {
    fn open_store(&self) -> Result<Store, CliError> {
        Ok(Store::open(&self.root)?)
    }
}

/// Parse the arguments, do it, say what went wrong. The exit code.
pub fn main() -> u8 {
    if let Some(exit) = specs::child::main_if_asked() {
        return exit as u8;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return e.exit_code() as u8;
        }
    };
    let out = Out { json: cli.common.json, quiet: cli.common.quiet, plain: false };
    let result = root(cli.common.store).and_then(|root| dispatch(cli.command, &Context { out, root }));
    match result {
        Ok(exit) => exit as u8,
        Err(e) => {
            tell(&e, out);
            e.exit as u8
        }
    }
}

fn dispatch(command: Command, context: &Context) -> Result<Exit, CliError> {
    match command {
        Command::Run(args) => run::main(args, context),
        Command::Plan(args) => plan::main(args, context),
        Command::Explain(args) => explain::main(args, context),
        Command::Show(args) => show::main(args, context),
        Command::Verify(args) => verify::main(args, context),
        Command::Prove(args) => prove::prove(args, context),
        Command::CheckProof(args) => prove::check(args, context),
        Command::Diff(args) => diff::main(args, context),
        Command::Why(args) => why::main(args, context),
        Command::Log(args) => log::main(args, context),
        Command::Report(args) => report::main(args, context),
        Command::Export(args) => transport::export(args, context),
        Command::Import(args) => transport::import(args, context),
        Command::Publish(args) => publish::main(args, context),
        Command::Reproduce(args) => reproduce::main(args, context),
        Command::Key(args) => key::main(args, context),
        Command::Store(args) => store::main(args, context),
        Command::Ci(args) => ci::init::main(args, context),
        Command::Doctor(args) => doctor::main(args, context),
        Command::Bench(args) => bench::main(args, context),
        Command::Specs(args) => specs::main(args, context),
        Command::Completions(args) => {
            clap_complete::generate(args.shell, &mut Cli::command(), "pipe", &mut std::io::stdout());
            Ok(Exit::Ok)
        }
    }
}

fn tell(e: &CliError, out: Out) {
    use std::io::Write;
    let mut stderr = std::io::stderr().lock();
    let hint = e.hint.as_deref();
    let _ = match out.json {
        true => writeln!(
            stderr,
            "{}",
            serde_json::json!({ "error": e.message, "hint": hint, "exit": e.exit as u8 })
        ),
        false => writeln!(stderr, "error: {}", e.message)
            .and_then(|()| hint.map_or(Ok(()), |hint| writeln!(stderr, "hint: {hint}"))),
    };
}

/// Where the store is: the flag, the variable, else the user's data folder.
fn root(flag: Option<PathBuf>) -> Result<PathBuf, CliError> {
    flag.or_else(|| std::env::var_os("PIPE_STORE").filter(|v| !v.is_empty()).map(PathBuf::from))
        .or_else(|| dirs::data_dir().map(|dir| dir.join("pipe")))
        .ok_or_else(|| {
            CliError::new(Exit::Usage, "no folder for the store").hint("set PIPE_STORE or give --store DIR")
        })
}
