//! Publishing to a node and fetching from one; nodes that are absent, slow, full, forgetful, or lie.

use crate::forge::published;
use crate::node::{Mood, Node, nobody};
use crate::space::{Ran, Space};

/// Publish the tiny run to a node in some mood, within a second.
fn to(url: &str) -> (Space, Ran) {
    let space = Space::new();
    space.pipe(&["run", "tiny.toml"]).ok();
    let ran = space.pipe(&["publish", "--ipfs", url, "--timeout", "1"]);
    (space, ran)
}

/// It must have failed, and the CAR must be there and whole.
#[track_caller]
fn kept(space: &Space, ran: Ran, code: i32, names: &[&str]) {
    let error = ran.fails(code);
    for name in names {
        assert!(error.contains(name), "no `{name}` in {error}");
    }
    let cars: Vec<_> = std::fs::read_dir(space.path("store/cars")).unwrap().collect();
    assert_eq!(cars.len(), 1);
    let car = cars[0].as_ref().unwrap().path();
    assert!(error.contains(car.to_str().unwrap()), "{error}");
    Space::new().pipe(&["reproduce", car.to_str().unwrap(), "--ipfs", "off"]).ok();
}

#[test]
fn a_stranger_with_the_cid_alone_derives_it_again() {
    let node = Node::start(Mood::Honest);
    let (_, ran) = to(&node.url());
    let cid = ran.ok().trim().to_owned();
    assert!(node.pins.lock().unwrap().contains(&cid));
    let there = Space::new();
    let said = there.pipe(&["reproduce", &cid, "--ipfs", &node.url()]).ok();
    assert_eq!(said.lines().filter(|line| line.ends_with("identical")).count(), 5, "{said}");
    // Now it is here, and needs no node.
    there.pipe(&["verify", &cid, "--level", "integrity", "--ipfs", "off"]).ok();
}

#[test]
fn an_absent_node_is_named_before_anything_is_signed() {
    let url = nobody();
    let (space, ran) = to(&url);
    let error = ran.fails(6);
    assert!(error.contains(&url), "{error}");
    assert_eq!(space.pipe(&["log", "--chain"]).ok(), "");
    // Automatic is content with a CAR.
    std::fs::create_dir(space.path("ipfs")).unwrap();
    space.write("ipfs/api", &url.replace("http://127.0.0.1:", "/ip4/127.0.0.1/tcp/"));
    let ran = space.command(&["publish"]).env("IPFS_PATH", space.path("ipfs")).output().unwrap();
    let ran = Ran::from(ran);
    assert!(ran.stderr.contains("not pinned") && ran.stderr.contains(&url), "{}", ran.stderr);
    ran.ok();
    let there = Space::new();
    let cid = space.pipe(&["log", "--chain", "--json"]).ok();
    let cid: serde_json::Value = serde_json::from_str(cid.trim()).unwrap();
    let error = there.pipe(&["reproduce", cid["cid"].as_str().unwrap(), "--ipfs", &url]).fails(6);
    assert!(error.contains(&url), "{error}");
    let error = there.pipe(&["reproduce", cid["cid"].as_str().unwrap(), "--ipfs", "off"]).fails(6);
    assert!(error.contains("nobody to ask"), "{error}");
    there.holds_nothing();
}

#[test]
fn a_slow_node_is_given_up() {
    for call in ["dag/import", "pin/add", "block/get"] {
        let node = Node::start(Mood::Silent(call));
        let (space, ran) = to(&node.url());
        kept(&space, ran, 6, &[&node.url(), call]);
    }
    let node = Node::start(Mood::Silent("version"));
    let (_, ran) = to(&node.url());
    assert!(ran.fails(6).contains(&node.url()));
    // One that stops in the middle of giving.
    let (_home, cid, car) = published("tiny.toml");
    let node = Node::start(Mood::Silent("dag/export"));
    node.take(&std::fs::read(car).unwrap());
    let there = Space::new();
    let ask = ["reproduce", &cid.to_string(), "--ipfs", &node.url(), "--timeout", "1"];
    let error = there.pipe(&ask).fails(6);
    assert!(error.contains(&node.url()) && error.contains("dag/export"), "{error}");
    there.holds_nothing();
}

#[test]
fn a_full_node_says_so() {
    let node = Node::start(Mood::Full);
    let (space, ran) = to(&node.url());
    kept(&space, ran, 6, &[&node.url(), "no room"]);
}

#[test]
fn a_node_that_does_not_serve_what_it_took_is_caught() {
    for at in 0..6 {
        let node = Node::start(Mood::Forgets(at));
        let (space, ran) = to(&node.url());
        let cars: Vec<_> = std::fs::read_dir(space.path("store/cars")).unwrap().collect();
        let car = std::fs::read(cars[0].as_ref().unwrap().path()).unwrap();
        let blocks: Vec<_> = pipe::bundle::car::CarReader::new(&car[..]).unwrap().flatten().collect();
        assert_eq!(blocks.len(), 6);
        kept(&space, ran, 6, &[&node.url(), &blocks[at].cid.to_string()]);
    }
}

#[test]
fn a_node_that_lies_is_named_and_nothing_of_it_is_kept() {
    let (_home, cid, car) = published("tiny.toml");
    for at in 0..6 {
        let node = Node::start(Mood::Lies(at));
        let (space, ran) = to(&node.url());
        kept(&space, ran, 6, &[&node.url(), &node.block(at).to_string()]);

        let node = Node::start(Mood::Lies(at));
        node.take(&std::fs::read(&car).unwrap());
        let there = Space::new();
        let error = there.pipe(&["reproduce", &cid.to_string(), "--ipfs", &node.url()]).fails(4);
        assert!(error.contains(&node.url()) && error.contains(&node.block(at).to_string()), "{error}");
        there.holds_nothing();
    }
}

#[test]
fn a_recipe_names_its_node_and_no_bundle_knows() {
    let node = Node::start(Mood::Honest);
    let (space, other) = (Space::new(), Space::new());
    let with = format!("[publish]\nipfs = \"{}\"\n\n[pipeline]", node.url());
    space.edit("tiny.toml", "[pipeline]", &with);
    assert_eq!(space.pipe(&["run", "tiny.toml"]).ok(), other.pipe(&["run", "tiny.toml"]).ok());
    space.pipe(&["publish"]).ok();
    assert!(node.asked().contains(&"dag/import".to_owned()));
    // The command line knows better.
    let before = node.asked().len();
    space.pipe(&["publish", "--ipfs", "off"]).ok();
    assert_eq!(node.asked().len(), before);
    for (wrong, says) in [("ipfs = \"somewhere\"", "somewhere"), ("ipsf = \"off\"", "ipfs")] {
        let (right, _) = with.split_once("\n\n").unwrap();
        space.edit("tiny.toml", right, &format!("[publish]\n{wrong}"));
        let error = space.pipe(&["run", "tiny.toml"]).fails(3);
        assert!(error.contains(says), "{error}");
        space.edit("tiny.toml", &format!("[publish]\n{wrong}"), right);
    }
}

#[test]
fn a_pinning_service_is_asked_with_its_token() {
    let node = Node::start(Mood::Honest);
    let space = Space::new();
    space.pipe(&["run", "tiny.toml"]).ok();
    let with = |token: &str| {
        let args = ["publish", "--ipfs", "off", "--pin-service", &node.url()];
        Ran::from(space.command(&args).env("PIN_TOKEN", token).output().unwrap())
    };
    let error = with("wrong").fails(6);
    assert!(error.contains(&node.url()) && error.contains("UNAUTHORIZED"), "{error}");
    assert!(!error.contains("wrong"), "{error}");
    let ran = with("secret-token");
    assert!(ran.stderr.contains("queued") && !ran.stderr.contains("secret-token"), "{}", ran.stderr);
    let cid = ran.ok();
    assert!(node.pins.lock().unwrap().contains(cid.trim()));
    let error = space.pipe(&["publish", "--ipfs", "off", "--pin-service", &node.url()]).fails(2);
    assert!(error.contains("PIN_TOKEN"), "{error}");
}
