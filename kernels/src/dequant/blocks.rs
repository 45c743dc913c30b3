//! The types of 32 weights. Byte i of the nibbles holds weight i in its low and weight i + 16 in its high half;
//! Q5's fifth bits are the bits of a u32, weight i's at place i.

use super::{BLOCK, half};

/// f16 d, 32 × i8.
pub(super) fn q8_0(b: &[u8], w: &mut [f32]) {
    let d = half(b);
    for (w, &q) in w.iter_mut().zip(&b[2..]) {
        *w = d * f32::from(q as i8);
    }
}

/// f16 d, nibbles.
pub(super) fn q4_0(b: &[u8], w: &mut [f32]) {
    let d = half(b);
    nibbles(w, &b[2..], 0, |q| d * (q - 8.0));
}

/// f16 d, f16 m, nibbles.
pub(super) fn q4_1(b: &[u8], w: &mut [f32]) {
    let (d, m) = (half(b), half(&b[2..]));
    nibbles(w, &b[4..], 0, |q| d * q + m);
}

/// f16 d, fifth bits, nibbles.
pub(super) fn q5_0(b: &[u8], w: &mut [f32]) {
    let d = half(b);
    nibbles(w, &b[6..], fifth(&b[2..]), |q| d * (q - 16.0));
}

/// f16 d, f16 m, fifth bits, nibbles.
pub(super) fn q5_1(b: &[u8], w: &mut [f32]) {
    let (d, m) = (half(b), half(&b[2..]));
    nibbles(w, &b[8..], fifth(&b[4..]), |q| d * q + m);
}

fn fifth(b: &[u8]) -> u32 {
    u32::from_le_bytes([b[0], b[1], b[2], b[3]])
}

/// `value` of the 32 numbers made of nibbles and fifth bits.
fn nibbles(w: &mut [f32], bytes: &[u8], fifth: u32, value: impl Fn(f32) -> f32) {
    const HALF: usize = BLOCK / 2;
    let bit = |i: usize| (fifth >> i & 1) as u8 * 16;
    let (low, high) = w.split_at_mut(HALF);
    for (i, ((low, high), &b)) in low.iter_mut().zip(high).zip(bytes).enumerate() {
        *low = value(f32::from(b & 15 | bit(i)));
        *high = value(f32::from(b >> 4 | bit(i + HALF)));
    }
}
