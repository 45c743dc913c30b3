//! What each stored type means in f32, exactly. Knows rows of bytes, no file format.
//!
//! A step of a formula is one f32 operation. d, m and dmin are f16 in the file and widened exactly; q, sc and m of
//! the K types are small integers, exact in f32. Every product is exact (its significant bits are counted below, 24
//! are there, and no f16 times such integers leaves f32's normal range), so that a weight is rounded at most once
//! and fused or not is the same.
//!
//! | type | weights, bytes | formula | significant bits | rounded |
//! |---|---|---|---|---|
//! | F32, F16, BF16 | 1, 4 or 2 | the value | | never |
//! | Q8_0 | 32, 34 | `d·q`, q in −128..=127 | 11 + 7 | never |
//! | Q4_0 | 32, 18 | `d·(q − 8)`, q in 0..16 | 11 + 3 | never |
//! | Q4_1 | 32, 20 | `d·q + m` | 11 + 4 | the sum |
//! | Q5_0 | 32, 22 | `d·(q − 16)`, q in 0..32 | 11 + 4 | never |
//! | Q5_1 | 32, 24 | `d·q + m` | 11 + 5 | the sum |
//! | Q4_K | 256, 144 | `(d·sc)·q − dmin·m`, q in 0..16, sc and m in 0..64 | 11 + 6 + 4 | the difference |
//! | Q5_K | 256, 176 | the same, q in 0..32 | 11 + 6 + 5 | the difference |
//! | Q6_K | 256, 210 | `(d·sc)·(q − 32)`, q in 0..64, sc in −128..=127 | 11 + 7 + 5 | never |
//!
//! Operations, order and layout are those of ggml's `dequantize_row_*`, and of the numpy code of its Python package
//! `gguf`, from which `tests/dequant` has its vectors.

mod blocks;
mod superblocks;

use half::{bf16, f16};

use crate::weights::{TensorType, TensorView};

/// Weights of a block of the block types.
pub const BLOCK: usize = 32;
/// Weights of a block of the K types.
pub const SUPERBLOCK: usize = 256;

impl TensorType {
    /// (weights, bytes) of the smallest unit the type stores.
    pub const fn unit(self) -> (usize, usize) {
        match self {
            TensorType::F32 => (1, 4),
            TensorType::F16 | TensorType::BF16 => (1, 2),
            TensorType::Q8_0 => (BLOCK, 2 + 32),
            TensorType::Q4_0 => (BLOCK, 2 + 16),
            TensorType::Q4_1 => (BLOCK, 4 + 16),
            TensorType::Q5_0 => (BLOCK, 2 + 4 + 16),
            TensorType::Q5_1 => (BLOCK, 4 + 4 + 16),
            TensorType::Q4_K => (SUPERBLOCK, 4 + 12 + 128),
            TensorType::Q5_K => (SUPERBLOCK, 4 + 12 + 32 + 128),
            TensorType::Q6_K => (SUPERBLOCK, 128 + 64 + 16 + 2),
        }
    }

    /// Bytes of a row of `cols` weights; None when the block types cannot hold that many, or on overflow.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        let (weights, bytes) = self.unit();
        if cols.is_multiple_of(weights) { (cols / weights).checked_mul(bytes) } else { None }
    }
}

impl TensorView<'_> {
    /// Bytes the whole tensor has; None when they cannot be counted.
    pub fn bytes(&self) -> Option<usize> {
        self.ty.row_bytes(self.cols)?.checked_mul(self.rows)
    }

    /// Row `row` as f32. The caller has checked `data.len() == bytes()` and `row < rows`; `out` has `cols`.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        dequantise(self.ty, self.stored_row(row), out);
    }

    /// The bytes of row `row`, under the same conditions.
    pub(crate) fn stored_row(&self, row: usize) -> &[u8] {
        let bytes = self.ty.row_bytes(self.cols).unwrap_or(0);
        &self.data[row * bytes..(row + 1) * bytes]
    }
}

/// One row of weights in f32, by the formulas above. `bytes` holds exactly `out.len()` weights.
pub fn dequantise(ty: TensorType, bytes: &[u8], out: &mut [f32]) {
    match ty {
        TensorType::F32 => {
            for (w, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                *w = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            }
        }
        TensorType::F16 => {
            for (w, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *w = half(b);
            }
        }
        TensorType::BF16 => {
            for (w, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *w = bf16::from_bits(u16::from_le_bytes([b[0], b[1]])).to_f32();
            }
        }
        _ => {
            let (weights, size) = ty.unit();
            for (w, b) in out.chunks_exact_mut(weights).zip(bytes.chunks_exact(size)) {
                block(ty, b, w);
            }
        }
    }
}

fn block(ty: TensorType, b: &[u8], w: &mut [f32]) {
    match ty {
        TensorType::Q8_0 => blocks::q8_0(b, w),
        TensorType::Q4_0 => blocks::q4_0(b, w),
        TensorType::Q4_1 => blocks::q4_1(b, w),
        TensorType::Q5_0 => blocks::q5_0(b, w),
        TensorType::Q5_1 => blocks::q5_1(b, w),
        TensorType::Q4_K => superblocks::q4_k(b, w),
        TensorType::Q5_K => superblocks::q5_k(b, w),
        TensorType::Q6_K => superblocks::q6_k(b, w),
        TensorType::F32 | TensorType::F16 | TensorType::BF16 => {}
    }
}

/// The f16 at the start of `b`.
fn half(b: &[u8]) -> f32 {
    f16::from_bits(u16::from_le_bytes([b[0], b[1]])).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_types_are_exact() {
        let row = |ty, bytes: &[u8]| {
            let mut out = [f32::NAN];
            dequantise(ty, bytes, &mut out);
            out[0].to_bits()
        };
        assert_eq!(row(TensorType::F32, &0x3f80_0001_u32.to_le_bytes()), 0x3f80_0001);
        assert_eq!(row(TensorType::F16, &[0x01, 0x00]), 2f32.powi(-24).to_bits());
        assert_eq!(row(TensorType::BF16, &[0xc0, 0x3f]), 1.5f32.to_bits());
    }

    #[test]
    fn a_row_that_no_block_can_hold_has_no_size() {
        assert_eq!(TensorType::Q8_0.row_bytes(33), None);
        assert_eq!(TensorType::Q4_K.row_bytes(576), None);
        assert_eq!(TensorType::Q6_K.row_bytes(512), Some(420));
        assert_eq!(TensorType::F32.row_bytes(usize::MAX), None);
    }
}
