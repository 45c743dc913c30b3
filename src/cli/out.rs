//! The two streams: results on stdout, everything else on stderr. A reader that went away ends the program quietly.

use std::io::{self, IsTerminal, Write};

use super::error::{CliError, Exit};

/// How to speak.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    pub json: bool,
    pub quiet: bool,
    /// No colour and no bars, whatever the terminal can do.
    pub plain: bool,
}

impl Out {
    /// One line of results.
    pub fn line(&self, text: impl AsRef<str>) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_ref().as_bytes()).and_then(|()| stdout.write_all(b"\n")).map_err(closed)
    }

    /// A value as one line of JSON.
    pub fn value<T: serde::Serialize>(&self, value: &T) -> Result<(), CliError> {
        self.line(serde_json::to_string(value).expect("BUG: output is plain data"))
    }

    /// A remark on stderr; kept back by `--quiet` and `--json`.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.quiet && !self.json {
            // Nothing can be done about a closed stderr.
            let _ = writeln!(io::stderr(), "{}", text.as_ref());
        }
    }

    pub fn stderr_is_rich(&self) -> bool {
        let wanted = !self.quiet && !self.json && !self.plain;
        wanted && io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
    }
}

fn closed(e: io::Error) -> CliError {
    match e.kind() {
        // `pipe log | head` is no failure.
        io::ErrorKind::BrokenPipe => std::process::exit(Exit::Ok as i32),
        _ => CliError::new(Exit::Step, format!("stdout: {e}")),
    }
}

/// Bytes as people read them.
pub fn bytes(n: u64) -> String {
    indicatif::HumanBytes(n).to_string()
}

/// Milliseconds as people read them.
pub fn millis(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{:.1} s", ms as f64 / 1000.0) }
}

/// A file that is renamed when it is whole; others may read it, as the umask allows.
pub fn shared_file(folder: &std::path::Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}
