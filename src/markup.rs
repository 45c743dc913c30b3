//! What HTML and XML would read as markup, named. Knows no page; what to do with control characters is each page's own.

/// The name of a character that has a meaning in text or in a double-quoted attribute.
pub fn entity(c: char) -> Option<&'static str> {
    match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '"' => Some("&quot;"),
        _ => None,
    }
}

/// A text with all of these named, and everything else as it is.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match entity(c) {
            Some(name) => out.push_str(name),
            None => out.push(c),
        }
    }
    out
}
