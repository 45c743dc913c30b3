//! What is signed stays in the store; what is gone is said with the way to have it again.

use std::path::{Path, PathBuf};

use pipe_store::{Digest, Output, Store};

use crate::forge::{blocks, publish, published};
use crate::space::{Space, bundle, events};

#[test]
fn what_a_manifest_links_outlives_its_run() {
    let (space, first, car) = published("tiny.toml");
    let honest = std::fs::read(&car).unwrap();
    // Another run, unpublished, and all of them forgotten.
    space.pipe(&["run", "sampled.toml"]).ok();
    let objects = space.objects();
    std::fs::remove_file(car).unwrap();
    space.pipe(&["store", "gc", "--max-age", "0s", "--max-size", "1"]).ok();
    assert!(space.objects() < objects);
    // The bundle, all it links, and the chain are there.
    let cid = first.to_string();
    let said = events(&space.pipe(&["verify", &cid, "--level", "integrity", "--json"]).ok());
    assert_eq!((&said[0]["ok"], &said[0]["entries"]), (&true.into(), &1.into()));
    space.pipe(&["show", &cid]).ok();
    let again = space.pipe(&["export", blocks_bundle(&honest).as_str(), "--output", "again.car"]).ok();
    assert_eq!(again.trim(), blocks_bundle(&honest));
    assert_eq!(blocks(&space.path("again.car"))[..], blocks_of(&honest)[1..]);

    // An attestation holds what it speaks about as well.
    let there = Space::new();
    there.write("here.car", "");
    std::fs::write(there.path("here.car"), &honest).unwrap();
    there.pipe(&["reproduce", "here.car", "--ipfs", "off", "--attest"]).ok();
    there.pipe(&["store", "gc", "--max-age", "0s"]).ok();
    there.pipe(&["verify", &blocks_bundle(&honest), "--level", "integrity"]).ok();
}

fn blocks_of(car: &[u8]) -> Vec<pipe::bundle::car::Block> {
    pipe::bundle::car::CarReader::new(car).unwrap().map(Result::unwrap).collect()
}

fn blocks_bundle(car: &[u8]) -> String {
    blocks_of(car)[1].cid.to_string()
}

/// The chain is made of pins. What somebody's bundle holds must not take their names.
#[test]
fn an_output_that_is_a_manifest_leaves_the_chain_alone() {
    let (space, first, file) = published("tiny.toml");
    std::fs::write(space.path("manifest.bin"), &blocks(&file)[0].bytes).unwrap();
    let step = "[steps.stolen]\nop = \"file\"\npath = \"manifest.bin\"\n";
    let recipe = std::fs::read_to_string(space.path("tiny.toml")).unwrap();
    space.write("stolen.toml", &format!("{recipe}\n{step}"));
    space.pipe(&["run", "stolen.toml"]).ok();
    space.pipe(&["export", "--output", "stolen.car"]).ok();
    let chain = space.pipe(&["log", "--chain"]).ok();
    space.pipe(&["import", "stolen.car"]).ok();
    assert_eq!(space.pipe(&["log", "--chain"]).ok(), chain);
    publish(&space);
    let entries = events(&space.pipe(&["log", "--chain", "--json"]).ok());
    assert_eq!((entries.len(), &entries[0]["previous"]), (2, &first.to_string().into()));
}

/// The file of the store with so many bytes at least.
fn long_object(folder: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    files.into_iter().find_map(|path| match path.is_dir() {
        true => long_object(&path),
        false => (path.metadata().unwrap().len() > 1 << 20).then_some(path),
    })
}

#[test]
fn bytes_that_are_gone_are_named_with_the_step_that_makes_them() {
    let space = Space::new();
    let text = std::fs::read_to_string(space.path("tiny.toml")).unwrap();
    let long = text.replace("max_tokens = 24", "max_tokens = 200\nstop = false\ntrace = \"full\"");
    space.write("tiny.toml", &long);
    let sealed = bundle(&space.pipe(&["run", "tiny.toml"]).ok());

    // A store that was given the steps' records, and nothing of how the bundle was sealed.
    let other = Space::new();
    other.write("tiny.toml", &long);
    let (from, to) = (Store::open(&space.path("store")).unwrap(), Store::open(&other.path("store")).unwrap());
    let keys = from.runs(1).unwrap().remove(0).keys;
    for key in keys {
        let record = from.record(&key).unwrap().unwrap();
        for Output { artifact, .. } in &record.outputs {
            to.put(&from.get(&artifact.digest).unwrap()).unwrap();
        }
        to.put_record(&key, &pipe_store::Record { log: None, ..record }).unwrap();
    }
    drop((from, to));
    let gone = |space: &Space| {
        let path = long_object(&space.path("store/objects")).unwrap();
        let digest = Digest::of(&std::fs::read(&path).unwrap()).to_string();
        std::fs::remove_file(path).unwrap();
        digest
    };
    let digest = gone(&other);
    let error = other.pipe(&["run", "tiny.toml"]).fails(5);
    for name in ["answer/trace.safetensors", &digest, "pipe run tiny.toml --force answer"] {
        assert!(error.contains(name), "no `{name}` in {error}");
    }
    // What it says helps.
    assert_eq!(bundle(&other.pipe(&["run", "tiny.toml", "--force", "answer"]).ok()), sealed);

    // The same of what is to travel; nothing is signed without its bytes.
    let digest = gone(&space);
    for command in [&["publish", "--ipfs", "off"][..], &["export"]] {
        let error = space.pipe(command).fails(5);
        for name in ["answer/trace.safetensors", &digest, "tiny.toml --force answer"] {
            assert!(error.contains(name), "no `{name}` in {error}");
        }
    }
    assert_eq!(space.pipe(&["log", "--chain"]).ok(), "");
}
