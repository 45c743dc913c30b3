//! Looking inside: what an introspection says, its checksum, and proofs of parts of it.

use serde_json::Value;

use crate::space::{Space, bundle, events, steps};

/// tiny.toml with an introspect step and a score step.
fn inside(space: &Space, keys: &str) {
    let recipe = std::fs::read_to_string(space.path("tiny.toml")).unwrap();
    let more = format!(
        "\n[steps.inside]\nop = \"introspect\"\nof = \"answer\"\n{keys}\n\
         [steps.scores]\nop = \"score\"\nof = \"answer\"\nexpected = [\"x\"]\nintrospection = \"inside\"\n"
    );
    space.write("inside.toml", &format!("{recipe}{more}"));
}

fn output(space: &Space, name: &str) -> Value {
    serde_json::from_str(&space.pipe(&["show", "--output", name]).ok()).unwrap()
}

#[test]
fn an_introspection_checks_explains_and_scores() {
    let space = Space::new();
    inside(&space, "lens = [0, 2]");
    space.pipe(&["run", "inside.toml"]).ok();
    let found = output(&space, "inside/introspection.json");
    assert_eq!((&found["format"], &found["sound"]), (&"pipe/introspection@1".into(), &true.into()));
    let prompt = &found["prompts"][0];
    let checks: Vec<&str> =
        prompt["checks"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    let expected = [
        "residual_stream",
        "attention_sums",
        "no_look_ahead",
        "logits",
        "finite",
        "kv_chain",
        "tokens",
        "one_pass",
    ];
    assert_eq!(checks, expected);
    assert_eq!(prompt["lens"]["full"].as_array().unwrap().len(), 2);
    assert_eq!(prompt["relevance"]["null"], 0.0);

    let answer = output(&space, "answer.checksum/answer.json");
    assert_eq!(answer["answers"], output(&space, "answer/answers.json")["answers"]);
    assert_eq!(answer["sound"], true);
    let scores = &answer["scores"]["scores"];
    assert_eq!(scores["beauty"]["value"], prompt["beauty"]["value"]);
    assert_eq!(scores["relevance"]["value"], prompt["relevance"]["value"]);
}

#[test]
fn the_inside_is_the_same_on_every_machine_and_changes_no_answer() {
    let (space, other, plain) = (Space::new(), Space::new(), Space::new());
    inside(&space, "");
    inside(&other, "");
    let one = bundle(&space.pipe(&["run", "inside.toml"]).ok());
    let args = ["run", "inside.toml", "--threads", "1", "--impl", "scalar", "--no-prefixes", "--check"];
    assert_eq!(bundle(&other.pipe(&args).ok()), one);
    plain.pipe(&["run", "tiny.toml"]).ok();
    for name in ["answer/answers.json", "answer/trace.safetensors"] {
        let of = |space: &Space| space.command(&["show", "--output", name]).output().unwrap().stdout;
        assert_eq!(of(&space), of(&plain), "{name}");
    }
    // Another question about the inside leaves the answer a hit.
    inside(&space, "causes = 0\nwindow = 8");
    let again = events(&space.pipe(&["run", "inside.toml", "--json"]).ok());
    assert_eq!(steps(&again, "step_started"), ["inside", "scores", "answer.checksum"]);
    let prompt = output(&space, "inside/introspection.json")["prompts"][0].clone();
    assert_eq!((&prompt["beauty"], &prompt["relevance"]), (&Value::Null, &Value::Null));
    let window = &prompt["window"];
    assert_eq!(window["end"].as_u64().unwrap() - window["start"].as_u64().unwrap(), 8);
}

#[test]
fn a_baseline_says_what_is_unusual() {
    let space = Space::new();
    inside(&space, "causes = 0");
    space.pipe(&["run", "inside.toml"]).ok();
    let mut usual = output(&space, "inside/introspection.json");
    space.write("usual.json", &usual.to_string());
    let baseline = "causes = 0\nbaseline = \"usual\"\n[steps.usual]\nop = \"file\"\npath = \"usual.json\"";
    inside(&space, baseline);
    let against = |space: &Space| -> Vec<Value> {
        space.pipe(&["run", "inside.toml"]).ok();
        let all = output(space, "inside/introspection.json")["prompts"][0]["unusual"].clone();
        all.as_array().unwrap().iter().filter(|u| u["baseline"] == true).cloned().collect()
    };
    assert_eq!(against(&space), [Value::Null; 0]);
    let rms = &mut usual["prompts"][0]["layers"][1]["rms"];
    rms["mean"] = (rms["mean"].as_f64().unwrap() - 10.0 * rms["std"].as_f64().unwrap()).into();
    space.write("usual.json", &usual.to_string());
    let found = against(&space);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["kind"], &found[0]["place"]), (&"rms".into(), &"layer.01".into()));
    // What is no introspection cannot be one's baseline.
    space.write("usual.json", "{}");
    let error = space.pipe(&["run", "inside.toml"]).fails(4);
    assert!(error.contains("baseline"), "{error}");
}

#[test]
fn every_part_is_provable_and_nothing_else() {
    let space = Space::new();
    inside(&space, "");
    space.pipe(&["run", "inside.toml"]).ok();
    let list = space.pipe(&["prove", "--list"]).ok();
    let checksum = output(&space, "answer.checksum/answer.json")["checksum"].as_str().unwrap().to_owned();
    assert_eq!(list.lines().count() as u64, output(&space, "answer.checksum/answer.json")["leaves"]);
    let paths: Vec<&str> = list.lines().collect();
    for part in [
        "answer/answers.json/answers/0/text",
        "answer/trace.safetensors/0/tokens",
        "answer/trace.safetensors/0/3/layer.01/ffn.residual",
        "inside/introspection.json/prompts/0/checks/2",
        "inside/introspection.json/prompts/0/layers/1",
        "scores/scores.json/scores/beauty/value",
    ] {
        assert!(paths.contains(&part), "{part} in\n{list}");
        let proof = space.pipe(&["prove", part]).ok();
        assert!(proof.len() <= 2048, "{} bytes", proof.len());
        space.write("proof.json", &proof);
        let said = space.pipe(&["check-proof", "proof.json", "--checksum", &checksum]).ok();
        assert_eq!(said, format!("ok: {part} belongs to {checksum}\n"));
    }
    // The part itself, in the canonical text.
    let beauty = output(&space, "scores/scores.json")["scores"]["beauty"]["value"].to_string();
    space.write("value.json", &beauty);
    space.pipe(&["check-proof", "proof.json", "--value", "value.json"]).ok();
    space.write("value.json", "0.5");
    let said = space.pipe(&["check-proof", "proof.json", "--value", "value.json"]);
    assert!(said.code == 1 && said.stdout.starts_with("refused: it is of a value"), "{}", said.stdout);

    // A proof that says something else.
    space.edit("proof.json", "beauty", "relevance");
    let said = space.pipe(&["check-proof", "proof.json"]);
    assert!(said.code == 1 && said.stdout.starts_with("refused: leaf"), "{}", said.stdout);
    let other = "00".repeat(32);
    let said = space.pipe(&["check-proof", "proof.json", "--checksum", &other, "--json"]);
    assert_eq!((said.code, said.stdout.contains("\"ok\":false")), (1, true), "{}", said.stdout);

    let error = space.pipe(&["prove", "answer/nothing"]).fails(2);
    assert!(error.contains("nothing is named `answer/nothing`") && error.contains("--list"), "{error}");
    space.write("proof.json", "{}");
    space.pipe(&["check-proof", "proof.json"]).fails(2);
    space.pipe(&["run", "tiny.toml"]).ok();
    let error = space.pipe(&["prove", "--list"]).fails(2);
    assert!(error.contains("no checksum"), "{error}");
}

#[test]
fn another_rule_is_another_sound_checksum() {
    let space = Space::new();
    inside(&space, "causes = 0");
    space.pipe(&["run", "inside.toml"]).ok();
    let greedy = output(&space, "answer.checksum/answer.json");
    let drawn = "sampler = { kind = \"temperature\", temperature = 3.0, seed = 1 }";
    space.edit("inside.toml", "sampler = \"greedy\"", drawn);
    space.pipe(&["run", "inside.toml"]).ok();
    let drawn = output(&space, "answer.checksum/answer.json");
    assert_eq!((&greedy["sound"], &drawn["sound"]), (&true.into(), &true.into()));
    assert_ne!(drawn["checksum"], greedy["checksum"]);
}
