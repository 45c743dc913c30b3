//! Any bytes as a GGUF file: the header, and everything a model is asked for afterwards.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipe::model::gguf::Header;
use pipe::model::{Bytes, Model, ModelFile};

fuzz_target!(|data: &[u8]| {
    let Ok(header) = Header::parse(data) else { return };
    // What the header promises must hold: every tensor lies inside the file.
    for tensor in &header.tensors {
        let _ = &data[tensor.data.clone()];
    }
    let Ok(model) = Model::open(&[ModelFile::new("fuzz.gguf", Bytes::new(data.to_vec()))]) else { return };
    model.weights().expect("an opened model has all its tensors");
    let _ = model.describe();
    let _ = model.detokenizer();
    let _ = model.tokenizer().map(|t| t.encode("a 1 <|x|>"));
});
