//! What the tests share: bytes, records, and a test binary that runs itself as another process.
#![allow(dead_code)]

use std::path::Path;
use std::process::{Command, Stdio};

use pipe_store::{Artifact, Digest, Output, Record, RunEntry, Store};

/// Bytes that differ from those of any other seed, and do not repeat.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    out.truncate(length);
    out
}

pub fn key(n: u64) -> Digest {
    Digest::of(&n.to_le_bytes())
}

pub fn record(step: &str, created_ms: u64, outputs: &[(Digest, u64)]) -> Record {
    let output = |(i, (digest, length)): (usize, &(Digest, u64))| Output {
        name: format!("out{i}"),
        artifact: Artifact {
            digest: *digest,
            length: *length,
            media_type: "application/octet-stream".into(),
        },
    };
    Record {
        step: step.into(),
        preimage: format!("op = {step}\n"),
        outputs: outputs.iter().enumerate().map(output).collect(),
        log: None,
        facts: "{}".into(),
        created_ms,
    }
}

pub fn run(id: &str, started_ms: u64, keys: &[Digest], objects: &[Digest]) -> RunEntry {
    RunEntry {
        id: id.into(),
        pipeline: "p".into(),
        bundle: None,
        started_ms,
        body: "{}".into(),
        keys: keys.to_vec(),
        objects: objects.to_vec(),
    }
}

/// The store on disk and the one in memory, for bodies that must hold for both.
pub fn both(body: impl Fn(&Store)) {
    let dir = tempfile::tempdir().unwrap();
    body(&Store::open(dir.path()).unwrap());
    body(&Store::memory());
}

/// Tells a child which part it plays; the value is the part, then what it needs.
pub const PART: &str = "PIPE_STORE_TEST_PART";

/// This test binary again, running only its test `other_process`, which reads [`part`].
pub fn child(exe: &Path, part: &[&str]) -> Command {
    let mut command = Command::new(exe);
    command.args(["--exact", "other_process", "--nocapture", "--test-threads=1"]).env(PART, part.join("\n"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn this_exe() -> std::path::PathBuf {
    std::env::current_exe().unwrap()
}

/// None in the ordinary run of the test `other_process`.
pub fn part() -> Option<Vec<String>> {
    Some(std::env::var(PART).ok()?.split('\n').map(Into::into).collect())
}

/// The lines a child said on purpose, without those of the test harness.
pub fn said(stdout: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(stdout).into_owned();
    text.lines().filter_map(|l| l.split_once("say: ").map(|(_, said)| said.to_owned())).collect()
}

pub fn say(what: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "say: {what}").unwrap();
    out.flush().unwrap();
}

/// Reads the next line a living child says.
pub fn hear(child: &mut std::process::Child) -> String {
    use std::io::Read;
    let out = child.stdout.as_mut().unwrap();
    loop {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while out.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        if let Some((_, said)) = String::from_utf8_lossy(&line).split_once("say: ") {
            return said.to_owned();
        }
        assert!(!line.is_empty() || byte == *b"\n", "the child ended without a word");
    }
}

/// Past the harness, which keeps the output of tests that pass to itself.
pub fn did_not_run(why: &str) {
    use std::io::Write;
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let mut err = std::io::stderr();
    writeln!(err, "{name} DID NOT RUN: {why}").unwrap();
}
