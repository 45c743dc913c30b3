//! Commands that only look: help, plan, graph, log, show, store, doctor, completions.

use crate::space::{Space, bundle, events};

#[test]
fn help_has_examples_and_exit_codes() {
    let space = Space::new();
    let help = space.pipe(&["--help"]).ok();
    for word in ["Examples:", "pipe run pipelines/tiny.toml", "Exit codes:"] {
        assert!(help.contains(word), "no `{word}` in\n{help}");
    }
    for command in ["run", "plan", "explain", "show", "verify", "export", "bench", "doctor"] {
        assert!(space.pipe(&[command, "--help"]).ok().contains("Usage: pipe"), "{command}");
    }
    space.pipe(&["frobnicate"]).fails(2);
}

#[test]
fn plan_runs_nothing() {
    let space = Space::new();
    let plan = space.pipe(&["plan", "tiny.toml"]).ok();
    let lines: Vec<_> = plan.lines().collect();
    assert_eq!(lines.len(), 4, "{plan}");
    assert!(plan.contains("miss   never run here") && plan.contains("waits  on"), "{plan}");
    assert_eq!(space.pipe(&["plan", "tiny.toml"]).ok(), plan);
    let dot = space.pipe(&["plan", "tiny.toml", "--graph", "dot"]).ok();
    assert!(dot.starts_with("digraph") && dot.contains("n1 -> n0 [label=\"model\"]"), "{dot}");
    let mermaid = space.pipe(&["plan", "tiny.toml", "--graph", "mermaid"]).ok();
    assert!(mermaid.starts_with("flowchart") || mermaid.starts_with("graph"), "{mermaid}");
}

#[test]
fn log_and_show_tell_the_runs() {
    let space = Space::new();
    assert_eq!(space.pipe(&["log"]).ok(), "");
    let error = space.pipe(&["show"]).fails(2);
    assert!(error.contains("no runs yet"), "{error}");
    let cid = bundle(&space.pipe(&["run", "tiny.toml"]).ok());
    space.pipe(&["run", "tiny.toml"]).ok();
    let log = space.pipe(&["log"]).ok();
    assert_eq!(log.lines().count(), 2, "{log}");
    assert!(log.lines().all(|line| line.contains(&cid)), "{log}");
    let id = log.split_whitespace().next().unwrap();
    assert!(space.pipe(&["show", id]).ok().contains(&cid));
    let shown: serde_json::Value = serde_json::from_str(&space.pipe(&["show", "--json"]).ok()).unwrap();
    assert_eq!(shown["cid"], cid);
    let error = space.pipe(&["show", "--output", "answer/nothing"]).fails(2);
    assert!(error.contains("answer/answers.json"), "{error}");
}

#[test]
fn bench_measures_with_and_without_a_trace() {
    let space = Space::new();
    let load = ["--prompt", "20", "--gen", "3", "--reps", "1", "--json"];
    let bench = |more: &[&str]| space.pipe(&[&["bench", "tiny.gguf"], &load[..], more].concat());
    let plain: serde_json::Value = serde_json::from_str(&bench(&[]).ok()).unwrap();
    let rates = |value: &serde_json::Value| {
        let rates = ["prefill_tokens_per_s", "decode_tokens_per_s"].map(|name| value[name].as_f64());
        rates.into_iter().all(|rate| rate.is_some_and(|rate| rate > 0.0))
    };
    assert!(rates(&plain) && plain.get("traced").is_none(), "{plain}");
    for level in ["digests", "blocks", "layers", "full"] {
        let both: serde_json::Value = serde_json::from_str(&bench(&["--trace", level]).ok()).unwrap();
        assert!(rates(&both) && rates(&both["traced"]), "{both}");
        assert_eq!(both["traced"]["level"], level);
    }
    let error = bench(&["--trace", "everything"]).fails(2);
    assert!(error.contains("digests, blocks, layers, full"), "{error}");
}

#[test]
fn doctor_says_what_this_machine_can_do() {
    let space = Space::new();
    let text = space.pipe(&["doctor"]).ok();
    for word in ["arithmetic", "scalar", "store", "pip"] {
        assert!(text.contains(word), "no `{word}` in\n{text}");
    }
    let json: serde_json::Value = serde_json::from_str(&space.pipe(&["doctor", "--json"]).ok()).unwrap();
    assert_eq!(json["arithmetic"]["ok"], true, "{json}");
}

#[test]
fn json_events_are_one_object_a_line() {
    let space = Space::new();
    let all = events(&space.pipe(&["run", "tiny.toml", "--json"]).ok());
    assert_eq!(all[0]["event"], "run_started");
    assert_eq!(all.last().unwrap()["event"], "run_finished");
    assert!(all.iter().any(|e| e["event"] == "step_progress" && e["unit"] == "tokens"));
}

#[test]
fn completions_for_a_shell() {
    let script = Space::new().pipe(&["completions", "bash"]).ok();
    assert!(script.contains("_pipe()"), "{script}");
}

#[test]
fn gc_keeps_what_runs_need_and_dry_run_deletes_nothing() {
    let space = Space::new();
    let first = space.pipe(&["run", "tiny.toml"]).ok();
    space.pipe(&["store", "gc"]).ok();
    space.pipe(&["show"]).ok();
    space.pipe(&["store", "gc", "--max-age", "0s", "--dry-run"]).ok();
    assert_eq!(space.pipe(&["log"]).ok().lines().count(), 1);
    space.pipe(&["store", "gc", "--max-age", "0s"]).ok();
    assert_eq!(space.pipe(&["log"]).ok(), "");
    assert_eq!(space.objects(), 0);
    assert_eq!(space.pipe(&["run", "tiny.toml"]).ok(), first);
}
