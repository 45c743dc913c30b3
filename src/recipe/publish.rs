//! `[publish]`: where results go. Enters no key and no bundle: the same recipe elsewhere has the same address.

use toml::de::DeValue;

use super::diagnostic::Mistake;
use super::span::Span;
use super::syntax::Document;
use super::table::{Subject, Table, wrong_type};

/// What a recipe says about publishing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publish {
    pub ipfs: Ipfs,
}

/// Which IPFS node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ipfs {
    /// That of this machine, if one answers.
    #[default]
    Auto,
    Off,
    /// The address of a node's RPC, which must answer.
    Url(String),
}

impl Ipfs {
    /// As a recipe or a command line writes it.
    pub fn parse(text: &str) -> Option<Ipfs> {
        match text {
            "auto" => Some(Ipfs::Auto),
            "off" => Some(Ipfs::Off),
            url if url.starts_with("http://") || url.starts_with("/ip") || url.starts_with("/dns") => {
                Some(Ipfs::Url(url.to_owned()))
            }
            _ => None,
        }
    }
}

pub fn read(document: &Document<'_>, mistakes: &mut Vec<Mistake>) -> Publish {
    let Some(value) = document.root.get("publish") else { return Publish::default() };
    let DeValue::Table(inner) = value.get_ref() else {
        wrong_type("publish", value, "a table", mistakes);
        return Publish::default();
    };
    let span = Span::from(value.span());
    let table =
        Table { subject: Subject::Part("publish"), span, inner, damaged: document.damaged(span.start) };
    table.only(&["ipfs"], mistakes);
    let Some((text, span)) = table.string("ipfs", mistakes) else { return Publish::default() };
    let ipfs = Ipfs::parse(text).unwrap_or_else(|| {
        let mistake = Mistake::new(span, format!("`{text}` names no IPFS node"));
        mistakes.push(mistake.expected("\"auto\", \"off\" or the address of a node, http://HOST:PORT"));
        Ipfs::Auto
    });
    Publish { ipfs }
}
