//! `pipe why`: what made an artifact, and what used it.

use serde_json::Value;

use crate::space::{Space, bundle};

impl Space {
    #[track_caller]
    fn why(&self, args: &[&str]) -> Value {
        let args = [&["why", "--json"], args].concat();
        serde_json::from_str(&self.pipe(&args).ok()).unwrap()
    }
}

/// `STEP as ROLE in N runs`, of each.
fn acts(of: &Value) -> Vec<String> {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let one = |act: &Value| {
        let runs = act["runs"].as_array().unwrap().len();
        format!("{} ({}) as {} in {runs}", text(&act["step"]), text(&act["op"]), text(&act["role"]))
    };
    let mut all: Vec<_> = of.as_array().unwrap().iter().map(one).collect();
    all.sort();
    all
}

#[test]
fn makers_and_users_are_named_with_their_runs() {
    let space = Space::new();
    space.pipe(&["run", "sampled.toml"]).ok();
    space.edit("sampled.toml", "seed = 43", "seed = 7");
    space.pipe(&["run", "sampled.toml"]).ok();
    let tokens = space.why(&["prompt/tokens.json"]);
    assert_eq!(acts(&tokens["made_by"]), ["prompt (tokenize) as tokens.json in 2"]);
    let by = |runs| format!("second (infer) as tokens/tokens.json in {runs}");
    let first = "first (infer) as tokens/tokens.json in 2".to_owned();
    assert_eq!(acts(&tokens["used_by"]), [first, by(1), by(1)]);
    // The inputs of the maker lead on to what made them.
    let model = tokens["made_by"][0]["inputs"]["model/file"].as_str().unwrap();
    let model = space.why(&[&model[..12]]);
    assert_eq!(acts(&model["made_by"]), ["model (file) as file in 2"]);
    let shown: Value = serde_json::from_str(&space.pipe(&["show", "--json"]).ok()).unwrap();
    let steps = &shown["bundle"]["steps"];
    assert_eq!(model["digest"], steps["model"]["outputs"]["file"]["digest"]);
    assert_eq!(tokens["made_by"][0]["key"], steps["prompt"]["key"]);
    let told = space.pipe(&["why", tokens["digest"].as_str().unwrap()]).ok();
    assert!(told.contains("made by prompt (tokenize) as tokens.json\n"), "{told}");
    // The end of the line is the bundle.
    let answer = space.why(&["second/answers.json"]);
    assert_eq!(answer["used_by"], serde_json::json!([]));
    assert_eq!(answer["made_by"][0]["bundles"].as_array().unwrap().len(), 1);
    let sealed = space.why(&[shown["cid"].as_str().unwrap()]);
    assert_eq!(acts(&sealed["made_by"]), [" (seal) as bundle in 0"]);
}

#[test]
fn what_came_with_a_bundle_is_known_by_it() {
    let (here, there) = (Space::new(), Space::new());
    let cid = bundle(&here.pipe(&["run", "tiny.toml"]).ok());
    here.pipe(&["export", "--output", there.path("a.car").to_str().unwrap()]).ok();
    there.pipe(&["import", "a.car"]).ok();
    let model = there.why(&["model/file", "--run", &cid]);
    let packed = there.why(&["model.pack-f32/packed.safetensors", "--run", &cid]);
    assert_eq!(packed["length"], Value::Null, "packed weights do not travel");
    assert_eq!(acts(&model["made_by"]), ["model (file) as file in 0"]);
    assert_eq!(model["made_by"][0]["recorded_ms"], Value::Null);
    let users = ["answer (infer) as model/file in 0", "model.pack-f32 (pack) as model/file in 0"];
    assert_eq!(acts(&model["used_by"])[..2], users);
    assert!(there.pipe(&["why", "model/file", "--run", &cid]).ok().contains(&format!("in bundle {cid}")));
}

#[test]
fn what_nobody_knows_is_said() {
    let space = Space::new();
    space.pipe(&["run", "tiny.toml"]).ok();
    assert!(space.pipe(&["why", "answer/nothing"]).fails(2).contains("answer/answers.json"));
    assert!(space.pipe(&["why", "answers"]).fails(2).contains("STEP/NAME"));
    assert!(space.pipe(&["why", &"0".repeat(64)]).fails(2).contains("no record, run or bundle"));
    space.pipe(&["why", "abc"]).fails(2);
}
