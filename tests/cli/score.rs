//! Scores: what is right, how sure the model was, and what cannot be scored.

use serde_json::{Value, json};

use crate::space::{Space, bundle, events, steps};

/// tiny.toml with a score step.
fn scored(space: &Space, keys: &str) {
    let recipe = std::fs::read_to_string(space.path("tiny.toml")).unwrap();
    space.write("scored.toml", &format!("{recipe}\n[steps.scores]\nop = \"score\"\nof = \"answer\"\n{keys}"));
}

fn scores(space: &Space, step: &str) -> Value {
    let output = format!("{step}/scores.json");
    serde_json::from_str(&space.pipe(&["show", "--output", &output]).ok()).unwrap()
}

/// The fitness of the only prompt.
fn fitness(space: &Space) -> Value {
    scores(space, "scores")["prompts"][0]["scores"]["fitness"].clone()
}

/// corpus.toml with the toy for its model: no network.
fn toy_corpus(space: &Space) {
    let recipe = std::fs::read_to_string(space.path("corpus.toml")).unwrap();
    let mut table: toml::Table = recipe.parse().unwrap();
    let model = toml::toml! {
        op = "file"
        path = "tiny.gguf"
    };
    table["steps"].as_table_mut().unwrap().insert("model".into(), model.into());
    space.write("corpus.toml", &table.to_string());
}

#[test]
fn a_corpus_gives_a_table_of_scores() {
    let space = Space::new();
    toy_corpus(&space);
    let first = space.pipe(&["run", "corpus.toml"]).ok();
    let tables = ["open-scores: scores of open-answers, q8@1", "likely-scores: scores of likelihoods, q8@1"];
    assert!(tables.iter().all(|head| first.contains(head)), "{first}");
    for row in ["\n  france ", "\n  legs ", "\n  text ", "\n  all ", "bits_per_byte ", "acc_norm "] {
        assert!(first.contains(row), "no {row:?} in\n{first}");
    }
    // Nothing is generated for the likelihoods, so nothing is shown of them.
    assert!(!first.contains("legs#0"), "{first}");
    let shown = space.pipe(&["show"]).ok();
    assert!(shown.contains(tables[0]) && shown.contains(tables[1]), "{shown}");

    let open = scores(&space, "open-scores");
    assert_eq!((&open["of"], &open["spec"]), (&json!("open-answers"), &json!("q8@1")));
    assert_eq!(open["prompts"].as_array().unwrap().len(), 10);
    let parts = &open["scores"]["fitness"]["parts"];
    assert_eq!(parts["documents"], json!({ "all": 10, "scored": 10 }));
    let fidelity = parts["confidence"]["fidelity_to_f32"].as_f64().unwrap();
    assert!(0.9 < fidelity && fidelity < 1.0, "{fidelity}");
    // The question whose four choices are four prompts is one row.
    let likely = scores(&space, "likely-scores");
    assert_eq!(likely["prompts"][0]["id"], "legs");
    assert_eq!(
        likely["prompts"][0]["scores"]["fitness"]["parts"]["log_likelihoods"].as_array().unwrap().len(),
        4
    );

    // Scores are as reproducible as answers.
    let args =
        ["run", "corpus.toml", "--threads", "1", "--impl", "scalar", "--store", "other", "--no-prefixes"];
    assert_eq!(bundle(&space.pipe(&args).ok()), bundle(&first));
    let again = events(&space.pipe(&["run", "corpus.toml", "--json"]).ok());
    assert_eq!(steps(&again, "step_started"), [""; 0]);
}

#[test]
fn an_answer_is_right_as_far_as_asked() {
    let space = Space::new();
    let text = space.pipe(&["run", "tiny.toml"]).ok();
    let text = text.lines().next().unwrap();
    let some = &text[..text.len() / 2];
    let upper = some.to_uppercase();
    assert_ne!(some, &*upper);
    for (expected, more, contains) in
        [(some, "", 1.0), ("never said", "", 0.0), (&upper, "", 0.0), (&upper, "ignore_case = true\n", 1.0)]
    {
        scored(&space, &format!("{more}expected = [{}]\n", serde_json::to_string(expected).unwrap()));
        space.pipe(&["run", "scored.toml"]).ok();
        let fitness = fitness(&space);
        assert_eq!((&fitness["value"], &fitness["parts"]["contains"]), (&json!(contains), &json!(contains)));
        assert_eq!(fitness["parts"]["exact_match"], json!(0.0));
    }
}

#[test]
fn confidence_is_no_accuracy() {
    let space = Space::new();
    scored(&space, "kl_to_f32 = true\n");
    space.pipe(&["run", "scored.toml"]).ok();
    let fitness = fitness(&space);
    assert_eq!(fitness["value"], Value::Null);
    assert!(fitness["reason"].as_str().unwrap().contains("no reference"), "{fitness}");
    let confidence = &fitness["parts"]["confidence"];
    assert_eq!(confidence["tokens"], json!(24));
    let probability = confidence["mean_probability"].as_f64().unwrap();
    let margin = confidence["mean_margin"].as_f64().unwrap();
    // The likeliest token was chosen each time.
    assert!(0.0 < margin && margin < probability && probability < 1.0, "{confidence}");
    // f32 beside f32, to the bit.
    assert_eq!((&confidence["mean_kl_to_f32"], &confidence["fidelity_to_f32"]), (&json!(0.0), &json!(1.0)));
    let all = scores(&space, "scores");
    for score in ["beauty", "relevance"] {
        assert_eq!(all["scores"][score]["value"], Value::Null);
        assert!(all["scores"][score]["reason"].as_str().unwrap().contains("no introspect step"), "{all}");
    }
}

#[test]
fn beauty_and_relevance_come_from_the_introspection() {
    let space = Space::new();
    let inside = json!({ "prompts": [{
        "beauty": { "value": 0.75, "components": { "kept": 3, "all": 15 } },
        "relevance": { "value": null, "reason": "nothing was audited" },
    }]});
    space.write("inside.json", &inside.to_string());
    let file = "introspection = \"inside\"\n[steps.inside]\nop = \"file\"\npath = \"inside.json\"\n";
    scored(&space, file);
    space.pipe(&["run", "scored.toml"]).ok();
    let scores = scores(&space, "scores");
    let one = &scores["prompts"][0]["scores"];
    let parts = json!({ "components": { "all": 15, "kept": 3 } });
    assert_eq!(one["beauty"], json!({ "value": 0.75, "parts": parts }));
    assert_eq!(one["relevance"], json!({ "value": null, "parts": {}, "reason": "nothing was audited" }));
    assert_eq!(scores["scores"]["beauty"]["value"], json!(0.75));
    space.write("inside.json", "{\"prompts\": []}");
    let error = space.pipe(&["run", "scored.toml"]).fails(4);
    assert!(error.contains("0 prompts, the answers are of 1"), "{error}");
}

#[test]
fn what_cannot_be_scored_is_an_error_and_not_a_score() {
    let space = Space::new();
    toy_corpus(&space);
    let likely = std::fs::read_to_string(space.path("corpus-likely.jsonl")).unwrap();
    for (lines, message) in [
        (likely.replace("\"answer\": 2", "\"answer\": 4"), "`answer` is 4, of 4 choices"),
        (likely.replace("\"metal\"", "\"legs\""), "a second reference for `legs`"),
        (likely.replace("[\"green\"]", "[\"\"]"), "none empty"),
        (likely.replace("\"rolling\"", "\"roling\""), "unknown field `roling`"),
    ] {
        space.write("corpus-likely.jsonl", &lines);
        let error = space.pipe(&["run", "corpus.toml"]).fails(4);
        assert!(error.contains(message), "{error}");
    }
    space.write("corpus-likely.jsonl", &likely);
    space.edit("corpus.toml", "log_likelihood = true", "logits = true");
    let error = space.pipe(&["run", "corpus.toml"]).fails(4);
    assert!(error.contains("write log_likelihood = true in the infer step"), "{error}");

    // A reference that no prompt has is a mistake too.
    space.write("refs.jsonl", "{\"id\": \"1\", \"expected\": [\"x\"]}\n");
    scored(&space, "references = \"refs\"\n[steps.refs]\nop = \"file\"\npath = \"refs.jsonl\"\n");
    let error = space.pipe(&["run", "scored.toml"]).fails(4);
    assert!(error.contains("no prompt has the id `1`"), "{error}");
}
