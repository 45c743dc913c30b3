//! Interventions: what an edit changes, every implementation and chunking changes alike; what it leaves, stays.

mod common;

use std::sync::Mutex;

use common::*;
use pipe_kernels::*;

/// Logits of all positions, fed in chunks, under an edit.
fn edited(
    engine: &Engine,
    model: &PackedModel<'_>,
    tokens: &[u32],
    chunk: usize,
    change: &(dyn Fn(Block, Place, &mut [f32]) + Sync),
) -> Vec<Vec<u32>> {
    let (mut cache, mut logits, mut all) = (KvCache::new(&model.geometry), Logits::new(), Vec::new());
    for tokens in tokens.chunks(chunk) {
        let slice = Slice { cache: &mut cache, tokens, want: Want::All };
        let edit = Edit { wants: &Edit::allows, change };
        engine.edited(model, &mut [slice], &mut logits, None, Some(edit)).unwrap();
        all.extend(logits.rows().map(bits));
    }
    all
}

/// One head's context, one hidden neuron, one embedding and one row of the stream become other numbers.
fn change(block: Block, place: Place, row: &mut [f32]) {
    match block {
        Block::Attention { layer: 1 } => row[6..12].fill(0.25),
        Block::SwiGlu { layer: 0 } => row[51] = -1.5,
        Block::Embed if place.position == 3 => row.fill(0.5),
        Block::Residual { layer: 0, half: Half::Attention } if place.position == 5 => row[35] = 2.0,
        _ => {}
    }
}

#[test]
fn an_edit_gives_the_same_bits_however_it_is_computed() {
    for spec in Spec::ALL {
        let packed = weights(3, &geometry()).packed_for(spec);
        let model = packed.model();
        let tokens = prompt(1, 40, &model.geometry);
        let engine = |threads, implementation| Engine::new(threads, implementation).unwrap();
        let first = edited(&engine(1, Implementation::Scalar), &model, &tokens, 40, &change);
        for implementation in Implementation::available() {
            for (threads, chunk) in [(1, 1), (1, 40), (2, 2), (3, 7), (2, 40)] {
                let found = edited(&engine(threads, implementation), &model, &tokens, chunk, &change);
                assert!(found == first, "{spec}, {implementation}, {threads} threads, chunks of {chunk}");
            }
        }
        // Positions before the first change that is not everywhere see only those that are.
        let engine = engine(2, Implementation::detect());
        let untouched = all_logits(&engine, &model, &tokens, 40);
        assert!(first.iter().zip(&untouched).all(|(a, b)| a != b));
        let idle = edited(&engine, &model, &tokens, 40, &|_, _, _| ());
        assert!(idle == untouched, "{spec}: an edit that changes nothing");
    }
}

#[test]
fn an_edit_is_handed_each_row_of_the_blocks_that_allow_it_once() {
    let packed = weights(3, &geometry()).packed();
    let model = packed.model();
    let tokens = prompt(1, 9, &model.geometry);
    for threads in [1, 2, 3] {
        let seen = Mutex::new(Vec::new());
        let note = |block: Block, place: Place, row: &mut [f32]| {
            seen.lock().unwrap().push((block.to_string(), place, row.len()));
        };
        edited(&Engine::new(threads, Implementation::detect()).unwrap(), &model, &tokens, 9, &note);
        let mut expected = Vec::new();
        for &block in BlockGraph::new(&model.geometry).schedule().iter().filter(|&&b| Edit::allows(b)) {
            for position in 0..9 {
                let place = Place { sequence: 0, position };
                expected.push((block.to_string(), place, block.width(&model.geometry)));
            }
        }
        let mut seen = seen.into_inner().unwrap();
        seen.sort();
        expected.sort();
        assert_eq!(seen, expected, "{threads} threads");
    }
}

#[test]
fn a_tap_sees_what_an_edit_left() {
    let packed = weights(3, &geometry()).packed();
    let model = packed.model();
    let tokens = prompt(1, 5, &model.geometry);
    let engine = Engine::new(2, Implementation::detect()).unwrap();
    let wanted = Block::Attention { layer: 1 };
    let rows = Mutex::new(0);
    let see = |output: BlockOutput<'_>| {
        for (_, row) in output.rows() {
            assert!(row[6..12].iter().all(|&x| x == 0.25) && row[5] != 0.25);
            *rows.lock().unwrap() += 1;
        }
    };
    let (mut cache, mut logits) = (KvCache::new(&model.geometry), Logits::new());
    let slice = Slice { cache: &mut cache, tokens: &tokens, want: Want::None };
    let tap = Tap { wants: &|block| block == wanted, see: &see };
    let edit = Edit { wants: &|block| block == wanted, change: &change };
    engine.edited(&model, &mut [slice], &mut logits, Some(tap), Some(edit)).unwrap();
    assert_eq!(rows.into_inner().unwrap(), 5);
}

#[test]
fn an_edit_that_leaves_no_number_is_an_error() {
    let packed = weights(3, &geometry()).packed();
    let model = packed.model();
    let tokens = prompt(1, 5, &model.geometry);
    let engine = Engine::new(2, Implementation::detect()).unwrap();
    let (mut cache, mut logits) = (KvCache::new(&model.geometry), Logits::new());
    let slice = Slice { cache: &mut cache, tokens: &tokens, want: Want::Last };
    let wants = |block| block == Block::SwiGlu { layer: 0 };
    let edit = Edit { wants: &wants, change: &|_, _, row| row[3] = f32::NAN };
    let result = engine.edited(&model, &mut [slice], &mut logits, None, Some(edit));
    let Err(ComputeError::NotFinite { block, sequence: 0, position: 0, element: 3, .. }) = result else {
        panic!("{result:?}");
    };
    assert_eq!(block, Block::SwiGlu { layer: 0 });
}
