//! Published results, and the means to make what an honest program never would.

use std::path::PathBuf;

use cid::Cid;
use pipe::bundle::car::{self, Block, CarReader, CarWriter};
use pipe::publish::{Manifest, SecretKey};

use crate::space::Space;

/// A space whose last run is published as a CAR: the manifest's CID and the file.
pub fn published(recipe: &str) -> (Space, Cid, PathBuf) {
    let space = Space::new();
    space.pipe(&["run", recipe]).ok();
    let (cid, file) = publish(&space);
    (space, cid, file)
}

/// Publish the last run of a space without a node.
pub fn publish(space: &Space) -> (Cid, PathBuf) {
    let said = space.pipe(&["publish", "--ipfs", "off", "--json"]).ok();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    (said["cid"].as_str().unwrap().parse().unwrap(), said["file"].as_str().unwrap().into())
}

pub fn key(space: &Space) -> SecretKey {
    SecretKey::open_or_make(&space.path("store/keys/ed25519")).unwrap()
}

pub fn blocks(file: &PathBuf) -> Vec<Block> {
    let car = std::fs::read(file).unwrap();
    CarReader::new(&car[..]).unwrap().map(Result::unwrap).collect()
}

pub fn manifest(blocks: &[Block]) -> Manifest {
    Manifest::from_bytes(&blocks[0].bytes).unwrap()
}

/// A block that fits its CID, whatever it says.
pub fn node(bytes: Vec<u8>) -> Block {
    Block { cid: car::cid_dag_cbor(&bytes), bytes }
}

/// A CAR rooted in its first block, each once.
pub fn car(blocks: &[Block]) -> Vec<u8> {
    let mut writer = CarWriter::new(Vec::new(), &[blocks[0].cid]).unwrap();
    for block in blocks {
        if !writer.has(&block.cid) {
            writer.block(&block.cid, &block.bytes).unwrap();
        }
    }
    writer.finish().unwrap()
}

impl Space {
    /// Whatever is asked of this CAR is refused, and nothing of it is left.
    #[track_caller]
    pub fn refuses(&self, car: &[u8], names: &[&str]) {
        std::fs::write(self.path("bad.car"), car).unwrap();
        for command in [
            &["import", "bad.car"][..],
            &["reproduce", "bad.car", "--ipfs", "off"],
            &["verify", "bad.car", "--level", "integrity", "--ipfs", "off"],
        ] {
            let error = self.pipe(command).fails(4);
            for name in names {
                assert!(error.contains(name), "{command:?}: no `{name}` in {error}");
            }
        }
        self.holds_nothing();
    }

    #[track_caller]
    pub fn holds_nothing(&self) {
        let stats: serde_json::Value =
            serde_json::from_str(&self.pipe(&["store", "stats", "--json"]).ok()).unwrap();
        for what in ["inline_objects", "file_objects", "records", "runs", "pins", "staged_files"] {
            assert_eq!(stats[what], 0, "{what} in {stats}");
        }
    }
}
