//! What a CI system reads of a run: annotations, a summary, JUnit.

mod github;
pub mod init;
mod junit;

use std::path::Path;

use super::error::{CliError, Exit};
use super::out::Out;
use crate::pipeline::{self, Pipeline};
use crate::recipe;
use crate::run::{Outcome, Run, StepRun};

/// What is to be reported of a recipe's run.
pub struct Report<'a> {
    pub ci: bool,
    pub junit: Option<&'a Path>,
    pub recipe: &'a Path,
    pub out: Out,
}

/// A step as CI systems see it.
struct Case {
    name: String,
    op: String,
    /// The outcome's name.
    outcome: &'static str,
    wall_ms: u64,
    verdict: Verdict,
}

enum Verdict {
    Passed,
    /// Why.
    Failed(String),
    Skipped(String),
}

impl Case {
    fn of(step: &StepRun, pipeline: &Pipeline) -> Case {
        let verdict = match &step.outcome {
            Outcome::Hit | Outcome::Ran => Verdict::Passed,
            Outcome::Disagreed => Verdict::Failed("gave other bytes than recorded; the record stands".into()),
            Outcome::Failed(e) => Verdict::Failed(e.to_string()),
            Outcome::Skipped { because } => Verdict::Skipped(because.clone()),
        };
        Case {
            name: step.name.clone(),
            op: pipeline.graph[step.node].op.name().into(),
            outcome: step.outcome.name(),
            wall_ms: step.wall_ms,
            verdict,
        }
    }
}

impl Report<'_> {
    /// A recipe that does not compile: its mistakes, where they stand. Gives the error back.
    pub fn mistakes<T>(&self, error: CliError) -> Result<T, CliError> {
        if self.ci || self.junit.is_some() {
            let loaded = recipe::load(self.recipe).ok();
            let mistakes = loaded.and_then(|recipe| pipeline::compile(&recipe).err()).unwrap_or_default();
            if self.ci {
                for mistake in &mistakes {
                    let place = github::Place {
                        file: &mistake.file,
                        line: Some(mistake.line),
                        column: Some(mistake.column),
                    };
                    github::error(&place, "recipe", &mistake.to_string());
                }
                if mistakes.is_empty() {
                    github::error(&self.place(None), "recipe", &error.message);
                }
            }
            let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            let why = if told.is_empty() { error.message.clone() } else { told.join("\n") };
            let case = Case {
                name: "recipe".into(),
                op: "compile".into(),
                outcome: "failed",
                wall_ms: 0,
                verdict: Verdict::Failed(why),
            };
            self.write_junit(&self.recipe.display().to_string(), &[case], 0, None)?;
        }
        Err(error)
    }

    /// A run that came to its end, well or not.
    pub fn run(&self, pipeline: &Pipeline, run: &Run, bundle: Option<&str>) -> Result<(), CliError> {
        let cases: Vec<Case> = run.steps.iter().map(|step| Case::of(step, pipeline)).collect();
        if self.ci {
            for case in &cases {
                if let Verdict::Failed(why) = &case.verdict {
                    let place = self.place(self.line_of(&case.name));
                    github::error(&place, &format!("step {} ({})", case.name, case.op), why);
                }
            }
            if let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty()) {
                let written = github::summary(Path::new(&path), &pipeline.name, &cases, run.wall_ms, bundle);
                written.unwrap_or_else(|e| self.out.note(format!("{}: {e}", path.display())));
            }
        }
        self.write_junit(&pipeline.name, &cases, run.wall_ms, bundle)
    }

    fn place(&self, line: Option<u32>) -> github::Place<'_> {
        github::Place { file: self.recipe.to_str().unwrap_or_default(), line, column: None }
    }

    /// The line of the recipe on which a step is named. The compiler's own steps stand in no recipe.
    fn line_of(&self, step: &str) -> Option<u32> {
        let recipe = recipe::load(self.recipe).ok()?;
        let entry = recipe.entries.iter().find(|entry| entry.name == step)?;
        let before = recipe.text.as_bytes().get(..entry.span.start as usize)?;
        u32::try_from(before.iter().filter(|b| **b == b'\n').count() + 1).ok()
    }

    fn write_junit(
        &self,
        suite: &str,
        cases: &[Case],
        wall_ms: u64,
        bundle: Option<&str>,
    ) -> Result<(), CliError> {
        let Some(path) = self.junit else { return Ok(()) };
        std::fs::write(path, junit::report(suite, cases, wall_ms, bundle))
            .map_err(|e| CliError::new(Exit::Step, format!("{}: {e}", path.display())))
    }
}
