//! Text to ids and back: cuts, special tokens, exact bytes, streams.

use pipe::model::tokenizer::{Cut, PreTokenizer, TokenKind, Vocabulary, char_of};
use pipe::model::{Detokenizer, Tokenizer, Utf8Stream};
use proptest::prelude::*;

use crate::support::Parts;

/// 256 bytes (id = byte), then the joined merges, then tokens without merges.
fn tiny(pre: &str, merges: &[(&str, &str)], extra: &[(&str, TokenKind)]) -> Tokenizer {
    let mut tokens: Vec<String> = (0..=255).map(|b| char_of(b).to_string()).collect();
    tokens.extend(merges.iter().map(|(a, b)| format!("{a}{b}")));
    let mut kinds = vec![TokenKind::Normal; tokens.len()];
    tokens.extend(extra.iter().map(|(text, _)| text.to_string()));
    kinds.extend(extra.iter().map(|(_, kind)| *kind));
    let merges = merges.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
    let cut = Cut::named(PreTokenizer::named(pre).unwrap()).unwrap();
    Tokenizer::new(Vocabulary { tokens, kinds }, merges, cut).unwrap()
}

/// A text as the pieces its ids stand for.
fn pieces(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    let ids = tokenizer.encode(text).unwrap();
    ids.iter()
        .map(|id| String::from_utf8_lossy(tokenizer.detokenizer().piece(*id).unwrap()).into_owned())
        .collect()
}

#[test]
fn each_name_cuts_its_own_way() {
    let merges = [("1", "2"), ("12", "3"), ("123", "4"), ("Ġ", "1"), ("!", "a"), ("Ċ", "Ċ")];
    let cases: [(&str, &[&str]); 5] = [
        ("gpt-2", &["1234", " 1", "!", "a", "\n", "\n", "b"]),
        ("smollm", &["1", "2", "3", "4", " ", "1", "!", "a", "\n", "\n", "b"]),
        ("llama-bpe", &["123", "4", " ", "1", "!a", "\n\n", "b"]),
        ("qwen2", &["1", "2", "3", "4", " ", "1", "!a", "\n\n", "b"]),
        ("default", &["123", "4", " ", "1", "!", "a", "\n", "\n", "b"]),
    ];
    for (name, expected) in cases {
        assert_eq!(pieces(&tiny(name, &merges, &[]), "1234 1!a\n\nb"), expected, "{name}");
    }
}

#[test]
fn llama_3_takes_whole_words_without_merges() {
    let word = [("xyz", TokenKind::Normal)];
    assert_eq!(pieces(&tiny("llama-bpe", &[], &word), "xyz"), ["xyz"]);
    assert_eq!(pieces(&tiny("qwen2", &[], &word), "xyz"), ["x", "y", "z"]);
}

#[test]
fn special_tokens_are_found_first_and_hidden_on_request() {
    let extra = [("<end>", TokenKind::Control), ("  ", TokenKind::UserDefined), ("<no>", TokenKind::Unused)];
    let tokenizer = tiny("gpt-2", &[], &extra);
    let ids = tokenizer.encode("a<end>  b<no>").unwrap();
    assert_eq!(ids, [97, 256, 257, 98, 60, 110, 111, 62]);
    let back = tokenizer.detokenizer();
    assert_eq!(back.decode(&ids, false).unwrap(), b"a<end>  b<no>");
    assert_eq!(back.decode(&ids, true).unwrap(), b"a  b<no>");
    assert_eq!((tokenizer.id("<end>"), tokenizer.id("none")), (Some(256), None));
    let error = back.decode(&[97, 300], false).unwrap_err().to_string();
    assert_eq!(error, "token 300 does not exist: the vocabulary has 259 tokens");
}

#[test]
fn what_cannot_be_encoded_is_an_error() {
    let toy = Parts::toy().open().unwrap().tokenizer().unwrap();
    let error = toy.encode(&format!("a{}b", " ".repeat(100_001))).unwrap_err().to_string();
    assert_eq!(
        error,
        "100001 white-space characters in a row, at byte 1; at most 100000 can be cut reliably"
    );
    assert!(toy.encode(&format!("a{}b", " ".repeat(100_000))).is_ok());

    let mut tokens: Vec<String> = (0..=255).map(|b| char_of(b).to_string()).collect();
    tokens[4] = "no byte".into();
    let vocabulary = Vocabulary { kinds: vec![TokenKind::Normal; tokens.len()], tokens };
    let cut = Cut::named(PreTokenizer::Gpt2).unwrap();
    let without = Tokenizer::new(vocabulary, Vec::new(), cut).unwrap();
    let error = without.encode("ab\u{4}").unwrap_err().to_string();
    assert_eq!(
        error,
        "the text has the byte 0x04 at 2, which the model's vocabulary cannot spell; remove it"
    );
}

proptest! {
    #[test]
    fn every_text_comes_back(text in "\\PC*|[ \\n\\t0-9a-e<|>]{0,60}", pre in 0usize..5) {
        let names = ["gpt-2", "smollm", "llama-bpe", "qwen2", "default"];
        let tokenizer = tiny(names[pre], &[("a", "b"), ("Ġ", "a"), ("1", "2")], &[("<|x|>", TokenKind::Control)]);
        let ids = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(tokenizer.detokenizer().decode_text(&ids, false).unwrap(), text);
    }

    #[test]
    fn a_stream_is_the_whole_in_pieces(bytes in proptest::collection::vec(any_byte(), 0..40), cuts in proptest::collection::vec(1usize..5, 40)) {
        let mut stream = Utf8Stream::new();
        let (mut out, mut rest) = (String::new(), &bytes[..]);
        for cut in cuts {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            out += &stream.push(now);
            rest = later;
        }
        out += &stream.push(rest);
        out += &stream.finish();
        prop_assert_eq!(out, String::from_utf8_lossy(&bytes));
    }
}

/// Bytes that often make up characters, and often just fail to.
fn any_byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        Just(b'a'),
        Just(0xf0),
        Just(0x9f),
        Just(0x99),
        Just(0x82),
        Just(0xe2),
        Just(0xc3),
        any::<u8>()
    ]
}

#[test]
fn a_stream_holds_back_only_what_may_still_become_a_character() {
    let mut stream = Utf8Stream::new();
    let emoji = "🙂".as_bytes();
    assert_eq!(stream.push(&emoji[..3]), "");
    assert_eq!(stream.push(&emoji[3..]), "🙂");
    assert_eq!(stream.push(b"a\xf0\x9f"), "a");
    assert_eq!(stream.push(b"b"), "\u{fffd}b");
    assert_eq!(stream.push(b"\xff"), "\u{fffd}");
    assert_eq!(stream.push(b"\xe2"), "");
    assert_eq!(stream.finish(), "\u{fffd}");
}

#[test]
fn a_token_outside_the_byte_alphabet_is_plain_text() {
    let tokenizer = tiny("gpt-2", &[], &[("ab c", TokenKind::Normal)]);
    assert_eq!(tokenizer.detokenizer().piece(256).unwrap(), b"ab c");
}

#[test]
fn ids_become_text_without_merges() {
    let mut parts = Parts::toy();
    parts.remove("tokenizer.ggml.merges");
    parts.remove("tokenizer.ggml.pre");
    let model = parts.open().unwrap();
    let text: Detokenizer = model.detokenizer().unwrap();
    assert_eq!(text.piece(2).unwrap(), b"<|im_end|>");
    assert!(text.is_special(2) && !text.is_special(70));
    assert!(model.tokenizer().is_err());
}
