//! An answer's text against references.

use serde::{Deserialize, Serialize};

/// How texts are made alike before they are compared; the arguments of the harness's `exact_match` of these names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matching {
    pub ignore_case: bool,
    pub ignore_punctuation: bool,
}

impl Matching {
    fn normal(self, text: &str) -> String {
        let text = if self.ignore_case { text.to_lowercase() } else { text.to_owned() };
        match self.ignore_punctuation {
            true => text.chars().filter(|c| !c.is_ascii_punctuation()).collect(),
            false => text,
        }
    }
}

/// Is the text one of the references? White space counts, as in the harness.
pub fn exact_match(text: &str, expected: &[String], matching: Matching) -> bool {
    let text = matching.normal(text);
    expected.iter().any(|expected| matching.normal(expected) == text)
}

/// Does the text have one of the references in it? An empty one never counts. Not a metric of the harness.
pub fn contains(text: &str, expected: &[String], matching: Matching) -> bool {
    let text = matching.normal(text);
    expected.iter().map(|e| matching.normal(e)).any(|e| !e.is_empty() && text.contains(&e))
}

/// White space as Python's `str.isspace` and `\s` have it.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// The harness's `count_words`: the pieces of `re.split(r"\s+", text)`, empty ones at the ends included.
pub fn words(text: &str) -> usize {
    let mut runs = 0;
    let mut before = false;
    for c in text.chars() {
        runs += usize::from(is_space(c) && !before);
        before = is_space(c);
    }
    runs + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_alike_as_far_as_asked() {
        let expected = ["Paris".to_owned(), "paris, france".to_owned()];
        let plain = Matching::default();
        let loose = Matching { ignore_case: true, ignore_punctuation: true };
        assert!(exact_match("Paris", &expected, plain) && !exact_match(" Paris", &expected, plain));
        assert!(!exact_match("PARIS!", &expected, plain) && exact_match("PARIS!", &expected, loose));
        assert!(contains("It is Paris.", &expected, plain) && !contains("It is PARIS.", &expected, plain));
        assert!(contains("It is PARIS.", &expected, loose));
        assert!(!contains("anything", &[String::new(), "?!".into()], loose));
    }

    #[test]
    fn words_are_counted_as_python_splits() {
        assert_eq!(["", "a", "a b", " a\n\n b ", "\x1c"].map(words), [1, 1, 2, 4, 2]);
    }
}
