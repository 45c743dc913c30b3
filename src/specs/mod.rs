//! The versions of a model's arithmetic, side by side: how fast, how near to f32, how large. Measuring speed and
//! memory needs processes and is the command line's; what the figures mean is here.

mod card;
mod fidelity;
pub mod memory;
pub mod pareto;
mod picture;
mod text;

pub use card::{Against, By, Card, Row, TextFacts, size};
pub use fidelity::{Compared, Fidelity, FidelityError, Pair, RowError, compare, walk};
pub use memory::Memory;
pub use picture::svg;
pub use text::{PINNED, WINDOW_MAX, windows};
