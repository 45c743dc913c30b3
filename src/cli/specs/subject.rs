//! Whose card: a run's, a recipe's or a file's model, with its bytes.

use std::collections::BTreeMap;
use std::path::Path;

use pipe_store::{Digest, Store, StoreError};

use crate::bundle::{Bundle, SealedStep};
use crate::cli::error::{CliError, Exit};
use crate::cli::{Context, model, recipe, show};
use crate::model::{Bytes, ModelFile};
use crate::pipeline::{Op, Pipeline};
use crate::plan::{self, Fate};

/// A model to measure.
pub struct Subject {
    /// What it is called if it does not say so itself.
    pub name: String,
    pub files: Vec<ModelFile>,
}

/// A model's files by name.
type Files = BTreeMap<String, Digest>;

/// An `infer` step and its model: files, or the name of the step that has not made them.
struct Used {
    step: String,
    model: Result<Files, String>,
}

/// What the user named: a recipe, a path, a run or a CID; nothing is the last run.
pub fn find(of: Option<&str>, step: Option<&str>, context: &Context) -> Result<Subject, CliError> {
    match of {
        Some(name) if name.ends_with(".toml") => of_recipe(Path::new(name), step, context),
        Some(name) if Path::new(name).exists() => of_path(Path::new(name), step),
        name => of_run(name, step, context),
    }
}

fn of_path(path: &Path, step: Option<&str>) -> Result<Subject, CliError> {
    if let Some(step) = step {
        let message = format!("{} is a model; it has no step `{step}`", path.display());
        return Err(CliError::new(Exit::Usage, message).hint("--step goes with a recipe or a run"));
    }
    let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok(Subject { name, files: model::open_path(path)? })
}

fn of_recipe(path: &Path, step: Option<&str>, context: &Context) -> Result<Subject, CliError> {
    let pipeline = recipe::load(path, context.out)?;
    let store = context.open_store()?;
    let used = models_of_recipe(&pipeline, &store)?;
    of_steps(used, step, &pipeline.name, &format!("pipe run {}", path.display()), &store)
}

fn models_of_recipe(pipeline: &Pipeline, store: &Store) -> Result<Vec<Used>, plan::PlanError> {
    let plan = plan::plan(pipeline, store, &[])?;
    let fates: BTreeMap<_, _> = plan.steps.iter().map(|planned| (planned.node, &planned.fate)).collect();
    let files = |node| {
        let mut files = Files::new();
        for (link, producer) in pipeline.inputs(node).into_iter().filter(|(link, _)| link.port == "model") {
            let Some(Fate::Hit { record, .. }) = fates.get(&producer) else {
                return Err(pipeline.graph[producer].name.clone());
            };
            let wanted = record.outputs.iter().filter(|o| link.output.as_ref().is_none_or(|n| *n == o.name));
            files.extend(wanted.map(|o| (o.name.clone(), o.artifact.digest)));
        }
        Ok(files)
    };
    let infer = pipeline.order.iter().copied().filter(|&n| matches!(pipeline.graph[n].op, Op::Infer(_)));
    Ok(infer.map(|node| Used { step: pipeline.graph[node].name.clone(), model: files(node) }).collect())
}

fn of_run(name: Option<&str>, step: Option<&str>, context: &Context) -> Result<Subject, CliError> {
    let store = context.open_store()?;
    let found = show::find(&store, name).map_err(|e| match (e.exit, name) {
        (Exit::Usage, Some(name)) => CliError::new(Exit::Usage, format!("no file, run or CID `{name}`"))
            .hint("name a recipe (….toml), a GGUF file, a Hugging Face folder, or a run of `pipe log`"),
        _ => e,
    })?;
    let recipe = found.run.as_ref().and_then(|(_, body)| body.recipe.as_deref()).unwrap_or("RECIPE");
    let again = format!("pipe run {recipe}");
    let Some(bundle) = &found.bundle else {
        return Err(CliError::new(Exit::Usage, "the run has no bundle: a step failed")
            .hint(format!("name the recipe, or run it again: `{again}`")));
    };
    of_steps(models_of_run(bundle), step, &bundle.pipeline.name, &again, &store)
}

fn models_of_run(bundle: &Bundle) -> Vec<Used> {
    let infer = bundle.steps.iter().filter(|(_, sealed)| sealed.op == "infer");
    let used = |(step, sealed): (&String, &SealedStep)| Used {
        step: step.clone(),
        model: Ok(sealed.inputs.get("model").cloned().unwrap_or_default()),
    };
    infer.map(used).collect()
}

/// The one model of these `infer` steps, or that of the step the user chose. `again` makes what is gone.
fn of_steps(
    used: Vec<Used>,
    step: Option<&str>,
    pipeline: &str,
    again: &str,
    store: &Store,
) -> Result<Subject, CliError> {
    let usage = |message: String| CliError::new(Exit::Usage, message);
    let names = || used.iter().map(|used| used.step.as_str()).collect::<Vec<_>>().join(", ");
    let first = used
        .first()
        .ok_or_else(|| usage(format!("{pipeline} has no infer step, so it has no model to measure")))?;
    let chosen = match step {
        Some(step) => used.iter().find(|used| used.step == step).ok_or_else(|| {
            usage(format!("{pipeline} has no infer step `{step}`"))
                .hint(format!("its infer steps: {}", names()))
        })?,
        None if used.iter().any(|used| used.model != first.model) => {
            return Err(usage(format!("the infer steps of {pipeline} have different models"))
                .hint(format!("choose one with --step: {}", names())));
        }
        None => first,
    };
    let digests = chosen.model.as_ref().map_err(|producer| {
        let message =
            format!("the model of step `{}`, made by `{producer}`, is not in the store", chosen.step);
        usage(message).hint(format!("`{again}` brings it in"))
    })?;
    let file = |(name, digest): (&String, &Digest)| match store.get(digest) {
        Ok(object) => Ok(ModelFile::new(name, Bytes::new(object))),
        Err(e @ StoreError::Missing { .. }) => Err(CliError::from(e).hint(format!(
            "it was there once; `{again} --force STEP`, with the step that makes it, brings it back"
        ))),
        Err(e) => Err(e.into()),
    };
    let files = digests.iter().map(file).collect::<Result<_, CliError>>()?;
    Ok(Subject { name: pipeline.to_owned(), files })
}
