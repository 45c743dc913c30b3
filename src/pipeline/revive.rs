//! What a bundle says about a pipeline, back to a pipeline: the way back from [`Canonical`]. Anyone may have written it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::compile::{Node, assemble};
use super::{Canonical, CanonicalFile, CanonicalOp, Pipeline};
use crate::recipe::op::{Fetch, FetchFile, LocalFile, Op, Source};
use crate::recipe::{SourceError, parse_source};

/// No pipeline can be made of it.
#[derive(Debug, thiserror::Error)]
pub enum ReviveError {
    #[error("two steps are named `{step}`")]
    Twice { step: String },
    #[error("step `{step}` takes from `{producer}`, which is no step")]
    NoProducer { step: String, producer: String },
    #[error("step `{step}` waits for itself")]
    Cycle { step: String },
    #[error("step `{step}`: source `{source_text}`: {source}")]
    Source { step: String, source_text: String, source: SourceError },
    #[error("step `{step}` takes a file of its maker's machine as a source")]
    LocalSource { step: String },
}

impl Canonical {
    /// The pipeline again. `local` tells where the contents of a `file` step lie on this machine.
    pub fn revive(&self, local: &dyn Fn(&str) -> PathBuf) -> Result<Pipeline, ReviveError> {
        let names: BTreeSet<&str> = self.steps.iter().map(|step| step.name.as_str()).collect();
        let mut seen = BTreeSet::new();
        let mut nodes: Vec<Node<'_>> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            if !seen.insert(&step.name) {
                return Err(ReviveError::Twice { step: step.name.clone() });
            }
            let mut inputs = Vec::with_capacity(step.inputs.len());
            for input in &step.inputs {
                if !names.contains(input.step.as_str()) {
                    let (step, producer) = (step.name.clone(), input.step.clone());
                    return Err(ReviveError::NoProducer { step, producer });
                }
                inputs.push((input.port.as_str().into(), input.step.clone(), input.output.as_deref()));
            }
            inputs.sort();
            nodes.push((step.name.clone(), op(&step.name, &step.op, local)?, inputs));
        }
        nodes.sort_by(|a, b| a.0.cmp(&b.0));
        let pipeline = assemble(&self.name, nodes);
        let ordered: BTreeSet<_> = pipeline.order.iter().collect();
        match pipeline.graph.node_indices().find(|node| !ordered.contains(node)) {
            Some(node) => Err(ReviveError::Cycle { step: pipeline.graph[node].name.clone() }),
            None => Ok(pipeline),
        }
    }
}

fn op(step: &str, op: &CanonicalOp, local: &dyn Fn(&str) -> PathBuf) -> Result<Op, ReviveError> {
    Ok(match op {
        CanonicalOp::Fetch { files } => {
            let files = files.iter().map(|file| fetch_file(step, file)).collect::<Result<_, _>>()?;
            Op::Fetch(Fetch { files })
        }
        CanonicalOp::File => Op::File(LocalFile { path: local(step) }),
        CanonicalOp::Tokenize(tokenize) => Op::Tokenize(tokenize.clone()),
        CanonicalOp::Pack(pack) => Op::Pack(*pack),
        CanonicalOp::Infer(infer) => Op::Infer(infer.clone()),
        CanonicalOp::Score(score) => Op::Score(score.clone()),
        CanonicalOp::Introspect(introspect) => Op::Introspect(introspect.clone()),
        CanonicalOp::Checksum(checksum) => Op::Checksum(checksum.clone()),
    })
}

fn fetch_file(step: &str, file: &CanonicalFile) -> Result<FetchFile, ReviveError> {
    let source = |text: &String| match parse_source(text, Path::new("")) {
        Ok(Source::File(_)) => Err(ReviveError::LocalSource { step: step.to_owned() }),
        Ok(source) => Ok(source),
        Err(source) => Err(ReviveError::Source { step: step.to_owned(), source_text: text.clone(), source }),
    };
    let from = file.from.iter().map(source).collect::<Result<_, _>>()?;
    Ok(FetchFile { name: file.name.clone(), from, expect: file.expect })
}

#[cfg(test)]
mod tests {
    use super::super::{CanonicalStep, Input, compile};
    use super::*;

    fn canonical() -> Canonical {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
        let text = std::fs::read_to_string(folder.join("smollm2.toml")).unwrap();
        compile(&crate::recipe::parse("smollm2.toml", &folder, text)).unwrap().canonical()
    }

    #[test]
    fn there_and_back_is_the_same_pipeline() {
        let canonical = canonical();
        let revived = canonical.revive(&|step| PathBuf::from(step)).unwrap();
        assert_eq!(revived.canonical(), canonical);
        assert_eq!(revived.order.len(), canonical.steps.len());
    }

    #[test]
    fn what_no_recipe_could_say_is_refused() {
        let refused = |change: &dyn Fn(&mut Vec<CanonicalStep>)| {
            let mut canonical = canonical();
            change(&mut canonical.steps);
            canonical.revive(&|step| PathBuf::from(step)).unwrap_err()
        };
        let input = |step: &str| Input { port: "model".into(), step: step.into(), output: None };
        assert!(matches!(refused(&|s| s.push(s[0].clone())), ReviveError::Twice { .. }));
        assert!(matches!(refused(&|s| s[0].inputs = vec![input("x")]), ReviveError::NoProducer { .. }));
        assert!(matches!(refused(&|s| s[0].inputs = vec![input("answer")]), ReviveError::Cycle { .. }));
        let from = |steps: &mut Vec<CanonicalStep>, text: &str| {
            for step in steps {
                if let CanonicalOp::Fetch { files } = &mut step.op {
                    files[0].from = vec![text.into()];
                }
            }
        };
        assert!(matches!(refused(&|s| from(s, "file:/etc/passwd")), ReviveError::LocalSource { .. }));
        assert!(matches!(refused(&|s| from(s, "ftp://x/y")), ReviveError::Source { .. }));
    }
}
