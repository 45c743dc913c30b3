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

#[test]
fn logits_and_likelihoods_come_as_json_and_as_tensors() {
    let space = Space::new();
    space.pipe(&["run", "score.toml"]).ok();
    let json = |name: &str| -> serde_json::Value {
        serde_json::from_str(&space.pipe(&["show", "--output", name]).ok()).unwrap()
    };
    let tensors = |name: &str| space.command(&["show", "--output", name]).output().unwrap().stdout;
    let floats = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let text = json("scores/logits.json");
    let bytes = tensors("scores/logits.safetensors");
    let tensor = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = floats(tensor.tensor("logits").unwrap().data());
    let flat: Vec<f32> = text["prompts"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|p| p["logits"].as_array().unwrap())
        .map(|x| x.to_string().parse().unwrap())
        .collect();
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&flat), bits(&values));

    let text = json("scores/log_likelihood.json");
    let bytes = tensors("scores/log_likelihood.safetensors");
    let tensor = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (i, prompt) in text["prompts"].as_array().unwrap().iter().enumerate() {
        let data = tensor.tensor(&i.to_string()).unwrap().data().to_vec();
        let values = data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap()));
        let listed = prompt["log_likelihood"].as_array().unwrap();
        assert_eq!(listed.len() + 1, prompt["tokens"].as_array().unwrap().len());
        assert!(values.zip(listed).all(|(v, x)| v.to_bits() == x.as_f64().unwrap().to_bits() && v < 0.0));
    }
}
