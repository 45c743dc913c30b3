//! One of two things to compare: a sealed result, or a recipe of which nothing is known but what it asks for.

use std::collections::BTreeMap;

use pipe_store::{Artifact, Digest, Object, Store, StoreError};
use serde::Serialize;

use crate::bundle::{Bundle, SealedOutput, SealedStep, car};
use crate::key::Inputs;
use crate::ops::local;
use crate::pipeline::{Canonical, Op, Pipeline};

/// What kind of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Run,
    Bundle,
    Car,
    Recipe,
}

/// One side of a comparison.
pub struct Side {
    /// As the user named it.
    pub name: String,
    pub kind: Kind,
    /// None for a recipe.
    pub cid: Option<String>,
    pub pipeline: Canonical,
    /// Empty for a recipe.
    pub steps: BTreeMap<String, SealedStep>,
    /// What the `file` steps of a recipe name, now: digests by step and output.
    pub files: BTreeMap<String, BTreeMap<String, Digest>>,
    /// Where its bytes may be, first to last.
    pub stores: Vec<Store>,
}

impl Side {
    /// A result, with the stores that may have its bytes.
    pub fn of_bundle(name: &str, kind: Kind, bundle: Bundle, stores: Vec<Store>) -> Side {
        let cid = Some(car::cid_dag_cbor(&bundle.to_bytes()).to_string());
        let Bundle { pipeline, steps, .. } = bundle;
        Side { name: name.into(), kind, cid, pipeline, steps, files: BTreeMap::new(), stores }
    }

    /// What a recipe asks for. Files that cannot be read are no difference: a run will say so.
    pub fn of_recipe(name: &str, pipeline: &Pipeline, store: Store) -> Side {
        let digests = |path| -> Option<BTreeMap<String, Digest>> {
            let entries = local::listing(path).ok()?.into_iter();
            entries.map(|entry| Some((entry.name, store.file_digest(&entry.path).ok()?.0))).collect()
        };
        let files = pipeline.graph.node_weights().filter_map(|step| match &step.op {
            Op::File(file) => Some((step.name.clone(), digests(&file.path)?)),
            _ => None,
        });
        Side {
            name: name.into(),
            kind: Kind::Recipe,
            cid: None,
            pipeline: pipeline.canonical(),
            steps: BTreeMap::new(),
            files: files.collect(),
            stores: vec![store],
        }
    }

    /// The bytes with this digest; None when no store has them.
    pub fn open(&self, digest: &Digest) -> Result<Option<Object>, StoreError> {
        for store in &self.stores {
            match store.get(digest) {
                Ok(object) => return Ok(Some(object)),
                Err(StoreError::Missing { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// The first store that has all of these.
    pub fn store_with<'a>(&self, digests: impl Iterator<Item = &'a Digest> + Clone) -> Option<&Store> {
        let has_all = |store: &&Store| digests.clone().all(|digest| store.has(digest).unwrap_or(false));
        self.stores.iter().find(has_all)
    }

    /// What a step left, by name; of a recipe, what its `file` steps name.
    pub fn outputs(&self, step: &str) -> BTreeMap<&str, Digest> {
        let sealed = self.steps.get(step).into_iter().flat_map(|step| &step.outputs);
        let sealed = sealed.map(|(name, output)| (name.as_str(), output.digest));
        let files = self.files.get(step).into_iter().flatten();
        sealed.chain(files.map(|(name, digest)| (name.as_str(), *digest))).collect()
    }

    /// Inputs of a sealed step as an op takes them.
    pub fn inputs(&self, step: &SealedStep) -> Inputs {
        let made = |digest: &Digest| {
            let outputs = self.steps.values().flat_map(|step| step.outputs.values());
            let found = outputs.into_iter().find(|output| output.digest == *digest);
            found.map_or_else(
                || Artifact { digest: *digest, length: 0, media_type: String::new() },
                |SealedOutput { digest, length, media_type, .. }| Artifact {
                    digest: *digest,
                    length: *length,
                    media_type: media_type.clone(),
                },
            )
        };
        let files = |files: &BTreeMap<String, Digest>| {
            files.iter().map(|(name, digest)| (name.clone(), made(digest))).collect()
        };
        step.inputs.iter().map(|(port, named)| (port.clone(), files(named))).collect()
    }
}
