//! A small IPFS node on the loopback: the RPC calls that `pipe` uses, honest or not.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use cid::Cid;
use ipld_core::ipld::Ipld;
use pipe::bundle::car::{CarReader, CarWriter, DAG_CBOR};

#[derive(Clone, Copy, PartialEq)]
pub enum Mood {
    Honest,
    /// Takes the connection to this call and never answers.
    Silent(&'static str),
    /// Has no room for a CAR.
    Full,
    /// Gives other bytes for the block with this place in the order they came.
    Lies(usize),
    /// Says it took this block, and did not.
    Forgets(usize),
}

type Blocks = Arc<Mutex<Vec<(Cid, Vec<u8>)>>>;

pub struct Node {
    port: u16,
    blocks: Blocks,
    pub pins: Arc<Mutex<BTreeSet<String>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Node {
    pub fn start(mood: Mood) -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (blocks, pins, asked): (Blocks, Arc<Mutex<BTreeSet<String>>>, _) = Default::default();
        let node = Node { port, blocks: blocks.clone(), pins: pins.clone(), asked: Arc::clone(&asked) };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (blocks, pins, asked) = (blocks.clone(), pins.clone(), asked.clone());
                // A client that leaves early is part of some tests.
                thread::spawn(move || drop(serve(stream, mood, &blocks, &pins, &asked)));
            }
        });
        node
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The calls so far, without their arguments.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// The address of the block with this place.
    pub fn block(&self, at: usize) -> Cid {
        self.blocks.lock().unwrap()[at].0
    }

    /// As if it had been given a CAR.
    pub fn take(&self, car: &[u8]) {
        let blocks = CarReader::new(car).unwrap().map(Result::unwrap).map(|b| (b.cid, b.bytes));
        self.blocks.lock().unwrap().extend(blocks);
    }
}

/// An address at which nobody listens.
pub fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn serve(
    mut stream: TcpStream,
    mood: Mood,
    blocks: &Blocks,
    pins: &Mutex<BTreeSet<String>>,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let (path, body, token) = request(&stream)?;
    let (call, query) = path.split_once('?').unwrap_or((&path, ""));
    let call = call.trim_start_matches("/api/v0/").trim_start_matches('/').to_owned();
    asked.lock().unwrap().push(call.clone());
    let arg = query.split('&').find_map(|pair| pair.strip_prefix("arg=")).unwrap_or_default();
    if mood == Mood::Silent(call.as_str().to_owned().leak()) {
        // Until the client leaves.
        return stream.read(&mut [0]).map(|_| ());
    }
    let (status, answer) = match call.as_str() {
        "version" => (200, br#"{"Version":"0.0.1","Commit":"","Repo":"","System":"","Golang":""}"#.to_vec()),
        "dag/import" if mood == Mood::Full => {
            (500, br#"{"Message":"write: no space left on device","Code":0,"Type":"error"}"#.to_vec())
        }
        "dag/import" => {
            let start = body.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
            let end = body.len() - body.iter().rev().skip(2).position(|b| *b == b'\n').unwrap() - 4;
            let mut blocks = blocks.lock().unwrap();
            for (at, block) in CarReader::new(&body[start..end]).unwrap().enumerate() {
                let block = block.unwrap();
                match mood {
                    Mood::Forgets(n) if n == at => {}
                    _ => blocks.push((block.cid, block.bytes)),
                }
            }
            (200, b"{}\n".to_vec())
        }
        "pin/add" => {
            pins.lock().unwrap().insert(arg.to_owned());
            (200, format!("{{\"Pins\":[\"{arg}\"]}}").into_bytes())
        }
        "block/get" => match find(blocks, arg, mood) {
            Some(bytes) => (200, bytes),
            None => (500, br#"{"Message":"block was not found locally","Code":0,"Type":"error"}"#.to_vec()),
        },
        // The Pinning Service API.
        "pins" if token == "Bearer secret-token" => {
            let wanted: serde_json::Value = serde_json::from_slice(&body).unwrap();
            pins.lock().unwrap().insert(wanted["cid"].as_str().unwrap().to_owned());
            (202, br#"{"requestid":"1","status":"queued"}"#.to_vec())
        }
        "pins" => (401, br#"{"error":{"reason":"UNAUTHORIZED"}}"#.to_vec()),
        "dag/export" => (200, export(blocks, arg, mood)),
        _ => (404, b"no such call".to_vec()),
    };
    let head =
        format!("HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", answer.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(&answer)
}

fn find(blocks: &Blocks, name: &str, mood: Mood) -> Option<Vec<u8>> {
    let blocks = blocks.lock().unwrap();
    let at = blocks.iter().position(|(cid, _)| cid.to_string() == name)?;
    let mut bytes = blocks[at].1.clone();
    if let (Mood::Lies(n), Some(last)) = (mood, bytes.last_mut())
        && n == at
    {
        *last ^= 1;
    }
    Some(bytes)
}

/// A CAR of all that is below, written by hand so that it can hold a lie.
fn export(blocks: &Blocks, root: &str, mood: Mood) -> Vec<u8> {
    let root: Cid = root.parse().unwrap();
    let mut car = CarWriter::new(Vec::new(), &[root]).unwrap();
    let (mut next, mut lies) = (vec![root], HashMap::new());
    while let Some(cid) = next.pop() {
        let Some(bytes) = find(blocks, &cid.to_string(), Mood::Honest) else { continue };
        if car.has(&cid) {
            continue;
        }
        car.block(&cid, &bytes).unwrap();
        let told = find(blocks, &cid.to_string(), mood).unwrap();
        if told != bytes {
            lies.insert(bytes.clone(), told);
        }
        if cid.codec() == DAG_CBOR {
            let node: Ipld = serde_ipld_dagcbor::from_slice(&bytes).unwrap();
            node.references(&mut next);
        }
    }
    let mut car = car.finish().unwrap();
    for (honest, told) in lies {
        let at = car.windows(honest.len()).position(|w| w == honest).unwrap();
        car[at..at + told.len()].copy_from_slice(&told);
    }
    car
}

/// Path, body and credentials of a request, chunked or not.
fn request(stream: &TcpStream) -> std::io::Result<(String, Vec<u8>, String)> {
    let mut input = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    input.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut length, mut chunked, mut token) = (0, false, String::new());
    loop {
        line.clear();
        input.read_line(&mut line)?;
        let lower = line.trim().to_ascii_lowercase();
        if lower.is_empty() {
            break;
        }
        if let Some(text) = lower.strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
        if lower.starts_with("authorization:") {
            token = line["authorization:".len()..].trim().to_owned();
        }
        chunked |= lower == "transfer-encoding: chunked";
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    while chunked {
        line.clear();
        input.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        input.read_exact(&mut chunk)?;
        body.extend_from_slice(&chunk[..size]);
        chunked = size > 0;
    }
    Ok((path, body, token))
}
