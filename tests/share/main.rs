//! What leaves a store and comes into another: signed, published, fetched, derived again, and every way to cheat.

#[path = "../cli/space.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod space;

mod chain;
mod forge;
mod inside;
mod kept;
mod node;
mod nodes;
mod reproduce;
mod tampering;
