//! HTTP as the nodes need it: every wait has an end, and a stream that falls silent is an error, not a hang.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use ureq::{Agent, Error, SendBody};

/// Why there is no answer.
#[derive(Debug)]
pub enum HttpError {
    Slow,
    Absent(String),
    Status { message: String },
}

#[derive(Clone, Copy, Debug)]
pub enum Ask {
    Get,
    Post,
}

/// The longest error text that is read.
const MESSAGE_MAX: u64 = 1 << 12;

fn agent(patience: Duration, whole: bool) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(patience))
        .timeout_recv_response(Some(patience))
        .timeout_global(whole.then_some(patience));
    config.build().new_agent()
}

fn failed(e: Error) -> HttpError {
    match e {
        Error::Timeout(_) => HttpError::Slow,
        Error::Io(e) if e.kind() == io::ErrorKind::TimedOut => HttpError::Slow,
        e => HttpError::Absent(e.to_string()),
    }
}

/// An answer whose status is not 2xx as an error, with the text of it.
fn checked(
    response: Result<ureq::http::Response<ureq::Body>, Error>,
) -> Result<ureq::http::Response<ureq::Body>, HttpError> {
    let mut response = response.map_err(failed)?;
    if response.status().is_success() {
        return Ok(response);
    }
    let mut text = Vec::new();
    // What cannot be read of an error is left out.
    let _ = response.body_mut().as_reader().take(MESSAGE_MAX).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    let json: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let said = json.as_ref().and_then(|v| v["Message"].as_str().or_else(|| v["error"]["reason"].as_str()));
    let message = format!("{}: {}", response.status(), said.unwrap_or(text.trim()));
    Err(HttpError::Status { message })
}

/// Post a file as the one part of a form; the answer's text.
pub fn post_file(url: &str, file: File, patience: Duration) -> Result<String, HttpError> {
    const BOUNDARY: &str = "pipe-6f1c2ab0d94e";
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"result.car\"\r\n\
         Content-Type: application/vnd.ipld.car\r\n\r\n"
    );
    let body = Cursor::new(head).chain(file).chain(Cursor::new(format!("\r\n--{BOUNDARY}--\r\n")));
    let request = agent(patience, true)
        .post(url)
        .header("Content-Type", format!("multipart/form-data; boundary={BOUNDARY}"));
    let mut response = checked(request.send(SendBody::from_owned_reader(body)))?;
    response.body_mut().read_to_string().map_err(failed)
}

/// Post JSON with a token; the answer as JSON.
pub fn post_json(
    url: &str,
    token: &str,
    body: &serde_json::Value,
    patience: Duration,
) -> Result<serde_json::Value, HttpError> {
    let request = agent(patience, true)
        .post(url)
        .header("Authorization", format!("Bearer {token}"))
        .header("Content-Type", "application/json");
    let mut response = checked(request.send(body.to_string()))?;
    let text = response.body_mut().read_to_string().map_err(failed)?;
    serde_json::from_str(&text).map_err(|e| HttpError::Absent(format!("no JSON: {e}")))
}

/// Ask for a stream. A thread of its own reads it and ends when nobody listens any more.
pub fn stream(ask: Ask, url: &str, patience: Duration) -> Result<Patient, HttpError> {
    let agent = agent(patience, false);
    let answer = match ask {
        Ask::Get => agent.get(url).call(),
        Ask::Post => agent.post(url).send_empty(),
    };
    let mut reader = checked(answer)?.into_body().into_with_config().limit(u64::MAX).reader();
    let (send, pieces) = sync_channel::<io::Result<Vec<u8>>>(8);
    let run = move || {
        loop {
            let mut piece = vec![0; 1 << 16];
            let read = reader.read(&mut piece).map(|n| {
                piece.truncate(n);
                piece
            });
            let last = read.as_ref().map_or(true, Vec::is_empty);
            if send.send(read).is_err() || last {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("ipfs".into()).spawn(run);
    thread.map_err(|e| HttpError::Absent(format!("cannot start a thread: {e}")))?;
    Ok(Patient { pieces, piece: Cursor::default(), patience, ended: false })
}

/// A stream that is an error when nothing comes for too long.
pub struct Patient {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Cursor<Vec<u8>>,
    patience: Duration,
    ended: bool,
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.piece.read(buffer)?;
        if n > 0 || self.ended || buffer.is_empty() {
            return Ok(n);
        }
        match self.pieces.recv_timeout(self.patience) {
            Ok(piece) => {
                self.piece = Cursor::new(piece?);
                self.ended = self.piece.get_ref().is_empty();
                self.piece.read(buffer)
            }
            Err(RecvTimeoutError::Timeout) => {
                let text = format!("nothing came for {} s", self.patience.as_secs_f32());
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            }
            Err(RecvTimeoutError::Disconnected) => Ok(0),
        }
    }
}
