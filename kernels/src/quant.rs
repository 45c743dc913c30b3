//! Weights into blocks of 32: taken as a file stores them, or quantised. Knows one block of one output at a time.

use half::f16;

use crate::matrix::{BLOCK, Format};
use crate::weights::TensorType;

/// One block of one output: `w = d·q`, or `d·q + m` in [`Format::Q4Min`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Block {
    pub d: f16,
    pub m: f16,
    /// Without offset; Q8 from −128 to 127, Q4 from −8 to 7, Q4Min from 0 to 15.
    pub q: [i8; BLOCK],
}

impl Block {
    pub const ZERO: Block = Block { d: f16::ZERO, m: f16::ZERO, q: [0; BLOCK] };

    /// The weight in f32: an exact product, and with a minimum one rounding.
    pub fn weight(&self, i: usize, format: Format) -> f32 {
        let product = self.d.to_f32() * f32::from(self.q[i]);
        if format == Format::Q4Min { product + self.m.to_f32() } else { product }
    }

    pub fn is_finite(&self) -> bool {
        self.d.is_finite() && self.m.is_finite()
    }
}

/// A stored block as one of `format`, where that changes no weight; None where it must be quantised.
pub(crate) fn stored(ty: TensorType, bytes: &[u8], format: Format) -> Option<Block> {
    let half = |at: usize| f16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let mut block = Block { d: half(0), ..Block::ZERO };
    let nibbles = |bytes: &[u8], q: &mut [i8; BLOCK], offset: i8| {
        for (i, b) in bytes.iter().enumerate() {
            q[i] = (b & 15) as i8 - offset;
            q[i + BLOCK / 2] = (b >> 4) as i8 - offset;
        }
    };
    match (ty, format) {
        (TensorType::Q8_0, Format::Q8) => {
            for (q, b) in block.q.iter_mut().zip(&bytes[2..]) {
                *q = *b as i8;
            }
        }
        // Four bits with a sign fit eight.
        (TensorType::Q4_0, Format::Q4 | Format::Q8) => nibbles(&bytes[2..], &mut block.q, 8),
        (TensorType::Q4_1, Format::Q4Min) => {
            block.m = half(2);
            nibbles(&bytes[4..], &mut block.q, 0);
        }
        _ => return None,
    }
    Some(block)
}

/// Up to 32 finite weights to a block of `format`, each step one f32 operation:
///
/// - Q8: `d = f16(max|w| / 127)`, `q = round(w / d)` within ±127.
/// - Q4Min: `d = f16((max − min) / 15)`, `m = f16(min)`, `q = round((w − m) / d)` within 0 … 15.
///
/// `round` is half to even; where d is 0 so is q. A scale beyond f16's range comes out infinite, which
/// [`Block::is_finite`] tells.
pub(crate) fn quantise(weights: &[f32], format: Format) -> Block {
    let mut block = Block::ZERO;
    let (low, high) = weights.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &w| {
        (if w < low { w } else { low }, if w > high { w } else { high })
    });
    let most = if -low > high { -low } else { high };
    let (limits, m) = match format {
        Format::Q4Min => {
            block.m = f16::from_f32(low);
            block.d = f16::from_f32((high - low) / 15.0);
            ((0.0, 15.0), block.m.to_f32())
        }
        _ => {
            block.d = f16::from_f32(most / 127.0);
            ((-127.0, 127.0), 0.0)
        }
    };
    let d = block.d.to_f32();
    if d == 0.0 {
        return block;
    }
    for (q, &w) in block.q.iter_mut().zip(weights) {
        let x = (w - m) / d;
        let x = if x < limits.0 { limits.0 } else { x };
        let x = if x > limits.1 { limits.1 } else { x };
        *q = x.round_ties_even() as i8;
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantising_stays_within_half_a_step() {
        let weights: Vec<f32> = (0..32).map(|i| ((i * 37 % 64) as f32 - 20.0) * 0.013).collect();
        for (format, steps) in [(Format::Q8, 0.55), (Format::Q4Min, 0.75)] {
            let block = quantise(&weights, format);
            for (i, &w) in weights.iter().enumerate() {
                let error = (block.weight(i, format) - w).abs();
                assert!(error <= block.d.to_f32() * steps, "{format:?} {i}: {error}");
            }
        }
    }

    #[test]
    fn a_quantised_block_quantises_to_itself() {
        let mut q = [0i8; BLOCK];
        q.iter_mut().enumerate().for_each(|(i, q)| *q = (i as i32 * 8 - 127) as i8);
        let block = Block { d: f16::from_f32(0.01), m: f16::ZERO, q };
        let weights: Vec<f32> = (0..BLOCK).map(|i| block.weight(i, Format::Q8)).collect();
        assert_eq!(quantise(&weights, Format::Q8), block);
    }

    #[test]
    fn zeros_and_single_weights_have_a_block() {
        assert_eq!(quantise(&[0.0; 32], Format::Q8), Block::ZERO);
        let one = quantise(&[-0.5], Format::Q4Min);
        assert_eq!((one.weight(0, Format::Q4Min), one.d), (-0.5, f16::ZERO));
        assert!(!quantise(&[1e9, 0.0], Format::Q8).is_finite());
    }
}
