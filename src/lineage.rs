//! Where an artifact came from and where it went, by the records, runs and bundles of a store. Computes nothing;
//! what records and bundles say is a claim, here as everywhere.

use std::collections::{BTreeMap, BTreeSet};

use pipe_store::{Digest, Record, Store, StoreError};
use serde::Serialize;

use crate::bundle::{Bundle, SealedStep};

/// What a store knows of an artifact.
#[derive(Clone, Debug, Serialize)]
pub struct Lineage {
    pub digest: Digest,
    /// Bytes, if it is here.
    pub length: Option<u64>,
    pub made_by: Vec<Act>,
    pub used_by: Vec<Act>,
}

/// A step, as it was run once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Act {
    pub step: String,
    pub op: String,
    pub key: Digest,
    /// The artifact's name among the step's outputs, or the port it came in by.
    pub role: String,
    /// What went into the step, as `PORT/NAME`.
    pub inputs: BTreeMap<String, Digest>,
    /// When this store recorded it, in milliseconds since the Unix epoch; None if it only came with a bundle.
    pub recorded_ms: Option<u64>,
    /// Runs of this store that the step was part of, newest first.
    pub runs: Vec<String>,
    /// Bundles, by digest, that say so.
    pub bundles: Vec<Digest>,
}

/// A step with all that came of it.
struct Known {
    step: String,
    op: String,
    inputs: BTreeMap<String, Digest>,
    outputs: Vec<(String, Digest)>,
    recorded_ms: Option<u64>,
    runs: Vec<String>,
    bundles: Vec<Digest>,
}

/// Everything a store knows, by key.
pub struct Steps(BTreeMap<Digest, Known>);

impl Steps {
    /// Reads records, runs and bundles.
    pub fn read(store: &Store) -> Result<Steps, StoreError> {
        let mut steps: BTreeMap<Digest, Known> =
            store.all_records()?.into_iter().map(|(key, record)| (key, recorded(record))).collect();
        let runs = store.runs(usize::MAX)?;
        for run in &runs {
            for key in &run.keys {
                if let Some(step) = steps.get_mut(key) {
                    step.runs.push(run.id.clone());
                }
            }
        }
        let pins = store.pins()?.into_iter().map(|pin| pin.digest);
        let bundles: BTreeSet<Digest> = runs.iter().filter_map(|run| run.bundle).chain(pins).collect();
        for digest in bundles {
            // A pin may be of anything, and of what is gone.
            let Ok(bytes) = store.get(&digest) else { continue };
            let Ok(bundle) = Bundle::from_bytes(&bytes) else { continue };
            for (name, sealed) in &bundle.steps {
                let step = steps.entry(sealed.key).or_insert_with(|| of_bundle(name, sealed));
                step.bundles.push(digest);
            }
        }
        Ok(Steps(steps))
    }

    /// The artifacts whose digest begins so, at most ten.
    pub fn starting(&self, prefix: &str) -> Vec<Digest> {
        let all = self.0.values().flat_map(|s| s.outputs.iter().map(|(_, d)| d).chain(s.inputs.values()));
        let found: BTreeSet<Digest> = all.filter(|d| d.to_string().starts_with(prefix)).copied().collect();
        found.into_iter().take(10).collect()
    }

    /// What made it and what used it.
    pub fn of(&self, digest: &Digest, store: &Store) -> Result<Lineage, StoreError> {
        let act = |key: &Digest, known: &Known, role: &str| Act {
            step: known.step.clone(),
            op: known.op.clone(),
            key: *key,
            role: role.to_owned(),
            inputs: known.inputs.clone(),
            recorded_ms: known.recorded_ms,
            runs: known.runs.clone(),
            bundles: known.bundles.clone(),
        };
        let mut lineage =
            Lineage { digest: *digest, length: store.length(digest)?, made_by: vec![], used_by: vec![] };
        for (key, known) in &self.0 {
            if let Some((name, _)) = known.outputs.iter().find(|(_, made)| made == digest) {
                lineage.made_by.push(act(key, known, name));
            }
            if let Some((port, _)) = known.inputs.iter().find(|(_, used)| *used == digest) {
                lineage.used_by.push(act(key, known, port));
            }
        }
        // Oldest first: who made it before others came to the same bytes.
        let when = |act: &Act| (act.recorded_ms.unwrap_or(u64::MAX), act.step.clone(), act.key);
        lineage.made_by.sort_by_key(when);
        lineage.used_by.sort_by_key(when);
        Ok(lineage)
    }
}

fn recorded(record: Record) -> Known {
    let fields = || record.preimage.lines().filter_map(|line| line.split_once(" = "));
    let text = |value: &str| serde_json::from_str::<String>(value).ok();
    let op = fields().find(|(field, _)| *field == "op").and_then(|(_, value)| text(value));
    let input = |(field, value): (&str, &str)| {
        let (port, name) = field.strip_prefix("inputs.")?.split_once('.')?;
        Some((format!("{port}/{name}"), text(value)?.parse().ok()?))
    };
    let outputs = record.outputs.iter().map(|o| (o.name.clone(), o.artifact.digest));
    Known {
        op: op.unwrap_or_else(|| if record.step.is_empty() { "seal".into() } else { String::new() }),
        inputs: fields().filter_map(input).collect(),
        outputs: outputs.chain(record.log.map(|log| ("log".to_owned(), log))).collect(),
        recorded_ms: Some(record.created_ms),
        step: record.step,
        runs: Vec::new(),
        bundles: Vec::new(),
    }
}

fn of_bundle(name: &str, sealed: &SealedStep) -> Known {
    let files = |(port, files): (&String, &BTreeMap<String, Digest>)| {
        files.iter().map(|(name, digest)| (format!("{port}/{name}"), *digest)).collect::<Vec<_>>()
    };
    Known {
        step: name.to_owned(),
        op: sealed.op.clone(),
        inputs: sealed.inputs.iter().flat_map(files).collect(),
        outputs: sealed.outputs.iter().map(|(name, output)| (name.clone(), output.digest)).collect(),
        recorded_ms: None,
        runs: Vec::new(),
        bundles: Vec::new(),
    }
}
