//! Where bytes may come from, as a recipe writes it: `file:`, `http(s):`, `hf:`, `pypi:`. Fetches nothing.

use std::path::Path;

use super::op::Source;

/// Why a source string says nothing usable, and how it should look.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    pub message: String,
    pub hint: String,
}

const HF_FORM: &str = "hf:OWNER/REPO@COMMIT/PATH";
const PYPI_FORM: &str = "pypi:NAME==VERSION/path/inside/wheel";

fn wrong<T>(message: impl Into<String>, hint: impl Into<String>) -> Result<T, SourceError> {
    Err(SourceError { message: message.into(), hint: hint.into() })
}

/// Reads one source. A relative `file:` path is taken from `folder`, the recipe's.
pub fn parse_source(text: &str, folder: &Path) -> Result<Source, SourceError> {
    if text.chars().any(|c| c.is_control()) {
        return wrong("a source holds a control character", "write it on one line, without escapes");
    }
    match text.split_once(':') {
        Some(("file", path)) => match path {
            "" => wrong("`file:` names no path", "write file:PATH"),
            _ => Ok(Source::File(folder.join(path))),
        },
        Some(("http" | "https", _)) => http(text),
        Some(("hf", rest)) => hf(rest),
        Some(("pypi", rest)) => pypi(rest),
        _ => wrong(
            format!("`{}` is not a source", text),
            format!("a source begins with file:, http://, https://, {HF_FORM} or {PYPI_FORM}"),
        ),
    }
}

fn http(text: &str) -> Result<Source, SourceError> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.map_or("", |rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    if host.is_empty() {
        return wrong("the URL names no host", "write https://HOST/PATH");
    }
    if host.contains('@') {
        // Sources are part of the bundle, and bundles are public.
        return wrong(
            "the URL holds a user name or password",
            "sources are published with every result; leave it out",
        );
    }
    if text.contains(char::is_whitespace) {
        return wrong("the URL holds a blank", "write %20 for a blank");
    }
    Ok(Source::Http(text.to_string()))
}

fn hf(rest: &str) -> Result<Source, SourceError> {
    let mut parts = rest.splitn(3, '/');
    let (owner, repo, path) =
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next());
    let (repo, revision) = match repo.split_once('@') {
        Some((repo, revision)) => (repo, Some(revision)),
        None => (repo, None),
    };
    if !is_name(owner) || !is_name(repo) {
        return wrong("an `hf:` source names OWNER/REPO", format!("write {HF_FORM}"));
    }
    let Some(revision) = revision.filter(|revision| !revision.is_empty()) else {
        return wrong(
            format!("`{owner}/{repo}` has no revision, so it may answer with other bytes tomorrow"),
            format!("pin a commit: {HF_FORM}; the repository's history lists its commits"),
        );
    };
    if !(revision.len() == 40 && revision.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))) {
        return wrong(
            format!("`{}` is not a commit: branches, tags and short hashes can move", revision),
            "pin the full commit, 40 lower-case hex digits",
        );
    }
    match path.filter(|path| is_inner_path(path)) {
        Some(path) => Ok(Source::Hf {
            repo: format!("{owner}/{repo}"),
            revision: revision.to_string(),
            path: path.to_string(),
        }),
        None => wrong(
            "an `hf:` source ends with the path of a file in the repository",
            format!("write {HF_FORM}"),
        ),
    }
}

fn pypi(rest: &str) -> Result<Source, SourceError> {
    let (project, path) = rest.split_once('/').map_or((rest, None), |(project, path)| (project, Some(path)));
    let Some((name, version)) = project.split_once("==") else {
        let name = project.split(['<', '>', '=', '!', '~', '@', '[', ';']).next().unwrap_or_default();
        return wrong(
            format!("`{}` has no exact version, so it may answer with other bytes tomorrow", project),
            format!(
                "pin it: pypi:{}==VERSION/path/inside/wheel",
                if name.is_empty() { "NAME" } else { name }
            ),
        );
    };
    // Both go to pip as one argument: neither may look like an option or like something else pip reads.
    if !is_name(name) || !name.ends_with(|c: char| c.is_ascii_alphanumeric()) {
        return wrong(format!("`{}` is not the name of a package", name), format!("write {PYPI_FORM}"));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '!' | '+' | '_' | '-');
    if !version.starts_with(|c: char| c.is_ascii_alphanumeric()) || !version.chars().all(plain) {
        return wrong(
            format!("`{}` is not one version", version),
            "pin one release, such as ==1.2.3, without wildcards or further conditions",
        );
    }
    match path.filter(|path| is_inner_path(path)) {
        Some(path) => Ok(Source::Pypi { name: name.into(), version: version.into(), path: path.into() }),
        None => wrong(
            "a `pypi:` source ends with the path of a file inside the wheel",
            format!("write {PYPI_FORM}"),
        ),
    }
}

/// Letters, digits, `.`, `_`, `-`, beginning with a letter or digit.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// A relative path with forward slashes that stays inside its folder.
pub fn is_inner_path(text: &str) -> bool {
    !text.contains(['\\', '\0']) && text.split('/').all(|part| !matches!(part, "" | "." | ".."))
}
