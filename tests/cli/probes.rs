//! Probes: they change no bit, come out the same however it was computed, and are checked.

use safetensors::SafeTensors;

use crate::space::{Space, bundle};

const RECIPE: &str = r#"
[pipeline]
name = "probed"
[steps.model]
op = "file"
path = "tiny.gguf"
[steps.prompts]
op = "file"
path = "prompts.jsonl"
[steps.tokens]
op = "tokenize"
model = "model"
prompts = "prompts"
[steps.answer]
op = "infer"
model = "model"
tokens = "tokens"
max_tokens = 6
stop = false
"#;

/// Every block, and every part of one.
const EVERYWHERE: &str =
    r#"["*", "layer.*.qkv.*", "layer.*.rope.*", "layer.*.gate_up.*", "layer.*.attention.heads"]"#;

/// Features of heads alone.
const HEADS: &str = r#""entropy", "renyi2", "sink_mass", "previous_token", "duplicate_token", "induction""#;

/// Lines of prompts of these lengths; all begin alike, and hold tokens many times.
fn prompts(lengths: &[u32]) -> String {
    let line = |(i, length): (usize, &u32)| {
        let ids: Vec<u32> = (0..*length).map(|at| 5 + at * 7 % 40).chain([i as u32]).collect();
        format!("{}\n", serde_json::json!({ "id": i.to_string(), "ids": ids }))
    };
    lengths.iter().enumerate().map(line).collect()
}

impl Space {
    /// With a recipe whose `answer` has these further keys and probes.
    pub fn probed(lengths: &[u32], keys: &str, probes: &[String]) -> Space {
        let space = Space::new();
        space.write("prompts.jsonl", &prompts(lengths));
        space.write("probed.toml", &format!("{RECIPE}{keys}\n{}", probes.concat()));
        space
    }
}

/// An output of the last run's step `answer`.
pub fn output(space: &Space, name: &str) -> Vec<u8> {
    let command = space.command(&["show", "--output", &format!("answer/{name}")]).output();
    let output = command.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

pub fn probe(name: &str, at: &str, sample: &str) -> String {
    format!(
        "[steps.answer.probes.{name}]\nat = {at}\nsample = {{ {sample} }}\nfeatures = [\"rms\", \"l0\"]\n"
    )
}

/// One probe of each kind on every block, and on the attention weights.
fn every_kind() -> Vec<String> {
    let mut all = Vec::new();
    let tokens = ["all", "last", "prompt", "answer", "every 3"];
    for (i, elements) in [
        "\"all\"",
        "\"none\"",
        "{ top = 5 }",
        "{ stride = 7 }",
        "{ reservoir = 9, seed = 1 }",
        "{ projection = 3, seed = 2 }",
    ]
    .iter()
    .enumerate()
    {
        let sample = format!("tokens = \"{}\", elements = {elements}", tokens[i % 5]);
        all.push(probe(&format!("blocks{i}"), EVERYWHERE, &sample));
        if i < 4 {
            let weights = probe(&format!("weights{i}"), "\"layer.*.attention.weights\"", &sample);
            all.push(weights.replace("\"l0\"", HEADS));
        }
    }
    for (i, layers) in ["\"every 2\"", "{ stratified = 2, seed = 5 }"].iter().enumerate() {
        all.push(probe(&format!("layers{i}"), "\"layer.*.down\"", &format!("layers = {layers}")));
    }
    all
}

#[test]
fn no_probe_changes_a_bit() {
    let lengths = [40, 3, 70];
    let keys = "logits = true\nlog_likelihood = true\ntrace = \"full\"";
    let alone = Space::probed(&lengths, keys, &[]);
    alone.pipe(&["run", "probed.toml"]).ok();
    let names = ["answers.json", "logits.safetensors", "log_likelihood.safetensors", "trace.safetensors"];
    let expected = names.map(|name| output(&alone, name));
    let kinds = every_kind();
    let cases = kinds.iter().map(std::slice::from_ref).chain([&kinds[..]]);
    for probes in cases {
        let space = Space::probed(&lengths, keys, probes);
        space.pipe(&["run", "probed.toml"]).ok();
        assert!(names.map(|name| output(&space, name)) == expected, "{probes:?}");
        space.pipe(&["verify"]).ok();
    }
    assert!(!alone.pipe(&["show", "--json"]).ok().contains("probes.safetensors"));
}

#[test]
fn the_same_samples_however_it_was_computed() {
    // More than one pass holds, so that prompts are cut.
    let lengths = [50, 62, 7, 41];
    let run = |args: &[&str]| {
        let space = Space::probed(&lengths, "", &every_kind());
        let args: Vec<&str> = ["run", "probed.toml"].iter().chain(args).copied().collect();
        let cid = bundle(&space.pipe(&args).ok());
        (output(&space, "probes.safetensors"), cid)
    };
    let all = run(&["--threads", "1"]);
    assert!(run(&["--threads", "3"]) == all);
    assert!(run(&["--threads", "2", "--impl", "scalar"]) == all);
    assert!(run(&["--no-prefixes"]) == all);

    // Alone in its batch, a prompt gives the tensors it gives among others.
    let together = SafeTensors::deserialize(&all.0).unwrap();
    let space = Space::probed(&lengths, "", &every_kind());
    let lines: Vec<String> = prompts(&lengths).lines().map(str::to_owned).collect();
    for (i, line) in lines.iter().enumerate() {
        space.write("prompts.jsonl", line);
        space.pipe(&["run", "probed.toml"]).ok();
        let bytes = output(&space, "probes.safetensors");
        let one = SafeTensors::deserialize(&bytes).unwrap();
        let mut count = 0;
        for (name, tensor) in one.tensors() {
            let (_, name) = name.split_once('/').unwrap();
            assert!(together.tensor(&format!("{i}/{name}")).unwrap() == tensor, "{i}/{name}");
            count += 1;
        }
        assert_eq!(count * lengths.len(), together.tensors().len());
    }
}

#[test]
fn prefixes_are_shared_where_no_probe_looks_at_them() {
    let weights = |tokens: &str| {
        let at = "[\"layer.*.attention.weights\"]";
        let logits = probe("l", "\"lm_head\"", &format!("tokens = \"{tokens}\""));
        probe("w", at, &format!("tokens = \"{tokens}\"")).replace("\"l0\"", HEADS) + &logits
    };
    for (tokens, reused) in [("answer", true), ("last", true), ("prompt", false), ("every 100", false)] {
        let run = |args: &[&str]| {
            let space = Space::probed(&[150, 150, 151], "", &[weights(tokens)]);
            space.pipe(&[&["run", "probed.toml"], args].concat()).ok();
            let shown: serde_json::Value =
                serde_json::from_str(&space.pipe(&["show", "--json"]).ok()).unwrap();
            (output(&space, "probes.safetensors"), shown["facts"]["answer"]["reused_prompt_tokens"].clone())
        };
        let (shared, count) = run(&[]);
        assert_eq!(count.as_u64().unwrap() > 0, reused, "{tokens}");
        assert!(run(&["--no-prefixes", "--threads", "1"]).0 == shared, "{tokens}");
    }
}

#[test]
fn a_layer_that_is_not_there_fails_the_step() {
    let space = Space::probed(&[3], "", &[probe("far", "\"layer.{0,15}.qkv.q\"", "")]);
    let error = space.pipe(&["run", "probed.toml"]).fails(4);
    for part in ["probe `far`", "`layer.{0,15}/qkv.q`", "it has 3", "`layer.02/qkv.q`"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_flipped_value_is_named_by_probe_block_and_position() {
    let probes = [
        probe("some", "\"layer.*.ffn.residual\"", "tokens = \"every 4\", elements = { top = 3 }"),
        probe("heads", "\"layer.01.attention.weights\"", "tokens = \"answer\""),
        probe("fixed", "\"embed\"", "elements = { reservoir = 4, seed = 3 }"),
    ];
    let space = Space::probed(&[9, 21], "", &probes);
    let cid = bundle(&space.pipe(&["run", "probed.toml"]).ok());
    let honest = output(&space, "probes.safetensors");
    let file = SafeTensors::deserialize(&honest).unwrap();
    // A tensor, where its value stands in it, and what is to be said of it.
    for (tensor, at, size, position, element) in [
        ("1/some/layer.02/ffn.residual", 5 * 3 + 1, 4, 20, 1),
        ("0/some/layer.00/ffn.residual#indices", 2, 4, 0, 2),
        ("0/some/layer.01/ffn.residual@rms", 1, 8, 4, 0),
        ("1/heads/layer.01/attention.weights", 0, 4, 22, 0),
        ("0/some/positions", 1, 4, 4, 0),
        ("0/fixed/embed#indices", 3, 4, 0, 3),
    ] {
        let found = file.tensor(tensor).unwrap();
        let start = found.data().as_ptr() as usize - honest.as_ptr() as usize;
        let flip = |mut bytes: Vec<u8>| {
            bytes[start + at * size] ^= 1;
            bytes
        };
        let found = space.difference(&space.forge(&cid, "answer", &[("probes.safetensors", &flip)]));
        let (prompt, name) = tensor.split_once('/').unwrap();
        assert_eq!(
            (&found["block"], found["prompt"].to_string().as_str()),
            (&name.into(), prompt),
            "{found}"
        );
        assert_eq!(found["position"], position, "{found}");
        let said = found["expected"].as_str().unwrap();
        assert!(said.starts_with(&format!("element {element}: ")) && found["found"] != said, "{found}");
    }
    // What is no value: the head, an end cut off, something behind the end.
    let head = |bytes: Vec<u8>| {
        let at = bytes.windows(5).position(|window| window == b"f32@1").unwrap();
        [&bytes[..at], b"g", &bytes[at + 1..]].concat()
    };
    let short = |bytes: Vec<u8>| bytes[..bytes.len() - 1].to_vec();
    let long = |bytes: Vec<u8>| [bytes, vec![0]].concat();
    for edit in [&head as &dyn Fn(Vec<u8>) -> Vec<u8>, &short, &long] {
        let found = space.difference(&space.forge(&cid, "answer", &[("probes.safetensors", edit)]));
        assert_eq!(found["block"], "probes.safetensors", "{found}");
    }
}
