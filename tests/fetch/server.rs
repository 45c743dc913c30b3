//! A small HTTP server on the loopback: one thread, one answer a connection, and a log of what was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use pipe::pipeline::op::Source;

#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Where the asked range starts; 0 without one.
    pub fn offset(&self) -> usize {
        let range = self.header("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-'));
        range.map_or(0, |start| start.parse().unwrap())
    }
}

/// What to answer.
pub enum Reply {
    Bytes(Vec<u8>),
    /// The head, then part of the body, then the connection ends.
    BreakAfter(Vec<u8>, usize),
    /// The head and part of the body, then silence until the client leaves.
    HangAfter(Vec<u8>, usize),
}

pub struct Server {
    pub port: u16,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// `answer` gets the request and how many came before.
    pub fn start(answer: impl Fn(&Request, usize) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let log = Arc::new(Mutex::new(Vec::new()));
        let writer = log.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                // A client that leaves early is part of many tests.
                let _ = serve(stream, &writer, &answer);
            }
        });
        Server { port, log }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn source(&self, path: &str) -> Source {
        Source::Http(self.url(path))
    }

    pub fn log(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    log: &Mutex<Vec<Request>>,
    answer: &impl Fn(&Request, usize) -> Reply,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let request = Request { path, headers };
    let before = {
        let mut log = log.lock().unwrap();
        log.push(request.clone());
        log.len() - 1
    };
    match answer(&request, before) {
        Reply::Bytes(bytes) => stream.write_all(&bytes),
        Reply::BreakAfter(bytes, n) => stream.write_all(&bytes[..n]),
        Reply::HangAfter(bytes, n) => {
            stream.write_all(&bytes[..n])?;
            stream.read(&mut [0]).map(|_| ())
        }
    }
}

/// A head with these lines, and the body.
pub fn reply(status: &str, headers: &[String], body: &[u8]) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for header in headers {
        out += header;
        out += "\r\n";
    }
    out += "\r\n";
    let mut out = out.into_bytes();
    out.extend_from_slice(body);
    out
}

pub fn whole(body: &[u8]) -> Vec<u8> {
    reply("200 OK", &[format!("Content-Length: {}", body.len()), "ETag: \"v1\"".into()], body)
}

/// Answers as a server with ranges does: 206 from the offset, 416 behind the end, all of it when the file
/// is not the one that If-Range names.
pub fn ranged(request: &Request, body: &[u8], etag: &str) -> Vec<u8> {
    let offset = request.offset();
    let same = request.header("if-range").is_none_or(|v| v == etag);
    let tag = format!("ETag: {etag}");
    if offset == 0 || !same {
        return reply("200 OK", &[format!("Content-Length: {}", body.len()), tag], body);
    }
    if offset >= body.len() {
        let headers = [format!("Content-Range: bytes */{}", body.len()), "Content-Length: 0".into()];
        return reply("416 Range Not Satisfiable", &headers, b"");
    }
    let rest = &body[offset..];
    let range = format!("Content-Range: bytes {offset}-{}/{}", body.len() - 1, body.len());
    reply("206 Partial Content", &[format!("Content-Length: {}", rest.len()), range, tag], rest)
}

/// Length of a reply's head.
pub fn head_length(reply: &[u8]) -> usize {
    reply.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4
}
