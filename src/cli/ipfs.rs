//! Where the IPFS node is, and how a user names a published result: a CID, a CAR file or a run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use cid::Cid;
use pipe_store::{Digest, Store};

use super::Context;
use super::error::{CliError, Exit};
use super::show::{self, Found};
use crate::bundle::{Bundle, car};
use crate::publish::node::{Gateway, Node, NodeError};
use crate::publish::{
    self, FetchError, KeyError, Manifest, Origin, PublicKey, ReceiveError, SecretKey, Wanted,
};
use crate::recipe::Ipfs;

/// How to reach a node.
#[derive(clap::Args)]
pub struct NodeArgs {
    /// The IPFS node: auto (the one of this machine, if it answers), off, or its RPC address
    #[arg(long, value_name = "auto|off|URL")]
    ipfs: Option<Ipfs>,
    /// How long a node may take to answer
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub timeout: Duration,
}

/// Where to look for what is not in the store.
#[derive(clap::Args)]
pub struct OriginArgs {
    #[command(flatten)]
    pub node: NodeArgs,
    /// A gateway that gives blocks and CARs, such as https://ipfs.io; asked after the node (several are asked in order)
    #[arg(long, value_name = "URL")]
    gateway: Vec<String>,
    /// Believe only manifests signed by a key of this file: one ed25519:… a line, # for remarks
    #[arg(long, value_name = "FILE")]
    trusted: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

/// How long the node of this machine may take to say whether it is there at all.
const PRESENCE: Duration = Duration::from_millis(1500);

impl NodeArgs {
    /// The node to use; None if it is off, or automatic and absent: then why.
    pub fn node(&self, recipe: Option<&Ipfs>) -> Result<Result<Node, String>, CliError> {
        let choice = self.ipfs.as_ref().or(recipe).unwrap_or(&Ipfs::Auto);
        match choice {
            Ipfs::Off => Ok(Err("ipfs is off".into())),
            Ipfs::Url(url) => {
                let node = Node::new(url, self.timeout).map_err(network)?;
                node.version().map_err(network)?;
                Ok(Ok(node))
            }
            Ipfs::Auto => {
                let url = local_address();
                let there = Node::new(&url, PRESENCE).and_then(|node| node.version());
                match there {
                    Ok(_) => Ok(Ok(Node::new(&url, self.timeout).map_err(network)?)),
                    Err(e) => Ok(Err(e.to_string())),
                }
            }
        }
    }
}

/// The address that Kubo wrote down, else the default one.
pub fn local_address() -> String {
    let home =
        std::env::var_os("IPFS_PATH").map(Into::into).or_else(|| dirs::home_dir().map(|h| h.join(".ipfs")));
    let written = home.and_then(|home: PathBuf| std::fs::read_to_string(home.join("api")).ok());
    written.unwrap_or_else(|| "http://127.0.0.1:5001".into())
}

pub fn network(e: NodeError) -> CliError {
    let exit = match e {
        NodeError::Address { .. } => Exit::Usage,
        _ => Exit::Network,
    };
    CliError::new(exit, e)
}

/// The key of this store, made on first use.
pub fn secret_key(context: &Context) -> Result<SecretKey, CliError> {
    let key = SecretKey::open_or_make(&context.root.join("keys").join("ed25519"));
    key.map_err(|e: KeyError| CliError::new(Exit::Store, e))
}

/// A bundle, the manifest it came with, and where it was found.
pub struct Located {
    pub manifest: Option<(Cid, Manifest)>,
    pub cid: Cid,
    pub bundle: Bundle,
    /// Entries of the chain that were checked.
    pub entries: usize,
    pub from: String,
    /// Digest and length of what came with it and was checked; empty where that is in the store.
    pub carried: BTreeMap<Digest, u64>,
}

impl Located {
    pub fn digest(&self) -> Digest {
        car::digest_of(&self.cid).unwrap_or_else(|| Digest::of(&self.bundle.to_bytes()))
    }
}

impl OriginArgs {
    /// Is anything asked of where it comes from or who signed it?
    pub fn is_set(&self) -> bool {
        self.trusted.is_some() || !self.gateway.is_empty()
    }

    fn wanted(&self) -> Result<Wanted, CliError> {
        let trusted = self.trusted.as_deref().map(trusted).transpose()?;
        Ok(Wanted { trusted, ..Wanted::default() })
    }

    /// Find what a user names and bring it into the store, checked.
    pub fn locate(&self, name: Option<&str>, store: &Store) -> Result<Located, CliError> {
        let wanted = self.wanted()?;
        if let Some(path) = name.filter(|name| Path::new(name).is_file()) {
            return from_car(path, &wanted, store);
        }
        if let Some(cid) = name.and_then(|name| Cid::from_str(name).ok()) {
            let digest = car::digest_of(&cid).filter(|_| cid.codec() == car::DAG_CBOR);
            let digest = digest.ok_or_else(|| {
                CliError::new(Exit::Usage, format!("{cid} is no manifest and no bundle"))
                    .hint("expected a CID that begins with bafyr4i")
            })?;
            if !store.has(&digest)? {
                return self.ask(&cid, &wanted, store);
            }
        }
        let found = show::find(store, name)?;
        from_store(found, &wanted, store)
    }

    /// Check a CAR file and keep nothing of it.
    pub fn check(&self, path: &str, store: &Store) -> Result<Located, CliError> {
        let (file, wanted) = open_car(path, &self.wanted()?)?;
        let checked = publish::check(&file, &wanted, store).map_err(|e| disbelieved(path, e))?;
        let publish::Checked { manifest, bundle_cid: cid, bundle, entries, carried } = checked;
        Ok(Located { manifest, cid, bundle, entries, from: path.to_owned(), carried })
    }

    fn ask(&self, cid: &Cid, wanted: &Wanted, store: &Store) -> Result<Located, CliError> {
        let mut origins = Vec::new();
        let absent = match self.node.node(None)? {
            Ok(node) => {
                origins.push(Origin::Node(node.into()));
                None
            }
            Err(why) => Some(why),
        };
        let gateway = |url: &String| Gateway { url: url.clone(), patience: self.node.timeout };
        origins.extend(self.gateway.iter().map(|url| Origin::Gateway(gateway(url))));
        let received = publish::fetch(cid, &origins, wanted, store).map_err(|e: FetchError| {
            let hint = absent.map_or_else(String::new, |why| format!("{why}; "));
            let exit = if e.is_wrong() { Exit::Step } else { Exit::Network };
            CliError::new(exit, e)
                .hint(format!("{hint}--ipfs and --gateway name who to ask; a CAR file does too"))
        })?;
        let from = origins.iter().map(|origin| origin.url()).collect::<Vec<_>>().join(", ");
        Ok(located(received, from))
    }
}

fn from_car(path: &str, wanted: &Wanted, store: &Store) -> Result<Located, CliError> {
    let (file, wanted) = open_car(path, wanted)?;
    let received = publish::receive(BufReader::new(file), &wanted, store);
    Ok(located(received.map_err(|e| disbelieved(path, e))?, path.to_owned()))
}

fn open_car(path: &str, wanted: &Wanted) -> Result<(File, Wanted), CliError> {
    let file = File::open(path).map_err(|e| CliError::new(Exit::Usage, format!("{path}: {e}")))?;
    Ok((file, Wanted { whole: true, ..wanted.clone() }))
}

fn disbelieved(path: &str, e: ReceiveError) -> CliError {
    CliError::new(Exit::Step, format!("{path}: {e}")).hint("nothing of it was taken as true")
}

fn located(received: publish::Received, from: String) -> Located {
    let manifest = received.manifest.map(|manifest| (received.cid, manifest));
    let (cid, bundle) = (received.bundle_cid, received.bundle);
    Located { manifest, cid, bundle, entries: received.entries, from, carried: BTreeMap::new() }
}

fn from_store(found: Found, wanted: &Wanted, store: &Store) -> Result<Located, CliError> {
    let (Some(bundle), Some(cid)) = (found.bundle, found.cid) else {
        return Err(CliError::new(Exit::Usage, "this run has no bundle: a step failed")
            .hint("`pipe log` lists the runs"));
    };
    let mut entries = 0;
    if let Some((cid, _)) = &found.manifest {
        for entry in publish::chain::walk(store, *cid) {
            match entry {
                Ok((cid, entry)) => {
                    trust(wanted, &cid, &entry)?;
                    entries += 1;
                }
                Err(e) if e.is_missing() => break,
                Err(e) => return Err(CliError::new(Exit::Step, e)),
            }
        }
    } else if wanted.trusted.is_some() {
        return Err(CliError::new(Exit::Step, ReceiveError::Unsigned { cid }));
    }
    let from = "the store".into();
    Ok(Located { manifest: found.manifest, cid, bundle, entries, from, carried: BTreeMap::new() })
}

fn trust(wanted: &Wanted, cid: &Cid, entry: &Manifest) -> Result<(), CliError> {
    match &wanted.trusted {
        Some(keys) if !keys.contains(&entry.key) => {
            Err(CliError::new(Exit::Step, ReceiveError::Untrusted { manifest: *cid, key: entry.key }))
        }
        _ => Ok(()),
    }
}

/// A file of public keys.
fn trusted(path: &Path) -> Result<Vec<PublicKey>, CliError> {
    let wrong = |e: &dyn std::fmt::Display| CliError::new(Exit::Usage, format!("{}: {e}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| wrong(&e))?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(|line| line.parse().map_err(|e: KeyError| wrong(&e))).collect()
}
