//! An IPFS node, asked over its RPC. Nothing it says is believed: blocks are checked against their CIDs by whoever
//! reads them here. Every call ends: with an answer, or after the time-out.
//!
//! `version`, `pin/add`, `block/get` and `name/publish` go through `ipfs-api-backend-hyper`; `dag/import` and
//! `dag/export`, which it lacks, are plain HTTP to the same RPC.

use std::future::Future;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use cid::Cid;
use futures_util::StreamExt;
use ipfs_api_backend_hyper::{BackendWithGlobalOptions, GlobalOptions, IpfsApi, IpfsClient, TryFromUri};

use super::http::{self, Patient};

/// Nodes take and give blocks up to this length.
pub const BLOCK_MAX: u64 = 2 << 20;

/// A node's RPC.
pub struct Node {
    url: String,
    client: IpfsClient,
    runtime: tokio::runtime::Runtime,
    patience: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("`{url}` is no address of an IPFS node: expected http://HOST:PORT or /ip4/HOST/tcp/PORT")]
    Address { url: String },
    #[error("no IPFS node answers at {url}: {why}")]
    Absent { url: String, why: String },
    #[error("{url} gave no answer to {call} in {} s{}", patience.as_secs_f32(), of(cid))]
    Slow { url: String, call: &'static str, cid: Option<Cid>, patience: Duration },
    #[error("{url} has no room: {message}")]
    Full { url: String, message: String },
    #[error("{url} refused {call}{}: {message}", of(cid))]
    Refused { url: String, call: &'static str, cid: Option<Cid>, message: String },
    #[error("{url} gives wrong bytes for {cid}: they are not what the address says")]
    Lies { url: String, cid: Cid },
    #[error("{url} does not serve {cid}: {message}")]
    Lacks { url: String, cid: Cid, message: String },
    #[error("could not read {path}: {source}")]
    File { path: String, source: std::io::Error },
    #[error("BUG: no runtime: {0}")]
    Runtime(std::io::Error),
}

fn of(cid: &Option<Cid>) -> String {
    cid.map_or_else(String::new, |cid| format!(" of {cid}"))
}

impl Node {
    /// By the address of its RPC, as a URL or as Kubo writes it down. Asks nothing yet.
    pub fn new(address: &str, patience: Duration) -> Result<Node, NodeError> {
        let wrong = || NodeError::Address { url: address.to_owned() };
        let url = url(address).ok_or_else(wrong)?;
        let client = IpfsClient::from_str(&url).map_err(|_| wrong())?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(NodeError::Runtime)?;
        Ok(Node { url, client, runtime, patience })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its version: whether a node is there at all.
    pub fn version(&self) -> Result<String, NodeError> {
        let answer = self.wait("version", None, self.client.version()).map_err(|e| match e {
            NodeError::Refused { url, message, .. } => NodeError::Absent { url, why: message },
            e => e,
        })?;
        Ok(answer.version)
    }

    /// Keep a block; with `below` everything it links too.
    pub fn pin(&self, cid: &Cid, below: bool) -> Result<(), NodeError> {
        self.wait("pin/add", Some(*cid), self.client.pin_add(&cid.to_string(), below)).map(|_| ())
    }

    /// Let the node's own IPNS name point at a CID; the name.
    pub fn publish_name(&self, cid: &Cid) -> Result<String, NodeError> {
        let path = format!("/ipfs/{cid}");
        let call = self.client.name_publish(&path, false, None, None, None);
        self.wait("name/publish", Some(*cid), call).map(|answer| answer.name)
    }

    /// A block, checked. `local` asks for what the node itself holds; else it may ask its peers.
    pub fn block(&self, cid: &Cid, local: bool) -> Result<Vec<u8>, NodeError> {
        let options = GlobalOptions { offline: Some(local), timeout: Some(self.patience) };
        let client = BackendWithGlobalOptions::new(self.client.clone(), options);
        let name = cid.to_string();
        let read = async {
            let (mut stream, mut bytes) = (client.block_get(&name), Vec::new());
            while let Some(piece) = stream.next().await {
                bytes.extend_from_slice(&piece?);
                if bytes.len() as u64 > BLOCK_MAX {
                    break;
                }
            }
            Ok::<_, ipfs_api_backend_hyper::Error>(bytes)
        };
        let bytes = self.wait("block/get", Some(*cid), read).map_err(|e| match e {
            NodeError::Refused { url, message, .. } => NodeError::Lacks { url, cid: *cid, message },
            e => e,
        })?;
        match crate::bundle::car::fits(cid, &bytes) {
            true => Ok(bytes),
            false => Err(NodeError::Lies { url: self.url.clone(), cid: *cid }),
        }
    }

    fn wait<T, E: std::fmt::Display>(
        &self,
        call: &'static str,
        cid: Option<Cid>,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, NodeError> {
        let url = self.url.clone();
        let patience = self.patience;
        self.runtime.block_on(async {
            match tokio::time::timeout(patience, answer).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(e)) => Err(self.refused(call, cid, e.to_string())),
                Err(_) => Err(NodeError::Slow { url, call, cid, patience }),
            }
        })
    }

    fn refused(&self, call: &'static str, cid: Option<Cid>, message: String) -> NodeError {
        let url = self.url.clone();
        let message = message.trim().to_owned();
        let full = ["no space left", "storage limit", "StorageMax", "disk quota"];
        match full.iter().any(|words| message.contains(words)) {
            true => NodeError::Full { url, message },
            false => NodeError::Refused { url, call, cid, message },
        }
    }

    /// Hand it all blocks of a CAR. It pins nothing by itself.
    pub fn import(&self, path: &Path) -> Result<(), NodeError> {
        let file = |source| NodeError::File { path: path.display().to_string(), source };
        let body = std::fs::File::open(path).map_err(file)?;
        // A gigabyte takes its time: the patience is for a megabyte each.
        let megabytes = body.metadata().map_err(file)?.len() >> 20;
        let patience = self.patience.saturating_mul(1 + u32::try_from(megabytes / 64).unwrap_or(u32::MAX));
        let url = format!("{}/api/v0/dag/import?pin-roots=false&silent=false", self.url);
        let answer = http::post_file(&url, body, patience).map_err(|e| self.http("dag/import", None, e))?;
        // One JSON a line; a failure in the middle comes as a line as well.
        let failed = answer.lines().find_map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).ok()?;
            value["Message"].as_str().map(str::to_owned)
        });
        failed.map_or(Ok(()), |message| Err(self.refused("dag/import", None, message)))
    }

    /// Everything below a CID as a CAR.
    pub fn export(&self, cid: &Cid) -> Result<Patient, NodeError> {
        let url = format!("{}/api/v0/dag/export?arg={cid}&progress=false", self.url);
        http::stream(http::Ask::Post, &url, self.patience).map_err(|e| self.http("dag/export", Some(*cid), e))
    }

    fn http(&self, call: &'static str, cid: Option<Cid>, e: http::HttpError) -> NodeError {
        let url = self.url.clone();
        match e {
            http::HttpError::Slow => NodeError::Slow { url, call, cid, patience: self.patience },
            http::HttpError::Absent(why) => NodeError::Absent { url, why },
            http::HttpError::Status { message } => self.refused(call, cid, message),
        }
    }
}

/// A URL without a path.
fn url(address: &str) -> Option<String> {
    let address = address.trim().trim_end_matches('/');
    let host = match address.split('/').collect::<Vec<_>>().as_slice() {
        ["", "ip4" | "dns4" | "dns", host, "tcp", port, ..] => format!("{host}:{port}"),
        ["", "ip6", host, "tcp", port, ..] => format!("[{host}]:{port}"),
        _ => address.strip_prefix("http://")?.to_owned(),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    (!host.is_empty() && host.chars().all(plain)).then(|| format!("http://{host}"))
}

/// A gateway: a server that gives blocks and CARs of CIDs over plain HTTP(S), and is believed as little.
pub struct Gateway {
    pub url: String,
    pub patience: Duration,
}

impl Gateway {
    pub fn block(&self, cid: &Cid) -> Result<Vec<u8>, NodeError> {
        let mut bytes = Vec::new();
        let mut answer = self.get(cid, "raw")?;
        let read = answer.by_ref().take(BLOCK_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|e| NodeError::Lacks { url: self.url.clone(), cid: *cid, message: e.to_string() })?;
        match crate::bundle::car::fits(cid, &bytes) {
            true => Ok(bytes),
            false => Err(NodeError::Lies { url: self.url.clone(), cid: *cid }),
        }
    }

    /// Everything below a CID as a CAR.
    pub fn export(&self, cid: &Cid) -> Result<Patient, NodeError> {
        self.get(cid, "car&dag-scope=all")
    }

    fn get(&self, cid: &Cid, format: &str) -> Result<Patient, NodeError> {
        let url = format!("{}/ipfs/{cid}?format={format}", self.url.trim_end_matches('/'));
        let call = "a block";
        http::stream(http::Ask::Get, &url, self.patience).map_err(|e| match e {
            http::HttpError::Slow => {
                NodeError::Slow { url: self.url.clone(), call, cid: Some(*cid), patience: self.patience }
            }
            http::HttpError::Absent(why) => NodeError::Absent { url: self.url.clone(), why },
            http::HttpError::Status { message } => {
                NodeError::Lacks { url: self.url.clone(), cid: *cid, message }
            }
        })
    }
}

/// Compare every block of a CAR with what the node itself holds. How many there are.
pub fn check_serves(node: &Node, car: impl Read) -> Result<usize, ServeError> {
    let mut count = 0;
    for block in crate::bundle::car::CarReader::new(car)? {
        // A block that fits its CID is the block.
        node.block(&block?.cid, true)?;
        count += 1;
    }
    Ok(count)
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Car(#[from] crate::bundle::car::CarError),
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({})", self.url)
    }
}

/// Ask a pinning service, by the standard Pinning Service API, to keep a CID; what it says the state is.
pub fn pin_remotely(
    service: &str,
    token: &str,
    cid: &Cid,
    name: &str,
    patience: Duration,
) -> Result<String, NodeError> {
    let url = format!("{}/pins", service.trim_end_matches('/'));
    let body = serde_json::json!({ "cid": cid.to_string(), "name": name });
    let failed = |e: http::HttpError| match e {
        http::HttpError::Slow => {
            NodeError::Slow { url: service.to_owned(), call: "pins", cid: Some(*cid), patience }
        }
        http::HttpError::Absent(why) => NodeError::Absent { url: service.to_owned(), why },
        http::HttpError::Status { message } => {
            NodeError::Refused { url: service.to_owned(), call: "pins", cid: Some(*cid), message }
        }
    };
    let answer = http::post_json(&url, token, &body, patience).map_err(failed)?;
    let status = answer["status"].as_str().unwrap_or("no status").to_owned();
    match status.as_str() {
        "queued" | "pinning" | "pinned" => Ok(status),
        _ => Err(failed(http::HttpError::Status { message: format!("status `{status}`") })),
    }
}
