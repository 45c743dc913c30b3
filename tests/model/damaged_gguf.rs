//! GGUF files that are cut off or lie about a count, a length, an offset, a type. Each is an error that names
//! the field and the byte; none panics or allocates what the lie asks for.

use pipe::model::write::{Meta, Tensor};
use pipe::model::{Bytes, Model, ModelFile};
use pipe_kernels::weights::TensorType;

use crate::support::{Parts, exercise, open};

/// A number in the header that something else depends on.
struct Field {
    at: usize,
    width: usize,
}

/// Finds every count, length, type, rank, dimension and offset by walking the format independently.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    fields: Vec<Field>,
}

impl Walk<'_> {
    fn number(&mut self, width: usize) -> usize {
        self.fields.push(Field { at: self.at, width });
        let mut le = [0; 8];
        le[..width].copy_from_slice(&self.bytes[self.at..self.at + width]);
        self.at += width;
        u64::from_le_bytes(le) as usize
    }

    fn string(&mut self) {
        self.at += self.number(8);
    }

    fn value(&mut self, ty: usize) {
        match ty {
            8 => self.string(),
            9 => {
                let items = self.number(4);
                for i in 0..self.number(8) {
                    self.value(items);
                    // One item of a long array is like another.
                    if i % 16 != 0 && items == 8 {
                        self.fields.pop();
                    }
                }
            }
            7 => self.at += 1,
            // The toy's other values are all four bytes.
            _ => self.at += 4,
        }
    }
}

fn fields(bytes: &[u8]) -> Vec<Field> {
    let mut w = Walk { bytes, at: 4, fields: Vec::new() };
    w.number(4);
    let (tensors, entries) = (w.number(8), w.number(8));
    for _ in 0..entries {
        w.string();
        let ty = w.number(4);
        w.value(ty);
    }
    for _ in 0..tensors {
        w.string();
        for _ in 0..w.number(4) {
            w.number(8);
        }
        w.number(4);
        w.number(8);
    }
    w.fields
}

#[test]
fn the_undamaged_toy_is_fine() {
    exercise(&[ModelFile::new("toy.gguf", Bytes::new(Parts::toy().bytes()))]).unwrap();
}

#[test]
fn cut_off_anywhere() {
    let bytes = Parts::toy().bytes();
    let header = fields(&bytes).last().unwrap().at + 8;
    // The last tensor is 256 bytes and ends the file, so one byte less is already too few.
    let data = (header..bytes.len()).step_by(911).chain([bytes.len() - 1]);
    let edges = fields(&bytes).into_iter().flat_map(|f| [f.at, f.at + 1, f.at + f.width - 1, f.at + f.width]);
    for length in (0..100).chain(edges).chain(data) {
        let error = open(bytes[..length].to_vec()).unwrap_err().to_string();
        assert!(error.contains("(at byte "), "{length}: {error}");
    }
    let error = open(bytes[..header - 3].to_vec()).unwrap_err().to_string();
    let expected = format!(
        "toy.gguf: offset of tensor `output_norm.weight` (at byte {}): the file ends early: 8 bytes needed, 5 left; \
         download it again",
        header - 8
    );
    assert_eq!(error, expected);
}

#[test]
fn every_number_may_lie() {
    let bytes = Parts::toy().bytes();
    for Field { at, width } in fields(&bytes) {
        for lie in [0, 1, 31, 1 << 31, 1 << 40, (1 << 63) - 1, u64::MAX - 7, u64::MAX] {
            let mut bytes = bytes.clone();
            bytes[at..at + width].copy_from_slice(&lie.to_le_bytes()[..width]);
            // A small number may be harmless or even the true one; the largest never is.
            let outcome = open(bytes);
            assert!(lie != u64::MAX || outcome.is_err(), "byte {at} set to {lie:x}");
        }
    }
}

/// The error after overwriting `with` where `what` first stands, moved by `by`.
fn overwritten(what: &[u8], by: usize, with: &[u8]) -> String {
    let mut bytes = Parts::toy().bytes();
    let at = bytes.windows(what.len()).position(|w| w == what).unwrap() + by;
    bytes[at..at + with.len()].copy_from_slice(with);
    let error = open(bytes).unwrap_err().to_string();
    assert!(error.contains("(at byte "), "{error}");
    error
}

#[test]
fn lies_are_named() {
    // After a tensor's name: rank (4), dimensions (8 each), type (4), offset (8).
    let (name, len) = (b"blk.1.attn_q.weight", 19);
    let (last, last_len) = (b"output_norm.weight", 18);
    let far = [0xe0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let cases = [
        (overwritten(b"GGUF", 0, b"GGML"), "not a GGUF file: it starts with [47, 47, 4d, 4c]"),
        (overwritten(b"GGUF", 4, &[1, 0, 0, 0]), "GGUF version 1 is not supported; versions 2 and 3 are"),
        (overwritten(b"GGUF", 4, &[0, 0, 0, 3]), "the file is big-endian"),
        (
            overwritten(b"GGUF", 8, &[0xff; 8]),
            "tensor count (at byte 8): a count of 18446744073709551615 cannot be",
        ),
        (
            overwritten(b"GGUF", 16, &[0xff; 8]),
            "metadata count (at byte 16): a count of 18446744073709551615",
        ),
        (overwritten(b"general.name", 12, &[13]), "type of metadata `general.name`"),
        (overwritten(b"tokenizer.ggml.tokens", 25, &[9]), "arrays of arrays are not supported"),
        (
            overwritten(b"tokenizer.ggml.tokens", 31, &[16]),
            "`tokenizer.ggml.tokens` (at byte 628): a count of 1048896",
        ),
        (overwritten(b"tokenizer.ggml.add_bos_token", 32, &[2]), "a bool must be 0 or 1, not 2"),
        (overwritten(b"general.name", 0, &[0xff]), "key of metadata entry 1"),
        (overwritten(name, 0, b"blk.0"), "tensor `blk.0.attn_q.weight`"),
        (overwritten(name, len, &[5]), "a tensor has 1 to 4 dimensions, not 5"),
        (overwritten(name, len + 4, &[0; 8]), "dimensions [0, 64] are empty or overflow"),
        (overwritten(name, len + 4, &[33]), "a row of 33 weights is no whole number of Q8_0 blocks of 32"),
        (overwritten(name, len + 12, &[0xff; 8]), "are empty or overflow"),
        (overwritten(name, len + 20, &[12]), "a row of 64 weights is no whole number of Q4_K blocks of 256"),
        (
            overwritten(name, len + 20, &[10]),
            "stored as Q2_K, which cannot be read; F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, BF16 can",
        ),
        (overwritten(name, len + 20, &[99]), "stored as type number 99, which cannot be read"),
        (overwritten(name, len + 24, &[1]), "is no multiple of the alignment 32"),
        (overwritten(name, len + 24, &[0; 8]), "its bytes overlap those of `token_embd.weight`"),
        (overwritten(last, last_len + 16, &far), "reach beyond the tensor data"),
        (overwritten(last, last_len + 16, &[0, 0, 0, 1]), "its 256 bytes at offset 16777216 reach beyond"),
    ];
    for (error, expected) in cases {
        assert!(error.contains(expected), "expected {expected:?} in: {error}");
    }
}

#[test]
fn nothing_stands_twice() {
    let mut parts = Parts::toy();
    parts.meta.push(("general.name".into(), "again".into()));
    let error = parts.open().unwrap_err().to_string();
    assert!(
        error.contains("metadata `general.name`") && error.contains("stands twice; first at byte 69"),
        "{error}"
    );

    let mut parts = Parts::toy();
    let copy: Tensor = parts.tensors[0].clone();
    parts.tensors.push(copy);
    let error = parts.open().unwrap_err().to_string();
    assert!(error.contains("tensor `token_embd.weight`") && error.contains("stands twice"), "{error}");
}

#[test]
fn alignment_is_checked_and_obeyed() {
    for bad in [0, 3, 4, 1 << 17] {
        let mut parts = Parts::toy();
        parts.set("general.alignment", Meta::U32(bad));
        let error = parts.open().unwrap_err().to_string();
        assert!(error.contains("must be a power of two between 8 and 65536"), "{error}");
    }
    // The writer aligns to 32; a reader told of 8192 finds offsets that do not fit.
    let mut parts = Parts::toy();
    parts.set("general.alignment", Meta::U32(8192));
    let error = parts.open().unwrap_err().to_string();
    assert!(error.contains("is no multiple of the alignment 8192"), "{error}");
}

#[test]
fn version_2_is_read() {
    let mut bytes = Parts::toy().bytes();
    bytes[4] = 2;
    assert_eq!(open(bytes).unwrap().describe().unwrap().format, "GGUF v2");
}

#[test]
fn views_borrow_the_file() {
    let file = ModelFile::new("toy.gguf", Bytes::new(Parts::toy().bytes()));
    let inside = file.bytes.as_ptr_range();
    let model = Model::open(std::slice::from_ref(&file)).unwrap();
    let weights = model.weights().unwrap();
    for view in [weights.embed, weights.final_norm, weights.layers[2].down] {
        assert!(inside.contains(&view.data.as_ptr()));
    }
    assert_eq!(weights.layers[2].down.ty, TensorType::Q8_0);
}
