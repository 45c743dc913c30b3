//! What was seen inside an answer travels with it: derived again to the bit, and its proofs hold anywhere.

use crate::forge::publish;
use crate::space::{Space, events};

#[test]
fn the_inside_is_derived_again_and_its_proofs_hold_elsewhere() {
    let space = Space::new();
    let recipe = std::fs::read_to_string(space.path("tiny.toml")).unwrap();
    let more = "[steps.inside]\nop = \"introspect\"\nof = \"answer\"\n[steps.scores]\nop = \"score\"\n\
                of = \"answer\"\nexpected = [\"x\"]\nintrospection = \"inside\"\n";
    space.write("tiny.toml", &format!("{recipe}\n{more}"));
    space.pipe(&["run", "tiny.toml"]).ok();
    let (_, car) = publish(&space);

    let there = Space::new();
    let args = ["reproduce", car.to_str().unwrap(), "--ipfs", "off", "--threads", "1", "--impl", "scalar"];
    let mut lines = events(&there.pipe(&[&args[..], &["--json"]].concat()).ok());
    assert_eq!(lines.pop().unwrap()["ok"], true);
    let mut steps: Vec<_> = lines.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert!(lines.iter().all(|step| step["verdict"] == "identical"), "{lines:#?}");
    steps.sort_unstable();
    assert_eq!(steps, ["answer", "answer.checksum", "inside", "model", "model.pack-f32", "prompt", "scores"]);

    // Proofs made by whoever ran it, and by whoever was only given the CAR.
    let parts =
        ["answer/trace.safetensors/0/3/layer.01/ffn.residual", "scores/scores.json/scores/beauty/value"];
    let manifest = events(&there.pipe(&["import", car.to_str().unwrap(), "--json"]).ok()).remove(0);
    let bundle = manifest["bundle"].as_str().unwrap();
    for part in parts {
        let proof = space.pipe(&["prove", part]).ok();
        assert_eq!(there.pipe(&["prove", bundle, part]).ok(), proof);
        let third = Space::new();
        third.write("proof.json", &proof);
        let checksum = serde_json::from_str::<serde_json::Value>(&proof).unwrap()["checksum"].clone();
        let checksum = checksum.as_str().unwrap();
        third.pipe(&["check-proof", "proof.json", "--checksum", checksum]).ok();
        third.write("proof.json", &proof.replace("beauty", "fitness").replace("layer.01", "layer.02"));
        assert_eq!(third.pipe(&["check-proof", "proof.json"]).code, 1);
    }
}
