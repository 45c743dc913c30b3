//! One flipped bit, anywhere: caught, and named to the position and the block.

use pipe::recipe::op::TraceLevel;
use pipe::trace::Trace;
use pipe::trace::verify::{Difference, What};
use pipe_kernels::matrix::Matrix;
use pipe_kernels::{Block, Half, PackedModel, Sampler, Spec};

use crate::toy::{How, PACKED, Run, engine, model, run, tokens};

const DRAW: Sampler = Sampler::Draw { temperature: 0.8, top_k: None, top_p: Some(0.9), seed: 7 };

/// The toy with one bit of one weight flipped, the weight given by a reference into the toy itself.
fn damaged(weight: &f32, bit: u32) -> Vec<u8> {
    let at = std::ptr::from_ref(weight) as usize - PACKED.as_ptr() as usize;
    let mut bytes = PACKED.clone();
    bytes[at + bit as usize / 8] ^= 1 << (bit % 8);
    bytes
}

/// The weights of a matrix of floats.
fn floats(matrix: Matrix<'static>) -> &'static [f32] {
    // SAFETY: every bit pattern is an f32.
    let (before, floats, after) = unsafe { matrix.data.align_to::<f32>() };
    assert!(before.is_empty() && after.is_empty());
    floats
}

#[track_caller]
fn the_one(run: &Run, sampler: &Sampler) -> Difference {
    let mut differences = run.verify(&engine(2), &model(), sampler).differences;
    assert_eq!(differences.len(), 1, "{differences:?}");
    differences.remove(0)
}

/// Weights of every kind, with the block that owns them.
fn weights(model: &PackedModel<'static>) -> Vec<(Block, &'static [f32])> {
    let mut all = Vec::new();
    for (i, l) in model.layers.iter().enumerate() {
        let layer = i as u32;
        all.extend([
            (Block::RmsNorm { layer, half: Half::Attention }, l.attn_norm),
            (Block::Qkv { layer }, floats(l.qkv)),
            (Block::OProj { layer }, floats(l.o_proj)),
            (Block::RmsNorm { layer, half: Half::Ffn }, l.ffn_norm),
            (Block::GateUp { layer }, floats(l.gate_up)),
            (Block::Down { layer }, floats(l.down)),
        ]);
    }
    // All layers share the angles; the first to use them is the first to show it.
    all.push((Block::Rope { layer: 0 }, &model.rope[16..40 * 16]));
    all.push((Block::FinalNorm, model.final_norm));
    all
}

#[test]
fn a_flipped_bit_of_a_weight_is_named_by_its_block() {
    let clean = model();
    let prompts = [tokens(1, 30), tokens(2, 44)];
    let engine = engine(1);
    for (block, all) in weights(&clean) {
        for case in 0..4 {
            // Sign, exponent and upper bits of the fraction: lower ones can be lost in the rounding of a sum.
            let (at, bit) = ((case * 977 + 13) % all.len(), [31, 20, 22, 23][case]);
            let bytes = damaged(&all[at], bit);
            let bad = PackedModel::open(&bytes, Spec::F32).unwrap();
            let run = run(&engine, &|_| bad.clone(), &prompts, How::default());
            let differences = run.verify(&engine, &clean, &Sampler::Greedy).differences;
            assert!(!differences.is_empty(), "bit {bit} of weight {at} of {block}");
            for difference in differences {
                // No digest covers the last norm: what it leads to is the logits, and the choice they make.
                let named = difference.what.name();
                let expected = block.to_string();
                match block {
                    Block::FinalNorm => assert!(named == "lm_head" || named == "sample", "{named}"),
                    _ => assert_eq!(named, expected, "bit {bit} of weight {at}: {difference:?}"),
                }
            }
        }
    }
}

#[test]
fn a_flipped_bit_of_the_table_is_named_where_its_token_stands() {
    let clean = model();
    assert!(clean.geometry.tied, "the toy's table is its lm_head");
    let engine = engine(2);
    let prompts = [tokens(1, 30)];
    for position in [0, 7, 29] {
        let token = prompts[0][position] as usize;
        // Row `token` of the table: column 3 lies in panel token/16, at 3·16 + token%16.
        let at = token / 16 * 64 * 16 + 3 * 16 + token % 16;
        let bytes = damaged(&floats(clean.lm_head)[at], 22);
        let bad = PackedModel::open(&bytes, Spec::F32).unwrap();
        let run = run(&engine, &|_| bad.clone(), &prompts, How::default());
        let difference = the_one(&run, &Sampler::Greedy);
        let first = prompts[0].iter().position(|&t| t as usize == token).unwrap();
        assert_eq!((difference.position, difference.what.name()), (first, "embed".into()));
    }
}

/// A fault that lasts for one pass: what it leaves in the cache is wrong from then on.
#[test]
fn a_wrong_activation_is_named_by_its_position_and_block() {
    let clean = model();
    let engine = engine(1);
    let prompts = [tokens(1, 30)];
    for (block, all) in weights(&clean) {
        if block == Block::FinalNorm || matches!(block, Block::Rope { .. }) {
            continue;
        }
        for (chunk, at) in [(7, 14), (1, 11), (5, 33)] {
            let bytes = damaged(&all[all.len() / 3], 22);
            let bad = PackedModel::open(&bytes, Spec::F32).unwrap();
            let model_at = |position| if position == at { bad.clone() } else { clean.clone() };
            let run = run(&engine, &model_at, &prompts, How { chunk, ..How::default() });
            let difference = the_one(&run, &Sampler::Greedy);
            assert_eq!(difference.what.name(), block.to_string());
            // The pass that begins there is one of `chunk` prompt tokens, or of one generated token.
            let count = if at < 30 { chunk } else { 1 };
            assert!((at..at + count).contains(&difference.position), "{difference:?}");
        }
    }
}

#[test]
fn a_flipped_bit_of_a_digest_is_named() {
    for level in TraceLevel::ALL {
        let how = How { level, sampler: DRAW, ..How::default() };
        let clean = run(&engine(1), &|_| model(), &[tokens(1, 20), tokens(2, 3)], how);
        let blocks = Trace::open(&clean.trace).unwrap().blocks;
        for (prompt, position) in [(0, 0), (0, 19), (0, 30), (1, 2), (1, 13)] {
            for slot in [0, 1, blocks.len() - 1] {
                let mut run = clean.clone();
                let at = run.digest_at(prompt, position, slot);
                run.trace[at + 17] ^= 4;
                let Difference { prompt: p, position: q, token, what, .. } = the_one(&run, &DRAW);
                assert_eq!((p, q), (prompt, position));
                assert_eq!(
                    token,
                    run.claims()[prompt].prompt.iter().chain(&run.answers[prompt]).nth(position).copied()
                );
                let What::Row { block, expected, found: Some(found) } = what else { panic!("{what:?}") };
                assert_eq!(block, blocks[slot]);
                assert_eq!(found.0[17] ^ 4, expected.0[17]);
            }
        }
    }
}

#[test]
fn a_flipped_bit_of_a_kept_row_is_named_by_its_element() {
    for level in [TraceLevel::Layers, TraceLevel::Full] {
        let how = How { level, ..How::default() };
        let mut run = run(&engine(1), &|_| model(), &[tokens(1, 20)], how);
        let (row, block) = {
            let trace = Trace::open(&run.trace).unwrap();
            let slot = trace.blocks.iter().rposition(|block| block.kind() == "ffn.residual").unwrap();
            (trace.prompts[0].row(25, slot).unwrap().as_ptr() as usize, trace.blocks[slot])
        };
        let at = row - run.trace.as_ptr() as usize;
        run.trace[at + 4 * 9] ^= 1;
        let difference = the_one(&run, &Sampler::Greedy);
        let What::Kept { block: b, element, .. } = difference.what else { panic!("{difference:?}") };
        assert_eq!((difference.position, b, element), (25, block, 9));
    }
}

/// Another token in the answer; in the trace; in both.
#[test]
fn a_changed_token_is_named_with_what_should_stand_there() {
    for sampler in [Sampler::Greedy, DRAW] {
        let how = How { sampler, level: TraceLevel::Digests, ..How::default() };
        let clean = run(&engine(1), &|_| model(), &[tokens(3, 9), tokens(1, 20)], how);
        for place in [0, 5, 11] {
            let position = 20 + place;
            let right = clean.answers[1][place];
            let wrong = (right + 1) % 320;
            let in_trace = {
                let trace = Trace::open(&clean.trace).unwrap();
                let all: Vec<u8> = trace.prompts[1].tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
                clean.trace.windows(all.len()).position(|window| window == all).unwrap() + position * 4
            };

            let mut run = clean.clone();
            run.answers[1][place] = wrong;
            let sample = What::Sample { expected: right, found: wrong };
            let difference = the_one(&run, &sampler);
            assert_eq!(
                (difference.prompt, difference.position, difference.token),
                (1, position, Some(wrong))
            );
            assert_eq!(difference.what, sample);
            assert_eq!(difference.what.name(), "sample");

            run.trace[in_trace..in_trace + 4].copy_from_slice(&wrong.to_le_bytes());
            let difference = the_one(&run, &sampler);
            assert_eq!((difference.prompt, difference.position, difference.what), (1, position, sample));

            run.answers[1][place] = right;
            let difference = the_one(&run, &sampler);
            assert_eq!((difference.prompt, difference.position), (1, position));
            assert_eq!(difference.what, What::Token { expected: Some(right), found: Some(wrong) });
        }
        // A token no model has, and answers that are too short or too long for their trace.
        let mut run = clean.clone();
        run.answers[0][3] = 320;
        assert_eq!(the_one(&run, &sampler).what, What::Sample { expected: clean.answers[0][3], found: 320 });
        let mut run = clean.clone();
        let last = run.answers[0].pop();
        let difference = the_one(&run, &sampler);
        assert_eq!(difference.what, What::Token { expected: None, found: last });
        let mut run = clean.clone();
        run.answers[0].push(1);
        assert_eq!(the_one(&run, &sampler).what.name(), "token");
        // A prompt that is not the one the trace is about.
        let mut run = clean.clone();
        run.prompts[0][4] ^= 1;
        let difference = the_one(&run, &sampler);
        assert_eq!((difference.position, difference.what.name()), (4, "token".into()));
    }
}

/// All later digests are made to fit a forged answer, and still the choice gives it away.
#[test]
fn an_answer_from_another_seed_is_named_at_its_first_other_token() {
    let honest = How { sampler: DRAW, ..How::default() };
    let Sampler::Draw { temperature, top_k, top_p, seed } = DRAW else { unreachable!() };
    let other = Sampler::Draw { temperature, top_k, top_p, seed: seed + 1 };
    let prompts = [tokens(1, 20)];
    let right = run(&engine(1), &|_| model(), &prompts, honest);
    let forged = run(&engine(1), &|_| model(), &prompts, How { sampler: other, ..honest });
    let place = right.answers[0].iter().zip(&forged.answers[0]).position(|(a, b)| a != b).unwrap();
    let difference = the_one(&forged, &DRAW);
    assert_eq!(difference.position, 20 + place);
    let (expected, found) = (right.answers[0][place], forged.answers[0][place]);
    assert_eq!(difference.what, What::Sample { expected, found });
}

#[test]
fn roots_logits_and_likelihoods_are_compared() {
    let clean = run(&engine(1), &|_| model(), &[tokens(1, 20), tokens(2, 5)], How::default());
    let mut run = clean.clone();
    run.roots[1].0[31] ^= 128;
    let difference = the_one(&run, &Sampler::Greedy);
    assert_eq!(difference.what, What::Root { expected: clean.roots[1], found: run.roots[1] });
    assert_eq!((difference.prompt, difference.position), (1, 16));

    let mut run = clean.clone();
    run.logits[0][4 * 100] ^= 1;
    let difference = the_one(&run, &Sampler::Greedy);
    assert!(matches!(difference.what, What::Logit { token: 100, .. }), "{difference:?}");
    assert_eq!((difference.position, difference.what.name()), (19, "lm_head".into()));
    // A NaN is never equal, not even to itself.
    run.logits[0][4 * 100..4 * 101].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(matches!(the_one(&run, &Sampler::Greedy).what, What::Logit { token: 100, .. }));
    run.logits[0].pop();
    assert_eq!(the_one(&run, &Sampler::Greedy).what.name(), "logits");

    let trace = Trace::open(&clean.trace).unwrap();
    let mut claims = clean.claims();
    let wrong: Vec<u8> = (0..19).flat_map(|_| 0.0f64.to_le_bytes()).collect();
    claims[0].log_likelihood = Some(&wrong);
    let (engine, model) = (engine(1), model());
    let check = pipe::trace::verify::Check {
        engine: &engine,
        model: &model,
        sampler: &Sampler::Greedy,
        trace: &trace,
        progress: &|_, _| (),
    };
    let found = pipe::trace::verify::verify(&check, &claims).unwrap().differences;
    let [Difference { prompt: 0, position: 1, what: What::LogLikelihood { expected, found }, .. }] =
        found[..]
    else {
        panic!("{found:?}")
    };
    assert!(expected < 0.0 && found == 0.0);
}

#[test]
fn weights_that_give_no_number_are_a_difference() {
    let clean = run(&engine(1), &|_| model(), &[tokens(1, 20), tokens(2, 5)], How::default());
    let model = model();
    let weight = &floats(model.layers[1].down)[40];
    // The exponent's bits that are not set make it an infinity.
    let mut bytes = damaged(weight, 0);
    let at = std::ptr::from_ref(weight) as usize - PACKED.as_ptr() as usize;
    bytes[at..at + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let bad = PackedModel::open(&bytes, Spec::F32).unwrap();
    let differences = clean.verify(&engine(2), &bad, &Sampler::Greedy).differences;
    assert_eq!(differences.len(), 2, "{differences:?}");
    for difference in differences {
        assert!(matches!(difference.what, What::NotFinite { .. }), "{difference:?}");
        assert_eq!((difference.position, difference.what.name()), (0, "layer.01/down".into()));
    }
}

#[test]
fn a_trace_of_another_model_or_other_prompts_says_so() {
    let clean = run(&engine(1), &|_| model(), &[tokens(1, 20), tokens(2, 5)], How::default());
    let mut run = clean.clone();
    run.prompts.pop();
    assert!(matches!(the_one(&run, &Sampler::Greedy).what, What::File { of: "prompts", .. }));
    let mut run = clean.clone();
    let at = run.trace.windows(5).position(|window| window == b"f32@1").unwrap();
    run.trace[at] = b'g';
    let what = the_one(&run, &Sampler::Greedy).what;
    let (expected, found) = ("f32@1".into(), "g32@1".into());
    assert_eq!(what, What::File { of: "spec", expected, found });
}
