//! Makes the toy model that tests and newcomers run: Llama-shaped, seeded, small, and the same bytes each time.
//!
//!     cargo run --example make_toy -- pipelines/tiny.gguf
//!
//! Its weights are random, so its answers are nonsense; its tokenizer, template and every tensor type are real.

#![allow(clippy::print_stderr)]

use std::path::PathBuf;
use std::process::ExitCode;

use pipe::model::tokenizer::char_of;
use pipe::model::write::{Meta, Tensor, gguf};
use pipe_kernels::weights::TensorType;

const LAYERS: u64 = 3;
const HEADS: u64 = 4;
const KV_HEADS: u64 = 2;
const CONTEXT: u32 = 256;
const SEED: u64 = 0x7069_7065;

/// What distinguishes one toy from another.
pub struct Toy {
    pub width: u64,
    pub ffn: u64,
    /// Of layer 0's k; the other layers' is Q8_0.
    pub k: TensorType,
    pub q: TensorType,
    pub v: TensorType,
    pub o: TensorType,
    pub gate: TensorType,
    pub up: TensorType,
    pub down: TensorType,
}

/// The model in `pipelines/tiny.gguf`.
pub const TINY: Toy = Toy {
    width: 64,
    ffn: 128,
    k: TensorType::F32,
    q: TensorType::Q8_0,
    v: TensorType::F16,
    o: TensorType::BF16,
    gate: TensorType::Q4_1,
    up: TensorType::Q4_0,
    down: TensorType::Q8_0,
};

/// Wide enough for the types whose blocks are 256 weights, and with Q5_0 and Q5_1, which such files also hold.
pub const WIDE: Toy = Toy {
    width: 256,
    ffn: 512,
    k: TensorType::Q5_0,
    q: TensorType::Q4_K,
    v: TensorType::Q6_K,
    o: TensorType::Q5_1,
    gate: TensorType::Q4_K,
    up: TensorType::Q5_K,
    down: TensorType::Q6_K,
};

const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// Merges, best first, as a trainer would find them in English. `Ġ` is a space.
const MERGES: [(&str, &str); 61] = [
    ("Ġ", "t"),
    ("h", "e"),
    ("Ġ", "a"),
    ("i", "n"),
    ("r", "e"),
    ("o", "n"),
    ("Ġt", "he"),
    ("e", "r"),
    ("Ġ", "s"),
    ("a", "t"),
    ("Ġ", "w"),
    ("Ġ", "o"),
    ("e", "n"),
    ("Ġ", "c"),
    ("i", "t"),
    ("i", "s"),
    ("a", "n"),
    ("o", "r"),
    ("e", "s"),
    ("Ġ", "b"),
    ("e", "d"),
    ("Ġ", "f"),
    ("in", "g"),
    ("Ġ", "p"),
    ("o", "u"),
    ("Ġa", "n"),
    ("a", "l"),
    ("a", "r"),
    ("Ġt", "o"),
    ("Ġ", "m"),
    ("Ġo", "f"),
    ("Ġ", "in"),
    ("Ġ", "d"),
    ("Ġ", "h"),
    ("Ġan", "d"),
    ("i", "c"),
    ("l", "e"),
    ("Ġt", "h"),
    ("i", "on"),
    ("o", "m"),
    ("l", "l"),
    ("en", "t"),
    ("Ġ", "n"),
    ("Ġ", "l"),
    ("s", "t"),
    ("Ġ", "re"),
    ("v", "e"),
    ("Ġ", "e"),
    ("r", "o"),
    ("l", "y"),
    ("Ġb", "e"),
    ("Ġ", "g"),
    ("u", "s"),
    ("i", "m"),
    ("s", "e"),
    ("a", "s"),
    ("o", "l"),
    ("Ġ", "is"),
    ("c", "h"),
    ("o", "t"),
    ("Ġth", "at"),
];

const TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}\
<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// SplitMix64: small, well mixed, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A whole number in -limit..=limit.
    fn signed(&mut self, limit: i64) -> i64 {
        (self.next() % (2 * limit as u64 + 1)) as i64 - limit
    }

    /// f16 bits of a number in [2^exponent, 2^(exponent + 1)).
    fn scale(&mut self, exponent: i32) -> u16 {
        (((exponent + 15) as u16) << 10) | ((self.next() % 8) as u16) << 7
    }
}

/// Bits of `value`, which the format holds exactly.
fn f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    if value == 0.0 {
        return sign;
    }
    sign | ((((bits >> 23) & 0xff) as u16 + 15 - 127) << 10) | ((bits >> 13) & 0x3ff) as u16
}

fn bf16(value: f32) -> u16 {
    (value.to_bits() >> 16) as u16
}

/// `count` random weights with a standard deviation near 1/8, in the bytes of a stored type. Every value is
/// exact in its type, so no rounding takes part.
fn weights(r: &mut Random, ty: TensorType, count: u64) -> Vec<u8> {
    let mut out = Vec::new();
    match ty {
        TensorType::F32 => (0..count).for_each(|_| out.extend((r.signed(900) as f32 / 4096.0).to_le_bytes())),
        TensorType::F16 => {
            (0..count).for_each(|_| out.extend(f16(r.signed(900) as f32 / 4096.0).to_le_bytes()))
        }
        TensorType::BF16 => {
            (0..count).for_each(|_| out.extend(bf16(r.signed(112) as f32 / 512.0).to_le_bytes()))
        }
        TensorType::Q8_0 => (0..count / 32).for_each(|_| q8_0(r, -10, &mut out)),
        TensorType::Q4_0 => (0..count / 32).for_each(|_| {
            out.extend(r.scale(-6).to_le_bytes());
            out.extend((0..16).map(|_| r.next() as u8));
        }),
        TensorType::Q4_1 => (0..count / 32).for_each(|_| {
            out.extend(r.scale(-6).to_le_bytes());
            out.extend((r.scale(-3) | 0x8000).to_le_bytes());
            out.extend((0..16).map(|_| r.next() as u8));
        }),
        TensorType::Q5_0 => (0..count / 32).for_each(|_| {
            out.extend(r.scale(-7).to_le_bytes());
            out.extend((0..20).map(|_| r.next() as u8));
        }),
        TensorType::Q5_1 => (0..count / 32).for_each(|_| {
            out.extend(r.scale(-7).to_le_bytes());
            out.extend((r.scale(-3) | 0x8000).to_le_bytes());
            out.extend((0..20).map(|_| r.next() as u8));
        }),
        TensorType::Q4_K | TensorType::Q5_K => (0..count / 256).for_each(|_| {
            let five = ty == TensorType::Q5_K;
            out.extend(r.scale(if five { -12 } else { -11 }).to_le_bytes());
            out.extend(r.scale(-8).to_le_bytes());
            out.extend((0..if five { 172 } else { 140 }).map(|_| r.next() as u8));
        }),
        TensorType::Q6_K => (0..count / 256).for_each(|_| {
            out.extend((0..208).map(|_| r.next() as u8));
            out.extend(r.scale(-13).to_le_bytes());
        }),
    }
    out
}

fn q8_0(r: &mut Random, exponent: i32, out: &mut Vec<u8>) {
    out.extend(r.scale(exponent).to_le_bytes());
    out.extend((0..32).map(|_| r.signed(127) as i8 as u8));
}

/// A norm's gain near 1, or near 1 or -1 when there are two signs.
fn gain(r: &mut Random, signs: u64) -> f32 {
    let sign = if r.next().is_multiple_of(signs) { 1.0 } else { -1.0 };
    sign * (1.0 + r.signed(16) as f32 / 64.0)
}

fn tokens() -> Vec<String> {
    let mut tokens: Vec<String> = SPECIAL.map(String::from).into();
    tokens.extend((0..=255).map(|byte| char_of(byte).to_string()));
    tokens.extend(MERGES.map(|(left, right)| format!("{left}{right}")));
    tokens
}

/// Rows of tokens that would not print are an eighth as long, so that greedy answers are mostly letters.
fn embedding(r: &mut Random, tokens: &[String], width: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for (id, token) in tokens.iter().enumerate() {
        let printable = id >= SPECIAL.len() && token.chars().all(|c| c.is_ascii_graphic() || c == 'Ġ');
        for _ in 0..width / 32 {
            q8_0(r, if printable || token == "<|im_end|>" { -8 } else { -11 }, &mut out);
        }
    }
    out
}

/// The whole file of the tiny toy.
pub fn toy() -> Vec<u8> {
    let (meta, tensors) = parts(&TINY);
    gguf(&meta, &tensors)
}

/// What a toy's file is made of.
pub fn parts(toy: &Toy) -> (Vec<(String, Meta)>, Vec<Tensor>) {
    use TensorType::{F32, Q8_0};
    let (width, head_dim) = (toy.width, toy.width / HEADS);
    let mut r = Random(SEED);
    let tokens = tokens();
    let matrix = |r: &mut Random, name: String, ty, rows: u64, cols: u64| Tensor {
        name,
        ty,
        dims: vec![cols, rows],
        data: weights(r, ty, rows * cols),
    };
    let norm = |r: &mut Random, name: String, signs: u64| Tensor {
        name,
        ty: F32,
        dims: vec![width],
        data: (0..width).flat_map(|_| gain(r, signs).to_le_bytes()).collect(),
    };
    let mut tensors = vec![Tensor {
        name: "token_embd.weight".into(),
        ty: Q8_0,
        dims: vec![width, tokens.len() as u64],
        data: embedding(&mut r, &tokens, width),
    }];
    for layer in 0..LAYERS {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let k = if layer == 0 { toy.k } else { Q8_0 };
        tensors.push(norm(&mut r, name("attn_norm"), 1));
        tensors.push(matrix(&mut r, name("attn_q"), toy.q, width, width));
        tensors.push(matrix(&mut r, name("attn_k"), k, KV_HEADS * head_dim, width));
        tensors.push(matrix(&mut r, name("attn_v"), toy.v, KV_HEADS * head_dim, width));
        tensors.push(matrix(&mut r, name("attn_output"), toy.o, width, width));
        tensors.push(norm(&mut r, name("ffn_norm"), 1));
        tensors.push(matrix(&mut r, name("ffn_gate"), toy.gate, toy.ffn, width));
        tensors.push(matrix(&mut r, name("ffn_up"), toy.up, toy.ffn, width));
        tensors.push(matrix(&mut r, name("ffn_down"), toy.down, width, toy.ffn));
    }
    // Both signs: with a shared embedding table every token would otherwise predict itself.
    tensors.push(norm(&mut r, "output_norm.weight".into(), 2));
    (metadata(toy, tokens), tensors)
}

fn metadata(toy: &Toy, tokens: Vec<String>) -> Vec<(String, Meta)> {
    let number = |n: u64| Meta::U32(n as u32);
    let kinds = (0..tokens.len()).map(|id| if id < SPECIAL.len() { 3 } else { 1 }).collect();
    let merges = MERGES.map(|(left, right)| format!("{left} {right}")).into();
    let entries: Vec<(&str, Meta)> = vec![
        ("general.architecture", "llama".into()),
        ("general.name", "toy".into()),
        ("llama.block_count", number(LAYERS)),
        ("llama.context_length", Meta::U32(CONTEXT)),
        ("llama.embedding_length", number(toy.width)),
        ("llama.feed_forward_length", number(toy.ffn)),
        ("llama.attention.head_count", number(HEADS)),
        ("llama.attention.head_count_kv", number(KV_HEADS)),
        ("llama.attention.layer_norm_rms_epsilon", Meta::F32(1e-5)),
        ("llama.rope.freq_base", Meta::F32(10000.0)),
        ("llama.rope.dimension_count", number(toy.width / HEADS)),
        ("llama.vocab_size", number(tokens.len() as u64)),
        ("tokenizer.ggml.model", "gpt2".into()),
        ("tokenizer.ggml.pre", "smollm".into()),
        ("tokenizer.ggml.tokens", Meta::Strings(tokens)),
        ("tokenizer.ggml.token_type", Meta::I32s(kinds)),
        ("tokenizer.ggml.merges", Meta::Strings(merges)),
        ("tokenizer.ggml.bos_token_id", Meta::U32(1)),
        ("tokenizer.ggml.eos_token_id", Meta::U32(2)),
        ("tokenizer.ggml.add_bos_token", Meta::Bool(false)),
        ("tokenizer.chat_template", TEMPLATE.into()),
    ];
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: make_toy PATH");
        return ExitCode::from(2);
    };
    match std::fs::write(&path, toy()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}
