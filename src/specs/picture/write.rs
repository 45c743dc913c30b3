//! Lines and words of SVG. Knows nothing of what they show.

use std::fmt::Write;

use crate::markup::entity;

pub fn line(out: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, more: &str) {
    let _ = writeln!(
        out,
        r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="{colour}"{more}/>"#,
        from.0, from.1, to.0, to.1
    );
}

/// `words` go in as they are: escape what is not ours.
pub fn text(out: &mut String, at: (f64, f64), anchor: &str, size: u32, words: &str) {
    let _ = writeln!(
        out,
        r#"<text x="{:.1}" y="{:.1}" text-anchor="{anchor}" font-size="{size}">{words}</text>"#,
        at.0, at.1
    );
}

/// At most so many characters.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// What XML gives a meaning is named; what it forbids is left out.
pub fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match entity(c) {
            Some(name) => out.push_str(name),
            None if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            None => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_cannot_leave_their_place() {
        assert_eq!(escape("a<b>&\"c\"\u{0}\n"), "a&lt;b&gt;&amp;&quot;c&quot;");
        assert_eq!(cut("añ🦀x", 3), "añ🦀…");
        assert_eq!(cut("añ🦀", 3), "añ🦀");
    }
}
