//! Downloads that broke off, and what may be left of them.

use std::fs::File;

use pipe::ops::fetch::{Cause, FetchError};

use crate::desk::{Desk, bytes, only_cause, sha256};
use crate::server::{Reply, Server, head_length, ranged, reply, whole};

#[test]
fn a_broken_download_continues_within_one_call() {
    let desk = Desk::new();
    let want = bytes(300_000);
    let body = want.clone();
    let server = Server::start(move |request, before| {
        let bytes = ranged(request, &body, "\"v1\"");
        let cut = head_length(&bytes) + 100_000;
        if before < 2 { Reply::BreakAfter(bytes, cut) } else { Reply::Bytes(bytes) }
    });
    let (fetched, got) = desk.fetch(&[server.source("/f")], sha256(&want));
    assert_eq!(fetched.unwrap().length, 300_000);
    assert!(got == want);
    let asked: Vec<_> = server.log().iter().map(|r| (r.offset(), r.header("if-range").is_some())).collect();
    assert_eq!(asked, [(0, false), (100_000, true), (200_000, true)]);
    assert!(desk.kept().is_empty());
}

#[test]
fn a_broken_download_is_kept_for_the_next_call_and_any_source() {
    let desk = Desk::new();
    let want = bytes(90_000);
    let first = whole(&want);
    let cut = head_length(&first) + 60_000;
    let breaks = Server::start(move |_, before| match before {
        0 => Reply::BreakAfter(first.clone(), cut),
        _ => Reply::BreakAfter(Vec::new(), 0),
    });
    let (result, got) = desk.fetch(&[breaks.source("/f")], sha256(&want));
    let Err(error @ FetchError::AllFailed { kept: 60_000, .. }) = result else { panic!("{result:?}") };
    assert!(error.is_network());
    assert!(error.to_string().contains("hint: 60000 bytes are kept; run again"), "{error}");
    assert_eq!(got, b"");

    let body = want.clone();
    let other = Server::start(move |request, _| Reply::Bytes(ranged(request, &body, "\"other\"")));
    let (fetched, got) = desk.fetch(&[other.source("/g")], sha256(&want));
    fetched.unwrap();
    assert!(got == want);
    let log = other.log();
    assert_eq!((log.len(), log[0].offset(), log[0].header("if-range")), (1, 60_000, None));
    assert_eq!(desk.beats.borrow().last().unwrap().resumed, 60_000);
    assert!(desk.kept().is_empty());
}

#[test]
fn a_file_that_changed_meanwhile_is_taken_whole() {
    let desk = Desk::new();
    let want = bytes(20_000);
    let new = want.clone();
    let server = Server::start(move |request, before| {
        let old = whole(&[1; 20_000]);
        let cut = head_length(&old) + 5_000;
        if before == 0 { Reply::BreakAfter(old, cut) } else { Reply::Bytes(ranged(request, &new, "\"v2\"")) }
    });
    let (fetched, got) = desk.fetch(&[server.source("/f")], sha256(&want));
    fetched.unwrap();
    assert!(got == want);
    assert_eq!(server.log().len(), 2);
    assert_eq!(server.log()[1].header("if-range"), Some("\"v1\""));
}

#[test]
fn a_server_without_ranges_sends_everything_again() {
    let desk = Desk::new();
    let want = bytes(20_000);
    let body = want.clone();
    let server = Server::start(move |_, before| {
        let bytes = whole(&body);
        let cut = head_length(&bytes) + 5_000;
        if before == 0 { Reply::BreakAfter(bytes, cut) } else { Reply::Bytes(bytes) }
    });
    let (fetched, got) = desk.fetch(&[server.source("/f")], sha256(&want));
    fetched.unwrap();
    assert!(got == want);
}

#[test]
fn a_server_that_breaks_off_and_refuses_to_continue_is_given_up() {
    let desk = Desk::new();
    let server = Server::start(|request, _| {
        if request.offset() > 0 {
            return Reply::Bytes(reply("416 Range Not Satisfiable", &["Content-Length: 0".into()], b""));
        }
        let bytes = whole(&[1; 20_000]);
        let cut = head_length(&bytes) + 5_000;
        Reply::BreakAfter(bytes, cut)
    });
    let cause = only_cause(desk.fetch(&[server.source("/f")], sha256(b"x")).0);
    assert!(matches!(cause, Cause::Broken { .. }), "{cause}");
}

#[test]
fn wrong_kept_bytes_cost_one_more_question() {
    let want = bytes(20_000);
    // shorter than the file, as long, longer
    for (planted, questions) in [(5_000, 2), (20_000, 2), (30_000, 2)] {
        let desk = Desk::new();
        let body = want.clone();
        let server = Server::start(move |request, _| Reply::Bytes(ranged(request, &body, "\"v1\"")));
        desk.plant(sha256(&want), &vec![9; planted]);
        let (fetched, got) = desk.fetch(&[server.source("/f")], sha256(&want));
        fetched.unwrap();
        assert!(got == want);
        let log = server.log();
        assert_eq!((log.len(), log[0].offset(), log[1].offset()), (questions, planted, 0));
    }
}

#[test]
fn wrong_kept_bytes_and_a_wrong_server_end() {
    let desk = Desk::new();
    let server = Server::start(|request, _| Reply::Bytes(ranged(request, &[3; 20_000], "\"v1\"")));
    desk.plant(sha256(b"right"), &[9; 5_000]);
    let (result, got) = desk.fetch(&[server.source("/f")], sha256(b"right"));
    assert!(matches!(only_cause(result), Cause::WrongHash { length: 20_000, .. }));
    assert_eq!((server.log().len(), got), (2, Vec::new()));
    assert!(desk.kept().is_empty());
}

#[test]
fn complete_kept_bytes_are_not_sent_again() {
    let desk = Desk::new();
    let want = bytes(20_000);
    let body = want.clone();
    let server = Server::start(move |request, _| Reply::Bytes(ranged(request, &body, "\"v1\"")));
    desk.plant(sha256(&want), &want);
    let (fetched, got) = desk.fetch(&[server.source("/f")], sha256(&want));
    fetched.unwrap();
    assert!(got == want);
    assert_eq!(server.log().len(), 1);
}

#[test]
fn another_piece_than_asked_for_is_not_put_in_its_place() {
    let desk = Desk::new();
    let want = bytes(20_000);
    let body = want.clone();
    let server = Server::start(move |request, _| {
        if request.offset() == 0 {
            return Reply::Bytes(whole(&body));
        }
        let headers = ["Content-Length: 10".to_owned(), "Content-Range: bytes 0-9/20000".into()];
        Reply::Bytes(reply("206 Partial Content", &headers, &body[..10]))
    });
    desk.plant(sha256(&want), &want[..8_000]);
    let (fetched, got) = desk.fetch(&[server.source("/f")], sha256(&want));
    fetched.unwrap();
    assert!(got == want);
    assert_eq!(server.log().len(), 2);
}

#[test]
fn pieces_that_do_not_fit_are_asked_for_anew_only_once() {
    let desk = Desk::new();
    let server = Server::start(|request, before| {
        let bytes = ranged(request, &[3; 20_000], "\"v1\"");
        let cut = head_length(&bytes) + 5_000;
        match (before, request.offset()) {
            (10.., _) => Reply::Bytes(reply("404 Not Found", &[], b"")),
            (_, 0) => Reply::BreakAfter(bytes, cut),
            _ => Reply::Bytes(bytes),
        }
    });
    let cause = only_cause(desk.fetch(&[server.source("/f")], sha256(b"right")).0);
    assert!(matches!(cause, Cause::WrongHash { .. }), "{cause}");
    assert_eq!(server.log().iter().map(|r| r.offset()).collect::<Vec<_>>(), [0, 5_000, 0, 5_000]);
}

#[test]
fn a_server_that_gives_slices_is_asked_until_the_end() {
    let desk = Desk::new();
    let want = bytes(20_000);
    let body = want.clone();
    let server = Server::start(move |request, _| {
        let offset = request.offset();
        if offset == 0 {
            let bytes = whole(&body);
            let cut = head_length(&bytes) + 2_000;
            return Reply::BreakAfter(bytes, cut);
        }
        let slice = &body[offset..(offset + 9_000).min(body.len())];
        let range = format!("Content-Range: bytes {offset}-{}/20000", offset + slice.len() - 1);
        let headers = [format!("Content-Length: {}", slice.len()), range];
        Reply::Bytes(reply("206 Partial Content", &headers, slice))
    });
    let (fetched, got) = desk.fetch(&[server.source("/f")], sha256(&want));
    fetched.unwrap();
    assert!(got == want);
    assert_eq!(server.log().iter().map(|r| r.offset()).collect::<Vec<_>>(), [0, 2_000, 11_000]);
}

#[test]
fn two_fetches_of_one_hash_do_not_mix() {
    let desk = Desk::new();
    let want = bytes(20_000);
    let body = want.clone();
    let server = Server::start(move |request, _| Reply::Bytes(ranged(request, &body, "\"v1\"")));
    desk.plant(sha256(&want), &want[..8_000]);
    let part = desk.resume_dir().join(&desk.kept()[0]);
    let other = File::open(&part).unwrap();
    other.lock().unwrap();
    let (fetched, got) = desk.fetch(&[server.source("/f")], sha256(&want));
    fetched.unwrap();
    assert!(got == want);
    assert_eq!(server.log()[0].offset(), 0);
    assert_eq!(std::fs::read(part).unwrap(), want[..8_000], "the other one's bytes are untouched");
}
