//! Signing: the key, the chain of what it signed, and who is believed.

use std::os::unix::fs::PermissionsExt;

use crate::forge::{publish, published};
use crate::space::{Space, bundle, events};

#[test]
fn a_key_is_made_on_first_use_and_never_shown() {
    let space = Space::new();
    let key = space.pipe(&["key"]).ok();
    assert!(key.starts_with("ed25519:") && key.trim().len() == 8 + 64, "{key}");
    assert_eq!(space.pipe(&["key"]).ok(), key);
    let file = space.path("store/keys/ed25519");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = std::fs::read_to_string(&file).unwrap();
    let run = space.pipe(&["run", "tiny.toml", "--json"]);
    let publish = space.pipe(&["publish", "--ipfs", "off"]);
    let said = [run.stdout, run.stderr, publish.stderr, space.pipe(&["show", "--json"]).ok()].concat();
    assert!(!said.contains(secret.trim()));
    let car = std::fs::read_dir(space.path("store/cars")).unwrap().next().unwrap().unwrap().path();
    let car = std::fs::read(car).unwrap();
    let bytes = secret.trim().as_bytes();
    assert!(!car.windows(bytes.len()).any(|w| w == bytes));
    // Who can read it, could sign: then it is of no use.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = space.pipe(&["publish", "--ipfs", "off"]).fails(5);
    assert!(error.contains("chmod 600"), "{error}");
}

#[test]
fn each_publication_links_the_one_before() {
    let (space, first, _) = published("tiny.toml");
    // The same run again says nothing new.
    assert_eq!(publish(&space).0, first);
    space.pipe(&["run", "sampled.toml"]).ok();
    let (second, car) = publish(&space);
    let entries = events(&space.pipe(&["log", "--chain", "--json"]).ok());
    let cids: Vec<_> = entries.iter().map(|e| e["cid"].as_str().unwrap().to_owned()).collect();
    assert_eq!(cids, [second.to_string(), first.to_string()]);
    assert_eq!((&entries[0]["sequence"], &entries[1]["sequence"]), (&1.into(), &0.into()));
    assert_eq!(entries[0]["previous"], first.to_string());
    assert_eq!(entries[1]["previous"], serde_json::Value::Null);
    // It survives gc, and travels with the newest.
    space.pipe(&["store", "gc"]).ok();
    let there = Space::new();
    there.pipe(&["import", car.to_str().unwrap()]).ok();
    let second = second.to_string();
    let far = there.pipe(&["log", "--chain", &second]).ok();
    assert_eq!(far, space.pipe(&["log", "--chain"]).ok());
    assert_eq!(far.lines().count(), 2);
    // There the chain of its own key is empty.
    assert_eq!(there.pipe(&["log", "--chain"]).ok(), "");
}

#[test]
fn a_manifest_shows_who_and_what() {
    let (space, cid, _) = published("tiny.toml");
    let shown: serde_json::Value =
        serde_json::from_str(&space.pipe(&["show", &cid.to_string(), "--json"]).ok()).unwrap();
    let manifest = &shown["manifest"];
    assert_eq!(manifest["key"], space.pipe(&["key"]).ok().trim());
    assert_eq!((&manifest["claim"], &manifest["sequence"]), (&"published".into(), &0.into()));
    assert_eq!(manifest["bundle"], shown["cid"]);
    let binary = std::fs::read(env!("CARGO_BIN_EXE_pipe")).unwrap();
    assert_eq!(manifest["facts"]["binary"], pipe_store::Digest::of(&binary).to_string());
    assert!(manifest["started_ms"].as_u64() <= manifest["signed_ms"].as_u64());
    // The bundle knows none of it: it is that of an unpublished run.
    let other = Space::new();
    assert_eq!(bundle(&other.pipe(&["run", "tiny.toml"]).ok()), shown["cid"]);
}

#[test]
fn only_trusted_keys_are_believed_where_that_is_asked() {
    let (space, cid, car) = published("tiny.toml");
    let there = Space::new();
    there.write("friends.keys", "# nobody yet\n");
    let car = car.to_str().unwrap();
    let ask = ["verify", car, "--level", "integrity", "--ipfs", "off", "--trusted", "friends.keys"];
    let error = there.pipe(&ask).fails(4);
    let key = space.pipe(&["key"]).ok();
    assert!(error.contains(key.trim()) && error.contains("trusted"), "{error}");
    there.holds_nothing();
    // A bundle alone is signed by nobody.
    space.pipe(&["export", "--output", there.path("plain.car").to_str().unwrap()]).ok();
    let unsigned = ["reproduce", "plain.car", "--ipfs", "off", "--trusted", "friends.keys"];
    assert!(there.pipe(&unsigned).fails(4).contains("without a signature"));
    there.holds_nothing();

    there.write("friends.keys", &format!("{} # a friend\n", key.trim()));
    assert!(there.pipe(&ask).ok().contains(key.trim()));
    // Checked where it lies, and kept nowhere.
    there.holds_nothing();
    there.pipe(&["import", car]).ok();
    // Of what is in the store already, the same is asked.
    there.write("friends.keys", &there.pipe(&["key"]).ok());
    let again = ["reproduce", &cid.to_string(), "--ipfs", "off", "--trusted", "friends.keys"];
    assert!(there.pipe(&again).fails(4).contains("trusted"));
    let shown: serde_json::Value =
        serde_json::from_str(&there.pipe(&["show", &cid.to_string(), "--json"]).ok()).unwrap();
    let alone = ["reproduce", shown["cid"].as_str().unwrap(), "--ipfs", "off", "--trusted", "friends.keys"];
    assert!(there.pipe(&alone).fails(4).contains("without a signature"));
    there.write("friends.keys", "ed25519:12\n");
    assert!(there.pipe(&ask).fails(2).contains("friends.keys"));
}
