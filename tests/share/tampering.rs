//! Everything that can be wrong with a result on its way: refused by name, nothing of it left.

use pipe::bundle::car::{self, Block};
use pipe::bundle::{Bundle, unixfs};
use pipe::publish::{Link, Manifest, SecretKey};

use crate::forge::{blocks, car as write_car, key, manifest, node, publish, published};
use crate::space::Space;

#[test]
fn a_flipped_bit_in_any_block() {
    let (_home, _, file) = published("tiny.toml");
    let (honest, there) = (std::fs::read(&file).unwrap(), Space::new());
    for block in blocks(&file) {
        let start = honest.windows(block.bytes.len()).position(|w| w == block.bytes).unwrap();
        for at in [0, block.bytes.len() / 2, block.bytes.len() - 1] {
            let mut bad = honest.clone();
            bad[start + at] ^= 4;
            there.refuses(&bad, &["bad.car", &block.cid.to_string()]);
        }
    }
}

#[test]
fn a_missing_block() {
    let (_home, cid, file) = published("tiny.toml");
    let (all, there) = (blocks(&file), Space::new());
    assert_eq!(all[0].cid, cid);
    for missing in 1..all.len() {
        let rest: Vec<Block> =
            all.iter().enumerate().filter(|(i, _)| *i != missing).map(|(_, b)| b.clone()).collect();
        std::fs::write(there.path("bad.car"), write_car(&rest)).unwrap();
        for command in ["import", "reproduce", "verify"] {
            let error = there.pipe(&[command, "bad.car"]).fails(4);
            assert!(error.contains(&all[missing].cid.to_string()), "{error}");
            there.holds_nothing();
        }
    }
}

#[test]
fn a_truncated_car() {
    let (_home, _, file) = published("tiny.toml");
    let (honest, there) = (std::fs::read(&file).unwrap(), Space::new());
    for length in [0, 1, 30, 59, 600, honest.len() / 2, honest.len() - 1] {
        there.refuses(&honest[..length], &["bad.car"]);
    }
}

/// Every command names the same one of several things that are wrong: bytes in the order of the file, then meanings.
#[test]
fn a_car_with_two_faults() {
    let (_home, _, file) = published("tiny.toml");
    let (honest, mut all, there) = (std::fs::read(&file).unwrap(), blocks(&file), Space::new());
    let (first, last) = (all[0].clone(), all.last().unwrap().clone());
    let start = honest.windows(first.bytes.len()).position(|w| w == first.bytes).unwrap();
    let mut bad = honest[..honest.len() - 1].to_vec();
    bad[start] ^= 4;
    there.refuses(&bad, &[&first.cid.to_string(), "not those of"]);
    all.insert(1, node(vec![0xa0]));
    let mut bad = write_car(&all);
    *bad.last_mut().unwrap() ^= 4;
    there.refuses(&bad, &[&last.cid.to_string(), "not those of"]);
}

#[test]
fn a_long_file_is_checked_in_place_and_kept_nowhere() {
    let (space, there) = (Space::new(), Space::new());
    let long: Vec<u8> = (0..(3 << 20) + 5u32).map(|i| (i / 251 + i * 7) as u8).collect();
    std::fs::write(space.path("long.bin"), &long).unwrap();
    space.write(
        "long.toml",
        "[pipeline]\nname = \"long\"\n[steps.long]\nop = \"file\"\npath = \"long.bin\"\n",
    );
    space.pipe(&["run", "long.toml"]).ok();
    let file = there.path("long.car");
    space.pipe(&["export", "--with-inputs", "--output", file.to_str().unwrap()]).ok();
    let ask = ["verify", "long.car", "--level", "integrity", "--ipfs", "off", "--json"];
    let said: serde_json::Value = serde_json::from_str(&there.pipe(&ask).ok()).unwrap();
    assert_eq!((&said["objects"], &said["bytes"]), (&1.into(), &long.len().into()));
    assert_eq!(said["not_carried"], serde_json::json!([]));
    there.holds_nothing();
    // A leaf with another bit, and one too few.
    let all = blocks(&file);
    let mut bad = std::fs::read(&file).unwrap();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    there.refuses(&bad, &["not those of"]);
    let mut fewer = all.clone();
    fewer.pop();
    std::fs::write(&file, with_roots(&all, &fewer)).unwrap();
    there.pipe(&ask).fails(4);
    there.holds_nothing();
    // By itself the bundle only names it.
    std::fs::write(&file, write_car(&all[..1])).unwrap();
    let said: serde_json::Value = serde_json::from_str(&there.pipe(&ask).ok()).unwrap();
    assert_eq!((&said["objects"], said["not_carried"].as_array().unwrap().len()), (&0.into(), 1));
    there.holds_nothing();
}

/// A CAR with the roots that an export of these blocks has: the bundle and the file's.
fn with_roots(all: &[Block], blocks: &[Block]) -> Vec<u8> {
    let file = all.iter().find(|block| block.cid.codec() == car::DAG_PB).unwrap().cid;
    let mut writer = car::CarWriter::new(Vec::new(), &[all[0].cid, file]).unwrap();
    blocks.iter().for_each(|block| writer.block(&block.cid, &block.bytes).unwrap());
    writer.finish().unwrap()
}

#[test]
fn a_block_that_belongs_to_nothing() {
    let (_home, _, file) = published("tiny.toml");
    let mut all = blocks(&file);
    let stray = node(vec![0xa0]);
    all.push(stray.clone());
    Space::new().refuses(&write_car(&all), &[&stray.cid.to_string(), "nothing"]);
}

/// A manifest with changes, in front of the blocks of an honest one.
fn with(all: &[Block], changed: &Manifest) -> Vec<u8> {
    let mut all = all.to_vec();
    all[0] = node(changed.to_bytes());
    write_car(&all)
}

#[test]
fn a_forged_signature() {
    let (space, _, file) = published("tiny.toml");
    let (all, there) = (blocks(&file), Space::new());
    let honest = manifest(&all);
    // Another fact under the old signature; another signer's name on it; a signature over something else.
    let mut facts = honest.clone();
    facts.facts.threads += 1;
    let mut name = honest.clone();
    name.key = SecretKey::random().unwrap().public();
    let mut other = honest.clone();
    other.signature = key(&space).sign(b"something else");
    for forged in [facts, name, other] {
        let bad = with(&all, &forged);
        there.refuses(&bad, &["signature", &forged.key.to_string(), &forged.cid().to_string()]);
    }
}

#[test]
fn a_chain_out_of_order() {
    let (space, _, _) = published("tiny.toml");
    space.pipe(&["run", "sampled.toml"]).ok();
    let (_, file) = publish(&space);
    let (all, there) = (blocks(&file), Space::new());
    let (second, key) = (manifest(&all), key(&space));
    assert_eq!(second.sequence, 1);
    let first = second.previous;
    // Signed by the right key, and in no place a chain has.
    let late = second.clone().signed(&key, Link { previous: first, sequence: 2 });
    there.refuses(&with(&all, &late), &["number 2", "number 0", &late.cid().to_string()]);
    // The newest put before the oldest.
    let oldest = Manifest::from_bytes(&all[1].bytes).unwrap();
    let turned = oldest.clone().signed(&key, Link { previous: Some(second.cid()), sequence: 1 });
    let mut turned_all = vec![node(turned.to_bytes())];
    turned_all.extend(all.iter().filter(|block| block.cid != oldest.cid()).cloned());
    there.refuses(&write_car(&turned_all), &["number 1", &turned.cid().to_string()]);
    // A place without an entry before it.
    let torn = second.clone().signed(&key, Link { previous: None, sequence: 1 });
    there.refuses(&with(&all, &torn), &["number 1"]);
    // Somebody else's chain as one's own.
    let thief = SecretKey::random().unwrap();
    let stolen = second.signed(&thief, Link { previous: first, sequence: 1 });
    there.refuses(&with(&all, &stolen), &["signed by", &thief.public().to_string()]);
}

#[test]
fn a_manifest_that_links_a_wrong_bundle() {
    let (space, _, file) = published("tiny.toml");
    let (all, there, key) = (blocks(&file), Space::new(), key(&space));
    let place = Link { previous: None, sequence: 0 };
    // A bundle that is not there, a node that is none, bytes that are none.
    let mut absent = manifest(&all);
    absent.bundle = car::cid_dag_cbor(&[0xa0]);
    let absent = absent.signed(&key, place);
    let mut bad = vec![node(absent.to_bytes())];
    there.refuses(&write_car(&bad), &[&absent.bundle.to_string(), &absent.cid().to_string()]);
    bad.push(node(vec![0xa0]));
    there.refuses(&write_car(&bad), &[&absent.bundle.to_string(), "no bundle"]);
    let mut raw = manifest(&all);
    raw.bundle = all[2].cid;
    let raw = raw.signed(&key, place);
    there.refuses(&write_car(&[node(raw.to_bytes()), all[2].clone()]), &[&raw.bundle.to_string()]);
    // Another's bundle under this one's blocks.
    let (_home, _, other) = published("sampled.toml");
    let mut swapped = all.clone();
    swapped[1] = blocks(&other)[1].clone();
    there.refuses(&write_car(&swapped), &[&all[1].cid.to_string()]);
}

/// A bundle with one output changed, signed anew.
pub fn sealed(space: &Space, all: &[Block], change: impl Fn(&mut Bundle)) -> Vec<Block> {
    let mut bundle = Bundle::from_bytes(&all[1].bytes).unwrap();
    change(&mut bundle);
    let mut all = all.to_vec();
    all[1] = node(bundle.to_bytes());
    let mut manifest = manifest(&all);
    manifest.bundle = all[1].cid;
    all[0] = node(manifest.signed(&key(space), Link { previous: None, sequence: 0 }).to_bytes());
    all
}

#[test]
fn absurd_lengths() {
    let (space, _, file) = published("tiny.toml");
    let (honest, all, there) = (std::fs::read(&file).unwrap(), blocks(&file), Space::new());
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    there.refuses(&[&huge[..], &honest[1..]].concat(), &["header"]);
    let header = 1 + usize::from(honest[0]);
    there.refuses(&[&honest[..header], &huge, &honest[header + 2..]].concat(), &["limit"]);
    // An output of an exabyte, from one block that repeats itself.
    let zeros = vec![0; 1 << 20];
    let leaf = Block { cid: car::cid_raw(&pipe_store::Digest::of(&zeros)), bytes: zeros.clone() };
    let tree = unixfs::tree(&[zeros.clone(), zeros].concat());
    let mut bad = sealed(&space, &all, |bundle| {
        bundle.version = 2;
        let output = bundle.steps.get_mut("answer").unwrap().outputs.get_mut("trace.safetensors").unwrap();
        (output.length, output.link) = (1 << 60, Some(tree.root));
    });
    bad.retain(|block| block.cid != all.last().unwrap().cid);
    bad.extend(tree.nodes.iter().map(|(cid, bytes)| Block { cid: *cid, bytes: bytes.clone() }));
    bad.push(leaf);
    there.refuses(&write_car(&bad), &[&tree.root.to_string(), "1152921504606846976"]);
    // One byte more than there is.
    let longer = sealed(&space, &all, |bundle| {
        bundle.steps.get_mut("answer").unwrap().outputs.get_mut("answers.json").unwrap().length += 1;
    });
    there.refuses(&write_car(&longer), &["bytes long"]);
}

#[test]
fn addresses_of_other_bytes() {
    let (space, _, file) = published("tiny.toml");
    let (all, there) = (blocks(&file), Space::new());
    // A short output is one block with its own digest, so its link can be checked without it.
    let other = car::cid_raw(&pipe_store::Digest::of(b"other"));
    let linked = sealed(&space, &all, |bundle| {
        let output = bundle.steps.get_mut("answer").unwrap().outputs.get_mut("answers.json").unwrap();
        output.link = Some(other);
    });
    there.refuses(&write_car(&linked), &["answer/answers.json", &other.to_string()]);
    // A long one is put together first: a sound file of the right length, and not the bytes that are named.
    let zeros = vec![0; 1 << 20];
    let tree = unixfs::tree(&zeros.repeat(2));
    let mut named = None;
    let mut long = sealed(&space, &all, |bundle| {
        bundle.version = 2;
        let output = bundle.steps.get_mut("answer").unwrap().outputs.get_mut("trace.safetensors").unwrap();
        (output.length, output.link) = (2 << 20, Some(tree.root));
    });
    for block in &all[2..] {
        let sealed = Bundle::from_bytes(&long[1].bytes).unwrap();
        let digest = sealed.steps["answer"].outputs["trace.safetensors"].digest;
        named = named.or((block.cid == car::cid_raw(&digest)).then_some(digest));
    }
    let named = named.unwrap();
    long.retain(|block| block.cid != car::cid_raw(&named));
    long.extend(tree.nodes.iter().map(|(cid, bytes)| Block { cid: *cid, bytes: bytes.clone() }));
    long.push(Block { cid: car::cid_raw(&pipe_store::Digest::of(&zeros)), bytes: zeros });
    there.refuses(&write_car(&long), &[&tree.root.to_string(), &named.to_string(), "hash to"]);
}

/// A cycle cannot be hashed, so one that is claimed has a block under a name that is not its own.
#[test]
fn a_cycle() {
    let (space, _, file) = published("tiny.toml");
    let (all, there) = (blocks(&file), Space::new());
    let claimed = car::cid_dag_cbor(b"itself");
    let place = Link { previous: Some(claimed), sequence: 1 };
    let turning = manifest(&all).signed(&key(&space), place);
    let mut bad = with(&all, &turning);
    let (name, bytes) = (claimed.to_bytes(), turning.to_bytes());
    let mut length = Vec::new();
    let mut value = name.len() + bytes.len();
    while value >= 0x80 {
        length.push(value as u8 | 0x80);
        value >>= 7;
    }
    length.push(value as u8);
    bad.extend([length, name, bytes].concat());
    there.refuses(&bad, &[&claimed.to_string()]);
    // A file whose node has itself for children, as far as its length goes.
    let zeros = vec![0; 1 << 20];
    let tree = unixfs::tree(&zeros.repeat(3));
    let deep = sealed(&space, &all, |bundle| {
        bundle.version = 2;
        let output = bundle.steps.get_mut("answer").unwrap().outputs.get_mut("trace.safetensors").unwrap();
        (output.length, output.link) = (1025 << 20, Some(tree.root));
    });
    let mut deep: Vec<Block> =
        deep.into_iter().filter(|block| block.cid != all.last().unwrap().cid).collect();
    deep.extend(tree.nodes.iter().map(|(cid, bytes)| Block { cid: *cid, bytes: bytes.clone() }));
    there.refuses(&write_car(&deep), &[&tree.root.to_string()]);
}
