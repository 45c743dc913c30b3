//! HTTP answers of all kinds.

use std::sync::atomic::Ordering;
use std::time::Duration;

use pipe::ops::fetch::{Cause, FetchError, Phase};
use pipe::pipeline::op::Source;

use crate::desk::{Desk, blake3, bytes, only_cause, sha256};
use crate::server::{Reply, Server, head_length, ranged, reply, whole};

#[test]
fn a_download_arrives_with_its_progress() {
    let desk = Desk::new();
    let want = bytes(700_000);
    let body = want.clone();
    let server = Server::start(move |_, _| Reply::Bytes(whole(&body)));
    for expect in [sha256(&want), blake3(&want)] {
        let (fetched, got) = desk.fetch(&[server.source("/f?x=1")], expect);
        assert_eq!(fetched.unwrap().length, 700_000);
        assert!(got == want);
    }
    assert_eq!(server.log()[0].path, "/f?x=1");
    assert_eq!(server.log()[0].header("accept-encoding"), Some("identity"));
    let last = *desk.beats.borrow().last().unwrap();
    assert_eq!((last.phase, last.bytes, last.total), (Phase::Downloading, 700_000, Some(700_000)));
    assert!(desk.kept().is_empty(), "{:?}", desk.kept());
}

#[test]
fn an_empty_file_arrives() {
    let desk = Desk::new();
    let server = Server::start(|_, _| Reply::Bytes(whole(b"")));
    let (fetched, got) = desk.fetch(&[server.source("/")], sha256(b""));
    assert_eq!((fetched.unwrap().length, got), (0, Vec::new()));
}

#[test]
fn wrong_bytes_are_dropped_and_the_next_source_starts_from_zero() {
    let desk = Desk::new();
    let want = bytes(50_000);
    let body = want.clone();
    let bad = Server::start(|_, _| Reply::Bytes(whole(&[7; 50_000])));
    let good = Server::start(move |_, _| Reply::Bytes(whole(&body)));
    let (fetched, got) = desk.fetch(&[bad.source("/bad"), good.source("/good")], sha256(&want));
    let fetched = fetched.unwrap();
    assert_eq!(fetched.source, 1);
    assert_eq!(got, want);
    assert_eq!(bad.log().len(), 1, "wrong bytes are not asked for again");
    assert_eq!(good.log()[0].header("range"), None);
    let text = fetched.failures[0].to_string();
    assert!(text.contains("/bad: wrong sha256: expected "), "{text}");
}

#[test]
fn only_wrong_bytes_leave_nothing_behind() {
    let desk = Desk::new();
    let server = Server::start(|_, _| Reply::Bytes(whole(b"wrong")));
    let (result, got) = desk.fetch(&[server.source("/f")], sha256(b"right"));
    assert!(matches!(only_cause(result), Cause::WrongHash { length: 5, .. }));
    assert_eq!(got, b"");
    assert!(desk.kept().is_empty(), "{:?}", desk.kept());
}

#[test]
fn a_status_ends_a_source_at_once_but_trouble_is_asked_again() {
    let desk = Desk::new();
    let missing = Server::start(|_, _| Reply::Bytes(reply("404 Not Found", &[], b"no")));
    let (result, _) = desk.fetch(&[missing.source("/f")], sha256(b"x"));
    assert!(matches!(only_cause(result), Cause::Status { status: 404 }));
    assert_eq!(missing.log().len(), 1);

    let busy = Server::start(|_, before| match before {
        0 => Reply::Bytes(reply("503 Service Unavailable", &[], b"")),
        1 => Reply::Bytes(reply("429 Too Many Requests", &[], b"")),
        _ => Reply::Bytes(whole(b"x")),
    });
    let (fetched, got) = desk.fetch(&[busy.source("/f")], sha256(b"x"));
    assert_eq!((fetched.unwrap().source, got), (0, b"x".to_vec()));

    let down = Server::start(|_, _| Reply::Bytes(reply("500 Internal Server Error", &[], b"")));
    let error = desk.fetch(&[down.source("/f")], sha256(b"x")).0.unwrap_err();
    assert!(error.is_network());
    assert_eq!(down.log().len(), desk.env.tries as usize);
}

#[test]
fn nobody_there_is_a_network_failure() {
    let desk = Desk::new();
    let (result, _) = desk.fetch(&[Source::Http("http://127.0.0.1:9/f".into())], sha256(b"x"));
    let error = result.unwrap_err();
    assert!(error.is_network());
    assert!(error.to_string().contains("no answer: "), "{error}");
    assert!(desk.kept().is_empty());
}

#[test]
fn an_address_that_is_none_is_said_to_be() {
    let desk = Desk::new();
    for url in ["http://", "https:// /x", "http:///f"] {
        let cause = only_cause(desk.fetch(&[Source::Http(url.into())], sha256(b"x")).0);
        assert!(matches!(cause, Cause::BadAddress { .. }), "{url}: {cause:?}");
    }
}

#[test]
fn a_redirect_is_followed_and_keeps_the_range() {
    let desk = Desk::new();
    let want = bytes(40_000);
    let body = want.clone();
    let server = Server::start(move |request, _| match request.path.as_str() {
        "/old" => Reply::Bytes(reply("302 Found", &["Location: /new".into()], b"")),
        _ => Reply::Bytes(ranged(request, &body, "\"v1\"")),
    });
    desk.plant(sha256(&want), &want[..10_000]);
    let (fetched, got) = desk.fetch(&[server.source("/old")], sha256(&want));
    fetched.unwrap();
    assert!(got == want);
    assert_eq!(server.log()[1].header("range"), Some("bytes=10000-"));
}

#[test]
fn a_circle_of_redirects_ends() {
    let desk = Desk::new();
    let server = Server::start(|_, _| Reply::Bytes(reply("302 Found", &["Location: /f".into()], b"")));
    let (result, _) = desk.fetch(&[server.source("/f")], sha256(b"x"));
    assert!(matches!(only_cause(result), Cause::NoAnswer { .. }));
}

#[test]
fn chunked_bytes_arrive_without_a_length() {
    let desk = Desk::new();
    let chunked = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let server = Server::start(move |_, before| {
        let bytes = reply("200 OK", &["Transfer-Encoding: chunked".into()], chunked);
        // first without its end
        let cut = bytes.len() - 5;
        if before == 0 { Reply::BreakAfter(bytes, cut) } else { Reply::Bytes(bytes) }
    });
    let (fetched, got) = desk.fetch(&[server.source("/f")], sha256(b"hello world"));
    assert_eq!(fetched.unwrap().length, 11);
    assert_eq!(got, b"hello world");
}

#[test]
fn a_silent_server_runs_into_the_idle_time_out() {
    let mut desk = Desk::new();
    desk.env.idle_timeout = Duration::from_millis(100);
    desk.env.tries = 1;
    let silent = Server::start(|_, _| Reply::HangAfter(Vec::new(), 0));
    let cause = only_cause(desk.fetch(&[silent.source("/f")], sha256(b"x")).0);
    assert!(matches!(&cause, Cause::NoAnswer { why } if why.contains("time-out")), "{cause}");

    let want = bytes(1000);
    let body = whole(&want);
    let half = head_length(&body) + 500;
    let stalling = Server::start(move |_, _| Reply::HangAfter(body.clone(), half));
    let cause = only_cause(desk.fetch(&[stalling.source("/f")], sha256(&want)).0);
    assert!(matches!(cause, Cause::Broken { at: 500, total: Some(1000), .. }), "{cause}");
}

#[test]
fn a_cancel_does_not_wait_for_the_server() {
    let desk = Desk::new();
    let want = bytes(1000);
    let body = whole(&want);
    let half = head_length(&body) + 500;
    let server = Server::start(move |_, _| Reply::HangAfter(body.clone(), half));
    let (result, got) = desk.fetch_watched(&[server.source("/f")], sha256(&want), &|p| {
        desk.cancel.store(p.bytes == 500, Ordering::Relaxed);
    });
    assert!(matches!(result, Err(FetchError::Cancelled { .. })), "{result:?}");
    assert_eq!(got, b"");
    assert_eq!(desk.kept().len(), 2, "the half and its origin are kept");
}

#[test]
fn lengths_over_the_limit_are_refused_announced_or_not() {
    let mut desk = Desk::new();
    desk.env.max_bytes = 1000;
    let announced = Server::start(|_, _| {
        Reply::Bytes(reply("200 OK", &["Content-Length: 18446744073709551615".into()], b"abc"))
    });
    let cause = only_cause(desk.fetch(&[announced.source("/f")], sha256(b"x")).0);
    assert!(matches!(cause, Cause::TooLarge { length: u64::MAX, limit: 1000 }), "{cause}");
    let endless = Server::start(|_, _| Reply::Bytes(reply("200 OK", &[], &[0; 5000])));
    let cause = only_cause(desk.fetch(&[endless.source("/f")], sha256(b"x")).0);
    assert!(matches!(cause, Cause::TooLarge { limit: 1000, .. }), "{cause}");
    assert!(desk.kept().is_empty());
}

#[test]
fn packed_bytes_are_not_taken_for_the_file() {
    let desk = Desk::new();
    let server =
        Server::start(|_, _| Reply::Bytes(reply("200 OK", &["Content-Encoding: br".into()], b"abc")));
    let cause = only_cause(desk.fetch(&[server.source("/f")], sha256(b"x")).0);
    assert!(matches!(cause, Cause::Encoded { .. }), "{cause}");
}

#[test]
fn messages_show_no_password_and_no_signature() {
    let desk = Desk::new();
    let server = Server::start(|_, _| Reply::Bytes(reply("403 Forbidden", &[], b"")));
    let url = format!("http://user:secret@127.0.0.1:{}/f?signature=secret", server.port);
    let text = desk.fetch(&[Source::Http(url)], sha256(b"x")).0.unwrap_err().to_string();
    assert!(text.contains(&format!("127.0.0.1:{}/f", server.port)), "{text}");
    assert!(!text.contains("secret"), "{text}");
}
