//! Models as users bring them: real files, toy files, damaged files. One binary, so that it links once.

#[allow(dead_code)]
#[path = "../../examples/make_toy.rs"]
mod make_toy;

mod chat;
mod damaged_folder;
mod damaged_gguf;
mod folder;
mod mutated;
mod real;
mod refused;
mod support;
mod tokens;
mod toy;
