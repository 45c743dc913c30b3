//! `pipe show`: a run or a bundle for people: the answers, the steps, what they made.

use std::collections::BTreeMap;
use std::str::FromStr;

use cid::Cid;
use pipe_store::{Digest, RunEntry, Store, StoreError};

use super::error::{CliError, Exit};
use super::out::{Out, bytes, millis};
use super::{Context, gather, inside, scores};
use crate::bundle::{self, Bundle, car};
use crate::ops::Answers;
use crate::publish::{Claim, Manifest};
use crate::run::RunBody;

/// Show a run: its answers, its steps, what they made
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe show            the last run\n  pipe show bafyr4i…   a bundle or a manifest\n  pipe show --output answer/answers.json   one output, as it is"
)]
pub struct Args {
    /// A run's id (or the start of it), a bundle's or a manifest's CID [default: the last run]
    run: Option<String>,
    /// Write one output's bytes to stdout
    #[arg(long, value_name = "STEP/NAME")]
    output: Option<String>,
}

/// A bundle with the run it belongs to, if it was a run of this store.
pub struct Found {
    pub cid: Option<Cid>,
    pub bundle: Option<Bundle>,
    pub run: Option<(RunEntry, RunBody)>,
    /// If it was named by a manifest's CID.
    pub manifest: Option<(Cid, Manifest)>,
}

/// What a user names: nothing (the last run), a run's id or its start, a bundle's CID.
pub fn find(store: &Store, name: Option<&str>) -> Result<Found, CliError> {
    if let Some(cid) = name.and_then(|name| Cid::from_str(name).ok()) {
        let digest = car::digest_of(&cid).ok_or_else(|| {
            CliError::new(Exit::Usage, format!("{cid} is not a BLAKE3 CID"))
                .hint("`pipe log` lists what is here")
        })?;
        let manifest = manifest(store, &cid, &digest)?;
        let cid = manifest.as_ref().map_or(cid, |(_, manifest)| manifest.bundle);
        let digest = car::digest_of(&cid).unwrap_or(digest);
        return Ok(Found { cid: Some(cid), bundle: Some(open(store, &digest)?), run: None, manifest });
    }
    let entry = match name {
        Some(name) => store.run(name)?,
        None => store.runs(1)?.into_iter().next(),
    };
    let Some(entry) = entry else {
        return Err(CliError::new(
            Exit::Usage,
            match name {
                Some(name) => format!("no run or CID `{name}`"),
                None => "no runs yet".into(),
            },
        )
        .hint("`pipe log` lists the runs; `pipe run pipelines/tiny.toml` makes one"));
    };
    let body: RunBody = serde_json::from_str(&entry.body)
        .map_err(|e| CliError::new(Exit::Store, format!("run {}: {e}", entry.id)))?;
    let bundle = entry.bundle.map(|digest| open(store, &digest)).transpose()?;
    let cid = entry.bundle.map(|digest| car::cid_of(car::DAG_CBOR, &digest));
    Ok(Found { cid, bundle, run: Some((entry, body)), manifest: None })
}

/// The manifest under a CID, its signature checked; None if it is something else.
fn manifest(store: &Store, cid: &Cid, digest: &Digest) -> Result<Option<(Cid, Manifest)>, CliError> {
    match store.get(digest) {
        Ok(object) if Manifest::looks_like(&object) => {
            let manifest = Manifest::from_bytes(&object);
            manifest.map(|m| Some((*cid, m))).map_err(|e| CliError::new(Exit::Store, format!("{cid}: {e}")))
        }
        Ok(_) | Err(StoreError::Missing { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn open(store: &Store, digest: &Digest) -> Result<Bundle, CliError> {
    let object = store.get(digest).map_err(|e| match e {
        StoreError::Missing { .. } => CliError::new(Exit::Store, format!("no bundle {digest} in this store"))
            .hint("`pipe import FILE.car` brings one in"),
        e => e.into(),
    })?;
    Bundle::from_bytes(&object)
        .map_err(|e: bundle::BundleError| CliError::new(Exit::Store, format!("{digest}: {e}")))
}

pub fn main(args: Args, context: &Context) -> Result<Exit, CliError> {
    let store = context.open_store()?;
    let found = find(&store, args.run.as_deref())?;
    if let Some(path) = &args.output {
        return output(path, &found, &store);
    }
    if context.out.json {
        context.out.value(&serde_json::json!({
            "cid": found.cid.map(|c| c.to_string()),
            "manifest": found.manifest.as_ref().map(|(cid, manifest)| described(cid, manifest)),
            "bundle": found.bundle,
            "run": found.run.as_ref().map(|(entry, _)| &entry.id),
            "details": found.run.as_ref().map(|(_, body)| body),
            "facts": facts(found.bundle.as_ref(), &store)?,
        }))?;
        return Ok(Exit::Ok);
    }
    if let Some((cid, manifest)) = &found.manifest {
        signed(cid, manifest, context.out)?;
    }
    if let Some(bundle) = &found.bundle {
        let named = |name: &str| {
            let made = bundle.outputs().filter(|(_, n, _)| *n == name);
            made.map(|(step, _, o)| (step.to_owned(), o.digest)).collect::<Vec<_>>()
        };
        answers(named(crate::ops::ANSWERS), &store, context.out)?;
        scores::tables(named(crate::ops::SCORES), &store, context.out)?;
        inside::lines(&gather::report(&found, None, None, &store)?, context.out)?;
        steps(bundle, &found, context.out)?;
    } else if let Some((_, body)) = &found.run {
        for step in &body.steps {
            let why = step.error.as_deref().unwrap_or_default();
            context.out.line(format!("{:24} {:9} {:9} {why}", step.name, step.op, step.outcome))?;
        }
    }
    if let Some(cid) = &found.cid {
        context.out.line(format!("bundle {cid}"))?;
    }
    Ok(Exit::Ok)
}

/// A manifest for programs, its links as text.
pub fn described(cid: &Cid, manifest: &Manifest) -> serde_json::Value {
    let of = match &manifest.claim {
        Claim::Reproduced { of } => of.map(|cid| cid.to_string()),
        Claim::Published => None,
    };
    serde_json::json!({
        "cid": cid.to_string(), "claim": manifest.claim.name(), "of": of, "bundle": manifest.bundle.to_string(),
        "files": manifest.files.iter().map(|(d, cid)| (d.to_string(), cid.to_string())).collect::<BTreeMap<_, _>>(),
        "sequence": manifest.sequence, "previous": manifest.previous.map(|cid| cid.to_string()),
        "key": manifest.key, "facts": manifest.facts, "started_ms": manifest.started_ms,
        "wall_ms": manifest.wall_ms, "signed_ms": manifest.signed_ms,
    })
}

/// A manifest for people: who says it, and what merely happened.
fn signed(cid: &Cid, manifest: &Manifest, out: Out) -> Result<(), CliError> {
    let facts = &manifest.facts;
    out.line(format!("manifest {cid}"))?;
    out.line(format!("{} by {}, number {}", manifest.claim.name(), manifest.key, manifest.sequence))?;
    let machine = [facts.host.as_deref(), facts.cpu.as_deref()].into_iter().flatten();
    let machine: Vec<&str> = machine.chain([facts.os.as_str(), facts.arch.as_str()]).collect();
    out.line(format!(
        "pipe {}, {} with {} threads, {} on {}",
        facts.pipe,
        facts.implementation,
        facts.threads,
        millis(manifest.wall_ms),
        machine.join(", ")
    ))?;
    if let Some(git) = &facts.git {
        let dirty = match git.recipe_dirty {
            Some(true) => ", the recipe changed since",
            Some(false) => "",
            None => ", whether the recipe changed since is unknown",
        };
        out.line(format!("recipe at commit {}{dirty}", git.commit))?;
    }
    Ok(())
}

/// What merely happened when each step of a bundle was computed here: rates, threads, what was reused.
fn facts(bundle: Option<&Bundle>, store: &Store) -> Result<BTreeMap<String, serde_json::Value>, CliError> {
    let mut all = BTreeMap::new();
    for (name, step) in bundle.iter().flat_map(|bundle| &bundle.steps) {
        if let Some(record) = store.record(&step.key)? {
            all.insert(name.clone(), serde_json::from_str(&record.facts).unwrap_or_default());
        }
    }
    Ok(all)
}

fn steps(bundle: &Bundle, found: &Found, out: Out) -> Result<(), CliError> {
    let body = found.run.as_ref().map(|(_, body)| body);
    for (name, step) in &bundle.steps {
        let fact = body.map(|b| match b.steps.iter().find(|s| &s.name == name) {
            Some(f) => format!("{} {}", f.outcome, millis(f.wall_ms)),
            None => "hit".to_owned(),
        });
        let fact = fact.unwrap_or_default();
        out.line(format!("{name:24} {:9} {fact}", step.op))?;
        for (output, sealed) in &step.outputs {
            out.line(format!("    {output:28} {:>10}  {}", bytes(sealed.length), sealed.digest))?;
        }
    }
    Ok(())
}

/// Write an output as it is.
fn output(path: &str, found: &Found, store: &Store) -> Result<Exit, CliError> {
    let outputs = || found.bundle.iter().flat_map(Bundle::outputs);
    let Some((_, _, sealed)) = outputs().find(|(step, name, _)| path == format!("{step}/{name}")) else {
        let has: Vec<_> = outputs().map(|(step, name, _)| format!("{step}/{name}")).collect();
        return Err(CliError::new(Exit::Usage, format!("no output `{path}`"))
            .hint(format!("there are {}", has.join(", "))));
    };
    let object = store.get(&sealed.digest)?;
    let written = std::io::Write::write_all(&mut std::io::stdout().lock(), &object);
    written.map_err(|e| CliError::new(Exit::Step, format!("stdout: {e}")))?;
    Ok(Exit::Ok)
}

/// The texts of `infer` steps, given by step name with the digest of their answers. One answer stands alone;
/// several carry their ids.
pub fn answers(mut made: Vec<(String, Digest)>, store: &Store, out: Out) -> Result<(), CliError> {
    made.sort();
    let several = made.len() > 1;
    for (step, digest) in made {
        let answers: Answers = match store.get(&digest) {
            Ok(object) => serde_json::from_slice(&object)
                .map_err(|e| CliError::new(Exit::Store, format!("{step}/{}: {e}", crate::ops::ANSWERS)))?,
            Err(e @ StoreError::Missing { .. }) => {
                out.note(format!("{step}: {e}; `pipe run --force {step}` makes it again"));
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        // Where nothing was generated there is no answer, not an empty one.
        if answers.answers.iter().all(|answer| answer.tokens.is_empty()) {
            continue;
        }
        if several {
            out.line(format!("{step}:"))?;
        }
        let alone = answers.answers.len() == 1;
        for answer in &answers.answers {
            let text = answer.text.trim();
            match (alone, text.is_empty()) {
                (true, true) => {}
                (true, false) => out.line(text)?,
                (false, _) => out.line(format!("[{}] {text}", answer.id))?,
            }
        }
    }
    Ok(())
}
