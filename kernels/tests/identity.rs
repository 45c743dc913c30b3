//! One set of bits: every implementation, thread count, chunking and batch gives the oracle's logits.

mod common;

use std::collections::BTreeMap;
use std::sync::Mutex;

use common::*;
use pipe_kernels::*;

fn expected(model: &PackedModel<'_>, tokens: &[u32]) -> Vec<Vec<u32>> {
    oracle::logits(model, tokens).unwrap().iter().map(|row| bits(row)).collect()
}

/// The bits of rows, with their places.
type Rows = Vec<(Place, Vec<u32>)>;
/// What an observer saw of a block.
type Seen = (Block, Rows);

/// Every implementation, number of threads and chunking against the oracle, for one packed model.
fn all_agree(what: &str, packed: &Packed, len: usize, threads: &[usize], chunks: &[usize]) {
    let model = packed.model();
    let tokens = prompt(1, len, &model.geometry);
    let oracle = expected(&model, &tokens);
    for implementation in Implementation::available() {
        for &threads in threads {
            let engine = Engine::new(threads, implementation).unwrap();
            for &chunk in chunks {
                // One token at a time on more threads than cores is slow and adds little.
                if chunk > 1 || threads < 3 {
                    let found = all_logits(&engine, &model, &tokens, chunk);
                    assert!(
                        found == oracle,
                        "{what}: {implementation}, {threads} threads, chunks of {chunk}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_implementation_and_chunking_gives_the_oracles_bits() {
    for tied in [true, false] {
        let packed = weights(3, &Geometry { tied, ..geometry() }).packed();
        all_agree("f32", &packed, 300, &[1, 2, 3, 8], &[1, 7, 64, 255, 256, 257, 300]);
    }
}

#[test]
fn every_spec_gives_the_oracles_bits() {
    for spec in Spec::ALL {
        for tied in [true, false] {
            let packed = weights(3, &Geometry { tied, ..geometry() }).packed_for(spec);
            all_agree(spec.name(), &packed, 70, &[1, 2, 3], &[1, 2, 3, 5, 64, 70]);
        }
    }
}

#[test]
fn every_stored_type_gives_the_oracles_bits_in_every_spec() {
    use pipe_kernels::weights::TensorType::*;
    for ty in [F16, BF16, Q8_0, Q4_0, Q4_1] {
        let owned = weights_as(5, &blocky(), ty);
        for spec in Spec::ALL {
            let packed = owned.packed_for(spec);
            all_agree(&format!("{ty:?} as {spec}"), &packed, 20, &[1, 2], &[1, 6, 20]);
        }
    }
}

#[test]
fn f32_through_a_narrower_width_has_that_widths_weights() {
    for (ty, width) in [(weights::TensorType::F32, Width::Q8), (weights::TensorType::Q4_1, Width::Q4)] {
        let owned = weights_as(5, &blocky(), ty);
        let narrow_spec = if width == Width::Q8 { Spec::Q8 } else { Spec::Q4 };
        let narrow = owned.packed_for(narrow_spec);
        let wide = owned.packed_as(Spec::F32, Packing { width: Width::F32, through: Some(width) });
        let (narrow, wide) = (narrow.model(), wide.model());
        for (a, b) in [(narrow.lm_head, wide.lm_head), (narrow.layers[1].gate_up, wide.layers[1].gate_up)] {
            for n in 0..40 {
                for k in 0..a.k {
                    assert_eq!(a.at(n, k).to_bits(), b.at(n, k).to_bits(), "{ty:?} output {n}, input {k}");
                }
            }
        }
    }
}

#[test]
fn a_prompt_longer_than_a_pass_gives_the_same_bits() {
    let packed = weights(4, &geometry()).packed();
    let model = packed.model();
    let tokens = prompt(2, 690, &model.geometry);
    let engine = Engine::new(2, Implementation::detect()).unwrap();
    assert!(all_logits(&engine, &model, &tokens, 690) == expected(&model, &tokens));
}

#[test]
fn sequences_of_a_batch_do_not_see_each_other() {
    let packed = weights(5, &geometry()).packed();
    let model = packed.model();
    let prompts: Vec<Vec<u32>> = [5, 1, 0, 17, 130, 257, 300]
        .iter()
        .enumerate()
        .map(|(i, &n)| prompt(i as u64, n, &model.geometry))
        .collect();
    let oracles: Vec<_> = prompts.iter().map(|p| expected(&model, p)).collect();
    for implementation in Implementation::available() {
        for threads in [1, 2, 3] {
            let engine = Engine::new(threads, implementation).unwrap();
            let mut caches: Vec<KvCache> = prompts.iter().map(|_| KvCache::new(&model.geometry)).collect();
            let mut logits = Logits::new();
            // All but the last token first, then the last ones together, as in decoding.
            for last in [false, true] {
                let parts = prompts.iter().map(|p| {
                    if last { &p[p.len().saturating_sub(1)..] } else { &p[..p.len().saturating_sub(1)] }
                });
                let want = |i: usize| [Want::Last, Want::All, Want::None][if last { 0 } else { i % 3 }];
                let mut batch: Vec<Slice<'_>> = caches
                    .iter_mut()
                    .zip(parts)
                    .enumerate()
                    .map(|(i, (cache, tokens))| Slice { cache, tokens, want: want(i) })
                    .collect();
                engine.forward(&model, &mut batch, &mut logits).unwrap();
                let mut rows = logits.rows();
                for (i, oracle) in oracles.iter().enumerate() {
                    let end = if last { oracle.len() } else { oracle.len().saturating_sub(1) };
                    let wanted = match want(i) {
                        Want::None => end..end,
                        Want::Last => end.saturating_sub(1)..end,
                        Want::All => 0..end,
                    };
                    for position in wanted {
                        assert!(
                            bits(rows.next().unwrap()) == oracle[position],
                            "sequence {i}, position {position}"
                        );
                    }
                }
                assert!(rows.next().is_none());
            }
        }
    }
}

#[test]
fn a_truncated_cache_goes_on_as_if_nothing_had_followed() {
    let packed = weights(6, &geometry()).packed();
    let model = packed.model();
    let engine = Engine::new(1, Implementation::detect()).unwrap();
    let (long, other) = (prompt(1, 270, &model.geometry), prompt(9, 30, &model.geometry));
    let mut cache = KvCache::new(&model.geometry);
    let mut logits = Logits::new();
    let mut run = |cache: &mut KvCache, tokens: &[u32]| {
        let mut batch = [Slice { cache, tokens, want: Want::Last }];
        engine.forward(&model, &mut batch, &mut logits).unwrap();
        bits(logits.row(0))
    };
    run(&mut cache, &long);
    cache.truncate(200);
    let found = run(&mut cache, &other);
    let whole = [&long[..200], &other[..]].concat();
    assert!(found == *expected(&model, &whole).last().unwrap());
}

/// All that a tap with `wants` is shown while the tokens are computed, `chunk` at a time: block by block in the
/// schedule's order, and the bits of the logits.
fn observed(
    engine: &Engine,
    model: &PackedModel<'_>,
    tokens: &[u32],
    chunk: usize,
    wants: &(dyn Fn(Block) -> bool + Sync),
) -> (Vec<Seen>, Vec<Vec<u32>>) {
    let seen: Mutex<BTreeMap<Block, Rows>> = Mutex::default();
    let see = |output: BlockOutput<'_>| {
        assert_eq!(output.width(), output.block.width(&model.geometry));
        let bytes = output.bytes().map(|(place, bytes)| {
            let words = bytes.chunks(4).map(|b| u32::from_le_bytes(b.try_into().unwrap()));
            (place, words.collect::<Vec<u32>>())
        });
        assert!(bytes.eq(output.rows().map(|(place, row)| (place, bits(row)))));
        let rows = output.rows().map(|(place, row)| (place, bits(row)));
        seen.lock().unwrap().entry(output.block).or_default().extend(rows);
    };
    let (mut cache, mut logits, mut all) = (KvCache::new(&model.geometry), Logits::new(), Vec::new());
    for tokens in tokens.chunks(chunk) {
        let mut batch = [Slice { cache: &mut cache, tokens, want: Want::All }];
        engine.observed(model, &mut batch, &mut logits, Some(Tap { wants, see: &see })).unwrap();
        all.extend(logits.rows().map(bits));
    }
    let mut seen = seen.into_inner().unwrap();
    let schedule = BlockGraph::new(&model.geometry);
    let blocks = schedule.schedule().iter().filter_map(|&block| {
        let mut rows = seen.remove(&block)?;
        rows.sort();
        Some((block, rows))
    });
    (blocks.collect(), all)
}

#[test]
fn a_tap_sees_every_block_and_changes_no_bit() {
    let packed = weights(7, &geometry()).packed();
    let model = packed.model();
    let tokens = prompt(3, 40, &model.geometry);
    let expected = expected(&model, &tokens);
    let mut first = None;
    for implementation in Implementation::available() {
        for threads in [1, 2, 3, 5] {
            let engine = Engine::new(threads, implementation).unwrap();
            for chunk in [40, 1, 2, 3, 7] {
                let (seen, logits) = observed(&engine, &model, &tokens, chunk, &|_| true);
                assert!(logits == expected, "{implementation}, {threads} threads, chunks of {chunk}");
                // Every block's output, not only the logits, is the same everywhere.
                let first = first.get_or_insert_with(|| seen.clone());
                assert!(seen == *first, "{implementation}, {threads} threads, chunks of {chunk}");
            }
        }
    }
    let seen = first.unwrap();
    let graph = BlockGraph::new(&model.geometry);
    let (_, walked) = graph.schedule().split_last().unwrap();
    assert!(seen.iter().map(|(block, _)| block).eq(walked));
    for (block, rows) in &seen {
        let places = rows.iter().map(|(place, _)| *place);
        assert!(places.eq((0..40).map(|position| Place { sequence: 0, position })), "{block}");
    }
    outputs_follow_from_each_other(&seen, &model);
}

#[test]
fn a_tap_is_shown_what_it_wants_and_nothing_else() {
    let packed = weights(7, &geometry()).packed();
    let model = packed.model();
    // More tokens than one pass holds.
    let tokens = prompt(3, 600, &model.geometry);
    let engine = Engine::new(3, Implementation::detect()).unwrap();
    let (all, logits) = observed(&engine, &model, &tokens, 600, &|_| true);
    for one in BlockGraph::new(&model.geometry).schedule() {
        let (seen, same) = observed(&engine, &model, &tokens, 600, &|block| block == *one);
        assert!(same == logits, "{one}");
        assert!(seen.iter().eq(all.iter().filter(|(block, _)| block == one)), "{one}");
    }
}

/// FNV-1a.
fn hash(digest: &mut u64, bytes: &[u8]) {
    for &byte in bytes {
        *digest = (*digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
}

/// One digest of all blocks' outputs, each block hashed in order of position.
fn digest_of_all_blocks(engine: &Engine, model: &PackedModel<'_>, tokens: &[u32]) -> String {
    const START: u64 = 0xcbf2_9ce4_8422_2325;
    let (seen, _) = observed(engine, model, tokens, tokens.len(), &|_| true);
    let mut blocks = BTreeMap::new();
    for (block, rows) in seen {
        let mut digest = START;
        rows.iter().flat_map(|(_, row)| row).for_each(|word| hash(&mut digest, &word.to_le_bytes()));
        blocks.insert(block.to_string(), digest);
    }
    let mut whole = START;
    for (block, digest) in blocks {
        hash(&mut whole, format!("{block} {digest:016x}\n").as_bytes());
    }
    format!("{whole:016x}")
}

/// The numbers that machines of any kind must agree on, which comparing implementations of one machine cannot
/// tell. Any other number here is a new version of the spec.
#[test]
fn every_platform_gives_the_pinned_digest() {
    // Sums of more than a chunk over k, in `down`, and over positions.
    let owned = weights(9, &Geometry { ffn: 300, ..geometry() });
    for (spec, expected) in [
        (Spec::F32, "b1ef4adebf98a552"),
        (Spec::Q8, "8fca5f9c17e2e9c8"),
        (Spec::Q4, "ad41c4b46008bb66"),
        (Spec::Q8A8, "d6bf40f441f0c05e"),
        (Spec::Q4A8, "cfbec82d37871e3c"),
    ] {
        let packed = owned.packed_for(spec);
        let model = packed.model();
        let tokens = prompt(5, 270, &model.geometry);
        for implementation in Implementation::available() {
            let engine = Engine::new(2, implementation).unwrap();
            let found = digest_of_all_blocks(&engine, &model, &tokens);
            assert_eq!(found, expected, "{spec}, {implementation}");
        }
    }
}

/// What the tap was shown is what the elementwise blocks were given and gave: in the right order, not stale.
fn outputs_follow_from_each_other(blocks: &[Seen], model: &PackedModel<'_>) {
    let g = &model.geometry;
    let row = |block: Block, r: usize| -> Vec<f32> {
        let (_, rows) = blocks.iter().find(|(b, _)| *b == block).unwrap();
        rows[r].1.iter().map(|b| f32::from_bits(*b)).collect()
    };
    for layer in 0..g.layers as u32 {
        let before =
            if layer == 0 { Block::Embed } else { Block::Residual { layer: layer - 1, half: Half::Ffn } };
        let middle = Block::Residual { layer, half: Half::Attention };
        for r in 0..40 {
            let sum = |a: Block, b: Block| -> Vec<f32> {
                row(a, r).iter().zip(row(b, r)).map(|(a, b)| a + b).collect()
            };
            assert_eq!(bits(&sum(before, Block::OProj { layer })), bits(&row(middle, r)));
            let after = Block::Residual { layer, half: Half::Ffn };
            assert_eq!(bits(&sum(middle, Block::Down { layer })), bits(&row(after, r)));

            let gate_up = row(Block::GateUp { layer }, r);
            let (gate, up) = gate_up.split_at(g.ffn);
            let hidden: Vec<f32> = gate.iter().zip(up).map(|(&g, u)| math::silu(g) * u).collect();
            assert_eq!(bits(&hidden), bits(&row(Block::SwiGlu { layer }, r)));

            let (qkv, rotated) = (row(Block::Qkv { layer }, r), row(Block::Rope { layer }, r));
            let table = &model.rope[r * g.head_dim..(r + 1) * g.head_dim];
            for (i, pair) in rotated.chunks(2).enumerate() {
                let (a, b) = (f64::from(qkv[2 * i]), f64::from(qkv[2 * i + 1]));
                let at = 2 * i % g.head_dim;
                let (c, s) = (f64::from(table[at]), f64::from(table[at + 1]));
                // Its bits are compared elsewhere; here, that it is this pair's rotation.
                let near = |x: f32, y: f64| (f64::from(x) - y).abs() < 1e-5;
                assert!(near(pair[0], a * c - b * s) && near(pair[1], a * s + b * c), "pair {i} of row {r}");
            }
        }
    }
}

#[test]
fn one_flipped_bit_of_a_weight_changes_the_logits() {
    let mut packed = weights(8, &geometry()).packed();
    let tokens = prompt(4, 20, &geometry());
    let engine = Engine::new(1, Implementation::detect()).unwrap();
    let before = all_logits(&engine, &packed.model(), &tokens, 20);
    let start = packed.model().layers[1].down.data.as_ptr() as usize - packed.bytes().as_ptr() as usize;
    // The lowest bits of a few weights; each must show somewhere.
    for weight in [0, 17, 100] {
        packed.bytes_mut()[start + weight * 4 + 2] ^= 1;
        assert!(all_logits(&engine, &packed.model(), &tokens, 20) != before, "weight {weight}");
        packed.bytes_mut()[start + weight * 4 + 2] ^= 1;
    }
    assert!(all_logits(&engine, &packed.model(), &tokens, 20) == before);
}
