//! Results made public: keys, signed manifests, their chain, IPFS nodes. Knows no terminal and runs no step.

mod bytes;
pub mod chain;
mod http;
mod key;
mod manifest;
pub mod node;
mod parcel;

pub use key::{KeyError, PublicKey, SecretKey, Signature};
pub use manifest::{Claim, Link, Manifest, ManifestError};
pub use parcel::{ReceiveError, Received, Wanted, export, receive};
