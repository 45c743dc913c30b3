//! Any bytes as a CAR that is brought in, and any blocks as a long file: it ends with an answer, keeps nothing of what
//! it refuses, and what it puts together has the digest that was asked for.
#![no_main]

use cid::Cid;
use libfuzzer_sys::fuzz_target;
use pipe::bundle::{car, unixfs};
use pipe::publish::{Wanted, receive};
use pipe_store::{Digest, Store};

fuzz_target!(|data: &[u8]| {
    let store = Store::memory();
    let wanted = Wanted { whole: true, ..Wanted::default() };
    if receive(data, &wanted, &store).is_err() {
        let stats = store.stats().expect("memory");
        assert_eq!((stats.inline_objects, stats.pins, stats.records), (0, 0, 0));
    }
    node(data);
});

/// The input as the dag-pb node of a file: its first bytes say how long the file is, and every leaf is there.
fn node(data: &[u8]) {
    let Some((length, node)) = data.split_at_checked(4) else { return };
    let length = u64::from(u32::from_le_bytes(length.try_into().expect("four bytes"))) % (5 << 20);
    let root = car::cid_of(car::DAG_PB, &Digest::of(node));
    let leaf = vec![0; 1 << 20];
    let mut get = |cid: &Cid, limit: u64| -> Result<Option<Vec<u8>>, std::convert::Infallible> {
        Ok(match *cid == root {
            true => Some(node.to_vec()),
            // Whatever it is called.
            false => Some(leaf[..limit.min(length % (1 << 20)).max(1) as usize].to_vec()),
        })
    };
    let mut out = Vec::new();
    if unixfs::assemble(&root, length, &mut get, &mut out).is_ok() {
        assert_eq!(out.len() as u64, length);
    }
}
