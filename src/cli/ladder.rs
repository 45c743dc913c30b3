//! The rungs of `pipe verify` that compute nothing, or everything.

use std::collections::BTreeSet;
use std::str::FromStr;

use pipe_store::{Digest, Store, StoreError};
use serde_json::json;

use super::error::{CliError, Exit};
use super::ipfs::{Located, OriginArgs};
use super::reproduce::{self, How};
use super::run::DeviceArgs;
use super::show::Found;
use super::{Context, out, show};

/// How much is checked.
#[derive(clap::Args)]
pub struct LadderArgs {
    /// integrity: every digest, link and signature, nothing computed; one-pass; full: every step run again
    #[arg(long, value_name = "LEVEL", default_value = "one-pass")]
    level: Level,
    #[command(flatten)]
    origins: OriginArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Integrity,
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
            _ => Err("expected integrity, one-pass or full".into()),
        }
    }
}

/// What is left to do.
pub enum Rung {
    Done(Exit),
    OnePass(Box<Found>),
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
        if self.level == Level::OnePass && !self.origins.is_set() && !is_file(name) {
            // The common case: a run or a bundle of this store.
            if let Ok(found) = show::find(store, name) {
                return Ok(Rung::OnePass(Box::new(found)));
            }
        }
        let located = self.origins.locate(name, store)?;
        match self.level {
            Level::Integrity => integrity(&located, store, context).map(Rung::Done),
            Level::Full => {
                let how = How { reuse: false, input: &[], device };
                let again = reproduce::again(&located, &how, store, context)?;
                again.verdicts.iter().try_for_each(|verdict| reproduce::report(verdict, context))?;
                Ok(Rung::Done(if again.whole { Exit::Ok } else { Exit::Differ }))
            }
            Level::OnePass => {
                let Located { manifest, cid, bundle, .. } = located;
                let found = Found { cid: Some(cid), bundle: Some(bundle), run: None, manifest };
                Ok(Rung::OnePass(Box::new(found)))
            }
        }
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
        match store.get(&output.digest) {
            Ok(object) if object.len() as u64 == output.length => bytes += output.length,
            Ok(object) => {
                let message = format!(
                    "{step}/{name} ({}) has {} bytes; the bundle says {}",
                    output.digest,
                    object.len(),
                    output.length
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
