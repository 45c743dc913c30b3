//! Results made public: keys, signed manifests, their chain, IPFS nodes. Knows no terminal and runs no step.

mod bytes;
pub mod chain;
mod key;
mod manifest;

pub use key::{KeyError, PublicKey, SecretKey, Signature};
pub use manifest::{Claim, Link, Manifest, ManifestError};
