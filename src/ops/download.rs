//! The `fetch` op: bytes from outside into the store, by the hash the recipe gives.

use pipe_store::{Artifact, Output, StoreError};

use super::fetch::{self, FetchError};
use super::{Done, OpError, Progress, Unit, World, local};
use crate::recipe::op::Fetch;

pub fn run(op: &Fetch, world: &World<'_>, progress: &(dyn Fn(Progress) + Sync)) -> Result<Done, OpError> {
    let mut done = Done::default();
    for file in &op.files {
        let mut staged = world.store.stage()?;
        let beat =
            |p: fetch::Progress| progress(Progress { done: p.bytes, total: p.total, unit: Unit::Bytes });
        let fetched = fetch::fetch(file, staged.file_mut(), world.partial, world.fetch, &beat, world.cancel)
            .map_err(|e| match e {
                FetchError::Cancelled { .. } => OpError::Cancelled,
                FetchError::Write { source, .. } => StoreError::io("write", staged.path(), source).into(),
                e => e.into(),
            })?;
        for failure in &fetched.failures {
            done.log.push_str(&format!("{}: {failure}\n", file.name));
        }
        let (digest, length) = staged.commit()?;
        let media_type = local::media_type(&file.name).into();
        done.outputs
            .push(Output { name: file.name.clone(), artifact: Artifact { digest, length, media_type } });
        done.facts.insert(format!("source of {}", file.name), fetched.source.into());
    }
    Ok(done)
}
