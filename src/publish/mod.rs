//! Results made public: keys, signed manifests, their chain, IPFS nodes. Knows no terminal and runs no step.

mod bytes;
pub mod chain;
pub mod compare;
mod fetch;
mod http;
mod key;
mod manifest;
pub mod node;
mod parcel;
pub mod verdict;

pub use fetch::{FetchError, Origin, OriginError, fetch};
pub use key::{KeyError, PublicKey, SecretKey, Signature};
pub use manifest::{Claim, Link, Manifest, ManifestError};
pub use parcel::{Checked, ReceiveError, Received, Wanted, check, export, receive};
