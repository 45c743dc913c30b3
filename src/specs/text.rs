//! The text fidelity is judged over: the pinned one, or a user's; cut into windows that fit a context.

/// A few paragraphs of English, code, digits and other languages. Every card names its digest: a changed text
/// makes figures that must not be compared with earlier ones.
pub const PINNED: &str = include_str!("text.txt");

/// Longest window: what a model sees before a token decides how sure it is.
pub const WINDOW_MAX: usize = 512;

/// The tokens in windows of at most `context` and [`WINDOW_MAX`], each led by `bos` where the model learned with
/// one in front.
pub fn windows(tokens: &[u32], bos: Option<u32>, context: usize) -> Vec<Vec<u32>> {
    let length = context.clamp(1, WINDOW_MAX);
    // A context of one token has no room for a lead.
    let lead = bos.filter(|_| length > 1);
    let take = length - usize::from(lead.is_some());
    tokens.chunks(take).map(|chunk| lead.into_iter().chain(chunk.iter().copied()).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_in_one_window() {
        let tokens: Vec<u32> = (0..1100).collect();
        let plain = windows(&tokens, None, 2048);
        assert_eq!(plain.iter().map(Vec::len).collect::<Vec<_>>(), [512, 512, 76]);
        assert_eq!(plain.concat(), tokens);
        let led = windows(&tokens, Some(7), 100);
        assert!(led.iter().all(|w| w.len() <= 100 && w[0] == 7), "{led:?}");
        assert_eq!(led.iter().flat_map(|w| &w[1..]).copied().collect::<Vec<_>>(), tokens);
        assert_eq!(windows(&[1, 2], Some(7), 1), [[1], [2]]);
        assert!(windows(&[], Some(7), 9).is_empty());
    }

    #[test]
    fn the_pinned_text_is_what_it_was() {
        let digest = pipe_store::Digest::of(PINNED.as_bytes()).to_string();
        assert_eq!(digest, "5058d4c766423ef277af9f69096f62dfca561501e5867de5c19997aca3c0433a");
    }
}
