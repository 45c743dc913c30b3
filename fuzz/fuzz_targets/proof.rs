//! Any text as a proof: checking ends with an answer. Then a tree made of the input: every part of it can be proved,
//! and no change of a proof holds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipe::checksum::{Leaf, Proof, Tree};
use pipe_store::Digest;

fuzz_target!(|data: &[u8]| {
    if let Ok(proof) = serde_json::from_slice::<Proof>(data) {
        let held = proof.check().is_ok();
        let text = serde_json::to_string(&proof).expect("plain data");
        let again: Proof = serde_json::from_str(&text).expect("just written");
        assert_eq!(again.check().is_ok(), held);
    }
    let leaves: Vec<Leaf> = data
        .chunks(5)
        .take(40)
        .enumerate()
        .map(|(i, bytes)| Leaf { path: format!("part/{i}"), value: Digest::of(bytes) })
        .collect();
    if leaves.is_empty() {
        return;
    }
    let at = data[0] as usize % leaves.len();
    let tree = Tree::new(leaves);
    let proof = tree.prove(&format!("part/{at}")).expect("it is a leaf");
    proof.check().expect("it belongs");
    let bit = data[data.len() - 1];
    let mut other = proof.clone();
    match other.siblings.get_mut(usize::from(bit) / 8 % proof.siblings.len().max(1)) {
        Some(sibling) if bit & 128 == 0 => sibling.0[0] ^= 1 << (bit % 8),
        _ => other.value.0[usize::from(bit) % 32] ^= 1 << (bit % 8),
    }
    assert!(other.check().is_err());
    let mut other = proof;
    other.leaf ^= 1;
    assert!(other.check().is_err() || other.leaves == 1);
});
