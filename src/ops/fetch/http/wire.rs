//! One GET in a thread of its own: what is asked, and the beats that come back over a short queue.
//! The thread ends by itself when nobody listens any more.

use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, Response, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Error, Proxy};

/// A request for all bytes from `offset` on.
pub(super) struct Ask {
    pub url: String,
    pub bearer: Option<String>,
    pub offset: u64,
    /// Only if the file still is this one; else the server sends all of it.
    pub validator: Option<String>,
    pub proxies: bool,
    pub connect_timeout: Duration,
    pub idle_timeout: Duration,
}

/// The head of an answer.
pub(super) struct Answer {
    pub status: u16,
    /// Length of the whole file, if known.
    pub total: Option<u64>,
    /// Where a partial answer starts.
    pub range_start: Option<u64>,
    pub validator: Option<String>,
    /// Set when the bytes are not the file's own.
    pub encoding: Option<String>,
}

pub(super) enum Beat {
    Answer(Answer),
    Bytes(Vec<u8>),
    End,
    Failed(String),
    BadAddress(String),
}

pub(super) enum Next {
    Beat(Beat),
    /// Nothing came in the time given.
    Quiet,
    Ended,
}

/// The listening end.
pub(super) struct Wire {
    beats: Receiver<Beat>,
}

impl Wire {
    pub fn start(ask: Ask) -> Self {
        let (send, beats) = sync_channel(8);
        let failed = send.clone();
        if let Err(e) = thread::Builder::new().name("fetch".into()).spawn(move || talk(&ask, &send)) {
            // The queue has room: nothing was sent yet.
            let _ = failed.try_send(Beat::Failed(format!("cannot start a thread: {e}")));
        }
        Wire { beats }
    }

    pub fn next(&self, wait: Duration) -> Next {
        match self.beats.recv_timeout(wait) {
            Ok(beat) => Next::Beat(beat),
            Err(RecvTimeoutError::Timeout) => Next::Quiet,
            Err(RecvTimeoutError::Disconnected) => Next::Ended,
        }
    }
}

/// A failed send means that nobody listens: the thread just ends.
fn talk(ask: &Ask, send: &SyncSender<Beat>) {
    let last = match get(ask) {
        Err(e @ (Error::BadUri(_) | Error::Http(_))) => Beat::BadAddress(e.to_string()),
        Err(e) => Beat::Failed(reason(&e)),
        Ok(response) => {
            if send.send(Beat::Answer(head(&response))).is_err() {
                return;
            }
            if !matches!(response.status().as_u16(), 200 | 206) {
                return;
            }
            match body(response.into_body(), send) {
                Some(beat) => beat,
                None => return,
            }
        }
    };
    let _ = send.send(last);
}

fn get(ask: &Ask) -> Result<Response<Body>, Error> {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let agent: Agent = Agent::config_builder()
        .tls_config(tls)
        .proxy(Proxy::try_from_env().filter(|_| ask.proxies))
        .http_status_as_error(false)
        .redirect_auth_headers(RedirectAuthHeaders::SameHost)
        .user_agent(concat!("pipe/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .timeout_resolve(Some(ask.connect_timeout))
        .timeout_connect(Some(ask.connect_timeout))
        .timeout_per_read(Some(ask.idle_timeout))
        .timeout_per_write(Some(ask.idle_timeout))
        .build()
        .into();
    let mut request = agent.get(&ask.url);
    if let Some(token) = &ask.bearer {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    if ask.offset > 0 {
        request = request.header(header::RANGE, format!("bytes={}-", ask.offset));
        if let Some(validator) = &ask.validator {
            request = request.header(header::IF_RANGE, validator);
        }
    }
    request.call()
}

fn head(response: &Response<Body>) -> Answer {
    let headers = response.headers();
    let status = response.status().as_u16();
    // "bytes 5-9/10", or "bytes */10" for a range that does not exist
    let range = text(headers, header::CONTENT_RANGE).and_then(|v| v.strip_prefix("bytes "));
    let (span, whole) = range.and_then(|r| r.split_once('/')).unzip();
    let total = match status {
        200 => text(headers, header::CONTENT_LENGTH).and_then(|v| v.parse().ok()),
        _ => whole.and_then(|v| v.parse().ok()),
    };
    let etag = text(headers, header::ETAG).filter(|v| v.starts_with('"'));
    Answer {
        status,
        total,
        range_start: span.and_then(|s| s.split_once('-')).and_then(|(start, _)| start.parse().ok()),
        validator: etag.or_else(|| text(headers, header::LAST_MODIFIED)).map(str::to_owned),
        encoding: text(headers, header::CONTENT_ENCODING).filter(|v| *v != "identity").map(str::to_owned),
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// Sends the body on; None when nobody listens.
fn body(body: Body, send: &SyncSender<Beat>) -> Option<Beat> {
    let mut reader = body.into_reader();
    loop {
        let mut bytes = vec![0; 128 << 10];
        match reader.read(&mut bytes) {
            Ok(0) => return Some(Beat::End),
            Ok(n) => {
                bytes.truncate(n);
                send.send(Beat::Bytes(bytes)).ok()?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Some(Beat::Failed(e.to_string())),
        }
    }
}

/// The error in words a user knows.
fn reason(error: &Error) -> String {
    match error {
        Error::Timeout(at) => format!("time-out ({at})"),
        Error::HostNotFound => "no such host".into(),
        other => other.to_string(),
    }
}
