//! A CID's manifest, chain and bundle from nodes and gateways, tried in order. Believes none of them.

use std::io::Read;

use cid::Cid;
use pipe_store::Store;

use super::node::{Gateway, Node, NodeError};
use super::parcel::{MANIFEST_MAX, ReceiveError, Received, Wanted, receive_blocks};
use super::{Manifest, chain};
use crate::bundle::{Blocks, TransportError, car};

/// Where blocks may come from.
pub enum Origin {
    Node(Box<Node>),
    Gateway(Gateway),
}

/// Why one origin did not do.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error("{url}: {source}")]
    Received { url: String, source: Box<ReceiveError> },
}

/// Nobody had it, or nobody had it right.
#[derive(Debug, thiserror::Error)]
#[error("nobody gave {cid}: {}", list(failures))]
pub struct FetchError {
    pub cid: Cid,
    pub failures: Vec<OriginError>,
}

fn list(failures: &[OriginError]) -> String {
    match failures {
        [] => "there is nobody to ask".into(),
        some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    }
}

impl FetchError {
    /// Did somebody answer with something that is wrong, rather than not at all?
    pub fn is_wrong(&self) -> bool {
        self.failures.iter().any(|f| match f {
            OriginError::Node(e) => matches!(e, NodeError::Lies { .. }),
            OriginError::Received { .. } => true,
        })
    }
}

impl Origin {
    pub fn url(&self) -> &str {
        match self {
            Origin::Node(node) => node.url(),
            Origin::Gateway(gateway) => &gateway.url,
        }
    }

    fn block(&self, cid: &Cid) -> Result<Vec<u8>, NodeError> {
        match self {
            Origin::Node(node) => node.block(cid, false),
            Origin::Gateway(gateway) => gateway.block(cid),
        }
    }

    fn car(&self, cid: &Cid) -> Result<impl Read, NodeError> {
        match self {
            Origin::Node(node) => node.export(cid),
            Origin::Gateway(gateway) => gateway.export(cid),
        }
    }
}

/// Get it from the first origin that gives all of it; keep it in the store, checked.
pub fn fetch(cid: &Cid, origins: &[Origin], wanted: &Wanted, store: &Store) -> Result<Received, FetchError> {
    let mut failures = Vec::new();
    for origin in origins {
        match from(origin, cid, wanted, store) {
            Ok(received) => return Ok(received),
            Err(e) => failures.push(e),
        }
    }
    Err(FetchError { cid: *cid, failures })
}

fn from(origin: &Origin, cid: &Cid, wanted: &Wanted, store: &Store) -> Result<Received, OriginError> {
    let received = |source: ReceiveError| {
        let url = origin.url().to_owned();
        OriginError::Received { url, source: Box::new(source) }
    };
    let transport = |e: TransportError| received(e.into());
    let mut blocks = Blocks::new(*cid, store).map_err(transport)?;
    let first = origin.block(cid)?;
    blocks.add(cid, &first).map_err(transport)?;
    let mut cars = vec![*cid];
    if Manifest::looks_like(&first) {
        let manifest = Manifest::from_bytes(&first)
            .map_err(|source| received(chain::ChainError::Manifest { cid: *cid, source }.into()))?;
        cars = vec![manifest.bundle];
        cars.extend(manifest.files.values());
        let mut next = manifest.previous;
        while let Some(entry) = next {
            let bytes = match origin.block(&entry) {
                Ok(bytes) if bytes.len() as u64 <= MANIFEST_MAX => bytes,
                Err(e @ NodeError::Lies { .. }) => return Err(e.into()),
                // The rest of the chain may be with others.
                _ => break,
            };
            blocks.add(&entry, &bytes).map_err(transport)?;
            // Checked against its neighbours later; here it only tells where to look next.
            next = Manifest::from_bytes(&bytes).ok().and_then(|manifest| manifest.previous);
        }
    }
    for root in cars {
        if root.codec() == car::RAW {
            blocks.add(&root, &origin.block(&root)?).map_err(transport)?;
        } else {
            blocks.add_car(origin.car(&root)?).map_err(transport)?;
        }
    }
    let wanted = Wanted { cid: Some(*cid), whole: true, ..wanted.clone() };
    receive_blocks(&blocks, &wanted, store).map_err(received)
}
