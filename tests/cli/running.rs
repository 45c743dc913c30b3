//! What runs, what does not run again, and why.

use crate::space::{Space, bundle, events, steps};

#[test]
fn a_second_run_is_all_hits_and_the_same_bundle() {
    let space = Space::new();
    let first = space.pipe(&["run", "tiny.toml"]).ok();
    let second = space.pipe(&["run", "tiny.toml", "--json"]).ok();
    let second = events(&second);
    assert_eq!(steps(&second, "step_started"), [""; 0]);
    assert_eq!(steps(&second, "step_hit").len(), 4);
    assert_eq!(second.last().unwrap()["bundle"], bundle(&first));
    // stdout carries the results alone.
    assert_eq!(space.pipe(&["run", "tiny.toml"]).ok(), first);
}

#[test]
fn a_change_runs_what_depends_on_it_and_explain_names_it() {
    let space = Space::new();
    space.pipe(&["run", "tiny.toml"]).ok();
    space.edit("tiny.toml", "max_tokens = 24", "max_tokens = 25");
    let plan = space.pipe(&["plan", "tiny.toml"]).ok();
    assert!(plan.contains("miss   changed: params.max_tokens"), "{plan}");
    let would = space.pipe(&["explain", "answer", "--recipe", "tiny.toml"]).ok();
    assert!(would.contains("params.max_tokens: 24 -> 25"), "{would}");
    let ran = events(&space.pipe(&["run", "tiny.toml", "--json"]).ok());
    assert_eq!(steps(&ran, "step_started"), ["answer"]);
    let did = space.pipe(&["explain", "answer"]).ok();
    assert!(did.contains("params.max_tokens: 24 -> 25"), "{did}");
}

#[test]
fn an_input_that_comes_out_the_same_cuts_off_early() {
    let space = Space::new();
    space.write("prompts.jsonl", "{\"text\": \"one\"}\n");
    let recipe = std::fs::read_to_string(space.path("tiny.toml")).unwrap();
    let recipe = with_prompts_from_a_file(&recipe);
    space.write("lines.toml", &recipe);
    space.pipe(&["run", "lines.toml"]).ok();
    // Another file, the same tokens: the file and tokenize steps run, infer does not.
    space.write("prompts.jsonl", "\n{\"text\":   \"one\"}\n\n");
    let ran = events(&space.pipe(&["run", "lines.toml", "--json"]).ok());
    assert_eq!(steps(&ran, "step_started"), ["lines", "prompt"]);
    assert!(steps(&ran, "step_hit").contains(&"answer"));
}

/// tiny.toml with its prompt taken from a JSONL file.
fn with_prompts_from_a_file(recipe: &str) -> String {
    let mut table: toml::Table = recipe.parse().unwrap();
    let steps = table["steps"].as_table_mut().unwrap();
    let prompt = steps["prompt"].as_table_mut().unwrap();
    prompt.retain(|key, _| key == "op" || key == "model");
    prompt.insert("prompts".into(), "lines".into());
    let lines = toml::toml! {
        op = "file"
        path = "prompts.jsonl"
    };
    steps.insert("lines".into(), lines.into());
    table.to_string()
}

#[test]
fn force_runs_a_recorded_step_and_agrees() {
    let space = Space::new();
    let first = space.pipe(&["run", "tiny.toml"]).ok();
    let forced = events(&space.pipe(&["run", "tiny.toml", "--force", "answer", "--check", "--json"]).ok());
    assert_eq!(steps(&forced, "step_started"), ["answer"]);
    assert_eq!(steps(&forced, "step_disagrees"), [""; 0]);
    assert_eq!(forced.last().unwrap()["bundle"], bundle(&first));
    let error = space.pipe(&["run", "tiny.toml", "--force", "anwser"]).fails(2);
    assert!(error.contains("no step `anwser`"), "{error}");
}

#[test]
fn evicted_bytes_are_made_again_by_their_producer() {
    let space = Space::new();
    space.pipe(&["run", "tiny.toml"]).ok();
    // The packed weights are the one large object: take it away, then ask for a step that reads it.
    let objects = walk(&space.path("store/objects"));
    assert!(!objects.is_empty());
    objects.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let ran = events(&space.pipe(&["run", "tiny.toml", "--force", "answer", "--json"]).ok());
    assert_eq!(ran.last().unwrap()["ok"], true);
    assert!(steps(&ran, "step_remade").contains(&"model.pack-f32"), "{ran:?}");
    space.pipe(&["store", "fsck"]).ok();
}

#[test]
fn a_failed_step_stops_what_needs_it_and_keep_going_runs_the_rest() {
    let space = Space::new();
    // Token 999999 is not in the vocabulary, which only a run can find out.
    let recipe = std::fs::read_to_string(space.path("tiny.toml")).unwrap();
    let broken = "
[steps.bad]
op = \"tokenize\"
model = \"model\"
ids = [999999]
[steps.worse]
op = \"infer\"
model = \"model\"
tokens = \"bad\"
";
    space.write("broken.toml", &(recipe + broken));
    let error = space.pipe(&["run", "broken.toml", "--keep-going"]).fails(4);
    assert!(error.contains("step `bad` (tokenize)") && error.contains("999999"), "{error}");
    let last: serde_json::Value = serde_json::from_str(&space.pipe(&["log", "--json"]).ok()).unwrap();
    let outcome = |name: &str| {
        let steps = last["details"]["steps"].as_array().unwrap();
        steps.iter().find(|s| s["name"] == name).unwrap()["outcome"].clone()
    };
    assert_eq!(outcome("answer"), "ran");
    assert_eq!(outcome("bad"), "failed");
    assert_eq!(outcome("worse"), "skipped");
}

/// All files under a folder.
pub fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}
