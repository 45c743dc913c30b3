//! Models made by hand, whose inside is known; and for each check an inside in which it fails.

use std::sync::LazyLock;

use pipe_kernels::weights::{LayerWeights, ModelWeights, RowOrder, TensorType, TensorView};
use pipe_kernels::{Geometry, Implementation, KvCache, Logits, Slice, Spec, Want, pack};

use super::record::Record;
use super::*;

const G: Geometry = Geometry {
    layers: 4,
    width: 16,
    heads: 4,
    kv_heads: 2,
    head_dim: 4,
    ffn: 16,
    vocab: 40,
    context: 64,
    rope_base: 1e4,
    norm_eps: 1e-5,
    tied: true,
};

/// Packed bytes on the boundary that a mapping would give them.
struct Packed(Vec<u64>, usize);

impl Packed {
    fn model(&self, spec: Spec) -> PackedModel<'_> {
        // SAFETY: the words hold at least that many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast::<u8>(), self.1) };
        PackedModel::open(bytes, spec).unwrap()
    }
}

/// A model of random weights, with what each component writes to the stream scaled by `scale`.
fn model(seed: u64, spec: Spec, scale: impl Fn(Component) -> f32) -> Packed {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let mut tensor = |rows: usize, cols: usize, by: &dyn Fn(usize) -> f32| -> Vec<u8> {
        let draw = |i: usize| next() * by(i % cols);
        (0..rows * cols).map(draw).flat_map(f32::to_le_bytes).collect()
    };
    let one = |_| 1.0f32;
    let (heads, kv) = (G.heads * G.head_dim, G.kv_heads * G.head_dim);
    let embed = tensor(G.vocab, G.width, &one);
    let ones: Vec<u8> = (0..G.width).flat_map(|_| 1.0f32.to_le_bytes()).collect();
    let layers: Vec<[Vec<u8>; 7]> = (0..G.layers)
        .map(|layer| {
            let head = |k: usize| scale(Component::Head { layer, head: k / G.head_dim });
            let ffn = |_| scale(Component::Ffn { layer });
            [
                tensor(heads, G.width, &one),
                tensor(kv, G.width, &one),
                tensor(kv, G.width, &one),
                tensor(G.width, heads, &head),
                tensor(G.ffn, G.width, &one),
                tensor(G.ffn, G.width, &one),
                tensor(G.width, G.ffn, &ffn),
            ]
        })
        .collect();
    let view =
        |data, rows, cols| TensorView { ty: TensorType::F32, rows, cols, order: RowOrder::AsStored, data };
    let weights = ModelWeights {
        embed: view(&embed[..], G.vocab, G.width),
        layers: layers
            .iter()
            .map(|[q, k, v, o, gate, up, down]| LayerWeights {
                attn_norm: view(&ones, 1, G.width),
                q: view(q, heads, G.width),
                k: view(k, kv, G.width),
                v: view(v, kv, G.width),
                o: view(o, G.width, heads),
                ffn_norm: view(&ones, 1, G.width),
                gate: view(gate, G.ffn, G.width),
                up: view(up, G.ffn, G.width),
                down: view(down, G.width, G.ffn),
            })
            .collect(),
        final_norm: view(&ones, 1, G.width),
        lm_head: None,
    };
    let mut bytes = Vec::new();
    pack(&weights, &G, spec.width().into(), &mut bytes).unwrap();
    let mut words = vec![0u64; bytes.len().div_ceil(8)];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut eight = [0; 8];
        eight[..chunk.len()].copy_from_slice(chunk);
        *word = u64::from_ne_bytes(eight);
    }
    Packed(words, bytes.len())
}

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(2, Implementation::detect()).unwrap());

const PROMPT: [u32; 7] = [3, 17, 9, 3, 30, 22, 9];

fn options() -> Options {
    Options { window: 64, full_lens: vec![1], targets: 16, causes: true, faithful: 0.1 }
}

/// What the model answers greedily.
fn answer(model: &PackedModel<'_>, count: usize) -> Vec<u32> {
    let (mut cache, mut logits, mut tokens) = (KvCache::new(&G), Logits::new(), PROMPT.to_vec());
    for i in 0..count {
        let new = if i == 0 { &tokens[..] } else { &tokens[tokens.len() - 1..] };
        let slice = Slice { cache: &mut cache, tokens: new, want: Want::Last };
        ENGINE.forward(model, &mut [slice], &mut logits).unwrap();
        let next = Sampler::Greedy.choose(logits.row(0), 0).unwrap();
        tokens.push(next);
    }
    tokens.split_off(PROMPT.len())
}

fn looked<T>(
    model: &PackedModel<'_>,
    answer: &[u32],
    options: &Options,
    f: impl FnOnce(&Look<'_>, &Transcript<'_>) -> T,
) -> T {
    let look = Look {
        engine: &ENGINE,
        model,
        sampler: &Sampler::Greedy,
        options,
        piece: &|token| format!("<{token}>"),
        progress: &|_| true,
    };
    f(&look, &Transcript { id: "q", prompt: &PROMPT, answer })
}

fn inside_of(packed: &Packed, spec: Spec, options: &Options) -> Inside {
    let model = packed.model(spec);
    let answer = answer(&model, 4);
    looked(&model, &answer, options, look).unwrap()
}

#[test]
fn everything_holds_in_every_spec_and_the_same_bits_come_again() {
    for spec in Spec::ALL {
        let packed = model(1, spec, |_| 1.0);
        let one = inside_of(&packed, spec, &options());
        for check in &one.checks {
            assert!(check.passed && check.compared > 0, "{spec}: {check:?}");
        }
        assert_eq!(one.checks.len(), 7);
        let again = inside_of(&packed, spec, &options());
        assert_eq!(serde_json::to_string(&one).unwrap(), serde_json::to_string(&again).unwrap());
        assert_eq!(one.relevance.as_ref().unwrap().null.to_bits(), 0, "nothing ablated changes nothing");
        // The parts add up: exactly for f32 up to rounding, for the others up to that of their activations.
        let largest = one.attribution.targets.iter().fold(0.0f64, |m, t| m.max(t.difference.abs()));
        assert!(one.attribution.residue <= 0.1 * largest.max(1.0), "{spec}: {}", one.attribution.residue);
        if spec == Spec::F32 {
            assert!(one.attribution.residue < 1e-4, "{}", one.attribution.residue);
        }
    }
}

#[test]
fn shapes_are_as_the_page_says() {
    let inside = inside_of(&model(1, Spec::F32, |_| 1.0), Spec::F32, &options());
    let positions = PROMPT.len() + 3;
    assert_eq!((inside.window.start, inside.window.end), (0, positions));
    assert_eq!(inside.tokens.len(), positions + 1);
    assert!(inside.tokens[0].prediction.is_none() && inside.tokens[positions].prediction.is_some());
    assert!(inside.tokens[PROMPT.len()].generated && !inside.tokens[PROMPT.len() - 1].generated);
    // Greedy takes the likeliest.
    assert!(inside.tokens[PROMPT.len()..].iter().all(|t| t.prediction.unwrap().rank == 1));
    let mean =
        |t: &[Token]| t.iter().map(|t| t.prediction.unwrap().log_probability).sum::<f64>() / t.len() as f64;
    let (prompt, answer) = (mean(&inside.tokens[1..PROMPT.len()]), mean(&inside.tokens[PROMPT.len()..]));
    assert!((inside.prompt_perplexity.unwrap().ln() + prompt).abs() < 1e-12);
    assert!((inside.answer_perplexity.unwrap().ln() + answer).abs() < 1e-12);
    assert_eq!((inside.layers.len(), inside.heads.len()), (G.layers, G.layers * G.heads));
    assert_eq!(inside.lens.rank.len(), G.layers + 1);
    // The last row of the lens is the model itself.
    assert!(inside.lens.kl[G.layers].iter().all(|kl| kl.to_bits() == 0));
    assert!(inside.lens.rank[G.layers].iter().all(|&rank| rank == 1));
    assert_eq!(inside.lens.full.len(), 1);
    // Of a vocabulary smaller than the lens's choice, both lenses see all.
    let (full, some) = (&inside.lens.full[0], (&inside.lens.rank[2], &inside.lens.kl[2]));
    assert_eq!(&full.rank, some.0);
    assert!(full.kl.iter().zip(some.1).all(|(a, b)| (a - b).abs() < 1e-5));
    let relevance = inside.relevance.unwrap();
    assert_eq!((relevance.components.len(), relevance.tokens.len()), (G.layers * 5, PROMPT.len()));
    assert_eq!(inside.attribution.targets.len(), 4);
}

#[test]
fn a_short_window_describes_the_end() {
    let options = Options { window: 5, causes: false, ..options() };
    let inside = inside_of(&model(1, Spec::F32, |_| 1.0), Spec::F32, &options);
    assert_eq!((inside.window.start, inside.window.end), (5, 10));
    assert!(inside.checks.iter().all(|check| check.passed));
    assert!(inside.relevance.is_none() && inside.beauty.is_none());
    let whole =
        inside_of(&model(1, Spec::F32, |_| 1.0), Spec::F32, &Options { causes: false, ..self::options() });
    assert_eq!(inside.layers[2].rms_at, whole.layers[2].rms_at[5..]);
    assert_eq!(inside.lens.kl[1], whole.lens.kl[1][5..]);
}

#[test]
fn an_answer_that_rests_on_one_head_has_a_short_explanation() {
    let needed = Component::Head { layer: 2, head: 1 };
    let packed = model(5, Spec::F32, |c| if c == needed { 6.0 } else { 0.0 });
    let inside = inside_of(&packed, Spec::F32, &options());
    let beauty = inside.beauty.unwrap();
    assert_eq!(beauty.explanation, [needed]);
    assert!(beauty.sufficient && beauty.comprehensive);
    assert_eq!(beauty.sufficiency.to_bits(), 0, "all others add nothing, so ablating them changes no bit");
    assert_eq!(beauty.value, 1.0 - 1.0 / 20.0);
    // What is not used has no effect at all.
    for cause in inside.relevance.unwrap().components {
        assert_eq!(cause.kl.to_bits() == 0, cause.component != needed, "{cause:?}");
    }
    let direct = inside.attribution.components.iter().filter(|c| c.direct != 0.0).count();
    assert_eq!(direct, 1);
}

#[test]
fn an_answer_that_rests_on_everything_has_none() {
    let packed = model(7, Spec::F32, |_| 4.0);
    let inside = inside_of(&packed, Spec::F32, &options());
    let beauty = inside.beauty.unwrap();
    assert!(beauty.value <= 0.25, "{beauty:?}");
    assert!(beauty.explanation.len() >= 15);
}

#[test]
fn an_answer_that_rests_on_no_component_is_not_explained_by_none() {
    let inside = inside_of(&model(5, Spec::F32, |_| 0.0), Spec::F32, &options());
    let beauty = inside.beauty.unwrap();
    assert_eq!((beauty.explanation.len(), beauty.comprehensive, beauty.value), (0, false, 0.0));
    let relevance = inside.relevance.unwrap();
    assert!(relevance.components.iter().all(|c| c.kl.to_bits() == 0));
    // Without attention only the last token of the prompt, and the answer's own, can matter.
    assert!(relevance.tokens[..PROMPT.len() - 1].iter().all(|kl| kl.to_bits() == 0));
    assert!(relevance.tokens[PROMPT.len() - 1] > 0.0 && relevance.value > 0.0);
}

#[test]
fn dead_units_and_baselines_are_noticed() {
    let packed = model(1, Spec::F32, |_| 1.0);
    let mut inside = inside_of(&packed, Spec::F32, &Options { causes: false, ..options() });
    assert!(against(&inside, &inside.clone()).is_empty());
    let usual = inside.clone();
    inside.layers[3].rms.mean += 5.0 * inside.layers[3].rms.std;
    inside.heads[2].entropy.mean -= 5.0 * inside.heads[2].entropy.std;
    let places: Vec<_> = against(&inside, &usual).into_iter().map(|u| (u.kind, u.place)).collect();
    assert_eq!(
        places,
        [(UnusualKind::Rms, "layer.03".into()), (UnusualKind::Entropy, "layer.00/head.2".into())]
    );
    inside.layers[1].dead_units = 3;
    inside.layers[0].outlier_ratio.mean = 3.9;
    inside.heads[5].entropy.mean = 0.001;
    let found: Vec<_> = unusual::alone(&inside).into_iter().map(|u| (u.kind, u.place)).collect();
    for expected in [
        (UnusualKind::Outlier, "layer.00".to_owned()),
        (UnusualKind::DeadUnits, "layer.01".to_owned()),
        (UnusualKind::CollapsedAttention, "layer.01/head.1".to_owned()),
    ] {
        assert!(found.contains(&expected), "{expected:?} in {found:?}");
    }
}

/// The names of the checks that fail after `harm` was done to what a sound pass recorded.
fn failing(harm: impl FnOnce(&mut Record)) -> Vec<String> {
    let packed = model(1, Spec::F32, |_| 1.0);
    let model = packed.model(Spec::F32);
    let answer = answer(&model, 4);
    looked(&model, &answer, &options(), |look, transcript| {
        let mut record = Record::make(look, transcript).unwrap();
        harm(&mut record);
        let checks = checks::checks(look, &mut record).unwrap();
        checks.into_iter().filter(|check| !check.passed).map(|check| check.name).collect()
    })
}

/// The next float: the smallest change there is.
fn nudge(x: &mut f32) {
    *x = f32::from_bits(x.to_bits() ^ 1);
}

#[test]
fn every_check_fails_where_it_should() {
    assert_eq!(failing(|_| ()), [""; 0]);
    assert_eq!(failing(|r| nudge(&mut r.layers[1].o_proj.at_mut(4)[3])), ["residual_stream"]);
    assert_eq!(failing(|r| nudge(&mut r.layers[3].down.at_mut(0)[15])), ["residual_stream"]);
    // The last stream is what the logits follow from, and what is computed again alone.
    assert_eq!(
        failing(|r| nudge(&mut r.layers[3].stream.at_mut(9)[0])),
        ["residual_stream", "logits", "kv_chain"]
    );
    let last = PROMPT.len() + 2;
    assert_eq!(failing(|r| nudge(&mut r.layers[2].context.at_mut(last)[5])), ["no_look_ahead"]);
    assert_eq!(failing(|r| nudge(&mut r.layers[2].v.at_mut(0)[1])), ["no_look_ahead"]);
    assert_eq!(failing(|r| r.layers[0].k.at_mut(last)[1] += 0.5), ["no_look_ahead", "kv_chain"]);
    assert_eq!(failing(|r| nudge(&mut r.predictions[3].logits[63.min(G.vocab - 1)])), ["logits"]);
    assert_eq!(failing(|r| r.choices[1].found += 1), ["tokens"]);
    assert_eq!(failing(|r| r.layers[1].hidden.at_mut(2)[7] = f32::NAN), ["finite"]);
    assert_eq!(failing(|r| r.layers[1].q.at_mut(2)[7] = f32::INFINITY), ["attention_sums", "finite"]);
    // Another sequence's cache.
    assert_eq!(failing(|r| r.cache = fill(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10])), ["kv_chain"]);
}

fn fill(tokens: &[u32]) -> KvCache {
    let packed = model(1, Spec::F32, |_| 1.0);
    let mut cache = KvCache::new(&G);
    let slice = Slice { cache: &mut cache, tokens, want: Want::None };
    ENGINE.forward(&packed.model(Spec::F32), &mut [slice], &mut Logits::new()).unwrap();
    cache
}

#[test]
fn a_prompt_without_tokens_has_no_inside() {
    let packed = model(1, Spec::F32, |_| 1.0);
    let model = packed.model(Spec::F32);
    let result =
        looked(&model, &[], &options(), |l, _| look(l, &Transcript { id: "none", prompt: &[], answer: &[] }));
    assert!(matches!(result, Err(InsideError::Empty(id)) if id == "none"));
}

#[test]
fn without_an_answer_the_likeliest_token_is_explained() {
    let packed = model(1, Spec::F32, |_| 1.0);
    let model = packed.model(Spec::F32);
    let inside = looked(&model, &[], &options(), look).unwrap();
    assert_eq!(inside.attribution.targets.len(), 1);
    assert_eq!(inside.attribution.targets[0].token, answer(&model, 1)[0]);
    assert!(inside.checks.iter().all(|check| check.passed), "{:?}", inside.checks);
}

#[test]
fn a_look_stops_when_it_is_told_to() {
    let packed = model(1, Spec::F32, |_| 1.0);
    let model = packed.model(Spec::F32);
    let passes = std::sync::atomic::AtomicU64::new(0);
    let (options, piece) = (options(), |_| String::new());
    let progress = |_| passes.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 5;
    let (sampler, progress, piece) = (&Sampler::Greedy, &progress, &piece);
    let looking = Look { engine: &ENGINE, model: &model, sampler, options: &options, piece, progress };
    let result = look(&looking, &Transcript { id: "q", prompt: &PROMPT, answer: &[] });
    assert!(matches!(result, Err(InsideError::Cancelled)));
    assert_eq!(passes.into_inner(), 6);
}
