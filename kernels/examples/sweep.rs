//! The exhaustive sweep: each of our functions over all 2^32 f32, its largest error, and a checksum of every bit;
//! exp and silu also in every implementation this CPU can run. Ends with 1 when anything differs from what the
//! library says of itself. Minutes a function; `math` has the results.
//!
//!     cargo run --release -p pipe-kernels --example sweep             # every function
//!     cargo run --release -p pipe-kernels --example sweep -- exp silu

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use pipe_kernels::Implementation;
use pipe_kernels::math::sweep::{FUNCTIONS, Function, Inputs};

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let known: Vec<&str> = FUNCTIONS.iter().map(|f| f.name).collect();
    if let Some(other) = wanted.iter().find(|w| !known.contains(&w.as_str())) {
        eprintln!("`{other}` is none of the functions: {}", known.join(", "));
        return ExitCode::from(2);
    }
    let chosen = FUNCTIONS.iter().filter(|f| wanted.is_empty() || wanted.iter().any(|w| w == f.name));
    // Every function, whether or not an earlier one failed.
    let failed = chosen.filter(|f| !sweep(f)).count();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Is everything as the library says?
fn sweep(function: &Function) -> bool {
    let (name, known) = (function.name, function.known.all);
    let found = function.judge(Inputs::All);
    let now = found.summary;
    println!(
        "{name}: at most {:.4} ulp, at {:e}; {} not nearest; checksum {:016x}",
        now.ulp, found.at, now.not_nearest, now.checksum
    );
    let mut good = now == known;
    if !good {
        println!(
            "{name} DIFFERS from what the library says: {:.4} ulp; {} not nearest; checksum {:016x}",
            known.ulp, known.not_nearest, known.checksum
        );
    }
    // The scalar form is what was judged.
    for implementation in Implementation::available().filter(|i| *i != Implementation::Scalar) {
        let Some(checksum) = function.checksum_of(implementation, Inputs::All) else { continue };
        let same = checksum == known.checksum;
        println!("{name}, {implementation}: {}", if same { "the same bits" } else { "OTHER BITS" });
        good &= same;
    }
    good
}
