//! What the engine and the packer refuse, and what they say.

mod common;

use common::*;
use pipe_kernels::weights::{RowOrder, TensorType};
use pipe_kernels::*;

fn forward(packed: &Packed, tokens: &[u32], threads: usize) -> Result<(), ComputeError> {
    let engine = Engine::new(threads, Implementation::detect()).unwrap();
    let model = packed.model();
    let mut cache = KvCache::new(&model.geometry);
    let mut batch = [Slice { cache: &mut cache, tokens, want: Want::All }];
    let result = engine.forward(&model, &mut batch, &mut Logits::new());
    assert_eq!(cache.len(), if result.is_ok() { tokens.len() } else { 0 });
    result
}

/// Overwrites one packed weight.
fn poison(packed: &mut Packed, value: f32, place: impl Fn(&PackedModel<'_>) -> *const u8) {
    let at = place(&packed.model()) as usize - packed.bytes().as_ptr() as usize;
    packed.bytes_mut()[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn a_bad_value_is_named_by_block_position_and_element() {
    let tokens = prompt(1, 9, &geometry());
    for threads in [1, 3] {
        for bad in [f32::NAN, f32::INFINITY] {
            // Element 3 of down's output in layer 1, at every position: the first is named.
            let mut packed = weights(1, &geometry()).packed();
            poison(&mut packed, bad, |m| &raw const m.layers[1].down.data[4 * (16 * 7 + 3)]);
            match forward(&packed, &tokens, threads) {
                Err(ComputeError::NotFinite { block, sequence: 0, position: 0, element: 3, .. }) => {
                    assert_eq!(block, Block::Down { layer: 1 });
                }
                other => panic!("{other:?}"),
            }
            // A weight of the embedding: only the position of that token is hit.
            let mut packed = weights(1, &geometry()).packed();
            let token = tokens[4];
            assert!(!tokens[..4].contains(&token));
            let (panel, lane) = (token as usize / 16, token as usize % 16);
            poison(&mut packed, bad, |m| &raw const m.lm_head.data[4 * (panel * 36 * 16 + 5 * 16 + lane)]);
            match forward(&packed, &tokens, threads) {
                Err(ComputeError::NotFinite { block: Block::Embed, position: 4, element: 5, .. }) => {}
                other => panic!("{other:?}"),
            }
            // A key that no score shows: attention alone would give it no weight.
            let mut packed = weights(1, &geometry()).packed();
            poison(&mut packed, bad, |m| &raw const m.layers[0].qkv.data[4 * (2 * 36 * 16 + 9 * 16 + 6)]);
            match forward(&packed, &tokens, threads) {
                Err(ComputeError::NotFinite {
                    block: Block::Qkv { layer: 0 },
                    position: 0,
                    element: 38,
                    ..
                }) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn tokens_and_lengths_out_of_range_are_errors() {
    let g = Geometry { context: 20, ..geometry() };
    let packed = weights(2, &g).packed();
    assert_eq!(forward(&packed, &prompt(1, 20, &g), 1), Ok(()));
    assert_eq!(
        forward(&packed, &prompt(1, 21, &g), 1),
        Err(ComputeError::Context { sequence: 0, length: 21, context: 20 })
    );
    assert_eq!(
        forward(&packed, &[1, 2, 83], 1),
        Err(ComputeError::Token { sequence: 0, position: 2, token: 83, vocab: 83 })
    );
    assert_eq!(forward(&packed, &[], 2), Ok(()));
    let engine = Engine::new(1, Implementation::Scalar).unwrap();
    let mut other = KvCache::new(&geometry());
    let mut batch = [Slice { cache: &mut other, tokens: &[1], want: Want::Last }];
    let result = engine.forward(&packed.model(), &mut batch, &mut Logits::new());
    assert_eq!(result, Err(ComputeError::OtherGeometry { sequence: 0 }));
    assert!(matches!(Engine::new(0, Implementation::Scalar), Err(ComputeError::Threads(0))));
}

#[test]
fn weights_that_do_not_fit_the_geometry_are_refused() {
    let refused = |change: fn(&mut weights::ModelWeights<'_>)| {
        let owned = weights(1, &geometry());
        let mut view = owned.view();
        change(&mut view);
        pack(&view, &geometry(), Width::F32.into(), &mut Vec::new()).unwrap_err().to_string()
    };
    assert!(refused(|w| w.layers[1].k.rows += 1).contains("layer.01/k is 13 × 36"));
    assert!(refused(|w| w.layers[0].up.data = &[]).contains("layer.00/up has 0 bytes"));
    assert!(refused(|w| w.embed.ty = TensorType::Q8_0).contains("no whole number of blocks"));
    assert!(refused(|w| w.layers.truncate(1)).contains("1 layers"));
    assert!(refused(|w| w.lm_head = Some(w.embed)).contains("separate lm_head"));
    let mut owned = weights(1, &geometry());
    owned.tensors[3 + 4][4 * 37..4 * 38].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = pack(&owned.view(), &geometry(), Width::F32.into(), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("weight 1 of row 1 of tensor layer.00/o_proj"), "{error}");
    for bad in [
        Geometry { kv_heads: 4, ..geometry() },
        Geometry { head_dim: 7, ..geometry() },
        Geometry { vocab: 0, ..geometry() },
        Geometry { vocab: usize::MAX, ..geometry() },
        Geometry { context: 1 << 21, ..geometry() },
        Geometry { rope_base: f64::NAN, ..geometry() },
    ] {
        assert!(matches!(
            pack(&owned.view(), &bad, Width::F32.into(), &mut Vec::new()),
            Err(PackError::Geometry { .. })
        ));
    }
}

#[test]
fn both_row_orders_pack_to_the_same_bytes() {
    let g = geometry();
    let owned = weights(3, &g);
    let mut halves = weights(3, &g);
    // The same model as Hugging Face stores it: within a head first the even rows, then the odd ones.
    let row = g.width * 4;
    for layer in 0..g.layers {
        for tensor in [3 + layer * 9 + 1, 3 + layer * 9 + 2] {
            let rows: Vec<&[u8]> = owned.tensors[tensor].chunks(row).collect();
            let order = |i: usize| {
                let (head, r) = (i / g.head_dim, i % g.head_dim);
                let half = g.head_dim / 2;
                head * g.head_dim + if r < half { 2 * r } else { 2 * (r - half) + 1 }
            };
            halves.tensors[tensor] = (0..rows.len()).flat_map(|i| rows[order(i)].to_vec()).collect();
        }
    }
    let mut view = halves.view();
    for layer in &mut view.layers {
        (layer.q.order, layer.k.order) = (RowOrder::HalvesToPairs, RowOrder::HalvesToPairs);
    }
    let mut bytes = Vec::new();
    pack(&view, &g, Width::F32.into(), &mut bytes).unwrap();
    assert!(bytes == owned.packed().bytes());
    assert_eq!(bytes.len() as u64, pack::packed_len(&view, &g, Width::F32.into()).unwrap());
}

#[test]
fn damaged_packed_files_are_errors_and_never_panic() {
    let packed = weights(4, &Geometry { context: 8, tied: false, ..geometry() }).packed();
    let good = packed.bytes();
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    assert_eq!(header % 64, 0);
    // Every truncation near a boundary, and a sprinkling of others.
    for len in
        (0..header + 70).chain((header..good.len()).step_by(997)).chain([good.len() - 4, good.len() - 1])
    {
        assert!(PackedModel::open(&good[..len], Spec::F32).is_err(), "{len} bytes");
    }
    // Every byte of the header, changed in several ways.
    let mut bad = Packed::new(good, Spec::F32);
    for i in 0..header {
        for flip in [1, 0x10, 0x80] {
            bad.bytes_mut()[i] ^= flip;
            if let Ok(model) = PackedModel::open(bad.bytes(), Spec::F32) {
                // What still opens has the same shapes: only constants or spaces changed.
                assert_eq!(model.lm_head.data.len(), packed.model().lm_head.data.len(), "byte {i}");
            }
            bad.bytes_mut()[i] ^= flip;
        }
    }
    assert!(PackedModel::open(bad.bytes(), Spec::F32).is_ok());
    // Offsets that lie although every shape is right: within the file, beyond it, and swapped.
    let text = String::from_utf8_lossy(&good[8..header]).into_owned();
    let at = text.find("\"layer.00/o_proj\"").unwrap();
    let from = at + text[at..].find("data_offsets\":[").unwrap() + 15;
    let to = from + text[from..].find(']').unwrap();
    let width = to - from;
    for lie in ["0,64", "64,64", "9999,99999", "9,1"] {
        let mut bad = Packed::new(good, Spec::F32);
        bad.bytes_mut()[8 + from..8 + to].copy_from_slice(format!("{lie:width$}").as_bytes());
        let error = PackedModel::open(bad.bytes(), Spec::F32).unwrap_err().to_string();
        assert!(error.contains("layer.00/o_proj of the packed model lies at"), "{error}");
    }
    assert!(matches!(PackedModel::open(&[good, &[0; 4]].concat(), Spec::F32), Err(PackError::Header(_))));
    // A mapping that starts off the boundary of a float.
    let shifted = Packed::new(&[&[0][..], good].concat(), Spec::F32);
    assert!(matches!(PackedModel::open(&shifted.bytes()[1..], Spec::F32), Err(PackError::Alignment)));
}
