//! What merely happened around a run: host, versions, the repository of the recipe. Enters no key and no bundle.

use std::io::{BufRead, BufReader};
use std::path::Path;

use pipe_store::Digest;
use serde::{Deserialize, Serialize};

/// Facts of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    pub pipe: String,
    pub os: String,
    pub arch: String,
    pub threads: usize,
    pub implementation: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Digest of the program that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<Git>,
}

/// The repository a recipe lies in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Git {
    pub commit: String,
    /// Does the recipe differ from what the commit holds? None when it could not be told.
    pub recipe_dirty: Option<bool>,
}

impl Facts {
    pub fn gather(recipe: Option<&Path>, threads: usize, implementation: &str) -> Self {
        Facts {
            pipe: env!("CARGO_PKG_VERSION").into(),
            os: std::env::consts::OS.into(),
            arch: std::env::consts::ARCH.into(),
            threads,
            implementation: implementation.into(),
            host: line_of("/proc/sys/kernel/hostname", |line| Some(line)),
            cpu: line_of("/proc/cpuinfo", |line| {
                line.strip_prefix("model name")?.split_once(": ").map(|p| p.1)
            }),
            // Hashing is the caller's: a store remembers the digests of files.
            binary: None,
            git: recipe.and_then(git),
        }
    }
}

/// The first line of a file that says what is looked for; None where the system has no such file.
fn line_of(path: &str, find: impl Fn(&str) -> Option<&str>) -> Option<String> {
    let file = BufReader::new(std::fs::File::open(path).ok()?);
    let mut lines = file.lines().map_while(Result::ok);
    lines.find_map(|line| find(line.trim()).filter(|found| !found.is_empty()).map(str::to_owned))
}

/// The commit that is checked out where the recipe lies. A folder without a repository has none.
fn git(recipe: &Path) -> Option<Git> {
    let recipe = recipe.canonicalize().ok()?;
    let repository = gix::discover(recipe.parent()?).ok()?;
    let commit = repository.head_commit().ok()?;
    let recipe_dirty = (|| {
        let root = repository.workdir()?.canonicalize().ok()?;
        let committed = commit.tree().ok()?.lookup_entry_by_path(recipe.strip_prefix(root).ok()?).ok()?;
        let Some(entry) = committed else { return Some(true) };
        let now = std::fs::read(&recipe).ok()?;
        Some(entry.object().ok()?.data != now)
    })();
    Some(Git { commit: commit.id.to_string(), recipe_dirty })
}
