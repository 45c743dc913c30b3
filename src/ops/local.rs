//! The `file` op: a local file or folder into the store. Its contents are its key, so it runs once per content.

use std::path::Path;

use pipe_store::{Artifact, Output};

use super::fetch::{Entry, ListError, list};
use super::{Done, OpError, World};
use crate::recipe::op::LocalFile;

/// What a single file is called as an output, so that its local name changes nothing.
const SINGLE: &str = "file";

/// The files of a `file` step by output name.
pub fn listing(path: &Path) -> Result<Vec<Entry>, ListError> {
    let mut entries = list(path)?;
    if let ([entry], false) = (entries.as_mut_slice(), path.is_dir()) {
        entry.name = SINGLE.into();
    }
    Ok(entries)
}

/// By extension; a fetched or local `file` is bytes.
pub fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("json") => "application/json",
        Some("jsonl") => "application/jsonl",
        Some("safetensors") => "application/x-safetensors",
        Some("txt" | "jinja" | "md") => "text/plain",
        _ => "application/octet-stream",
    }
}

pub fn run(op: &LocalFile, world: &World<'_>) -> Result<Done, OpError> {
    let mut done = Done::default();
    for entry in listing(&op.path).map_err(|e| OpError::input("file", e))? {
        world.check_cancelled()?;
        let (digest, length) = world.store.put_file(&entry.path)?;
        let artifact = Artifact { digest, length, media_type: media_type(&entry.name).into() };
        done.outputs.push(Output { name: entry.name, artifact });
    }
    Ok(done)
}
