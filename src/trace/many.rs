//! BLAKE3 of many short inputs of one length, several at a time in the lanes of the CPU's registers: what
//! `blake3::hash` does for the chunks of one long input, done across rows. The digests are plain BLAKE3.

use blake3::IncrementCounter;
use blake3::platform::{MAX_SIMD_DEGREE, Platform};
use pipe_store::Digest;

const CHUNK: usize = 1024;
const BLOCK: usize = 64;
const OUT: usize = 32;

/// Flags of the compression function, from BLAKE3's specification.
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 2;
const PARENT: u8 = 4;
const ROOT: u8 = 8;
const IV: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// From this length on one input alone fills the lanes.
const LONG: usize = CHUNK * MAX_SIMD_DEGREE;

/// Chaining values of a group's rows: as many as there are lanes, at most.
type Lanes = Vec<[u8; OUT]>;

/// Appends the digest of each row.
pub fn hash(rows: &[&[u8]], out: &mut Vec<Digest>) {
    let length = rows.first().map_or(0, |row| row.len());
    let alike = rows.iter().all(|row| row.len() == length);
    // A chunk that ends within a block of 64 bytes needs that block's length, which many cannot be given.
    if rows.len() < 2 || !alike || length == 0 || length >= LONG || !length.is_multiple_of(BLOCK) {
        out.extend(rows.iter().map(|row| Digest::of(row)));
        return;
    }
    let platform = Platform::detect();
    for group in rows.chunks(MAX_SIMD_DEGREE) {
        out.extend(tree(platform, group, length).into_iter().map(Digest));
    }
}

/// Chunk by chunk, then pairs of chaining values, an odd one carried up, until one is left.
fn tree(platform: Platform, rows: &[&[u8]], length: usize) -> Lanes {
    let alone = if length <= CHUNK { ROOT } else { 0 };
    let chunk = |start: usize| {
        let pieces: Vec<&[u8]> = rows.iter().map(|row| &row[start..length.min(start + CHUNK)]).collect();
        pieces_of(platform, &pieces, (start / CHUNK) as u64, CHUNK_START, CHUNK_END | alone, 0)
    };
    let mut level: Vec<Lanes> = (0..length).step_by(CHUNK).map(chunk).collect();
    while level.len() > 1 {
        let root = if level.len() == 2 { ROOT } else { 0 };
        let mut next = Vec::with_capacity(level.len().div_ceil(2));
        let mut nodes = level.into_iter();
        while let Some(left) = nodes.next() {
            next.push(match nodes.next() {
                None => left,
                Some(right) => {
                    let both: Vec<[u8; BLOCK]> = left.iter().zip(&right).map(|(l, r)| join(l, r)).collect();
                    let both: Vec<&[u8]> = both.iter().map(<[u8; BLOCK]>::as_slice).collect();
                    pieces_of(platform, &both, 0, 0, 0, PARENT | root)
                }
            });
        }
        level = next;
    }
    level.pop().unwrap_or_default()
}

fn join(left: &[u8; OUT], right: &[u8; OUT]) -> [u8; BLOCK] {
    let mut both = [0; BLOCK];
    both[..OUT].copy_from_slice(left);
    both[OUT..].copy_from_slice(right);
    both
}

/// Chaining values of pieces of one length, a multiple of 64 and at most 1024.
fn pieces_of(platform: Platform, pieces: &[&[u8]], counter: u64, start: u8, end: u8, flags: u8) -> Lanes {
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
) -> Lanes {
    let inputs: Vec<&[u8; N]> = pieces.iter().filter_map(|piece| piece.first_chunk()).collect();
    let mut out = vec![[0; OUT]; inputs.len()];
    let lanes = out.as_flattened_mut();
    platform.hash_many(&inputs, &IV, counter, IncrementCounter::No, flags, start, end, lanes);
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
        let mut found = Vec::new();
        hash(&[&bytes[..64], &bytes[..128]], &mut found);
        assert_eq!(found, [Digest::of(&bytes[..64]), Digest::of(&bytes[..128])]);
    }
}
