//! `hf:OWNER/REPO@REV/PATH`: the hub's cache on this machine first, then its public address scheme.
//! Knows one host name, and that as a default.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::sink::{Halt, Job, copy_file};
use super::{Cause, Failure, http};

/// A cached file that does not fit is noted in `failures`, and the hub itself is asked.
pub(super) fn download(
    repo: &str,
    revision: &str,
    path: &str,
    job: &Job,
    dest: &mut File,
    failures: &mut Vec<Failure>,
) -> Result<u64, Halt> {
    let origin = format!("hf:{repo}@{revision}/{path}");
    let pieces = repo.matches('/').count();
    for (what, value, fits) in
        [("repository", repo, pieces <= 1), ("revision", revision, true), ("path", path, true)]
    {
        if !(fits && is_plain(value)) {
            return Err(Halt::source(&origin, Cause::BadName { what, value: value.to_owned() }));
        }
    }
    let cached = job.env.hub_cache.as_ref().and_then(|cache| find(cache, repo, revision, path));
    if let Some(cached) = cached {
        match copy_file(&cached, job, dest) {
            Err(Halt::Source { origin: file, cause }) => {
                failures.push(Failure { source: job.source, origin: format!("{origin} in {file}"), cause });
            }
            done => return done,
        }
    }
    if job.env.hub_offline {
        return Err(Halt::source(origin, Cause::Offline));
    }
    let url = format!(
        "{}/{}/resolve/{}/{}",
        job.env.hub,
        encode(repo, true),
        encode(revision, false),
        encode(path, true)
    );
    http::download(&url, job.env.hub_token.as_deref(), job, dest)
}

/// The file in the cache: the revision is a commit, or a name that `refs/` translates to one.
fn find(cache: &Path, repo: &str, revision: &str, path: &str) -> Option<PathBuf> {
    let folder = cache.join(format!("models--{}", repo.replace('/', "--")));
    let named = std::fs::read_to_string(folder.join("refs").join(revision)).ok();
    let commit = named.as_deref().map_or(revision, str::trim);
    let file = folder.join("snapshots").join(commit).join(path);
    (is_plain(commit) && file.is_file()).then_some(file)
}

/// Relative, and every piece a plain name: it cannot climb out of a folder or an address.
fn is_plain(text: &str) -> bool {
    !text.contains(['\\', '\0', '\n', '\r']) && text.split('/').all(|piece| !matches!(piece, "" | "." | ".."))
}

/// Percent-encodes for the path of an address; a revision's slash is part of its name.
fn encode(text: &str, keep_slash: bool) -> String {
    text.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) || (keep_slash && b == b'/') {
            out.push(b as char);
        } else {
            out += &format!("%{b:02X}");
        }
        out
    })
}
