//! The real model against another engine's answers: token ids, greedy tokens, logits, perplexity.
//! Needs a store that holds the model (tests/real-model.sh makes one) and says so when it has none.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

/// What another engine computed; tests/cases/oracle/README.md says with which settings.
#[derive(Deserialize)]
struct Fact {
    name: String,
    text: String,
    tokens: Vec<u32>,
    greedy: Vec<u32>,
    greedy_gap: Vec<f64>,
    nll_prompt: Vec<f64>,
}

/// A distance to the runner-up below which two engines may choose differently.
const TIE: f64 = 1e-4;
const LOGIT_MAX: f32 = 1e-3;
const LOGIT_MEAN: f64 = 1e-4;
/// Every n-th logit is kept in the repository.
const STRIDE: usize = 16;

#[test]
fn agrees_with_another_engine() {
    let Some(store) = std::env::var_os("PIPE_TEST_STORE") else {
        println!("not run: PIPE_TEST_STORE is not set; tests/real-model.sh sets it");
        return;
    };
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/oracle");
    let facts: Vec<Fact> =
        serde_json::from_slice(&std::fs::read(cases.join("smollm2.json")).unwrap()).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let lines = facts.iter().map(|f| serde_json::json!({"id": f.name, "text": f.text}).to_string() + "\n");
    std::fs::write(folder.path().join("prompts.jsonl"), lines.collect::<String>()).unwrap();
    let smollm2 =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/smollm2.toml"))
            .unwrap();
    let smollm2: toml::Table = smollm2.parse().unwrap();
    let mut recipe = toml::toml! {
        [pipeline]
        name = "oracle"
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
        spec = "f32"
        max_tokens = 64
        stop = false
        logits = true
        log_likelihood = true
    };
    recipe["steps"].as_table_mut().unwrap().insert("model".into(), smollm2["steps"]["model"].clone());
    std::fs::write(folder.path().join("oracle.toml"), recipe.to_string()).unwrap();
    let pipe = |args: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_pipe"))
            .args(args)
            .env("PIPE_STORE", &store)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    };
    pipe(&["run", "oracle.toml"]);
    let json = |output: &str| -> serde_json::Value {
        serde_json::from_slice(&pipe(&["show", "--output", output])).unwrap()
    };
    let tokens = json("tokens/tokens.json");
    let answers = json("answer/answers.json");
    let likelihood = json("answer/log_likelihood.json");
    let logits = pipe(&["show", "--output", "answer/logits.safetensors"]);
    let logits = safetensors::SafeTensors::deserialize(&logits).unwrap();
    let logits = floats(logits.tensor("logits").unwrap().data());
    let kept = std::fs::read(cases.join("logits.safetensors")).unwrap();
    let kept = safetensors::SafeTensors::deserialize(&kept).unwrap();
    let vocab = logits.len() / facts.len();

    for (i, fact) in facts.iter().enumerate() {
        let name = &fact.name;
        assert_eq!(ids(&tokens["prompts"][i]["tokens"]), fact.tokens, "{name}: token ids");

        let made = ids(&answers["answers"][i]["tokens"]);
        if let Some(at) = (0..fact.greedy.len()).find(|&t| made.get(t) != Some(&fact.greedy[t])) {
            let gap = fact.greedy_gap[at];
            assert!(
                gap < TIE,
                "{name}: greedy token {at} is {:?}, not {} (gap {gap})",
                made.get(at),
                fact.greedy[at]
            );
            println!("{name}: greedy token {at} is a tie ({gap})");
        }

        let ours = &logits[i * vocab..(i + 1) * vocab];
        let theirs = match std::env::var_os("PIPE_TEST_ORACLE") {
            Some(folder) => (1, npy(&Path::new(&folder).join(format!("{name}.last.npy")))),
            None => (STRIDE, floats(kept.tensor(name).unwrap().data())),
        };
        let ours: Vec<f32> = ours.iter().copied().step_by(theirs.0).collect();
        assert_eq!(ours.len(), theirs.1.len(), "{name}: logits");
        let apart: Vec<f32> = ours.iter().zip(&theirs.1).map(|(a, b)| (a - b).abs()).collect();
        let max = apart.iter().fold(0.0f32, |m, &x| if x <= m { m } else { x });
        let mean = apart.iter().map(|&x| f64::from(x)).sum::<f64>() / apart.len() as f64;
        println!("{name}: logits differ by at most {max:.2e}, {mean:.2e} on average");
        assert!(max <= LOGIT_MAX && mean <= LOGIT_MEAN, "{name}: logits differ by {max}, {mean} on average");

        let ours: Vec<f64> = likelihood["prompts"][i]["log_likelihood"]
            .as_array()
            .unwrap()
            .iter()
            .map(|x| x.as_f64().unwrap())
            .collect();
        assert_eq!(ours.len(), fact.nll_prompt.len(), "{name}: log-likelihoods");
        for (t, (a, b)) in ours.iter().zip(&fact.nll_prompt).enumerate() {
            assert!((a + b).abs() <= 1e-3, "{name}: log-likelihood of token {} is {a}, not {}", t + 1, -b);
        }
    }
    let perplexity: BTreeMap<&str, f64> = likelihood["prompts"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|p| Some((p["id"].as_str()?, p["perplexity"].as_f64()?)))
        .collect();
    let water = perplexity["text-water"];
    println!("text-water: perplexity {water}");
    assert!((water / 16.279 - 1.0).abs() <= 1e-3, "perplexity of text-water is {water}, not 16.279");
}

fn ids(value: &serde_json::Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// The data of a version 1 .npy file of little-endian f32.
fn npy(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    floats(&bytes[10 + header..])
}
