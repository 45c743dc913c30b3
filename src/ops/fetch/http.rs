//! `http:` and `https:`: a download that continues where it broke off. A thread talks to the server, so that
//! a cancel never waits for one. Knows no hub and no package index.

mod wire;

use std::fs::File;
use std::time::{Duration, Instant};

use super::partial::{Origin, Partial};
use super::sink::{Halt, Job};
use super::{Cause, Phase};
use wire::{Answer, Ask, Beat, Wire};

/// Downloads `url` into `dest`; `bearer` goes to the host of `url` only.
pub(super) fn download(url: &str, bearer: Option<&str>, job: &Job, dest: &mut File) -> Result<u64, Halt> {
    let origin = without_password(url);
    let mut partial = Partial::open(job).map_err(Halt::Write)?;
    job.check()?;
    match fill(url, bearer, &origin, job, &mut partial) {
        Ok(()) => partial.finish(dest).map_err(Halt::Write),
        Err(halt) => {
            // Worth continuing is only what broke off.
            let refused = matches!(&halt, Halt::Source { cause: Cause::TooLarge { .. }, .. });
            if refused || partial.length == 0 {
                partial.discard().map_err(Halt::Write)?;
            }
            Err(halt)
        }
    }
}

/// Asks until the partial file has the expected hash.
fn fill(url: &str, bearer: Option<&str>, origin: &str, job: &Job, partial: &mut Partial) -> Result<(), Halt> {
    let mut fruitless = 0;
    // Only bytes beyond all earlier tries count: some servers break off and then refuse to continue.
    let mut furthest = partial.length;
    let start = partial.length;
    // Pieces that do not fit together say nothing against the source: it is asked once more, from zero.
    let mut restarted = false;
    loop {
        let before = partial.length;
        let cause = match attempt(url, bearer, job, partial) {
            Ok(()) => match partial.verify().map_err(Halt::Write)? {
                Ok(()) => return Ok(()),
                Err(cause) => cause,
            },
            Err(Stop::Halt(halt)) => return Err(halt),
            Err(Stop::Cause(cause)) => cause,
        };
        match cause {
            Cause::WrongHash { .. } if before > 0 && !restarted => restarted = true,
            // A host that never answered will not do so in a second; one that did is asked again.
            Cause::NoAnswer { .. } if furthest == start => return Err(Halt::source(origin, cause)),
            Cause::Broken { .. } | Cause::NoAnswer { .. } | Cause::Status { status: 429 | 500..=599 } => {
                fruitless = if partial.length > furthest { 0 } else { fruitless + 1 };
                furthest = furthest.max(partial.length);
                if fruitless >= job.env.tries {
                    return Err(Halt::source(origin, cause));
                }
                if fruitless > 0 {
                    pause(job, job.env.retry_wait.saturating_mul(1 << (fruitless - 1).min(6)))?;
                }
            }
            _ => return Err(Halt::source(origin, cause)),
        }
    }
}

enum Stop {
    Cause(Cause),
    Halt(Halt),
}

impl From<Cause> for Stop {
    fn from(cause: Cause) -> Self {
        Stop::Cause(cause)
    }
}

/// One request; appends what comes to the partial file.
fn attempt(url: &str, bearer: Option<&str>, job: &Job, partial: &mut Partial) -> Result<(), Stop> {
    let write = |e| Stop::Halt(Halt::Write(e));
    let ask = Ask {
        url: url.to_owned(),
        bearer: bearer.map(str::to_owned),
        offset: partial.length,
        // The same address must still have the same file; from another one the hash alone decides.
        validator: partial.origin.validator.clone().filter(|_| partial.origin.url == without_query(url)),
        proxies: job.env.proxies,
        connect_timeout: job.env.connect_timeout,
        idle_timeout: job.env.idle_timeout,
    };
    job.report(Phase::Downloading, partial.length, partial.length, None);
    let wire = Wire::start(ask);
    let answer = match wait(&wire, job)? {
        Some(Beat::Answer(answer)) => answer,
        Some(Beat::Failed(why)) => return Err(Cause::NoAnswer { why }.into()),
        Some(Beat::BadAddress(why)) => return Err(Cause::BadAddress { why }.into()),
        _ => return Err(Cause::NoAnswer { why: "the connection ended".into() }.into()),
    };
    let total = match place(&answer, partial)? {
        Place::Whole => return Ok(()),
        Place::Start(total) => {
            partial.clear().map_err(write)?;
            total
        }
        Place::Continue(total) => total,
    };
    let limit = job.env.max_bytes;
    if let Some(length) = total.filter(|t| *t > limit) {
        return Err(Cause::TooLarge { length, limit }.into());
    }
    partial
        .set_origin(Origin { url: without_query(url), validator: answer.validator.clone() })
        .map_err(write)?;
    let resumed = partial.length;
    let broken = |at, why| Stop::Cause(Cause::Broken { at, total, why });
    loop {
        job.report(Phase::Downloading, partial.length, resumed, total);
        match wait(&wire, job)? {
            Some(Beat::Bytes(bytes)) => {
                let length = partial.length + bytes.len() as u64;
                if length > limit {
                    return Err(Cause::TooLarge { length, limit }.into());
                }
                partial.append(&bytes).map_err(write)?;
            }
            Some(Beat::End) => break,
            Some(Beat::Failed(why)) => return Err(broken(partial.length, why)),
            _ => return Err(broken(partial.length, "the connection ended".into())),
        }
    }
    match total {
        Some(t) if partial.length < t => {
            Err(broken(partial.length, "the server closed the connection".into()))
        }
        _ => Ok(()),
    }
}

/// Where the answer's bytes belong.
enum Place {
    Start(Option<u64>),
    Continue(Option<u64>),
    /// Nothing is missing.
    Whole,
}

fn place(answer: &Answer, partial: &mut Partial) -> Result<Place, Stop> {
    if let Some(encoding) = &answer.encoding {
        return Err(Cause::Encoded { encoding: encoding.clone() }.into());
    }
    match answer.status {
        206 if answer.range_start == Some(partial.length) => Ok(Place::Continue(answer.total)),
        // A server that sends another piece than the one asked for: ask for everything.
        206 | 416 if partial.length > 0 => {
            if answer.status == 416 && answer.total == Some(partial.length) {
                return Ok(Place::Whole);
            }
            let at = partial.length;
            partial.clear().map_err(|e| Stop::Halt(Halt::Write(e)))?;
            let why = format!("the server cannot continue there ({})", answer.status);
            Err(Cause::Broken { at, total: answer.total, why }.into())
        }
        200 => Ok(Place::Start(answer.total)),
        status => Err(Cause::Status { status }.into()),
    }
}

/// The next beat, or the end of the thread; returns within a moment of a cancel.
fn wait(wire: &Wire, job: &Job) -> Result<Option<Beat>, Stop> {
    loop {
        job.check().map_err(Stop::Halt)?;
        match wire.next(Duration::from_millis(50)) {
            wire::Next::Beat(beat) => return Ok(Some(beat)),
            wire::Next::Ended => return Ok(None),
            wire::Next::Quiet => {}
        }
    }
}

fn pause(job: &Job, time: Duration) -> Result<(), Halt> {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
        job.check()?;
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
    Ok(())
}

/// The address as it may be shown: no user, no password, no query (signatures live there).
fn without_password(url: &str) -> String {
    let url = without_query(url);
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => url,
    }
}

fn without_query(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().to_owned()
}
