//! What every test here starts from: a folder, the wanted bytes, one call of `fetch`.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pipe::ops::fetch::{Cause, FetchEnv, FetchError, Fetched, Progress, fetch};
use pipe::pipeline::op::{Expected, FetchFile, Source};
use pipe_store::Digest;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

pub struct Desk {
    pub dir: TempDir,
    pub env: FetchEnv,
    pub cancel: AtomicBool,
    pub beats: RefCell<Vec<Progress>>,
}

impl Desk {
    pub fn new() -> Self {
        let env = FetchEnv {
            retry_wait: Duration::ZERO,
            // Nothing leaves this machine, not even by mistake.
            hub: "http://127.0.0.1:9".into(),
            ..FetchEnv::default()
        };
        let dir = tempfile::tempdir().unwrap();
        Desk { dir, env, cancel: AtomicBool::new(false), beats: RefCell::default() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file below the desk's folder.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Fetches, and gives the bytes that stand in the destination afterwards.
    pub fn fetch(&self, from: &[Source], expect: Expected) -> (Result<Fetched, FetchError>, Vec<u8>) {
        self.fetch_watched(from, expect, &|_| {})
    }

    pub fn fetch_watched(
        &self,
        from: &[Source],
        expect: Expected,
        watch: &dyn Fn(Progress),
    ) -> (Result<Fetched, FetchError>, Vec<u8>) {
        let dest_path = self.path("dest");
        // Something old in the staged file must not survive.
        std::fs::write(&dest_path, b"left over").unwrap();
        let mut dest = File::options().read(true).write(true).open(&dest_path).unwrap();
        let file = FetchFile { name: "file".into(), from: from.to_vec(), expect };
        let see = |p: Progress| {
            self.beats.borrow_mut().push(p);
            watch(p);
        };
        let result = fetch(&file, &mut dest, &self.resume_dir(), &self.env, &see, &self.cancel);
        let mut bytes = Vec::new();
        File::open(dest_path).unwrap().read_to_end(&mut bytes).unwrap();
        (result, bytes)
    }

    pub fn resume_dir(&self) -> PathBuf {
        self.path("resume")
    }

    /// Names in the resume folder.
    pub fn kept(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.resume_dir()) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Plants bytes as if an earlier download had broken off.
    pub fn plant(&self, expect: Expected, bytes: &[u8]) {
        let name = match expect {
            Expected::Sha256(hash) => format!("sha256-{}.part", pipe_store::hex(&hash)),
            Expected::Blake3(digest) => format!("blake3-{digest}.part"),
        };
        self.write(&format!("resume/{name}"), bytes);
    }
}

/// Bytes that no two offsets share, so that a piece put in the wrong place is seen.
pub fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

pub fn sha256(bytes: &[u8]) -> Expected {
    Expected::Sha256(Sha256::digest(bytes).into())
}

pub fn blake3(bytes: &[u8]) -> Expected {
    Expected::Blake3(Digest::of(bytes))
}

pub fn file(path: &Path) -> Source {
    Source::File(path.to_owned())
}

/// The only cause of a fetch that tried one thing.
pub fn only_cause(result: Result<Fetched, FetchError>) -> Cause {
    match result {
        Err(FetchError::AllFailed { mut failures, .. }) if failures.len() == 1 => failures.remove(0).cause,
        other => panic!("expected one failure, got {other:?}"),
    }
}
