//! The real model, when `PIPE_TEST_MODEL` names its GGUF file: what another engine says about the same bytes.

use std::fs::File;

use pipe::model::{Bytes, Model, ModelFile};
use serde::{Deserialize, Serialize};

/// What the oracle knows of one prompt; the file holds more.
#[derive(Deserialize)]
struct Fact {
    name: String,
    text: String,
    tokens: Vec<u32>,
    greedy: Vec<u32>,
    greedy_text: String,
}

#[derive(Serialize)]
struct Message {
    role: &'static str,
    content: &'static str,
}

fn facts() -> Vec<Fact> {
    serde_json::from_str(include_str!("../cases/oracle/smollm2.json")).unwrap()
}

/// Writes to stderr directly: the test harness swallows what passing tests print.
fn real_model() -> Option<Model> {
    let Some(path) = std::env::var_os("PIPE_TEST_MODEL") else {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "not run: PIPE_TEST_MODEL is not set");
        return None;
    };
    let file = File::open(path).unwrap();
    // SAFETY: nobody writes to the file while the test runs.
    let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    Some(Model::open(&[ModelFile::new("model.gguf", Bytes::new(map))]).unwrap())
}

#[test]
fn ids_equal_the_oracle() {
    let Some(model) = real_model() else { return };
    let tokenizer = model.tokenizer().unwrap();
    let detokenizer = model.detokenizer().unwrap();
    for fact in facts() {
        assert_eq!(tokenizer.encode(&fact.text).unwrap(), fact.tokens, "{}", fact.name);
        assert_eq!(detokenizer.decode(&fact.tokens, false).unwrap(), fact.text.as_bytes(), "{}", fact.name);
        assert_eq!(detokenizer.decode_text(&fact.greedy, false).unwrap(), fact.greedy_text, "{}", fact.name);
    }
}

#[test]
fn its_template_renders_the_oracles_chats() {
    let Some(model) = real_model() else { return };
    let template = model.chat_template().unwrap().unwrap();
    let user = |content| Message { role: "user", content };
    let pirate = Message { role: "system", content: "You are a terse pirate. Answer in one sentence." };
    let chats = [
        ("chat-capital", vec![user("What is the capital of France?")]),
        ("chat-gravity", vec![user("What is gravity?")]),
        ("chat-list", vec![user("List three primary colours, one per line.")]),
        ("chat-system", vec![pirate, user("Who are you?")]),
    ];
    let facts = facts();
    for (name, messages) in chats {
        let fact = facts.iter().find(|f| f.name == name).unwrap();
        assert_eq!(template.render(&messages).unwrap(), fact.text, "{name}");
    }
}

#[test]
fn its_shape_is_the_published_one() {
    let Some(model) = real_model() else { return };
    let g = model.geometry();
    assert_eq!((g.layers, g.width, g.heads, g.kv_heads, g.ffn, g.vocab), (30, 576, 9, 3, 1536, 49152));
    assert_eq!((g.rope_base, g.context, g.tied, model.stop_ids()), (100_000.0, 8192, true, vec![2]));
    let shown = model.describe().unwrap();
    assert_eq!((shown.parameters, shown.tensors.len()), (134_515_008, 272));
    assert_eq!(shown.types.keys().collect::<Vec<_>>(), ["F32", "Q4_1", "Q8_0"]);
}
