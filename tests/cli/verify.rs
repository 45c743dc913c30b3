//! `pipe verify`: an honest run passes, a forged one is named by prompt, position and block.

use std::str::FromStr;

use pipe::bundle::{Bundle, car};
use pipe::trace::Trace;
use pipe_store::{Digest, Store};

use crate::space::{Space, bundle, events};

/// What becomes of an artifact's bytes.
type Edit<'a> = &'a dyn Fn(Vec<u8>) -> Vec<u8>;

impl Space {
    fn sealed(&self, cid: &str) -> (Store, Bundle) {
        let store = Store::open(&self.path("store")).unwrap();
        let digest = car::digest_of(&cid::Cid::from_str(cid).unwrap()).unwrap();
        let sealed = Bundle::from_bytes(&store.get(&digest).unwrap()).unwrap();
        (store, sealed)
    }

    /// The CID of a bundle like this one, in which some outputs of a step are others.
    pub fn forge(&self, cid: &str, step: &str, outputs: &[(&str, Edit<'_>)]) -> String {
        let (store, mut sealed) = self.sealed(cid);
        for (name, edit) in outputs {
            let output = sealed.steps.get_mut(step).unwrap().outputs.get_mut(*name).unwrap();
            let honest = store.get(&output.digest).unwrap().to_vec();
            let forged = edit(honest.clone());
            assert_ne!(forged, honest, "{name}");
            output.digest = store.put(&forged).unwrap();
            output.length = forged.len() as u64;
            output.link = Some(car::cid_raw(&output.digest));
        }
        let digest = store.put(&sealed.to_bytes()).unwrap();
        car::cid_of(car::DAG_CBOR, &digest).to_string()
    }

    /// Verifying must find a difference in one step; what it says of it.
    #[track_caller]
    pub fn difference(&self, cid: &str) -> serde_json::Value {
        let ran = self.pipe(&["verify", cid, "--json"]);
        assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
        let bad: Vec<_> = events(&ran.stdout).into_iter().filter(|line| line["ok"] == false).collect();
        assert_eq!(bad.len(), 1, "{}", ran.stdout);
        bad[0]["difference"].clone()
    }
}

fn replaced(from: &str, to: &str) -> impl Fn(Vec<u8>) -> Vec<u8> + use<> {
    let (from, to) = (from.to_owned(), to.to_owned());
    move |bytes| {
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains(&from), "no {from} in {text}");
        text.replacen(&from, &to, 1).into_bytes()
    }
}

#[test]
fn an_honest_run_verifies() {
    let space = Space::new();
    for (recipe, steps, numbers) in [
        ("tiny.toml", vec!["answer"], vec![(1, 55, 24)]),
        ("sampled.toml", vec!["first", "second"], vec![(1, 48, 24), (1, 48, 24)]),
        ("score.toml", vec!["scores"], vec![(4, 151, 0)]),
    ] {
        let cid = bundle(&space.pipe(&["run", recipe, "--threads", "1"]).ok());
        for args in [vec!["verify"], vec!["verify", &cid, "--threads", "3", "--impl", "scalar"]] {
            let said = space.pipe(&args).ok();
            let names: Vec<&str> = said.lines().map(|line| line.split(": ok: ").next().unwrap()).collect();
            assert_eq!(names, steps, "{said}");
        }
        let lines = space.pipe(&["verify", "--json"]).ok();
        for ((line, step), (prompts, positions, tokens)) in lines.lines().zip(steps).zip(numbers) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!((&line["step"], &line["ok"]), (&step.into(), &true.into()));
            assert_eq!(line["difference"], serde_json::Value::Null);
            assert_eq!((&line["prompts"], &line["positions"]), (&prompts.into(), &positions.into()));
            assert_eq!((&line["tokens"], &line["digests"]), (&tokens.into(), &(positions * 4).into()));
        }
    }
    space.pipe(&["run", "sampled.toml"]).ok();
    assert!(
        space.pipe(&["verify", "--step", "second"]).ok().starts_with("second: ok: 1 prompt, 48 positions")
    );
    let error = space.pipe(&["verify", "--step", "third"]).fails(2);
    assert!(error.contains("no infer step `third`") && error.contains("first, second"), "{error}");
}

#[test]
fn every_way_an_answer_ends_and_every_level_verifies() {
    let space = Space::new();
    let text = std::fs::read_to_string(space.path("tiny.toml")).unwrap();
    for (i, extra) in [
        "trace = \"blocks\"\nmax_tokens = 1",
        "trace = \"layers\"\nlogits = true\nlog_likelihood = true\nmax_tokens = 3",
        "trace = \"full\"\nmax_tokens = 0",
        // The toy's context holds 256 tokens.
        "trace = \"full\"\nstop = false\nmax_tokens = 1000",
        "stop = [\"theus the\"]\nmax_tokens = 30",
    ]
    .iter()
    .enumerate()
    {
        space.write("one.toml", &text.replace("max_tokens = 24", extra));
        space.pipe(&["run", "one.toml"]).ok();
        let answer = space.pipe(&["show", "--output", "answer/answers.json"]).ok();
        let ended = ["max_tokens", "max_tokens", "max_tokens", "context", "stop_text"][i];
        assert!(answer.contains(ended), "{extra}: {answer}");
        space.pipe(&["verify"]).ok();
    }
}

#[test]
fn a_flipped_bit_of_a_digest_is_named_by_its_block() {
    let space = Space::new();
    space.edit("tiny.toml", "max_tokens = 24", "max_tokens = 24\ntrace = \"blocks\"");
    let cid = bundle(&space.pipe(&["run", "tiny.toml"]).ok());
    for (position, block) in [(0, "embed"), (31, "layer.01/attention"), (54, "layer.02/ffn.residual")] {
        let flip = |mut bytes: Vec<u8>| {
            let trace = Trace::open(&bytes).unwrap();
            let slot = trace.blocks.iter().position(|b| b.to_string() == block).unwrap();
            let (digest, blocks) = (trace.prompts[0].digest(position, slot).unwrap(), trace.blocks.len());
            let at = bytes.len() - (55 - position) * blocks * 32 + slot * 32;
            assert_eq!(bytes[at..at + 32], digest.0);
            bytes[at + 5] ^= 64;
            bytes
        };
        let forged = space.forge(&cid, "answer", &[("trace.safetensors", &flip)]);
        let found = space.difference(&forged);
        assert_eq!((&found["position"], &found["block"]), (&position.into(), &block.into()), "{found}");
        let digests = ["expected", "found"].map(|k| found[k].as_str().unwrap().parse::<Digest>().unwrap());
        assert_eq!(digests[0].0[5] ^ 64, digests[1].0[5]);
        let ran = space.pipe(&["verify", &forged]);
        assert_eq!(ran.code, 1);
        let place = format!("answer: differs: prompt 0, position {position} (token ");
        assert!(ran.stdout.starts_with(&place) && ran.stdout.contains(block), "{}", ran.stdout);
    }
    space.pipe(&["verify", &cid]).ok();
}

#[test]
fn a_changed_answer_is_named_by_what_it_should_be() {
    let space = Space::new();
    let cid = bundle(&space.pipe(&["run", "sampled.toml"]).ok());
    let (store, sealed) = space.sealed(&cid);
    let bytes = store.get(&sealed.steps["first"].outputs["answers.json"].digest).unwrap();
    let answers: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let answer = &answers["answers"][0];
    let tokens: Vec<u64> = answer["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap()).collect();
    let list = |tokens: &[u64]| serde_json::to_string(tokens).unwrap();

    // Another token: the sampler would have chosen otherwise.
    let mut others = tokens.clone();
    others[7] = (others[7] + 1) % 320;
    let token = replaced(&list(&tokens), &list(&others));
    let found = space.difference(&space.forge(&cid, "first", &[("answers.json", &token)]));
    assert_eq!((&found["block"], &found["position"]), (&"sample".into(), &(25 + 7).into()), "{found}");
    assert_eq!(found["token"], others[7]);
    assert_eq!(found["expected"], format!("token {}", tokens[7]));
    assert_eq!(found["found"], format!("token {}", others[7]));

    // The same in the trace as well, with a root that fits.
    let at_all = |bytes: Vec<u8>| {
        let words =
            |tokens: &[u64]| tokens.iter().flat_map(|t| (*t as u32).to_le_bytes()).collect::<Vec<u8>>();
        let at = bytes.windows(words(&tokens).len()).position(|w| w == words(&tokens)).unwrap();
        let mut bytes = bytes;
        bytes[at..at + 4 * tokens.len()].copy_from_slice(&words(&others));
        bytes
    };
    let bytes = store.get(&sealed.steps["first"].outputs["trace.safetensors"].digest).unwrap();
    let root = Trace::open(&at_all(bytes.to_vec())).unwrap().prompts[0].root().to_string();
    let root = replaced(answer["trace"].as_str().unwrap(), &root);
    let both = |bytes: Vec<u8>| root(token(bytes));
    let forged = space.forge(&cid, "first", &[("answers.json", &both), ("trace.safetensors", &at_all)]);
    assert_eq!(space.difference(&forged), found);

    // What follows from the tokens.
    let text = answer["text"].as_str().unwrap();
    let text = serde_json::to_string(text).unwrap();
    for (from, to, block) in [
        (text.as_str(), "\"Paris\"", "text"),
        ("\"max_tokens\"", "\"end_token\"", "stopped_by"),
        ("\"prompt_tokens\":25", "\"prompt_tokens\":24", "prompt_tokens"),
        ("\"id\":\"0\"", "\"id\":\"1\"", "id"),
        ("\"spec\":\"f32@1\"", "\"spec\":\"f32@2\"", "answers.json"),
        ("\"spec\":\"f32@1\"", "\"spec\": \"f32@1\"", "answers.json"),
        ("{", "", "answers.json"),
        (&answer["trace"].as_str().unwrap()[..8], "00000000", "root"),
    ] {
        let forged = space.forge(&cid, "first", &[("answers.json", &replaced(from, to))]);
        let found = space.difference(&forged);
        assert_eq!(found["block"], block, "{from} {to}: {found}");
    }
    // An answer cut short, its trace with it.
    let short = replaced(&list(&tokens), &list(&tokens[..20]));
    assert_eq!(space.difference(&space.forge(&cid, "first", &[("answers.json", &short)]))["position"], 45);
    let garbage = |_: Vec<u8>| b"no trace".to_vec();
    let found = space.difference(&space.forge(&cid, "first", &[("trace.safetensors", &garbage)]));
    assert_eq!(found["block"], "trace.safetensors", "{found}");
}

#[test]
fn changed_scores_are_found() {
    let space = Space::new();
    let cid = bundle(&space.pipe(&["run", "score.toml"]).ok());
    let number = |bytes: Vec<u8>, at: usize| {
        let mut bytes = bytes;
        let at = bytes.len() - at;
        bytes[at] ^= 1;
        bytes
    };
    let logits = |bytes| number(bytes, 4 * 320 + 4);
    let found = space.difference(&space.forge(&cid, "scores", &[("logits.safetensors", &logits)]));
    assert_eq!((&found["block"], &found["prompt"]), (&"lm_head".into(), &2.into()), "{found}");
    assert!(found["expected"].as_str().unwrap().starts_with("logit of token 319: "), "{found}");
    let likelihood = |bytes| number(bytes, 8 * 2);
    let found =
        space.difference(&space.forge(&cid, "scores", &[("log_likelihood.safetensors", &likelihood)]));
    assert_eq!((&found["block"], &found["prompt"]), (&"log_likelihood".into(), &3.into()), "{found}");
    for name in ["logits.json", "log_likelihood.json"] {
        let found = space.difference(&space.forge(&cid, "scores", &[(name, &replaced("1", "2"))]));
        assert_eq!(found["block"], name, "{found}");
    }
}

#[test]
fn what_is_not_in_the_store_is_said_with_what_to_do() {
    let (space, there) = (Space::new(), Space::new());
    let cid = bundle(&space.pipe(&["run", "tiny.toml"]).ok());
    let (_, sealed) = space.sealed(&cid);
    let packed = sealed.steps["model.pack-f32"].outputs["packed.safetensors"].digest.to_string();
    let (folder, name) = packed.split_at(2);
    std::fs::remove_file(space.path("store").join("objects").join(folder).join(name)).unwrap();
    let error = space.pipe(&["verify"]).fails(5);
    assert!(error.contains("model.pack-f32/packed.safetensors"), "{error}");
    assert!(error.contains("tiny.toml --force model.pack-f32`"), "{error}");
    space.pipe(&["run", "tiny.toml", "--force", "model.pack-f32"]).ok();
    space.pipe(&["verify"]).ok();

    // A bundle brings its answers along, not the weights.
    space.pipe(&["export", "--output", there.path("result.car").to_str().unwrap()]).ok();
    there.pipe(&["import", "result.car"]).ok();
    let error = there.pipe(&["verify", &cid]).fails(5);
    assert!(error.contains("model.pack-f32/packed.safetensors"), "{error}");
    there.pipe(&["run", "tiny.toml"]).ok();
    assert!(there.pipe(&["verify", &cid]).ok().starts_with("answer: ok"));

    space.write(
        "none.toml",
        "[pipeline]\nname = \"none\"\n[steps.model]\nop = \"file\"\npath = \"tiny.gguf\"\n",
    );
    space.pipe(&["run", "none.toml"]).ok();
    assert!(space.pipe(&["verify"]).fails(2).contains("no infer step"));
}

/// Everything an answer says fits together, but it stops too early, or too late.
#[test]
fn an_answer_of_another_length_is_named_where_it_should_end() {
    let space = Space::new();
    let cid = bundle(&space.pipe(&["run", "tiny.toml"]).ok());
    for (tokens, position, expected) in [(20, 52, "more than 20 tokens"), (30, 56, "24 tokens (max_tokens)")]
    {
        let text = std::fs::read_to_string(space.path("tiny.toml")).unwrap();
        space.write("other.toml", &text.replace("max_tokens = 24", &format!("max_tokens = {tokens}")));
        let other = bundle(&space.pipe(&["run", "other.toml"]).ok());
        let (store, sealed) = space.sealed(&other);
        let of_other = |name: &str| {
            let digest = sealed.steps["answer"].outputs[name].digest;
            let bytes = store.get(&digest).unwrap().to_vec();
            move |_: Vec<u8>| bytes.clone()
        };
        let (answers, trace) = (of_other("answers.json"), of_other("trace.safetensors"));
        let forged =
            space.forge(&cid, "answer", &[("answers.json", &answers), ("trace.safetensors", &trace)]);
        let found = space.difference(&forged);
        assert_eq!((&found["block"], &found["position"]), (&"end".into(), &position.into()), "{found}");
        assert_eq!(
            (&found["expected"], &found["found"]),
            (&expected.into(), &format!("{tokens} tokens").into())
        );
    }
}
