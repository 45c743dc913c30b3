//! `pipe plan`: what a run would do, and why; the graph as DOT or Mermaid.

use std::fmt::Write;
use std::path::PathBuf;

use super::error::{CliError, Exit};
use super::{Context, recipe};
use crate::pipeline::Pipeline;
use crate::plan::{self, Fate};

/// Show what a run would do: each step with its fate, and why
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe plan pipelines/smollm2.toml\n  pipe plan pipelines/smollm2.toml --graph dot | dot -Tsvg > dag.svg"
)]
pub struct Args {
    /// The recipe
    recipe: PathBuf,
    /// Plan as if these steps were not recorded
    #[arg(long, value_name = "STEP")]
    force: Vec<String>,
    /// Print the graph instead
    #[arg(long, value_name = "FORMAT")]
    graph: Option<Graph>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Graph {
    Dot,
    Mermaid,
}

pub fn main(args: Args, context: &Context) -> Result<Exit, CliError> {
    let pipeline = recipe::load(&args.recipe, context.out)?;
    if let Some(format) = args.graph {
        let text = match format {
            Graph::Dot => pipeline.graph_dot(),
            Graph::Mermaid => pipeline.graph_mermaid(),
        };
        context.out.line(text.trim_end())?;
        return Ok(Exit::Ok);
    }
    let store = context.open_store()?;
    let force = plan::named(&pipeline, &args.force)?;
    let plan = plan::plan(&pipeline, &store, &force)?;
    show(&plan, &pipeline, context)?;
    Ok(Exit::Ok)
}

fn show(plan: &plan::Plan, pipeline: &Pipeline, context: &Context) -> Result<(), CliError> {
    let names = || plan.steps.iter().map(|s| pipeline.graph[s.node].name.chars().count());
    let width = names().max().unwrap_or(0);
    // One write for all lines: a recipe may have ten thousand steps.
    let mut text = String::new();
    for planned in &plan.steps {
        let step = &pipeline.graph[planned.node];
        if context.out.json {
            let fate = match &planned.fate {
                Fate::Hit { key, .. } => serde_json::json!({ "fate": "hit", "key": key }),
                Fate::Miss { key, why, .. } => {
                    serde_json::json!({ "fate": "miss", "key": key, "reason": why })
                }
                Fate::Waits { on } => serde_json::json!({ "fate": "waits", "on": on }),
            };
            context
                .out
                .value(&serde_json::json!({ "step": step.name, "op": step.op.name(), "plan": fate }))?;
            continue;
        }
        let fate = match &planned.fate {
            Fate::Hit { .. } => "hit".to_owned(),
            Fate::Miss { why, .. } => format!("miss   {why}"),
            Fate::Waits { on } => format!("waits  on {}", on.join(", ")),
        };
        let _ = writeln!(text, "{:width$}  {:8}  {fate}", step.name, step.op.name());
    }
    if text.is_empty() { Ok(()) } else { context.out.line(text.trim_end()) }
}
