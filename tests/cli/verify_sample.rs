//! `pipe verify --level "sample N"`: drawn prompts are computed again, the others are not.

use std::collections::BTreeSet;

use pipe::trace::Trace;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::probes::{output, probe};
use crate::space::{Ran, Space, bundle, events};

const LENGTHS: [u32; 5] = [9, 12, 7, 15, 10];

fn ran() -> (Space, String) {
    let keys = "logits = true\nlog_likelihood = true";
    let probes = [probe("some", "\"layer.*.down\"", "tokens = \"answer\", elements = { top = 3 }")];
    let space = Space::probed(&LENGTHS, keys, &probes);
    let cid = bundle(&space.pipe(&["run", "probed.toml"]).ok());
    (space, cid)
}

fn sample(space: &Space, cid: &str, count: usize, seed: Option<&str>) -> Ran {
    let level = format!("sample {count}");
    let mut args = vec!["verify", cid, "--level", &level, "--json"];
    args.extend(seed.iter().flat_map(|seed| ["--seed", seed]));
    space.pipe(&args)
}

#[test]
fn a_sample_is_checked_whole_and_costs_its_own_positions() {
    let (space, cid) = ran();
    for count in [1, 3, 5, 9] {
        let said: Value = events(&sample(&space, &cid, count, None).ok()).remove(0);
        let drawn = count.min(5);
        assert_eq!((&said["prompts"], &said["tokens"]), (&drawn.into(), &(6 * drawn).into()));
        // A prompt has 8 to 16 tokens, and 5 of its answer go through the model.
        let positions = said["positions"].as_u64().unwrap() as usize;
        assert!((13 * drawn..=21 * drawn).contains(&positions), "{said}");
    }
    let all: Value = events(&space.pipe(&["verify", "--json"]).ok()).remove(0);
    let most: Value = events(&sample(&space, &cid, 5, None).ok()).remove(0);
    assert_eq!(all["positions"], most["positions"]);
}

#[test]
fn a_lie_about_a_drawn_prompt_is_found() {
    let (space, cid) = ran();
    let trace = output(&space, "trace.safetensors");
    let read = Trace::open(&trace).unwrap();
    let probes = output(&space, "probes.safetensors");
    let file = SafeTensors::deserialize(&probes).unwrap();
    let forge = |name: &str, at: usize| {
        let flip = |mut bytes: Vec<u8>| {
            bytes[at] ^= 1;
            bytes
        };
        space.forge(&cid, "answer", &[(name, &flip)])
    };
    let mut drawn = BTreeSet::new();
    for (prompt, length) in LENGTHS.into_iter().enumerate() {
        // The last token of the prompt is the first in which it is not like the others.
        let digest = read.prompts[prompt].digest(length as usize, 1).unwrap();
        let at = trace.windows(32).position(|window| window == digest.0).unwrap();
        let value = file.tensor(&format!("{prompt}/some/layer.01/down")).unwrap().data();
        let traced = forge("trace.safetensors", at);
        let probed = forge("probes.safetensors", value.as_ptr() as usize - probes.as_ptr() as usize);
        let look = |cid: &str, count: usize| {
            let ran = sample(&space, cid, count, None);
            let said: Value = events(&ran.stdout).remove(0);
            assert_eq!(said["prompts"], count, "{}{}", ran.stdout, ran.stderr);
            assert!(ran.code == 0 || ran.code == 1 && said["difference"]["prompt"] == prompt, "{said}");
            ran.code
        };
        assert_eq!((look(&traced, 5), look(&probed, 5)), (1, 1));
        // The root in the answers is no longer the trace's: that costs no pass.
        assert_eq!(look(&traced, 1), 1);
        drawn.extend([1, 2, 3].map(|count| look(&probed, count)));
    }
    assert_eq!(drawn, BTreeSet::from([0, 1]));
}

#[test]
fn everyone_sees_the_same_prompts_but_who_brings_a_seed() {
    let (space, cid) = ran();
    let counts = |seed: Option<&str>| -> Vec<u64> {
        let of = |count| events(&sample(&space, &cid, count, seed).ok()).remove(0)["positions"].as_u64();
        (1..5).map(|count| of(count).unwrap()).collect()
    };
    // No two prompts are of one length, so the positions tell which were drawn.
    assert_eq!(counts(None), counts(None));
    let others: BTreeSet<_> = ["a", "b", "c", "d"].iter().map(|seed| counts(Some(seed))).collect();
    assert!(others.len() > 1 && counts(Some("a")) == counts(Some("a")));
    let error = space.pipe(&["verify", "--seed", "a"]).fails(2);
    assert!(error.contains("sample N"), "{error}");
    for level in ["sample", "sample 0", "sample x", "some"] {
        let error = space.pipe(&["verify", "--level", level]).fails(2);
        assert!(error.contains("sample N"), "{error}");
    }
}
