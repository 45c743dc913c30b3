//! A proof holds for what it was made of and for nothing else, however it is changed.

use proptest::prelude::*;

use super::*;

fn leaves(count: usize) -> Vec<Leaf> {
    (0..count).map(|i| Leaf { path: format!("a/{i}"), value: Digest::of(&i.to_le_bytes()) }).collect()
}

/// Golden values. If one changes, so does every checksum there is: that takes new versions of format and op.
#[test]
fn golden_checksums() {
    let of = |count| Tree::new(leaves(count)).checksum().to_string();
    assert_eq!(of(1), GOLDEN[0]);
    assert_eq!(of(3), GOLDEN[1]);
}

const GOLDEN: [&str; 2] = [
    "d2ec32d070990957cb560f1b9e81785b20b592f2a97ff6cb8be3249ea7a702e9",
    "98b7fe66eaafa8f920c8d4e8772f10283ee6b7e30dbb3aa15fad375f9bd6abc5",
];

#[test]
fn every_leaf_of_every_tree_is_provable_in_few_bytes() {
    for count in (1..40).chain([255, 256, 257, 1000]) {
        let tree = Tree::new(leaves(count));
        for leaf in tree.leaves() {
            let proof = tree.prove(&leaf.path).unwrap();
            assert_eq!((proof.check(), proof.value), (Ok(()), leaf.value), "{count}: {}", leaf.path);
            assert_eq!(proof.checksum, tree.checksum());
        }
        assert!(tree.prove("a/none").is_none());
    }
    // Of a trace of some million rows: 20 levels.
    let siblings = vec![Digest([0xab; 32]); 22];
    let mut proof = Tree::new(leaves(9)).prove("a/3").unwrap();
    proof.path = "prompts/0/trace/8191/layer.29/ffn.residual".into();
    (proof.siblings, proof.leaf, proof.leaves) = (siblings, 2_711_000, 2_711_552);
    assert!(serde_json::to_string(&proof).unwrap().len() <= 2048);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_proof_proves_nothing(
        count in 1usize..70, at in any::<usize>(), what in 0usize..7, byte in 0usize..32, bit in 0u32..8,
    ) {
        let tree = Tree::new(leaves(count));
        let mut proof = tree.prove(&format!("a/{}", at % count)).unwrap();
        let whole = proof.clone();
        let flip = |digest: &mut Digest| digest.0[byte] ^= 1 << bit;
        match what {
            0 => flip(&mut proof.value),
            1 => flip(&mut proof.checksum),
            2 if !proof.siblings.is_empty() => {
                let n = proof.siblings.len();
                flip(&mut proof.siblings[byte % n]);
            }
            3 => proof.siblings.push(Digest([1; 32])),
            4 => proof.path.push('x'),
            5 => proof.leaf ^= 1 << (byte % 64),
            6 => proof.leaves ^= 1 << (byte % 64),
            _ => { proof.siblings.pop(); }
        }
        prop_assert!(proof == whole || proof.check().is_err(), "{proof:?}");
    }

    #[test]
    fn any_text_is_a_proof_or_an_error(text in ".{0,200}") {
        if let Ok(proof) = serde_json::from_str::<Proof>(&text) {
            let _ = proof.check();
        }
    }
}

#[test]
fn numbers_beyond_all_trees_are_refused_at_once() {
    let mut proof = Tree::new(leaves(5)).prove("a/1").unwrap();
    (proof.leaf, proof.leaves) = (u64::MAX - 1, u64::MAX);
    assert!(matches!(proof.check(), Err(ProofError::Siblings { .. })));
    proof.format = "pipe/proof@2".into();
    assert_eq!(proof.check(), Err(ProofError::Format("pipe/proof@2".into())));
}

#[test]
fn leaves_of_json_are_its_parts_whatever_the_order_of_its_fields() {
    let parse = |text| serde_json::from_str::<Value>(text).unwrap();
    let of = |text, depth| {
        let mut leaves = Vec::new();
        json_leaves("x", &parse(text), depth, &mut leaves);
        leaves
    };
    let one = of(r#"{"b":[1,2.5],"a":{"d":null,"c":"\u00e9"}}"#, 2);
    assert_eq!(one, of(r#"{ "a": {"c":"é", "d":null}, "b":[1, 2.5] }"#, 2));
    let paths: Vec<_> = one.iter().map(|leaf| leaf.path.as_str()).collect();
    assert_eq!(paths, ["x/a/c", "x/a/d", "x/b/0", "x/b/1"]);
    let whole = of(r#"{"b":[1,2.5],"a":{"d":null,"c":"é"}}"#, 0);
    assert_eq!(whole[0].value, Digest::of(r#"{"a":{"c":"é","d":null},"b":[1,2.5]}"#.as_bytes()));
}
