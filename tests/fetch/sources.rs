//! Sources in order, the hash that decides, files, and messages that name everything.

use std::sync::atomic::Ordering;

use pipe::ops::fetch::{Cause, FetchError, Phase};
use pipe::pipeline::op::Source;

use crate::desk::{Desk, blake3, bytes, file, only_cause, sha256};

#[test]
fn a_file_arrives_with_either_hash() {
    let desk = Desk::new();
    // on both sides of the buffer's size
    for length in [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1] {
        let want = bytes(length);
        let path = desk.write("in", &want);
        for expect in [sha256(&want), blake3(&want)] {
            let (fetched, got) = desk.fetch(&[file(&path)], expect);
            assert_eq!(fetched.unwrap().length, length as u64);
            assert!(got == want, "bytes differ at length {length}");
        }
    }
    let last = *desk.beats.borrow().last().unwrap();
    assert_eq!((last.phase, last.bytes, last.total), (Phase::Copying, (1 << 20) + 1, Some((1 << 20) + 1)));
}

#[test]
fn the_next_source_answers_and_the_failures_are_told() {
    let desk = Desk::new();
    let want = bytes(1000);
    let wrong = desk.write("wrong", &bytes(2000));
    let right = desk.write("right", &want);
    let from = [file(&desk.path("missing")), file(&wrong), file(desk.dir.path()), file(&right)];
    let (fetched, got) = desk.fetch(&from, sha256(&want));
    let fetched = fetched.unwrap();
    assert_eq!(fetched.source, 3);
    assert_eq!(got, want);
    let causes: Vec<_> = fetched.failures.iter().map(|f| (f.source, &f.cause)).collect();
    assert!(
        matches!(
            causes[..],
            [
                (0, Cause::Read { .. }),
                (1, Cause::WrongHash { length: 2000, .. }),
                (2, Cause::NotAFile { .. })
            ]
        ),
        "{causes:?}"
    );
}

#[test]
fn a_wrong_hash_names_both_and_keeps_nothing() {
    let desk = Desk::new();
    let wrong = desk.write("wrong", b"abc");
    let (result, got) = desk.fetch(&[file(&wrong), file(&desk.path("none"))], sha256(b"other"));
    let error = result.unwrap_err();
    assert!(!error.is_network());
    let text = error.to_string();
    for part in [
        "no source gave `file`",
        "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "source 1: file:",
        "source 2: file:",
        "hint: the file changed",
    ] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    assert_eq!(got, b"");
    assert!(desk.kept().is_empty());
}

#[test]
fn nothing_to_ask_is_an_error_with_a_hint() {
    let (result, _) = Desk::new().fetch(&[], sha256(b""));
    assert!(result.unwrap_err().to_string().contains("hint: name at least one source"));
}

#[test]
fn a_file_over_the_limit_is_refused() {
    let mut desk = Desk::new();
    let want = bytes(5000);
    let path = desk.write("in", &want);
    desk.env.max_bytes = 4999;
    let (result, got) = desk.fetch(&[file(&path)], sha256(&want));
    assert!(matches!(only_cause(result), Cause::TooLarge { limit: 4999, .. }));
    assert_eq!(got, b"");
    desk.env.max_bytes = 5000;
    assert!(desk.fetch(&[file(&path)], sha256(&want)).0.is_ok());
}

#[test]
fn a_cancel_stops_before_the_next_source() {
    let desk = Desk::new();
    let want = bytes(3 << 20);
    let path = desk.write("in", &want);
    let (result, got) = desk.fetch_watched(&[file(&path), file(&path)], sha256(&want), &|p| {
        desk.cancel.store(p.bytes > 0, Ordering::Relaxed);
    });
    assert!(matches!(result, Err(FetchError::Cancelled { .. })), "{result:?}");
    assert_eq!(got, b"");
    assert!(desk.beats.borrow().iter().all(|p| p.source == 0));
}

#[test]
fn a_destination_that_cannot_be_written_is_no_fault_of_the_source() {
    let desk = Desk::new();
    let path = desk.write("in", b"abc");
    let mut read_only = std::fs::File::open(desk.write("dest", b"")).unwrap();
    let want = pipe::pipeline::op::FetchFile {
        name: "file".into(),
        from: vec![Source::File(path.clone()), Source::File(path)],
        expect: sha256(b"abc"),
    };
    let result =
        pipe::ops::fetch::fetch(&want, &mut read_only, &desk.resume_dir(), &desk.env, &|_| {}, &desk.cancel);
    assert!(matches!(result, Err(FetchError::Write { .. })), "{result:?}");
}
