//! The K types: 256 weights under one f16 scale d, in 8 groups of 32 (Q4_K, Q5_K) or 16 groups of 16 (Q6_K)
//! with a small integer scale each.

use super::half;

/// f16 d, f16 dmin, 12 bytes of scales, 128 bytes of nibbles.
pub(super) fn q4_k(b: &[u8], w: &mut [f32]) {
    with_minimum(b, &b[16..], w, |_, _| 0);
}

/// f16 d, f16 dmin, 12 bytes of scales, 32 bytes of fifth bits (group g's in bit g), 128 bytes of nibbles.
pub(super) fn q5_k(b: &[u8], w: &mut [f32]) {
    let fifth = &b[16..48];
    with_minimum(b, &b[48..], w, |group, i| fifth[i] >> group & 1);
}

/// `(d·sc)·q − dmin·m`. Groups 2p and 2p + 1 share 32 bytes: the low and the high halves.
fn with_minimum(b: &[u8], nibbles: &[u8], w: &mut [f32], fifth: impl Fn(usize, usize) -> u8) {
    let (d, dmin) = (half(b), half(&b[2..]));
    for (group, w) in w.chunks_exact_mut(32).enumerate() {
        let (sc, m) = scale_and_minimum(&b[4..16], group);
        let (scale, minimum) = (d * f32::from(sc), dmin * f32::from(m));
        let bytes = &nibbles[group / 2 * 32..];
        for (i, (w, &byte)) in w.iter_mut().zip(bytes).enumerate() {
            let q = byte >> (group % 2 * 4) & 15 | fifth(group, i) << 4;
            *w = scale * f32::from(q) - minimum;
        }
    }
}

/// The 6-bit scale and minimum of a group. Bytes 0..4 and 4..8 hold the scales and minimums of groups 0..4 in
/// their low six bits and the upper two bits of those of groups 4..8 above; bytes 8..12 hold the lower four bits
/// of the latter, scale low and minimum high.
fn scale_and_minimum(s: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        return (s[group] & 63, s[group + 4] & 63);
    }
    let (scale, minimum, low) = (s[group - 4], s[group], s[group + 4]);
    (low & 15 | scale >> 6 << 4, low >> 4 | minimum >> 6 << 4)
}

/// 128 bytes of nibbles, 64 of upper two bits, 16 × i8 scales, f16 d. `(d·sc)·(q − 32)`.
///
/// Of each half of 128 weights, weight i has its nibble in byte i mod 64 of the half's 64, low for i < 64, and its
/// upper bits in byte i mod 32 of the half's 32, from bit 2·(i / 32) on.
pub(super) fn q6_k(b: &[u8], w: &mut [f32]) {
    let d = half(&b[208..]);
    for (part, w) in w.chunks_exact_mut(128).enumerate() {
        let (nibbles, upper) = (&b[part * 64..][..64], &b[128 + part * 32..][..32]);
        for (group, w) in w.chunks_exact_mut(16).enumerate() {
            let scale = d * f32::from(b[192 + part * 8 + group] as i8);
            for (i, w) in w.iter_mut().enumerate() {
                let i = group * 16 + i;
                let q = nibbles[i % 64] >> (i / 64 * 4) & 15 | (upper[i % 32] >> (i / 32 * 2) & 3) << 4;
                *w = scale * f32::from(q as i8 - 32);
            }
        }
    }
}
