//! The binary: hands over to the command line.

/// A run makes many small values on several threads; the system's allocator spends a third of a warm run on them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(pipe::cli::main())
}
