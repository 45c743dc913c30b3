//! The binary: hands over to the command line.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(pipe::cli::main())
}
