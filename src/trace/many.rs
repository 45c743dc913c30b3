//! BLAKE3 of many short inputs, several at a time in the lanes of the CPU's registers: what
//! `blake3::hash` does for the chunks of one long input, done across rows. The digests are plain BLAKE3.

use blake3::IncrementCounter;
use blake3::platform::Platform;
use pipe_store::Digest;

const CHUNK: usize = 1024;
const BLOCK: usize = 64;
const OUT: usize = 32;
/// Of the widest implementation there is, AVX-512's.
const MOST_LANES: usize = 16;

/// Flags of the compression function, from BLAKE3's specification.
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 2;
const PARENT: u8 = 4;
const ROOT: u8 = 8;
const IV: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// A chaining value.
type Value = [u8; OUT];

/// Appends the digest of each row. Rows may differ in length; those of few lengths are hashed fastest.
pub fn hash(rows: &[&[u8]], out: &mut Vec<Digest>) {
    let first = out.len();
    out.resize(first + rows.len(), Digest([0; OUT]));
    let out = &mut out[first..];
    let mut together: Vec<usize> = (0..rows.len()).collect();
    together.sort_by_key(|&i| rows[i].len());
    let lengths: Vec<usize> = together.iter().map(|&i| rows[i].len()).collect();
    together.retain(|&i| {
        let length = rows[i].len();
        // So many can share the lanes with its last chunk; alone it has its own chunks to fill them with.
        let as_long = lengths.len() - lengths.partition_point(|&other| other < length);
        // A chunk that ends within a block of 64 bytes needs that block's length, which many cannot be given.
        let alone = length == 0 || !length.is_multiple_of(BLOCK) || length.div_ceil(CHUNK) >= as_long;
        if alone {
            out[i] = Digest::of(rows[i]);
        }
        !alone
    });
    if together.is_empty() {
        return;
    }
    let platform = Platform::detect();
    let rows: Vec<&[u8]> = together.iter().map(|&i| rows[i]).collect();
    for (i, value) in together.into_iter().zip(tree(platform, &rows)) {
        out[i] = Digest(value);
    }
}

/// Of rows in order of length: chunk by chunk, then pairs of chaining values, an odd one carried up, until one is
/// left of each.
fn tree(platform: Platform, rows: &[&[u8]]) -> Vec<Value> {
    let chunks = |row: &[u8]| row.len().div_ceil(CHUNK);
    let most = rows.last().map_or(0, |row| chunks(row));
    let mut levels: Vec<Vec<Value>> = rows.iter().map(|row| Vec::with_capacity(chunks(row))).collect();
    for chunk in 0..most {
        let start = chunk * CHUNK;
        let from = rows.partition_point(|row| row.len() <= start);
        let end = |row: &[u8]| row.len().min(start + CHUNK);
        let alone = |row: &[u8]| if row.len() <= CHUNK { ROOT } else { 0 };
        let mut levels = levels[from..].iter_mut();
        for like in rows[from..].chunk_by(|a, b| (end(a), alone(a)) == (end(b), alone(b))) {
            let pieces: Vec<&[u8]> = like.iter().map(|row| &row[start..end(row)]).collect();
            let flags = CHUNK_END | alone(like[0]);
            let values = pieces_of(platform, &pieces, chunk as u64, CHUNK_START, flags, 0);
            values.into_iter().zip(levels.by_ref()).for_each(|(value, level)| level.push(value));
        }
    }
    while levels.last().is_some_and(|level| level.len() > 1) {
        // The roots among the parents, and the others.
        for root in [false, true] {
            let is = |level: &Vec<Value>| level.len() > 1 && (level.len() == 2) == root;
            let pairs = levels.iter().filter(|level| is(level)).flat_map(|level| level.as_chunks().0);
            let both: Vec<[u8; BLOCK]> = pairs.map(join).collect();
            if both.is_empty() {
                continue;
            }
            let both: Vec<&[u8]> = both.iter().map(<[u8; BLOCK]>::as_slice).collect();
            let mut parents =
                pieces_of(platform, &both, 0, 0, 0, PARENT | if root { ROOT } else { 0 }).into_iter();
            for level in levels.iter_mut().filter(|level| is(level)) {
                let odd = level.as_chunks::<2>().1.first().copied();
                let pairs = level.len() / 2;
                level.clear();
                level.extend(parents.by_ref().take(pairs).chain(odd));
            }
        }
    }
    levels.into_iter().flatten().collect()
}

fn join([left, right]: &[Value; 2]) -> [u8; BLOCK] {
    let mut both = [0; BLOCK];
    both[..OUT].copy_from_slice(left);
    both[OUT..].copy_from_slice(right);
    both
}

/// Chaining values of pieces of one length, a multiple of 64 and at most 1024.
fn pieces_of(
    platform: Platform,
    pieces: &[&[u8]],
    counter: u64,
    start: u8,
    end: u8,
    flags: u8,
) -> Vec<Value> {
    macro_rules! by_length {
        ($($n:literal)*) => {
            match pieces[0].len() / BLOCK {
                $($n => lanes::<{ $n * BLOCK }>(platform, pieces, counter, [flags, start, end]),)*
                _ => unreachable!("BUG: a piece is one to sixteen blocks"),
            }
        };
    }
    by_length!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16)
}

fn lanes<const N: usize>(
    platform: Platform,
    pieces: &[&[u8]],
    counter: u64,
    [flags, start, end]: [u8; 3],
) -> Vec<Value> {
    let mut inputs: Vec<&[u8; N]> = pieces.iter().filter_map(|piece| piece.first_chunk()).collect();
    // Lanes come in powers of two, and a call takes as long with some of them idle: 15 pieces would be four calls.
    let last = inputs.len() % MOST_LANES;
    if let Some(&any) = inputs.last().filter(|_| last > 0) {
        inputs.resize(inputs.len() - last + last.next_power_of_two(), any);
    }
    let mut out = vec![[0; OUT]; inputs.len()];
    let lanes = out.as_flattened_mut();
    platform.hash_many(&inputs, &IV, counter, IncrementCounter::No, flags, start, end, lanes);
    out.truncate(pieces.len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every length up to some chunks, every count up to more than there are lanes.
    #[test]
    fn it_is_plain_blake3() {
        let bytes: Vec<u8> = (0..80_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut cases: Vec<(usize, usize)> = (0..=20_000).step_by(4).map(|length| (length, 3)).collect();
        cases.extend(
            (0..=40).flat_map(|count| [64, 1024, 2304, 12_288, 12_289].map(|length| (length, count))),
        );
        for (length, count) in cases {
            let rows: Vec<&[u8]> = (0..count).map(|i| &bytes[i * 977..i * 977 + length]).collect();
            let mut found = Vec::new();
            hash(&rows, &mut found);
            assert!(found.iter().copied().eq(rows.iter().map(|row| Digest::of(row))), "{count} of {length}");
        }
        // Mixed: one of each, in turn, in blocks of some.
        let lengths = [64, 256, 1024, 1088, 2048, 2304, 3072, 3840, 5120, 6144, 12_288, 0, 100, 40_000];
        for step in 1..lengths.len() {
            let mixed = (0..lengths.len() * 6)
                .map(|i| &bytes[i * 31..i * 31 + lengths[i * step / 3 % lengths.len()]]);
            let rows: Vec<&[u8]> = mixed.collect();
            let mut found = Vec::new();
            hash(&rows, &mut found);
            assert!(found.iter().copied().eq(rows.iter().map(|row| Digest::of(row))), "mixed, {step}");
        }
    }
}
