//! What a trace promises: one set of bytes however the engine was driven, and a file that reads back whatever
//! it holds.

use std::sync::LazyLock;

use pipe_kernels::{
    Block, Engine, Implementation, KvCache, Logits, PackedModel, Slice, Spec, Want, Width, pack,
};
use pipe_store::{Digest, Store, StoreError};
use proptest::prelude::*;

use super::{Collector, Layout, Part, Spool, Trace, digest};
use crate::model::{Bytes, Model, ModelFile};
use crate::recipe::op::TraceLevel;

static PACKED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let bytes = include_bytes!("../../pipelines/tiny.gguf");
    let model = Model::open(&[ModelFile::new("tiny.gguf", Bytes::new(bytes.to_vec()))]).unwrap();
    let mut packed = Vec::new();
    pack(&model.weights().unwrap(), &model.geometry(), Width::F32.into(), &mut packed).unwrap();
    packed
});

fn tokens(seed: u32, count: u32) -> Vec<u32> {
    (0..count).map(|i| (seed * 97 + i * i * 7 + i * 13) % 320).collect()
}

/// The artifact of these prompts, each fed in pieces of `chunk` tokens, all of them side by side, the last token
/// of each not fed at all.
fn artifact(level: TraceLevel, prompts: &[Vec<u32>], chunk: usize, threads: usize) -> Vec<u8> {
    let model = PackedModel::open(&PACKED, Spec::F32).unwrap();
    let engine = Engine::new(threads, Implementation::detect()).unwrap();
    let layout = Layout::new(level, &model.geometry);
    let store = Store::memory();
    let record = layout.kept_bytes();
    let spool = (record > 0).then(|| Spool::new(Some(store.stage().unwrap()), record));
    let mut collector = Collector::new(layout, prompts.len(), spool);
    let mut caches: Vec<KvCache> = prompts.iter().map(|_| KvCache::new(&model.geometry)).collect();
    let mut logits = Logits::new();
    loop {
        let (mut parts, mut batch) = (Vec::new(), Vec::new());
        for (prompt, (tokens, cache)) in prompts.iter().zip(&mut caches).enumerate() {
            let start = cache.len();
            let tokens = &tokens[start..(start + chunk).min(tokens.len() - 1)];
            if !tokens.is_empty() {
                parts.push(Part { prompt, start, count: tokens.len() });
                batch.push(Slice { cache, tokens, want: Want::None });
            }
        }
        if parts.is_empty() {
            break;
        }
        let forward = |tap: pipe_kernels::Tap<'_>| -> Result<(), StoreError> {
            engine.observed(&model, &mut batch, &mut logits, Some(tap)).unwrap();
            Ok(())
        };
        collector.observe(&parts, forward).unwrap();
    }
    let mut file = Vec::new();
    collector.write(&mut file, "f32@1", prompts).unwrap();
    file
}

#[test]
fn a_trace_does_not_tell_how_it_was_made() {
    let prompts = [tokens(1, 40), tokens(2, 1), tokens(3, 17)];
    for level in TraceLevel::ALL {
        let one = artifact(level, &prompts, 64, 1);
        for (chunk, threads) in [(1, 1), (1, 2), (7, 3), (16, 2), (64, 3)] {
            assert!(artifact(level, &prompts, chunk, threads) == one, "{level:?}, {chunk}, {threads}");
        }
    }
}

/// What went to the file and what still waits in memory, whatever the lengths in which it came.
#[test]
fn a_spool_gives_back_every_record() {
    const RECORD: usize = 1000;
    let store = Store::memory();
    let record = |i: usize| vec![(i * 7 + i / 256) as u8; RECORD];
    for counts in [vec![1; 20], vec![3000; 7], vec![1, 4999, 1, 2500, 2500, 30]] {
        for file in [None, Some(store.stage().unwrap())] {
            let mut spool = Spool::new(file, RECORD);
            let mut firsts = 0;
            for &count in &counts {
                let bytes: Vec<u8> = (firsts..firsts + count).flat_map(record).collect();
                assert_eq!(spool.append(&bytes).unwrap(), firsts);
                firsts += count;
            }
            let records = spool.read().unwrap();
            for i in 0..firsts {
                assert!(records.part(i, 10, RECORD - 10) == &record(i)[10..], "record {i} of {counts:?}");
            }
        }
    }
}

#[test]
fn it_reads_back_as_what_the_page_says() {
    let prompts = [tokens(1, 12), tokens(2, 5)];
    let full = artifact(TraceLevel::Full, &prompts, 5, 2);
    let full = Trace::open(&full).unwrap();
    for level in TraceLevel::ALL {
        let bytes = artifact(level, &prompts, 5, 2);
        let trace = Trace::open(&bytes).unwrap();
        assert_eq!((trace.level, trace.spec.as_str()), (level, "f32@1"));
        let name = |block: &Block| block.to_string();
        match level {
            TraceLevel::Digests => assert_eq!(
                trace.blocks.iter().map(name).collect::<Vec<_>>(),
                ["embed", "layer.00/ffn.residual", "layer.01/ffn.residual", "layer.02/ffn.residual"]
            ),
            _ => assert_eq!(trace.blocks.len(), 1 + 3 * 11),
        }
        for (i, prompt) in trace.prompts.iter().enumerate() {
            assert_eq!(prompt.tokens, prompts[i]);
            assert_eq!(prompt.computed, prompts[i].len() - 1);
            let mut positions = Vec::new();
            for (position, token) in prompts[i].iter().enumerate() {
                let mut bytes = token.to_le_bytes().to_vec();
                for (slot, block) in trace.blocks.iter().enumerate() {
                    let at = full.blocks.iter().position(|b| b == block).unwrap();
                    let row = full.prompts[i].row(position, at);
                    let digest = prompt.digest(position, slot);
                    assert_eq!(digest, row.map(Digest::of), "{block} at {position}");
                    let kept = match level {
                        TraceLevel::Digests | TraceLevel::Blocks => false,
                        TraceLevel::Layers => *block == Block::Embed || block.kind() == "ffn.residual",
                        TraceLevel::Full => true,
                    };
                    assert_eq!(prompt.row(position, slot), row.filter(|_| kept));
                    bytes.extend(digest.iter().flat_map(|digest| digest.0));
                }
                positions.extend(Digest::of(&bytes).0);
            }
            assert_eq!(prompt.root(), Digest::of(&positions));
        }
    }
}

/// Golden values. If one changes, so does every trace there is: that takes a new format and a new op version.
#[test]
fn golden_digests() {
    let rows = [Digest([1; 32]), Digest([2; 32])];
    assert_eq!(
        digest::position(7, &rows).to_string(),
        "65022359f0646a6278401bd762a7fadf4ef8a828af260688bbe881c82f1d52e3"
    );
    assert_eq!(
        digest::root([7, 8], &rows, 2).to_string(),
        "dff1694d5677f549ba3bd2cda593a65ebaecaf88627a9adb5194a00e643ab0ba"
    );
    let bytes = artifact(TraceLevel::Blocks, &[tokens(1, 20)], 64, 1);
    assert_eq!(
        Trace::open(&bytes).unwrap().prompts[0].root().to_string(),
        "d690f4614731d0095ab64398477d556e39e6ff02a12b11a0401cea1b666e1ac9"
    );
}

fn flipped(mut bytes: Vec<u8>, changes: &[(usize, u8)]) -> Vec<u8> {
    let length = bytes.len();
    for (at, value) in changes {
        bytes[at % length] = *value;
    }
    bytes
}

static FILE: LazyLock<Vec<u8>> =
    LazyLock::new(|| artifact(TraceLevel::Layers, &[tokens(1, 6), tokens(2, 3)], 9, 1));

/// Everything that can be asked of a trace, whatever it says.
fn exercise(bytes: &[u8]) {
    let Ok(trace) = Trace::open(bytes) else { return };
    for prompt in &trace.prompts {
        for position in [0, 1, 5, prompt.computed, usize::MAX / 2, usize::MAX] {
            for slot in [0, 1, trace.blocks.len() - 1, trace.blocks.len(), usize::MAX] {
                let (digest, row) = (prompt.digest(position, slot), prompt.row(position, slot));
                assert!(position < prompt.computed || digest.is_none());
                assert!(slot < trace.blocks.len() || (digest, row) == (None, None));
            }
        }
        prompt.root();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_trace_or_an_error(
        header in proptest::collection::vec((0usize..1200, any::<u8>()), 0..4),
        all in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..3),
        cut in proptest::option::of(any::<usize>()),
    ) {
        let mut bytes = flipped(flipped(FILE.clone(), &header), &all);
        if let Some(cut) = cut {
            bytes.truncate(cut % bytes.len());
        }
        exercise(&bytes);
    }

    #[test]
    fn other_numbers_in_the_header_are_a_trace_or_an_error(
        which in any::<usize>(),
        number in prop_oneof![Just("0".to_owned()), Just("18446744073709551615".into()), "[0-9]{1,12}"],
    ) {
        let length = u64::from_le_bytes(FILE[..8].try_into().unwrap()) as usize;
        let header = String::from_utf8(FILE[8..8 + length].to_vec()).unwrap();
        let numbers: Vec<usize> = header
            .char_indices()
            .filter(|(i, c)| c.is_ascii_digit() && !header.as_bytes()[i - 1].is_ascii_digit())
            .map(|(i, _)| i)
            .collect();
        let at = numbers[which % numbers.len()];
        let end = at + header[at..].find(|c: char| !c.is_ascii_digit()).unwrap();
        let header = format!("{}{number}{}", &header[..at], &header[end..]);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(&FILE[8 + length..]);
        exercise(&bytes);
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let length = u64::from_le_bytes(FILE[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(FILE[8..8 + length].to_vec()).unwrap();
    for (from, to, said) in [
        ("pipe/trace@1", "pipe/trace@2", "its format is `pipe/trace@2`; this pipe reads pipe/trace@1"),
        (
            "\"layers\"",
            "\"lovers\"",
            "its level is `lovers`; this pipe reads digests, blocks, layers or full",
        ),
        ("\"layers\"", "\"blocks\"", "it has 12 tensors where 4 belong to its prompts"),
        ("\"spec\"", "\"spek\"", "its metadata has no `spec`"),
        ("layer.01/qkv", "layer.00/qkv", "its list of blocks: it is empty, or names a block twice"),
        ("1/digests", "1/digestz", "it has no tensor `1/digests`"),
        ("[3]", "[2]", "not a safetensors file"),
    ] {
        assert!(header.contains(from), "{from}");
        let mut bytes = FILE[..8].to_vec();
        bytes.extend(header.replace(from, to).as_bytes());
        bytes.extend(&FILE[8 + length..]);
        let error = Trace::open(&bytes).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
}
