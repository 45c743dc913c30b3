//! `pipe ci init`: a workflow for a CI system, to start from.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::error::{CliError, Exit};
use crate::cli::{Context, recipe};
use crate::diff::Condition;
use crate::pipeline::Pipeline;

/// What a recipe with scores is gated on unless the user says otherwise.
const GATE: &str = "fitness < -0.01";

/// Set up continuous integration
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Write a workflow that runs a recipe on every change and on schedule
    ///
    /// It keeps the store in the CI system's cache, compares each result with the last one of the default branch,
    /// and on schedule derives that one again from nothing.
    #[command(after_help = "\
Examples:
  pipe ci init github --recipe pipelines/smollm2.toml
  pipe ci init gitlab --recipe eval.toml --fail-on 'fitness < -0.02' --install './install.sh'

Without --fail-on a recipe that scores is gated on 'fitness < -0.01', and one that does not is compared and never
stopped.")]
    Init(Init),
}

#[derive(clap::Args)]
struct Init {
    /// The CI system
    system: System,
    /// The recipe, as a path inside the repository
    #[arg(long, value_name = "FILE", default_value = "pipeline.toml")]
    recipe: PathBuf,
    /// Stop a change that changes a score so (may be given several times)
    #[arg(long, value_name = "CONDITION", value_parser = |text: &str| text.parse::<Condition>())]
    fail_on: Vec<Condition>,
    /// The command that puts `pipe` on the PATH of the CI machine
    #[arg(long, value_name = "COMMAND", default_value = "cargo install --locked --path .")]
    install: String,
    /// Overwrite a workflow that is there
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum System {
    Github,
    Gitlab,
}

impl System {
    fn file(self) -> &'static str {
        match self {
            System::Github => ".github/workflows/pipe.yml",
            System::Gitlab => ".gitlab-ci.yml",
        }
    }

    fn template(self) -> &'static str {
        match self {
            System::Github => include_str!("github.yml"),
            System::Gitlab => include_str!("gitlab.yml"),
        }
    }
}

pub fn main(args: Args, context: &Context) -> Result<Exit, CliError> {
    let Command::Init(args) = args.command;
    let pipeline = recipe::load(&args.recipe, context.out)?;
    let name = plain_path(&args.recipe)?;
    if args.install.contains(['\n', '\r']) {
        return Err(CliError::new(Exit::Usage, "--install must be one line")
            .hint("put several into a script of the repository and name that"));
    }
    let mut gates: Vec<String> = args.fail_on.iter().map(ToString::to_string).collect();
    if gates.is_empty() && scores(&pipeline) {
        gates.push(GATE.into());
    }
    let text = args
        .system
        .template()
        .replace("@RECIPE@", name)
        .replace("@GATE@", &gate(&gates))
        .replace("@INSTALL@", &args.install);
    let path = Path::new(args.system.file());
    write(path, &text, args.force)?;
    match context.out.json {
        true => context.out.value(&json!({ "file": path, "recipe": name, "fail_on": gates }))?,
        false => {
            context.out.line(path.display().to_string())?;
            context.out.note(match gates.is_empty() {
                true => {
                    "the recipe has no scores: results are compared, and no change of them stops a job".into()
                }
                false => format!("a job fails if {}", gates.join(" or ")),
            });
        }
    }
    Ok(Exit::Ok)
}

/// A path that stands in YAML and in a shell as it is.
fn plain_path(path: &Path) -> Result<&str, CliError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+');
    let text = path.to_str().filter(|text| path.is_relative() && text.chars().all(plain));
    text.filter(|text| !text.starts_with('-') && !text.split('/').any(|part| part == "..")).ok_or_else(|| {
        CliError::new(
            Exit::Usage,
            format!("--recipe {}: not a plain path inside the repository", path.display()),
        )
        .hint("run this at the repository's root; letters, digits and / . _ - + may stand in the path")
    })
}

/// Does a step of the recipe score?
fn scores(pipeline: &Pipeline) -> bool {
    pipeline.graph.node_weights().any(|step| step.op.name() == "score")
}

/// What follows `pipe diff` in the workflow. Without conditions a difference (exit code 1) is no failure; what kept
/// the two from being compared still is.
fn gate(conditions: &[String]) -> String {
    match conditions {
        [] => " || [ $? = 1 ]".into(),
        // A condition holds no quote: its own parser sees to that.
        some => some.iter().map(|condition| format!(" --fail-on '{condition}'")).collect(),
    }
}

fn write(path: &Path, text: &str, force: bool) -> Result<(), CliError> {
    let io = |e: std::io::Error| CliError::new(Exit::Step, format!("{}: {e}", path.display()));
    if path.exists() && !force {
        return Err(CliError::new(Exit::Usage, format!("{} is there already", path.display()))
            .hint("--force overwrites it"));
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(io)?;
    }
    std::fs::write(path, text).map_err(io)
}
