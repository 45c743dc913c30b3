//! The matrix that must give one digest: spec × implementation × threads × batch × chunking × cold or warm prefix,
//! prefill and decode, over every block's output at every position. `cargo test` runs a cut of it, in the profile
//! it was built in; `PIPE_TEST_MATRIX=full` runs all of it.

mod common;

use std::collections::HashMap;
use std::sync::Mutex;

use common::*;
use pipe_kernels::*;

/// Sequence 0 is long enough for a piece of a cache; the others make the batch.
const LONG: usize = 70;
const SHORT: usize = 4;
const MOST: usize = 257;

/// FNV-1a of a row, by sequence, position and block.
type Digests = HashMap<(usize, usize, Block), u64>;

fn digest(row: &[f32]) -> u64 {
    row.iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, v| (sum ^ u64::from(v.to_bits())).wrapping_mul(0x0100_0000_01b3))
}

struct Way {
    batch: usize,
    chunk: usize,
    /// Does sequence 0 start from the pieces of a cache that another engine filled?
    warm: bool,
}

/// What every block gives when the sequences go through the model this way. Logits of all positions are wanted.
fn outputs(engine: &Engine, model: &PackedModel<'_>, sequences: &[Vec<u32>], way: &Way) -> Digests {
    let seen = Mutex::new(Digests::new());
    let mut caches: Vec<KvCache> =
        sequences[..way.batch].iter().map(|_| KvCache::new(&model.geometry)).collect();
    if way.warm {
        let mut cold = KvCache::new(&model.geometry);
        let first = Slice { cache: &mut cold, tokens: &sequences[0][..PIECE], want: Want::None };
        engine.forward(model, &mut [first], &mut Logits::new()).unwrap();
        assert!(caches[0].append(&cold.piece(0).unwrap()).unwrap());
    }
    let mut logits = Logits::new();
    loop {
        let mut members = Vec::new();
        let mut batch = Vec::new();
        for (i, cache) in caches.iter_mut().enumerate() {
            let from = cache.len();
            let tokens = &sequences[i][from..from.saturating_add(way.chunk).min(sequences[i].len())];
            if !tokens.is_empty() {
                members.push(i);
                batch.push(Slice { cache, tokens, want: Want::All });
            }
        }
        if batch.is_empty() {
            return seen.into_inner().unwrap();
        }
        let see = |output: BlockOutput<'_>| {
            let rows: Vec<_> = output.rows().map(|(place, row)| (place, digest(row))).collect();
            let mut seen = seen.lock().unwrap();
            for (place, digest) in rows {
                let key = (members[place.sequence], place.position, output.block);
                assert!(seen.insert(key, digest).is_none(), "{key:?} twice");
            }
        };
        let tap = Tap { wants: &|_| true, see: &see };
        engine.observed(model, &mut batch, &mut logits, Some(tap)).unwrap();
    }
}

#[test]
fn one_digest_for_every_way_to_compute() {
    let full = std::env::var_os("PIPE_TEST_MATRIX").is_some_and(|v| v == "full");
    let (threads, batches, chunks): (&[usize], &[usize], &[usize]) = match full {
        true => (&[1, 2, 3, 8], &[1, 2, 16, 255, 256, 257], &[1, 7, 64, usize::MAX]),
        false => (&[1, 3], &[1, 16, 257], &[1, 7, usize::MAX]),
    };
    let mut compared = 0usize;
    for spec in Spec::ALL {
        let packed = weights(11, &geometry()).packed_for(spec);
        let model = packed.model();
        let sequences: Vec<Vec<u32>> =
            (0..MOST).map(|i| prompt(i as u64, if i == 0 { LONG } else { SHORT }, &model.geometry)).collect();
        let scalar = Engine::new(1, Implementation::Scalar).unwrap();
        let whole = Way { batch: MOST, chunk: usize::MAX, warm: false };
        let expected = outputs(&scalar, &model, &sequences, &whole);
        for implementation in Implementation::available() {
            for &threads in threads {
                // More threads than cores, one position at a time, is slow and adds little to the cut.
                let engine = Engine::new(threads, implementation).unwrap();
                for &batch in batches {
                    for &chunk in chunks {
                        if !full && (chunk == 1 && threads > 1 || chunk == 7 && batch == MOST) {
                            continue;
                        }
                        for warm in [false, true] {
                            let way = Way { batch, chunk, warm };
                            let found = outputs(&engine, &model, &sequences, &way);
                            let positions = batch * SHORT + LONG - SHORT - if warm { PIECE } else { 0 };
                            assert_eq!(found.len() % positions, 0, "every position shows the same blocks");
                            for (key, digest) in &found {
                                assert_eq!(
                                    Some(digest),
                                    expected.get(key),
                                    "{spec}, {implementation}, {threads} threads, batch of {batch}, chunks of {chunk}, \
                                     warm {warm}: {key:?}"
                                );
                            }
                            compared += found.len();
                        }
                    }
                }
            }
        }
    }
    println!("{compared} block outputs compared");
    assert!(compared > 1_000_000, "{compared}");
}
