//! The page as it grows: the only place that writes markup and the only one that escapes. Markup is `'static`, so
//! what a prompt, a model or a recipe says can come in as text or as the value of an attribute, and as nothing else.

use std::fmt::{self, Display, Write};

use crate::markup::entity;

/// HTML, with inline SVG.
#[derive(Default)]
pub struct Page {
    out: String,
}

/// An attribute.
pub type Attr<'a> = (&'static str, &'a dyn Display);

impl Page {
    /// Markup of our own.
    pub fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.out.push_str(markup);
        self
    }

    /// Text of anybody.
    pub fn text(&mut self, text: impl Display) -> &mut Self {
        let _ = write!(Escaped(&mut self.out), "{text}");
        self
    }

    /// A tag that opens.
    pub fn open(&mut self, name: &'static str, attributes: &[Attr<'_>]) -> &mut Self {
        self.out.push('<');
        self.out.push_str(name);
        for (attribute, value) in attributes {
            let _ = write!(self.out, " {attribute}=\"");
            self.text(value);
            self.out.push('"');
        }
        self.out.push('>');
        self
    }

    pub fn close(&mut self, name: &'static str) -> &mut Self {
        let _ = write!(self.out, "</{name}>");
        self
    }

    /// An element with nothing but text in it.
    pub fn element(&mut self, name: &'static str, attributes: &[Attr<'_>], text: impl Display) -> &mut Self {
        self.open(name, attributes).text(text).close(name)
    }

    /// A paragraph that explains.
    pub fn note(&mut self, text: impl Display) -> &mut Self {
        self.element("p", &[("class", &"note")], text)
    }

    pub fn finish(self) -> String {
        self.out
    }
}

/// Text on its way into HTML: what has a meaning there is named, what is forbidden left out, and what would turn the
/// reading direction of the text after it is replaced.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if let Some(name) = entity(c) {
                self.0.push_str(name);
                continue;
            }
            match c {
                '\'' => self.0.push_str("&#39;"),
                '\n' | '\t' => self.0.push(c),
                c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_cannot_leave_their_place() {
        let hostile = "<script>\"'&\u{0}\u{202e}\u{ffff}x";
        let mut page = Page::default();
        page.element("b", &[("title", &hostile)], hostile);
        let safe = "&lt;script&gt;&quot;&#39;&amp;\u{fffd}x";
        assert_eq!(page.finish(), format!("<b title=\"{safe}\">{safe}</b>"));
    }
}
