//! Stopped runs: by Ctrl-C, by kill -9, by another process on the same store. Nothing recorded is lost.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use crate::space::{Ran, Space, events, steps};

/// A recipe whose answer takes long enough to be stopped in the middle: many prompts on the toy model.
fn long(space: &Space) {
    let lines: String = (0..400).map(|i| format!("{{\"text\": \"prompt {i}\"}}\n")).collect();
    space.write("prompts.jsonl", &lines);
    space.write(
        "long.toml",
        "[pipeline]\nname = \"long\"\n[steps.model]\nop = \"file\"\npath = \"tiny.gguf\"\n\
         [steps.lines]\nop = \"file\"\npath = \"prompts.jsonl\"\n\
         [steps.tokens]\nop = \"tokenize\"\nmodel = \"model\"\nprompts = \"lines\"\n\
         [steps.answer]\nop = \"infer\"\nmodel = \"model\"\ntokens = \"tokens\"\nmax_tokens = 60\nstop = false\n",
    );
}

/// Start a run and wait until its last step computes.
fn start(space: &Space) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = space.command(&["run", "long.toml", "--json", "--threads", "1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !(line.contains("step_started") && line.contains("\"answer\"")) {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "the run ended before its answer began");
    }
    (child, lines)
}

#[cfg(unix)]
fn signal(child: &Child, name: &str) {
    let status = std::process::Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_cleanly_and_the_next_run_goes_on() {
    let space = Space::new();
    long(&space);
    let (child, lines) = start(&space);
    signal(&child, "-INT");
    // Drain, so that the child never waits for us.
    let _: usize = lines.lines().map_while(Result::ok).count();
    let ran = Ran::from(child.wait_with_output().unwrap());
    let error = ran.fails(130);
    assert!(error.contains("stopped"), "{error}");
    let again = events(&space.pipe(&["run", "long.toml", "--json"]).ok());
    assert_eq!(steps(&again, "step_started"), ["answer"], "what was done is not done again");
}

#[cfg(unix)]
#[test]
fn kill_9_loses_nothing_that_was_recorded() {
    let space = Space::new();
    long(&space);
    let (mut child, _lines) = start(&space);
    signal(&child, "-KILL");
    child.wait().unwrap();
    space.pipe(&["store", "fsck"]).ok();
    let again = events(&space.pipe(&["run", "long.toml", "--json"]).ok());
    assert_eq!(steps(&again, "step_started"), ["answer"]);
    space.pipe(&["store", "gc"]).ok();
}

#[test]
fn two_processes_share_a_store_and_compute_a_step_once() {
    let space = Space::new();
    long(&space);
    let (first, lines) = start(&space);
    // Read all the while: a full pipe would hold the first run up, and its lease with it.
    let first_events = std::thread::spawn(move || lines.lines().map_while(Result::ok).collect::<Vec<_>>());
    let second = events(&space.pipe(&["run", "long.toml", "--json"]).ok());
    let first_events = first_events.join().unwrap();
    assert!(first.wait_with_output().unwrap().status.success());
    // The second found the lease taken, waited, and took the record.
    assert_eq!(steps(&second, "step_finished"), [""; 0], "{second:?}");
    let finished = events(&first_events.join("\n"));
    assert_eq!(steps(&finished, "step_finished"), ["answer"]);
    assert_eq!(finished.last().unwrap()["bundle"], second.last().unwrap()["bundle"]);
}
