//! `pipe key`: whose signature this store gives.

use super::error::{CliError, Exit};
use super::{Context, ipfs};
use crate::publish::chain;

/// Show the public key that signs what this store publishes; make the pair if there is none
///
/// The secret half is in keys/ed25519 of the store, readable by its owner only. It is never shown. Whoever copies the
/// store copies the key and the chain of what it signed.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe key\n  pipe key >> trusted.keys     for `pipe verify --trusted trusted.keys`"
)]
pub struct Args {}

pub fn main(_: Args, context: &Context) -> Result<Exit, CliError> {
    let store = context.open_store()?;
    let key = ipfs::secret_key(context)?.public();
    let head = chain::head(&store, &key).map_err(|e| CliError::new(Exit::Store, e))?;
    match context.out.json {
        true => {
            context.out.value(&serde_json::json!({ "key": key, "head": head.map(|cid| cid.to_string()) }))?
        }
        false => context.out.line(key.to_string())?,
    }
    Ok(Exit::Ok)
}
