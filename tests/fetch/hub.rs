//! `hf:` names: the cache on disk, the address scheme, the token.

use std::ffi::OsString;
use std::path::PathBuf;

use pipe::ops::fetch::{Cause, FetchEnv, HUB};
use pipe::pipeline::op::Source;

use crate::desk::{Desk, bytes, only_cause, sha256};
use crate::server::{Reply, Server, reply, whole};

const COMMIT: &str = "ab810cf68114990406fdf996510dd3d3c6adbdf5";

fn hf(revision: &str, path: &str) -> Source {
    Source::Hf { repo: "owner/repo".into(), revision: revision.into(), path: path.into() }
}

#[test]
fn the_hub_is_asked_by_its_address_scheme() {
    let mut desk = Desk::new();
    let want = bytes(5000);
    let body = want.clone();
    let server = Server::start(move |_, _| Reply::Bytes(whole(&body)));
    desk.env.hub = server.url("");
    desk.env.hub_token = Some("secret".into());
    for revision in [COMMIT, "refs/pr/1"] {
        let (fetched, got) = desk.fetch(&[hf(revision, "sub dir/a+b.gguf")], sha256(&want));
        fetched.unwrap();
        assert_eq!(got, want);
    }
    let log = server.log();
    assert_eq!(log[0].path, format!("/owner/repo/resolve/{COMMIT}/sub%20dir/a%2Bb.gguf"));
    assert_eq!(log[1].path, "/owner/repo/resolve/refs%2Fpr%2F1/sub%20dir/a%2Bb.gguf");
    assert_eq!(log[0].header("authorization"), Some("Bearer secret"));
}

#[test]
fn the_token_stays_with_the_hub() {
    let mut desk = Desk::new();
    let want = bytes(5000);
    let body = want.clone();
    let elsewhere = Server::start(move |_, _| Reply::Bytes(whole(&body)));
    let target = format!("http://localhost:{}/signed", elsewhere.port);
    let hub =
        Server::start(move |_, _| Reply::Bytes(reply("302 Found", &[format!("Location: {target}")], b"")));
    desk.env.hub = hub.url("");
    desk.env.hub_token = Some("secret".into());
    let (fetched, got) = desk.fetch(&[hf(COMMIT, "f")], sha256(&want));
    fetched.unwrap();
    assert_eq!(got, want);
    assert_eq!(hub.log()[0].header("authorization"), Some("Bearer secret"));
    assert_eq!(elsewhere.log()[0].header("authorization"), None);
    assert!(!format!("{:?}", desk.env).contains("secret"));
}

#[test]
fn the_cache_answers_without_the_network() {
    let mut desk = Desk::new();
    let want = bytes(5000);
    desk.write(&format!("hub/models--owner--repo/snapshots/{COMMIT}/sub/f.gguf"), &want);
    desk.write("hub/models--owner--repo/refs/main", COMMIT.as_bytes());
    desk.env.hub_cache = Some(desk.path("hub"));
    desk.env.hub_offline = true;
    for revision in [COMMIT, "main"] {
        let (fetched, got) = desk.fetch(&[hf(revision, "sub/f.gguf")], sha256(&want));
        assert!(fetched.unwrap().failures.is_empty());
        assert_eq!(got, want);
    }
    for (revision, path) in [(COMMIT, "other"), ("v2", "sub/f.gguf")] {
        let (result, _) = desk.fetch(&[hf(revision, path)], sha256(&want));
        let error = result.unwrap_err();
        assert!(error.to_string().contains("hint: unset HF_HUB_OFFLINE"), "{error}");
    }
}

#[test]
fn a_damaged_cache_is_told_and_passed_over() {
    let mut desk = Desk::new();
    let want = bytes(5000);
    let body = want.clone();
    let server = Server::start(move |_, _| Reply::Bytes(whole(&body)));
    desk.env.hub = server.url("");
    desk.env.hub_cache = Some(desk.path("hub"));
    desk.write(&format!("hub/models--owner--repo/snapshots/{COMMIT}/f"), b"damaged");
    let (fetched, got) = desk.fetch(&[hf(COMMIT, "f")], sha256(&want));
    let fetched = fetched.unwrap();
    assert_eq!(got, want);
    assert!(matches!(fetched.failures[0].cause, Cause::WrongHash { .. }));
    assert_eq!((fetched.source, fetched.failures[0].source), (0, 0));
}

#[test]
fn names_cannot_climb() {
    let mut desk = Desk::new();
    desk.write("secret", b"abc");
    desk.write("hub/models--owner--repo/snapshots/x/f", b"");
    desk.env.hub_cache = Some(desk.path("hub"));
    desk.env.hub_offline = true;
    let repo = |repo: &str| Source::Hf { repo: repo.into(), revision: COMMIT.into(), path: "f".into() };
    let bad = [
        hf("x", "../../../../secret"),
        hf("..", "f"),
        hf("x", "/etc/passwd"),
        hf("x", ""),
        repo("../.."),
        repo("a/b/c"),
    ];
    for source in bad {
        let cause = only_cause(desk.fetch(std::slice::from_ref(&source), sha256(b"abc")).0);
        assert!(matches!(cause, Cause::BadName { .. }), "{source:?}: {cause}");
    }
    // a name in refs/ is no way out either
    desk.write("hub/models--owner--repo/refs/evil", b"../../..");
    let cause = only_cause(desk.fetch(&[hf("evil", "secret")], sha256(b"abc")).0);
    assert!(matches!(cause, Cause::Offline), "{cause}");
}

#[test]
fn the_environment_is_read_in_the_hubs_order() {
    let read = |vars: &[(&str, &str)]| {
        let vars: Vec<(String, OsString)> = vars.iter().map(|(k, v)| (k.to_string(), v.into())).collect();
        FetchEnv::from_vars(&|name| vars.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
    };
    let cache = |vars: &[(&str, &str)]| read(vars).hub_cache;
    let home = ("HOME", "h");
    assert_eq!(cache(&[home]), Some(PathBuf::from("h/.cache/huggingface/hub")));
    assert_eq!(cache(&[home, ("XDG_CACHE_HOME", "x")]), Some(PathBuf::from("x/huggingface/hub")));
    assert_eq!(cache(&[home, ("XDG_CACHE_HOME", "x"), ("HF_HOME", "y")]), Some(PathBuf::from("y/hub")));
    assert_eq!(cache(&[home, ("HF_HOME", "y"), ("HF_HUB_CACHE", "z")]), Some(PathBuf::from("z")));
    assert_eq!(cache(&[]), None);
    let plain = read(&[("HF_TOKEN", ""), ("HF_HUB_OFFLINE", "0")]);
    assert_eq!((plain.hub.as_str(), plain.hub_token, plain.hub_offline), (HUB, None, false));
    let set = read(&[("HF_ENDPOINT", "http://mirror/"), ("HF_TOKEN", "t\n"), ("HF_HUB_OFFLINE", "TRUE")]);
    assert_eq!(
        (set.hub.as_str(), set.hub_token.as_deref(), set.hub_offline),
        ("http://mirror", Some("t"), true)
    );
}
