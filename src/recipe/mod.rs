//! What a TOML file says, with spans: every mistake is collected, none hides another.
//! Knows no graph, no cache, no device.
//!
//! A [`Recipe`] may hold mistakes; [`crate::pipeline::compile`] adds its own and refuses them all at once.

mod diagnostic;
mod fetch;
mod infer;
mod introspect;
mod near;
pub mod op;
mod probe;
mod publish;
mod render;
mod score;
mod sections;
mod source;
mod span;
mod syntax;
mod table;
mod tokenize;

use std::cell::OnceCell;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use diagnostic::{Diagnostic, Related};
pub(crate) use diagnostic::{Mistake, diagnostics};
pub use fetch::ONLY_FILE;
pub use infer::DEFAULT_MAX_TOKENS;
pub(crate) use near::did_you_mean;
pub use op::Op;
pub use publish::{Ipfs, Publish};
pub use render::render;
pub(crate) use source::is_inner_path;
pub use source::{SourceError, parse_source};
pub use span::Span;

/// No recipe is larger; a file that is was named by mistake.
pub const MAX_BYTES: u64 = 64 << 20;

/// A recipe as it was read.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// As the user named it; part of messages, never of a result.
    pub file: String,
    pub text: String,
    /// Empty when it is missing, which is a mistake.
    pub name: String,
    /// Sorted by name. A name that stands twice has two entries, which is a mistake.
    pub entries: Vec<Entry>,
    /// Enters no key and no bundle.
    pub publish: Publish,
    pub(crate) mistakes: Vec<Mistake>,
    /// Some sections could not be read at all.
    pub(crate) torn: bool,
}

/// One `[steps.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub name: String,
    /// Of the name.
    pub span: Span,
    /// None when `op` is missing or unknown.
    pub kind: Option<Kind>,
    /// None when a parameter is wrong.
    pub op: Option<Op>,
    pub references: Vec<Reference>,
    /// Of the path of a local file.
    pub path: Option<Span>,
}

/// The ops a recipe can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Fetch,
    File,
    Tokenize,
    Infer,
    Score,
    Introspect,
}

impl Kind {
    pub const ALL: [Kind; 6] =
        [Kind::Fetch, Kind::File, Kind::Tokenize, Kind::Infer, Kind::Score, Kind::Introspect];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Fetch => "fetch",
            Kind::File => "file",
            Kind::Tokenize => "tokenize",
            Kind::Infer => "infer",
            Kind::Score => "score",
            Kind::Introspect => "introspect",
        }
    }
}

/// A step that another one names, `STEP` or `STEP.OUTPUT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The key it stands at.
    pub port: &'static str,
    pub step: String,
    pub output: Option<String>,
    pub span: Span,
}

/// The recipe's file cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read the recipe `{}`: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the recipe `{}` is larger than {MAX_BYTES} bytes; is it another kind of file?", path.display())]
    TooLarge { path: PathBuf },
    #[error("{}:{line}: byte {at} is not UTF-8; a recipe is a TOML text file", path.display())]
    NotText { path: PathBuf, at: usize, line: usize },
}

/// Reads a recipe's file. Mistakes inside it are kept in the recipe, for `compile` to report.
pub fn load(path: &Path) -> Result<Recipe, LoadError> {
    let read = |source| LoadError::Read { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(read)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(LoadError::TooLarge { path: path.to_path_buf() });
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
        LoadError::NotText { path: path.to_path_buf(), at, line }
    })?;
    Ok(parse(&path.display().to_string(), path.parent().unwrap_or(Path::new("")), text))
}

/// Reads a recipe's text. Relative paths in it are joined to `folder`. Does no I/O and never fails:
/// what is wrong is kept in the recipe.
pub fn parse(file: &str, folder: &Path, text: impl Into<String>) -> Recipe {
    let text = text.into();
    let mut mistakes = Vec::new();
    let patched = OnceCell::new();
    let document = syntax::parse(&text, &patched, &mut mistakes);
    let mut of_sections = Vec::new();
    let (name, entries) = sections::read(&text, &document, folder, &mut of_sections);
    let publish = publish::read(&document, &mut of_sections);
    of_sections.retain(|mistake| !document.misread(mistake.span()));
    mistakes.extend(of_sections);
    let torn = document.torn;
    drop(document);
    drop(patched);
    Recipe { file: file.to_string(), text, name, entries, publish, mistakes, torn }
}

impl Recipe {
    /// The mistakes of the text itself; `compile` finds those between steps.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        diagnostics(&self.file, &self.text, &self.mistakes)
    }
}
