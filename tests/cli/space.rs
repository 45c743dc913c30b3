//! A folder with recipes and a store of its own, and the program to try on it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A place to run `pipe` in. Its store is empty at first; nothing outside is touched.
pub struct Space {
    folder: TempDir,
}

/// What a run of the program gave.
#[must_use = "either look at the output or call .ok()"]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Space {
    /// With the toy model and the recipes that stand beside it.
    pub fn new() -> Self {
        let space = Space { folder: tempfile::tempdir().unwrap() };
        let pipelines = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
        for entry in std::fs::read_dir(pipelines).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), space.path(entry.file_name())).unwrap();
        }
        space
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Change a file of the space.
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{name} has no `{from}`:\n{text}");
        self.write(name, &text.replace(from, to));
    }

    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        command.args(args).current_dir(self.folder.path()).env("PIPE_STORE", self.path("store"));
        command
    }

    /// How many objects the store holds.
    pub fn objects(&self) -> u64 {
        let stats: serde_json::Value =
            serde_json::from_str(&self.pipe(&["store", "stats", "--json"]).ok()).unwrap();
        stats["inline_objects"].as_u64().unwrap() + stats["file_objects"].as_u64().unwrap()
    }

    pub fn pipe<S: AsRef<OsStr>>(&self, args: &[S]) -> Ran {
        Ran::from(self.command(args).output().unwrap())
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// It must have gone well; its stdout.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout:\n{}stderr:\n{}", self.stdout, self.stderr);
        self.stdout
    }

    /// It must have failed with this code; its stderr.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, code, "stdout:\n{}stderr:\n{}", self.stdout, self.stderr);
        self.stderr
    }
}

/// The bundle CID, the last line of a run's stdout.
#[track_caller]
pub fn bundle(stdout: &str) -> String {
    let last = stdout.lines().last().unwrap_or_default();
    assert!(last.starts_with("bafy"), "no CID at the end of:\n{stdout}");
    last.to_owned()
}

/// NDJSON, a value a line.
#[track_caller]
pub fn events(stdout: &str) -> Vec<serde_json::Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The steps with an event of this kind, in order.
pub fn steps<'a>(events: &'a [serde_json::Value], kind: &str) -> Vec<&'a str> {
    events.iter().filter(|e| e["event"] == kind).filter_map(|e| e["step"].as_str()).collect()
}
