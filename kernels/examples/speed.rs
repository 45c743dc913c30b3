//! How fast the kernels are beside what this machine can do, measured in the same run: GEMM against peak FMA,
//! GEMV and decode against read bandwidth, and a whole model of SmolLM2-135M's shape with random weights.
//! The best of several runs, since other work on the machine can only slow one down.
//!
//!     cargo run --release -p pipe-kernels --example speed [-- THREADS [IMPLEMENTATION [SPEC]]]

#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use pipe_kernels::weights::{LayerWeights, ModelWeights, RowOrder, TensorType, TensorView};
use pipe_kernels::*;

const SMOLLM2: Geometry = Geometry {
    layers: 30,
    width: 576,
    heads: 9,
    kv_heads: 3,
    head_dim: 64,
    ffn: 1536,
    vocab: 49152,
    context: 8192,
    rope_base: 1e5,
    norm_eps: 1e-5,
    tied: true,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let threads = args.next().map_or(Ok(1), |a| a.parse())?;
    let implementation = args.next().map_or(Ok(Implementation::detect()), |a| a.parse())?;
    let spec: Spec = args.next().map_or(Ok(Spec::F32), |a| a.parse()).map_err(|()| "no such spec")?;
    let engine = Engine::new(threads, implementation)?;
    println!("{spec}, {implementation}, {threads} threads");

    // A core may need a while to reach its pace.
    let (peak, bandwidth) = (peak_fma().max(peak_fma()), read_bandwidth(threads));
    println!("one core's peak {peak:.0} GFLOP/s f32 FMA; {threads} threads read {bandwidth:.1} GB/s");

    // One layer alone, so that a product is nearly all of the work: attention is left out of the sum.
    for (name, width, ffn) in [("width 576, ffn 1536", 576, 1536), ("width 2048, ffn 5632", 2048, 5632)] {
        let g = Geometry {
            layers: 2,
            width,
            ffn,
            heads: width / 64,
            kv_heads: width / 192,
            vocab: 16,
            context: 512,
            ..SMOLLM2
        };
        let g = Geometry { heads: g.kv_heads * 3, ..g };
        let packed = model(&g, spec);
        let model = PackedModel::open(packed.bytes(), spec)?;
        let flops = |rows: usize| 2.0 * rows as f64 * weights(&g);
        for rows in [8, 32, 128, 512] {
            let seconds = prefill(&engine, &model, rows, 7)?;
            let rate = flops(rows) / seconds / 1e9;
            let share = 100.0 * rate / peak / threads as f64;
            println!(
                "prefill of {rows:3}, {name}: {rate:.0} GFLOP/s, {share:.0} % of peak with everything in it"
            );
        }
    }

    let packed = model(&SMOLLM2, spec);
    let model = PackedModel::open(packed.bytes(), spec)?;
    let bytes = model.bytes_per_token() as f64;
    for rows in [16, 128, 512] {
        let seconds = prefill(&engine, &model, rows, 5)?;
        println!("SmolLM2-135M prefill {rows}: {:.0} tokens/s", rows as f64 / seconds);
    }
    let (before, tokens) = (16, 64);
    let seconds = decode(&engine, &model, before, tokens, 1)?;
    let rate = tokens as f64 / seconds;
    let gbs = rate * bytes / 1e9;
    let share = 100.0 * gbs / read_bandwidth(threads).max(bandwidth);
    println!(
        "SmolLM2-135M decode {tokens}: {rate:.1} tokens/s, {gbs:.1} GB/s, {share:.0} % of read bandwidth"
    );
    let batch = 16;
    let seconds = decode(&engine, &model, before, tokens / 4, batch)?;
    println!("decode of {batch} sequences: {:.1} tokens/s", (tokens / 4 * batch) as f64 / seconds);
    Ok(())
}

/// Weights that one token is multiplied with.
fn weights(g: &Geometry) -> f64 {
    let heads = g.heads * g.head_dim;
    let layer = g.width * (2 * heads + 2 * g.kv_heads * g.head_dim + 3 * g.ffn);
    (g.layers * layer + g.vocab * g.width) as f64
}

/// Seconds for the best of `runs` prefills of `rows` tokens.
fn prefill(engine: &Engine, model: &PackedModel<'_>, rows: usize, runs: usize) -> Result<f64, ComputeError> {
    let tokens: Vec<u32> = (0..rows).map(|i| (i * 7919 % model.geometry.vocab) as u32).collect();
    let mut logits = Logits::new();
    let mut best = f64::INFINITY;
    let mut cache = KvCache::new(&model.geometry);
    for _ in 0..runs {
        cache.truncate(0);
        let start = Instant::now();
        let mut batch = [Slice { cache: &mut cache, tokens: &tokens, want: Want::Last }];
        engine.forward(model, &mut batch, &mut logits)?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Seconds for the best of three runs of `tokens` steps of `batch` sequences.
fn decode(
    engine: &Engine,
    model: &PackedModel<'_>,
    before: usize,
    tokens: usize,
    batch: usize,
) -> Result<f64, ComputeError> {
    let prompt: Vec<u32> = (0..before as u32).collect();
    let mut caches: Vec<KvCache> = (0..batch).map(|_| KvCache::new(&model.geometry)).collect();
    let mut logits = Logits::new();
    let mut best = f64::INFINITY;
    for run in 0..4 {
        let mut step = |caches: &mut Vec<KvCache>, tokens: &[u32]| {
            let slice = |cache| Slice { cache, tokens, want: Want::Last };
            let mut batch: Vec<Slice<'_>> = caches.iter_mut().map(slice).collect();
            engine.forward(model, &mut batch, &mut logits)
        };
        caches.iter_mut().for_each(|c| c.truncate(0));
        step(&mut caches, &prompt)?;
        let start = Instant::now();
        for i in 0..tokens {
            step(&mut caches, &[(i * 31) as u32])?;
        }
        // The first run touches the mapped memory.
        if run > 0 {
            best = best.min(start.elapsed().as_secs_f64());
        }
    }
    Ok(best)
}

/// GFLOP/s of independent FMA chains in registers on this core.
fn peak_fma() -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        #[target_feature(enable = "avx512f")]
        fn wide(n: usize) -> f32 {
            let mut acc = [_mm512_set1_ps(1.0); 16];
            let (a, b) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
            for _ in 0..n {
                for x in &mut acc {
                    *x = _mm512_fmadd_ps(*x, a, b);
                }
            }
            acc.iter().map(|x| _mm512_reduce_add_ps(*x)).sum()
        }
        #[target_feature(enable = "avx2,fma")]
        fn narrow(n: usize) -> f32 {
            let mut acc = [_mm256_set1_ps(1.0); 12];
            let (a, b) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(0.001)));
            for _ in 0..n {
                for x in &mut acc {
                    *x = _mm256_fmadd_ps(*x, a, b);
                }
            }
            acc.iter().map(|x| _mm256_cvtss_f32(*x)).sum()
        }
        let n = 2_000_000;
        let best = |flops: f64, f: &dyn Fn() -> f32| {
            let once = || {
                let start = Instant::now();
                black_box(f());
                start.elapsed().as_secs_f64()
            };
            (0..7).map(|_| flops / once() / 1e9).fold(0.0, f64::max)
        };
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature is there.
            return best(n as f64 * 16.0 * 32.0, &|| unsafe { wide(n) });
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the features are there.
            return best(n as f64 * 12.0 * 16.0, &|| unsafe { narrow(n) });
        }
    }
    f64::NAN
}

/// GB/s of all threads summing a region far larger than the caches.
fn read_bandwidth(threads: usize) -> f64 {
    let words: Vec<u64> = vec![1; 64 << 20];
    let share = words.len() / threads;
    let mut best = 0.0f64;
    for _ in 0..7 {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in words.chunks(share) {
                scope.spawn(move || black_box(sum(part)));
            }
        });
        best = best.max(words.len() as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9);
    }
    best
}

/// In order, without a chain from one load to the next.
fn sum(words: &[u64]) -> u64 {
    let mut total = [0u64; 32];
    for chunk in words.chunks_exact(32) {
        for (t, w) in total.iter_mut().zip(chunk) {
            *t = t.wrapping_add(*w);
        }
    }
    total.iter().fold(0, |a, b| a.wrapping_add(*b))
}

/// Packed bytes on a page boundary, as a mapping gives them.
struct Aligned {
    pages: Vec<Page>,
    len: usize,
}

#[derive(Clone, Copy)]
#[repr(align(4096))]
struct Page {
    _bytes: [u8; 4096],
}

impl Aligned {
    fn bytes(&self) -> &[u8] {
        // SAFETY: the pages hold at least `len` bytes.
        unsafe { std::slice::from_raw_parts(self.pages.as_ptr().cast(), self.len) }
    }
}

impl std::io::Write for Aligned {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let end = self.len + bytes.len();
        self.pages.resize(end.div_ceil(4096), Page { _bytes: [0; 4096] });
        // SAFETY: the pages hold at least `end` bytes.
        let all = unsafe { std::slice::from_raw_parts_mut(self.pages.as_mut_ptr().cast::<u8>(), end) };
        all[self.len..].copy_from_slice(bytes);
        self.len = end;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A random model; its tensors all view one stretch of random bf16.
fn model(g: &Geometry, spec: Spec) -> Aligned {
    let heads = g.heads * g.head_dim;
    let most = [g.vocab * g.width, heads * g.width, g.ffn * g.width].into_iter().max().unwrap_or(0);
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // ±2^-6 … 2^-5: sums stay small over any width.
        (state >> 48) as u16 & 0x807f | 0x3c80
    };
    let data: Vec<u8> = (0..most).flat_map(|_| next().to_le_bytes()).collect();
    let view = |rows: usize, cols: usize| TensorView {
        ty: TensorType::BF16,
        rows,
        cols,
        order: RowOrder::AsStored,
        data: &data[..rows * cols * 2],
    };
    let layer = LayerWeights {
        attn_norm: view(1, g.width),
        q: view(heads, g.width),
        k: view(g.kv_heads * g.head_dim, g.width),
        v: view(g.kv_heads * g.head_dim, g.width),
        o: view(g.width, heads),
        ffn_norm: view(1, g.width),
        gate: view(g.ffn, g.width),
        up: view(g.ffn, g.width),
        down: view(g.width, g.ffn),
    };
    let weights = ModelWeights {
        embed: view(g.vocab, g.width),
        layers: vec![layer; g.layers],
        final_norm: view(1, g.width),
        lm_head: None,
    };
    let mut out = Aligned { pages: Vec::new(), len: 0 };
    if let Err(e) = pack(&weights, g, spec.width().into(), &mut out) {
        println!("packing failed: {e}");
    }
    out
}
