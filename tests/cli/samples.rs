//! What probes keep, against the rows of a full trace and a plain computation of each rule.

use std::collections::BTreeMap;

use pipe::probe::{Elements, Feature, Layers};
use pipe_kernels::math;
use pipe_kernels::sampler::philox4x32;
use safetensors::{Dtype, SafeTensors};

use crate::probes::output;
use crate::space::Space;

/// Tensors of a file.
struct File(Vec<u8>);

impl File {
    fn shape(&self, name: &str) -> Vec<usize> {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().shape().to_vec()
    }

    /// Rows of the last axis.
    fn words(&self, name: &str, dtype: Dtype) -> Vec<Vec<u32>> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), dtype, "{name}");
        let width = *tensor.shape().last().unwrap();
        let words: Vec<u32> = tensor.data().as_chunks().0.iter().map(|w| u32::from_le_bytes(*w)).collect();
        words.chunks(width.max(1)).map(<[u32]>::to_vec).collect()
    }

    fn floats(&self, name: &str) -> Vec<Vec<f32>> {
        let floats = |row: Vec<u32>| row.into_iter().map(f32::from_bits).collect();
        self.words(name, Dtype::F32).into_iter().map(floats).collect()
    }

    fn doubles(&self, name: &str) -> Vec<f64> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::F64, "{name}");
        tensor.data().as_chunks().0.iter().map(|w| f64::from_le_bytes(*w)).collect()
    }

    fn positions(&self, probe: &str) -> Vec<usize> {
        let all = self.words(&format!("0/{probe}/positions"), Dtype::U32);
        all.into_iter().flatten().map(|position| position as usize).collect()
    }
}

fn bits(rows: &[Vec<f32>]) -> Vec<Vec<u32>> {
    rows.iter().map(|row| row.iter().map(|x| x.to_bits()).collect()).collect()
}

/// The toy asked with these probes, and its full trace: 32 tokens of prompt, 10 of answer, 9 of which went through.
fn run(probes: &str) -> (File, File, Space) {
    let space = Space::new();
    let keys = "max_tokens = 10\nstop = false\nlogits = true\ntrace = \"full\"\n";
    space.edit("tiny.toml", "max_tokens = 24\n", &format!("{keys}{probes}"));
    space.pipe(&["run", "tiny.toml"]).ok();
    let file = |name| File(output(&space, name));
    (file("probes.safetensors"), file("trace.safetensors"), space)
}

fn probe(name: &str, at: &str, rest: &str) -> String {
    format!("[steps.answer.probes.{name}]\nat = {at}\n{rest}\n")
}

#[test]
fn tokens_and_blocks_are_those_asked_for() {
    let mut probes = String::new();
    for (name, tokens) in
        [("all", "all"), ("last", "last"), ("prompt", "prompt"), ("answer", "answer"), ("fourth", "every 4")]
    {
        probes += &probe(name, "[\"*\"]", &format!("sample = {{ tokens = \"{tokens}\" }}"));
    }
    let (file, trace, space) = run(&probes);
    for (name, expected) in [
        ("all", (0..41).collect::<Vec<usize>>()),
        ("last", vec![31]),
        ("prompt", (0..32).collect()),
        ("answer", (32..41).collect()),
        ("fourth", (0..41).step_by(4).collect()),
    ] {
        assert_eq!(file.positions(name), expected);
        let traced = SafeTensors::deserialize(&trace.0).unwrap();
        let blocks = traced.names().into_iter().filter_map(|name| name.strip_prefix("0/"));
        let blocks: Vec<&str> = blocks.filter(|name| *name != "tokens" && *name != "digests").collect();
        assert_eq!(blocks.len(), 1 + 3 * 11);
        for block in blocks {
            let rows = trace.floats(&format!("0/{block}"));
            let rows: Vec<Vec<f32>> = expected.iter().map(|position| rows[*position].clone()).collect();
            assert_eq!(bits(&file.floats(&format!("0/{name}/{block}"))), bits(&rows), "{name} {block}");
        }
    }
    // What no trace has: the logits, which the step keeps for the last position of the prompt.
    let logits = File(output(&space, "logits.safetensors")).floats("logits");
    assert_eq!(bits(&file.floats("0/last/lm_head")), bits(&logits));
    assert_eq!(bits(&file.floats("0/all/lm_head")[31..32]), bits(&logits));
    assert_eq!(file.shape("0/all/final_norm"), [41, 64]);
}

#[test]
fn parts_are_cut_from_their_blocks() {
    let at = "[\"layer.*.qkv.*\", \"layer.*.rope.*\", \"layer.*.gate_up.*\", \"layer.*.attention.heads\"]";
    let (file, trace, _) = run(&probe("parts", at, ""));
    for layer in ["layer.00", "layer.01", "layer.02"] {
        let attention = trace.shape(&format!("0/{layer}/attention"))[1];
        let kv = (trace.shape(&format!("0/{layer}/qkv"))[1] - attention) / 2;
        let ffn = trace.shape(&format!("0/{layer}/swiglu"))[1];
        for (block, part, range) in [
            ("qkv", "q", 0..attention),
            ("qkv", "k", attention..attention + kv),
            ("qkv", "v", attention + kv..attention + 2 * kv),
            ("rope", "q", 0..attention),
            ("rope", "k", attention..attention + kv),
            ("gate_up", "gate", 0..ffn),
            ("gate_up", "up", ffn..2 * ffn),
        ] {
            let rows = trace.floats(&format!("0/{layer}/{block}"));
            let rows: Vec<Vec<f32>> = rows.iter().map(|row| row[range.clone()].to_vec()).collect();
            assert_eq!(bits(&file.floats(&format!("0/parts/{layer}/{block}.{part}"))), bits(&rows), "{part}");
        }
        let name = format!("0/parts/{layer}/attention.heads");
        let shape = file.shape(&name);
        assert_eq!(shape[1] * shape[2], attention);
        let whole: Vec<f32> = trace.floats(&format!("0/{layer}/attention")).concat();
        assert_eq!(bits(&[file.floats(&name).concat()]), bits(&[whole]));
    }
}

/// The blocks' queries and keys once more, with the operations of docs/NUMERICS.md.
#[test]
fn attention_weights_follow_from_queries_and_keys() {
    let at = "\"layer.*.attention.weights\"";
    let rest = r#"features = ["rms", "l0", "entropy", "renyi2", "sink_mass", "previous_token", "duplicate_token", "induction"]"#;
    let probes = probe("all", at, rest)
        + &probe("sixth", at, "sample = { tokens = \"every 6\", elements = { stride = 3 } }")
        + &probe("top", at, "sample = { tokens = \"prompt\", elements = { top = 4 } }");
    let (file, trace, _) = run(&probes);
    let tokens = trace.words("0/tokens", Dtype::U32).concat();
    for layer in ["layer.00", "layer.01", "layer.02"] {
        let rope = trace.floats(&format!("0/{layer}/rope"));
        let name = format!("0/all/{layer}/attention.weights");
        let [positions, heads, seen] = file.shape(&name)[..] else { panic!() };
        assert_eq!((positions, seen), (41, 41));
        let attention = trace.shape(&format!("0/{layer}/attention"))[1];
        let dim = attention / heads;
        let group = heads / ((rope[0].len() - attention) / dim);
        let weights = |position: usize, head: usize| -> Vec<f32> {
            let q = &rope[position][head * dim..(head + 1) * dim];
            let at = attention + head / group * dim;
            let score = |t: usize| (0..dim).fold(0.0f32, |sum, d| q[d].mul_add(rope[t][at + d], sum));
            let scores: Vec<f32> = (0..=position).map(|t| score(t) * (1.0 / (dim as f32).sqrt())).collect();
            let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let p: Vec<f32> = scores.iter().map(|s| math::exp(s - max)).collect();
            let mut sums = [0.0f32; 16];
            p.iter().enumerate().for_each(|(i, p)| sums[i % 16] += p);
            for half in [8, 4, 2, 1] {
                (0..half).for_each(|i| sums[i] += sums[i + half]);
            }
            p.iter().map(|p| p / sums[0]).collect()
        };
        let padded = |mut row: Vec<f32>, width: usize| {
            row.resize(width, 0.0);
            row
        };
        let of = |positions: Vec<usize>| {
            positions.into_iter().flat_map(move |position| (0..heads).map(move |head| (position, head)))
        };
        let expected: Vec<Vec<f32>> =
            of((0..41).collect()).map(|(position, head)| padded(weights(position, head), 41)).collect();
        assert_eq!(bits(&file.floats(&name)), bits(&expected), "{layer}");
        let rms = of((0..41).collect()).map(|(p, h)| pipe::features::row::rms(&weights(p, h)));
        assert_eq!(file.doubles(&format!("{name}@rms")), rms.collect::<Vec<f64>>());
        assert_eq!(file.shape(&format!("{name}@l0")), [41, heads]);
        for (feature, formula) in HEADS {
            let found = file.doubles(&format!("{name}@{feature}"));
            let expected = of((0..41).collect()).map(|(p, h)| formula(&weights(p, h), &tokens));
            assert_eq!(found, expected.collect::<Vec<f64>>(), "{feature}");
            assert!(found.iter().any(|x| *x > 0.0), "{feature} says nothing");
        }

        // Every third of the 37 positions that the last one taken, 36, sees.
        let name = format!("0/sixth/{layer}/attention.weights");
        let third = |row: Vec<f32>| row.into_iter().step_by(3).collect::<Vec<f32>>();
        let expected: Vec<Vec<f32>> = of((0..41).step_by(6).collect())
            .map(|(position, head)| third(padded(weights(position, head), 37)))
            .collect();
        assert_eq!(bits(&file.floats(&name)), bits(&expected), "{layer}");

        let name = format!("0/top/{layer}/attention.weights");
        let (values, indices) = (file.floats(&name), file.words(&format!("{name}#indices"), Dtype::U32));
        for (row, (position, head)) in of((0..32).collect()).enumerate() {
            let top = largest(&padded(weights(position, head), 32), 4);
            assert_eq!(indices[row], top.iter().map(|(i, _)| *i).collect::<Vec<u32>>());
            assert_eq!(bits(&values[row..=row]), bits(&[top.into_iter().map(|(_, x)| x).collect()]));
        }
    }
}

/// A number of a position's weights and of the transcript.
type Formula = fn(&[f32], &[u32]) -> f64;

/// Features of heads, each written as its definition reads.
const HEADS: [(&str, Formula); 6] = [
    ("entropy", |p, _| {
        p.iter()
            .filter(|p| **p > 0.0)
            .fold(0.0, |sum, p| sum - f64::from(*p) * math::double::ln(f64::from(*p)))
    }),
    ("renyi2", |p, _| {
        let squares = p.iter().fold(0.0, |sum, p| sum + f64::from(*p) * f64::from(*p));
        if squares < 1.0 { -math::double::ln(squares) } else { 0.0 }
    }),
    ("sink_mass", |p, _| p[0].into()),
    ("previous_token", |p, _| if p.len() > 1 { p[p.len() - 2].into() } else { 0.0 }),
    ("duplicate_token", |p, tokens| {
        let t = p.len() - 1;
        (0..t).filter(|s| tokens[*s] == tokens[t]).fold(0.0, |sum, s| sum + f64::from(p[s]))
    }),
    ("induction", |p, tokens| {
        let t = p.len() - 1;
        (1..=t).filter(|s| tokens[s - 1] == tokens[t]).fold(0.0, |sum, s| sum + f64::from(p[s]))
    }),
];

/// The largest by magnitude, by sorting everything; a stable sort leaves equals in the order of their indices.
fn largest(row: &[f32], n: usize) -> Vec<(u32, f32)> {
    let mut all: Vec<(u32, f32)> = row.iter().enumerate().map(|(i, x)| (i as u32, *x)).collect();
    all.sort_by(|a, b| b.1.abs().partial_cmp(&a.1.abs()).unwrap());
    all.truncate(n);
    all
}

#[test]
fn elements_are_chosen_by_their_rules() {
    let at = "[\"layer.*.down\", \"layer.*.swiglu\"]";
    let all = "features = [\"rms\", \"outlier_ratio\", \"kurtosis\", \"l0\", \"sparsity\"]";
    let seed = 0xfedc_ba98_7654_3210u64;
    let probes = probe("none", at, &format!("sample = {{ elements = \"none\" }}\n{all}"))
        + &probe("top", at, "sample = { elements = { top = 6 } }")
        + &probe("stride", at, "sample = { elements = { stride = 10 } }")
        + &probe("drawn", at, &format!("sample = {{ elements = {{ reservoir = 6, seed = {seed} }} }}"))
        + &probe("again", at, &format!("sample = {{ elements = {{ reservoir = 6, seed = {} }} }}", seed + 1))
        + &probe("random", at, &format!("sample = {{ elements = {{ projection = 6, seed = {seed} }} }}"));
    let (file, trace, _) = run(&probes);
    let mut drawn = BTreeMap::new();
    for block in ["layer.00/down", "layer.02/down", "layer.01/swiglu"] {
        let rows = trace.floats(&format!("0/{block}"));
        let width = rows[0].len();
        let of = |probe: &str| format!("0/{probe}/{block}");
        assert!(SafeTensors::deserialize(&file.0).unwrap().tensor(&of("none")).is_err());
        for (feature, of_row) in [
            (Feature::Rms, &pipe::features::row::rms as &dyn Fn(&[f32]) -> f64),
            (Feature::OutlierRatio, &pipe::features::row::outlier_ratio),
            (Feature::Kurtosis, &pipe::features::row::kurtosis),
            (Feature::L0, &|row| pipe::features::row::l0(row, 0.1) as f64),
            (Feature::Sparsity, &|row| pipe::features::row::sparsity(row, 0.1)),
        ] {
            let expected: Vec<f64> = rows.iter().map(|row| of_row(row)).collect();
            assert_eq!(file.doubles(&format!("{}@{}", of("none"), feature.name())), expected);
        }

        let top: Vec<_> = rows.iter().map(|row| largest(row, 6)).collect();
        let values: Vec<Vec<f32>> = top.iter().map(|row| row.iter().map(|(_, x)| *x).collect()).collect();
        let indices: Vec<Vec<u32>> = top.iter().map(|row| row.iter().map(|(i, _)| *i).collect()).collect();
        assert_eq!(bits(&file.floats(&of("top"))), bits(&values));
        assert_eq!(file.words(&format!("{}#indices", of("top")), Dtype::U32), indices);

        for probe in ["stride", "drawn", "again"] {
            let indices = file.words(&format!("{}#indices", of(probe)), Dtype::U32).concat();
            let expected: Vec<Vec<f32>> =
                rows.iter().map(|row| indices.iter().map(|i| row[*i as usize]).collect()).collect();
            assert_eq!(bits(&file.floats(&of(probe))), bits(&expected));
            assert!(indices.windows(2).all(|pair| pair[0] < pair[1]));
            drawn.insert((probe, block), indices);
        }
        assert_eq!(drawn[&("stride", block)], (0..width as u32).step_by(10).collect::<Vec<u32>>());
        assert_ne!(drawn[&("drawn", block)], drawn[&("again", block)]);

        // Bit k of the stream of signs belongs to output k / width and element k % width.
        let minus = |k: usize| {
            let counter = [(k / 128) as u32, 0, width as u32, 3];
            philox4x32(counter, [seed as u32, (seed >> 32) as u32])[k % 128 / 32] >> (k % 32) & 1 == 1
        };
        let output = |row: &Vec<f32>, j: usize| {
            let signed = |(i, x): (usize, &f32)| f64::from(if minus(j * width + i) { -x } else { *x });
            (row.iter().enumerate().map(signed).fold(0.0, |sum, x| sum + x) / 6f64.sqrt()) as f32
        };
        let expected: Vec<Vec<f32>> =
            rows.iter().map(|row| (0..6).map(|j| output(row, j)).collect()).collect();
        assert_eq!(bits(&file.floats(&of("random"))), bits(&expected));
    }
    // One draw for rows of one width.
    assert_eq!(drawn[&("drawn", "layer.00/down")], drawn[&("drawn", "layer.02/down")]);
    assert_ne!(drawn[&("drawn", "layer.00/down")], drawn[&("drawn", "layer.01/swiglu")]);
}

#[test]
fn layers_are_those_left_by_the_rule_and_the_file_says_what_it_holds() {
    let sample = |layers: &str| format!("sample = {{ layers = {layers} }}");
    let probes = probe("second", "[\"embed\", \"layer.*.down\", \"layer.1.qkv\"]", &sample("\"every 2\""))
        + &probe("drawn", "\"layer.*.attention.heads\"", &sample("{ stratified = 2, seed = 4 }"));
    let (file, _, _) = run(&probes);
    let (_, metadata) = SafeTensors::read_metadata(&file.0).unwrap();
    let fields = metadata.metadata().clone().unwrap();
    assert_eq!((&fields["format"][..], &fields["spec"][..]), ("pipe/probes@1", "f32@1"));
    let probes: BTreeMap<String, pipe::probe::Probe> = serde_json::from_str(&fields["probes"]).unwrap();
    assert_eq!(probes["second"].layers, Layers::Every(2));
    assert_eq!(probes["drawn"].layers, Layers::Stratified { n: 2, seed: 4 });
    assert_eq!(probes["drawn"].elements, Elements::All);
    let axes: BTreeMap<String, Vec<String>> = serde_json::from_str(&fields["axes"]).unwrap();
    let second: Vec<&str> = axes.keys().filter_map(|name| name.strip_prefix("second/")).collect();
    assert_eq!(second, ["embed", "layer.00/down", "layer.02/down"]);
    let drawn: Vec<&String> = axes.keys().filter(|name| name.starts_with("drawn/")).collect();
    // Strata are layer 0, and layers 1 and 2.
    assert_eq!((drawn.len(), drawn[0].as_str()), (2, "drawn/layer.00/attention.heads"));
    assert_eq!(axes[drawn[0]], ["position", "head", "element"]);
    for (name, axes) in axes {
        assert_eq!(file.shape(&format!("0/{name}")).len(), axes.len());
    }
}
