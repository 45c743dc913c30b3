//! The rungs of `pipe verify` that compute nothing, or everything.

use std::collections::BTreeSet;
use std::str::FromStr;

use cid::Cid;
use pipe_store::{Digest, Store, StoreError};
use serde_json::json;

use super::error::{CliError, Exit};
use super::ipfs::{Located, OriginArgs};
use super::reproduce::{self, How};
use super::run::DeviceArgs;
use super::show::Found;
use super::{Context, out, show};
use crate::ops::Sample;

/// How much is checked.
#[derive(clap::Args)]
pub struct LadderArgs {
    /// integrity: every digest, link and signature, nothing computed; "sample N": N prompts of each step, in one
    /// pass; one-pass: all prompts; full: every step run again
    #[arg(long, value_name = "LEVEL", default_value = "one-pass")]
    level: Level,
    /// Draw other prompts for "sample N" than those the bundle's address alone draws
    #[arg(long, value_name = "TEXT")]
    seed: Option<String>,
    #[command(flatten)]
    origins: OriginArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Integrity,
    /// One pass of so many prompts.
    Sample(usize),
    OnePass,
    Full,
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "integrity" => Ok(Level::Integrity),
            "one-pass" => Ok(Level::OnePass),
            "full" => Ok(Level::Full),
            _ => text
                .strip_prefix("sample ")
                .and_then(|count| count.trim().parse().ok())
                .filter(|count| *count > 0)
                .map(Level::Sample)
                .ok_or_else(|| "expected integrity, \"sample N\" with N from 1, one-pass or full".into()),
        }
    }
}

/// What is left to do.
pub enum Rung {
    Done(Exit),
    OnePass(Box<Found>, Sample),
}

impl LadderArgs {
    /// Find what a user names, check it as far as no pass of a model is needed.
    pub fn climb(
        &self,
        name: Option<&str>,
        device: &DeviceArgs,
        store: &Store,
        context: &Context,
    ) -> Result<Rung, CliError> {
        if self.seed.is_some() && !matches!(self.level, Level::Sample(_)) {
            return Err(CliError::new(Exit::Usage, "--seed is for --level \"sample N\""));
        }
        let one_pass = matches!(self.level, Level::OnePass | Level::Sample(_));
        if one_pass && !self.origins.is_set() && !is_file(name) {
            // The common case: a run or a bundle of this store.
            if let Ok(found) = show::find(store, name) {
                let sample = self.sample(found.cid);
                return Ok(Rung::OnePass(Box::new(found), sample));
            }
        }
        let located = match name.filter(|name| self.level == Level::Integrity && is_file(Some(name))) {
            Some(path) => self.origins.check(path, store)?,
            None => self.origins.locate(name, store)?,
        };
        match self.level {
            Level::Integrity => integrity(&located, store, context).map(Rung::Done),
            Level::Full => {
                let how = How { reuse: false, input: &[], device };
                let again = reproduce::again(&located, &how, store, context)?;
                again.verdicts.iter().try_for_each(|verdict| reproduce::report(verdict, context))?;
                Ok(Rung::Done(if again.whole { Exit::Ok } else { Exit::Differ }))
            }
            Level::OnePass | Level::Sample(_) => {
                let Located { manifest, cid, bundle, .. } = located;
                let found = Found { cid: Some(cid), bundle: Some(bundle), run: None, manifest };
                Ok(Rung::OnePass(Box::new(found), self.sample(Some(cid))))
            }
        }
    }

    /// Who samples a bundle sees the same prompts as everyone, unless he brings a seed of his own: one that the maker
    /// of the bundle could not know.
    fn sample(&self, bundle: Option<Cid>) -> Sample {
        let Level::Sample(count) = self.level else { return Sample::All };
        let bundle = bundle.map_or_else(Vec::new, |cid| cid.to_bytes());
        let own = self.seed.as_deref().unwrap_or_default().as_bytes();
        Sample::Of { count, seed: Digest::of(&[&bundle, own].concat()) }
    }
}

fn is_file(name: Option<&str>) -> bool {
    name.is_some_and(|name| std::path::Path::new(name).is_file())
}

/// Every digest, link, signature and entry of the chain. What `locate` did not check are the bytes that are in the
/// store already.
fn integrity(located: &Located, store: &Store, context: &Context) -> Result<Exit, CliError> {
    let started = std::time::Instant::now();
    let (mut objects, mut bytes, mut absent) = (BTreeSet::<Digest>::new(), 0, Vec::new());
    for (step, name, output) in located.bundle.outputs() {
        if !objects.insert(output.digest) {
            continue;
        }
        let carried = located.carried.get(&output.digest).copied();
        match carried.map_or_else(|| store.get(&output.digest).map(|object| object.len() as u64), Ok) {
            Ok(length) if length == output.length => bytes += length,
            Ok(length) => {
                let message = format!(
                    "{step}/{name} ({}) has {length} bytes; the bundle says {}",
                    output.digest, output.length
                );
                return Err(CliError::new(Exit::Differ, message));
            }
            Err(StoreError::Missing { .. }) => {
                objects.remove(&output.digest);
                absent.push((format!("{step}/{name}"), output.link.is_some()));
            }
            Err(e) => return Err(e.into()),
        }
    }
    if let Some((name, _)) = absent.iter().find(|(_, linked)| *linked) {
        let message = format!("{name} belongs to the bundle and is not in the store");
        return Err(CliError::new(Exit::Store, message).hint("`pipe import FILE.car` brings it in"));
    }
    let wall_ms = started.elapsed().as_millis() as u64;
    let manifest = located.manifest.as_ref();
    if context.out.json {
        context.out.value(&json!({
            "ok": true, "bundle": located.cid.to_string(), "objects": objects.len(), "bytes": bytes,
            "not_carried": absent.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "manifest": manifest.map(|(cid, m)| show::described(cid, m)), "entries": located.entries,
            "wall_ms": wall_ms,
        }))?;
        return Ok(Exit::Ok);
    }
    let signed = match manifest {
        Some((_, manifest)) => {
            format!("{} by {}, {} entries of its chain", manifest.claim.name(), manifest.key, located.entries)
        }
        None => "not signed".to_owned(),
    };
    context.out.line(format!(
        "{}: ok: {} objects, {}, {signed}, {}",
        located.cid,
        objects.len(),
        out::bytes(bytes),
        out::millis(wall_ms)
    ))?;
    if !absent.is_empty() {
        let names: Vec<&str> = absent.iter().map(|(name, _)| name.as_str()).collect();
        context.out.note(format!("named by digest only, and not here: {}", names.join(", ")));
    }
    Ok(Exit::Ok)
}
