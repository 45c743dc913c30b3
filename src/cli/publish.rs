//! `pipe publish`: a run signed, as a CAR, and on an IPFS node.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use cid::Cid;
use pipe_store::Store;

use super::error::{CliError, Exit};
use super::ipfs::{NodeArgs, network, secret_key};
use super::run::now_ms;
use super::{Context, out, show};
use crate::bundle::{Bundle, Parcel, TransportError};
use crate::publish::node::{self, BLOCK_MAX, Node, ServeError};
use crate::publish::{self, Claim, Manifest, chain};
use crate::recipe::{self, Ipfs};
use crate::run::RunBody;

/// Sign a run, write it to a CAR, and pin it on an IPFS node; prints the manifest's CID
///
/// The manifest links the run's bundle and says when, where and with what it was made; it is signed by the key of this
/// store (`pipe key`) and links the manifest before it. The CAR is kept whatever the node does. The node is the one
/// the recipe's [publish] section names, unless --ipfs names another; `auto` uses the node of this machine, if one
/// answers.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pipe publish                               the last run
  pipe publish 0194 --ipfs off               a CAR only
  pipe publish --ipfs http://127.0.0.1:5001 --json
  PIN_TOKEN=… pipe publish --pin-service https://api.example.org/psa")]
pub struct Args {
    /// A run's id (or the start of it) or the CID of its bundle [default: the last run]
    run: Option<String>,
    /// The CAR file to write [default: cars/CID.car in the store]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also the bytes that anyone could fetch or derive again: weights, packed weights
    #[arg(long)]
    with_inputs: bool,
    #[command(flatten)]
    node: NodeArgs,
    /// Let the node's IPNS name point at the manifest
    #[arg(long)]
    ipns: bool,
    /// Ask this service too, by the Pinning Service API; its token is read from $PIN_TOKEN
    #[arg(long, value_name = "URL")]
    pin_service: Option<String>,
}

pub fn main(args: Args, context: &Context) -> Result<Exit, CliError> {
    let store = context.open_store()?;
    let found = show::find(&store, args.run.as_deref())?;
    let (Some(bundle_cid), Some(bundle)) = (found.cid, &found.bundle) else {
        return Err(CliError::new(Exit::Usage, "this run has no bundle: a step failed")
            .hint("`pipe log` lists the runs"));
    };
    let (started_ms, body) = match &found.run {
        Some((entry, body)) => (entry.started_ms, body.clone()),
        None => of_bundle(&bundle_cid, &store)?,
    };
    let from_recipe = body.recipe.as_deref().and_then(|path| recipe::load(Path::new(path)).ok());
    // Who must answer is known before anything is signed.
    let node = args.node.node(from_recipe.as_ref().map(|recipe| &recipe.publish.ipfs))?;
    let token = match &args.pin_service {
        Some(service) => Some((
            service,
            std::env::var("PIN_TOKEN").map_err(|_| {
                CliError::new(Exit::Usage, "--pin-service needs its token in the variable PIN_TOKEN")
            })?,
        )),
        None => None,
    };
    let (cid, manifest) = sign(&args, bundle_cid, bundle, started_ms, &body, &store, context)?;
    let path = match &args.output {
        Some(path) => path.clone(),
        None => context.root.join("cars").join(format!("{cid}.car")),
    };
    let blocks = write(&cid, &manifest, bundle, &store, &path)?;
    let kept = |e: CliError| {
        let hint = e.hint.map_or_else(String::new, |hint| format!("{hint}; "));
        CliError { hint: Some(format!("{hint}the signed result is kept in {}", path.display())), ..e }
    };
    let mut served = None;
    let mut name = None;
    match &node {
        Ok(node) => {
            served = Some(deliver(node, &cid, &manifest, &path).map_err(kept)?);
            if args.ipns {
                name = Some(node.publish_name(&cid).map_err(network).map_err(kept)?);
            }
        }
        Err(why) => {
            if args.ipns {
                let e = CliError::new(Exit::Network, format!("--ipns needs a node: {why}"));
                return Err(kept(e));
            }
            context.out.note(format!("not pinned: {why}"));
        }
    }
    let mut remote = None;
    if let Some((service, token)) = token {
        let label = &bundle.pipeline.name;
        let status = node::pin_remotely(service, &token, &cid, label, args.node.timeout);
        remote = Some(status.map_err(network).map_err(kept)?);
    }
    let length = std::fs::metadata(&path).map_or(0, |meta| meta.len());
    if context.out.json {
        context.out.value(&serde_json::json!({
            "cid": cid.to_string(), "bundle": bundle_cid.to_string(), "key": manifest.key,
            "sequence": manifest.sequence, "previous": manifest.previous.map(|cid| cid.to_string()),
            "file": path, "blocks": blocks, "bytes": length,
            "node": node.as_ref().ok().map(Node::url), "served": served, "ipns": name, "pin_service": remote,
        }))?;
        return Ok(Exit::Ok);
    }
    context.out.line(cid.to_string())?;
    let place = path.display();
    context.out.note(format!("number {} of {}", manifest.sequence, manifest.key));
    context.out.note(format!("{place}: {blocks} blocks, {}", out::bytes(length)));
    if let (Ok(node), Some(served)) = (&node, served) {
        context.out.note(format!("pinned by {}, which serves all {served} blocks", node.url()));
    }
    name.iter().for_each(|name| context.out.note(format!("/ipns/{name} points at it")));
    remote.iter().for_each(|status| context.out.note(format!("the pinning service says: {status}")));
    Ok(Exit::Ok)
}

/// The newest run of this store that gave a bundle.
fn of_bundle(cid: &Cid, store: &Store) -> Result<(u64, RunBody), CliError> {
    let digest = crate::bundle::car::digest_of(cid);
    let run = store.runs(usize::MAX)?.into_iter().find(|run| run.bundle == digest);
    let run = run.ok_or_else(|| {
        CliError::new(Exit::Usage, format!("no run of this store gave {cid}"))
            .hint(format!("`pipe reproduce {cid} --attest` derives it again, and signs that"))
    })?;
    let body = serde_json::from_str(&run.body)
        .map_err(|e| CliError::new(Exit::Store, format!("run {}: {e}", run.id)))?;
    Ok((run.started_ms, body))
}

/// A new entry of the chain; the head itself, if it already says the same of the same run.
fn sign(
    args: &Args,
    bundle_cid: Cid,
    bundle: &Bundle,
    started_ms: u64,
    body: &RunBody,
    store: &Store,
    context: &Context,
) -> Result<(Cid, Manifest), CliError> {
    let failed = |e| CliError::new(Exit::Store, e);
    let key = secret_key(context)?;
    let mut draft = Manifest::draft(Claim::Published, bundle_cid, body.facts.clone(), now_ms());
    (draft.started_ms, draft.wall_ms) = (started_ms, body.wall_ms);
    if args.with_inputs {
        draft.files = Parcel::new(bundle, store).inputs().map_err(|e| lost(e, body.recipe.as_deref()))?;
    }
    // What is signed stays as long as the signature does.
    Parcel::new(bundle, store)
        .hold(&draft.files, &format!("published with {bundle_cid}"))
        .map_err(|e| lost(e, body.recipe.as_deref()))?;
    if let Some(head) = chain::head(store, &key.public()).map_err(failed)? {
        let entry = chain::get(store, &head).map_err(failed)?;
        let says = |m: &Manifest| (m.claim.clone(), m.bundle, m.files.clone(), m.facts.clone(), m.started_ms);
        if says(&entry) == says(&draft) {
            return Ok((head, entry));
        }
    }
    chain::append(store, &key, draft).map_err(failed)
}

/// What travels is not all there: which step makes it again.
pub fn lost(e: TransportError, recipe: Option<&str>) -> CliError {
    match e.lost().map(str::to_owned) {
        Some(step) => {
            let recipe = recipe.unwrap_or("RECIPE");
            let hint = format!("`pipe run {recipe} --force {step}` makes it again");
            CliError::new(Exit::Store, e).hint(hint)
        }
        None => CliError::new(Exit::Step, e),
    }
}

/// The CAR, whole or not at all under its name.
fn write(
    cid: &Cid,
    manifest: &Manifest,
    bundle: &Bundle,
    store: &Store,
    path: &Path,
) -> Result<usize, CliError> {
    let io = |e: std::io::Error| CliError::new(Exit::Step, format!("{}: {e}", path.display()));
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(io)?;
    let mut file = out::shared_file(folder).map_err(io)?;
    let mut writer = BufWriter::with_capacity(1 << 18, file.as_file_mut());
    let blocks = publish::export(cid, manifest, bundle, store, &mut writer)
        .map_err(|e| CliError::new(Exit::Step, e))?;
    writer.flush().map_err(io)?;
    drop(writer);
    file.persist(path).map_err(|e| io(e.error))?;
    Ok(blocks.len())
}

/// Hand it to a node, pin it there, and see that the node now serves every block.
fn deliver(node: &Node, cid: &Cid, manifest: &Manifest, path: &Path) -> Result<usize, CliError> {
    let too_long = std::fs::metadata(path).is_ok_and(|meta| meta.len() > BLOCK_MAX);
    if too_long && let Some((cid, length)) = longest(path)?.filter(|(_, length)| *length > BLOCK_MAX) {
        let message = format!("block {cid} has {length} bytes; nodes take at most {BLOCK_MAX}");
        return Err(CliError::new(Exit::Step, message).hint("the pipeline has too many steps for one block"));
    }
    node.import(path).map_err(network)?;
    // The chain before it is pinned already, where it was published: not again with every entry.
    node.pin(cid, false).map_err(network)?;
    node.pin(&manifest.bundle, true).map_err(network)?;
    manifest.files.values().try_for_each(|root| node.pin(root, true)).map_err(network)?;
    let car = File::open(path).map_err(|e| CliError::new(Exit::Step, format!("{}: {e}", path.display())))?;
    node::check_serves(node, BufReader::new(car)).map_err(|e| match e {
        ServeError::Node(e) => network(e),
        ServeError::Car(e) => CliError::new(Exit::Step, format!("{}: {e}", path.display())),
    })
}

fn longest(path: &Path) -> Result<Option<(Cid, u64)>, CliError> {
    let wrong = |e: &dyn std::fmt::Display| CliError::new(Exit::Step, format!("{}: {e}", path.display()));
    let file = File::open(path).map_err(|e| wrong(&e))?;
    let mut car = crate::bundle::car::CarReader::new(BufReader::new(file)).map_err(|e| wrong(&e))?;
    let mut longest = None;
    while let Some(section) = car.next_section().map_err(|e| wrong(&e))? {
        longest = longest.max(Some((section.length, section.cid)));
    }
    Ok(longest.map(|(length, cid)| (cid, length)))
}

impl std::str::FromStr for Ipfs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ipfs::parse(text).ok_or_else(|| "expected auto, off, http://HOST:PORT or /ip4/HOST/tcp/PORT".into())
    }
}
