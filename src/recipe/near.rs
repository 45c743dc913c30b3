//! The name somebody probably meant.

/// Known names longer than this are not compared: nobody mistypes them by hand.
const LONGEST: usize = 64;

/// The known name nearest to `name`, when it is near enough to be a slip. The first of equals wins.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters = |s: &str| s.chars().map(|c| if c == '_' { '-' } else { c.to_ascii_lowercase() }).collect();
    let wanted: Vec<char> = letters(name);
    if wanted.is_empty() || wanted.len() > LONGEST {
        return None;
    }
    // A third of the letters may be wrong, but never all of a short name.
    let allowed = (wanted.len() / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    for candidate in known {
        if candidate.len() > LONGEST || candidate.len().abs_diff(name.len()) > allowed + 3 {
            continue;
        }
        let other: Vec<char> = letters(candidate);
        // `tokens` for `token`, `model` for `model-q8`: an extension counts as one slip.
        let extended = wanted.len() >= 3
            && other.len() >= 3
            && (other.starts_with(&wanted) || wanted.starts_with(&other));
        let distance = if extended { 1 } else { distance(&wanted, &other) };
        if distance <= allowed && distance < wanted.len() && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// "did you mean" in one place, so that every message words it alike.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).map(|near| format!("did you mean `{near}`?"))
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`
/// (optimal string alignment distance).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let known = ["model", "tokens", "max_tokens", "sampler", "sha256"];
        assert_eq!(nearest("modle", known), Some("model"));
        assert_eq!(nearest("token", known), Some("tokens"));
        assert_eq!(nearest("max-tokens", known), Some("max_tokens"));
        assert_eq!(nearest("Sampler", known), Some("sampler"));
        assert_eq!(nearest("sha265", known), Some("sha256"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest("x", ["y"]), None, "one letter is never a slip of another");
    }
}
