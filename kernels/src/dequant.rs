//! What each stored type means in f32, exactly. Knows rows of bytes, no file format.

use half::{bf16, f16};

use crate::weights::{TensorType, TensorView};

/// Weights of a block of the block types.
pub const BLOCK: usize = 32;

impl TensorType {
    /// Bytes of a row of `cols` weights; None when the block types cannot hold that many, or on overflow.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        let blocks =
            |bytes: usize| if cols.is_multiple_of(BLOCK) { (cols / BLOCK).checked_mul(bytes) } else { None };
        match self {
            TensorType::F32 => cols.checked_mul(4),
            TensorType::F16 | TensorType::BF16 => cols.checked_mul(2),
            TensorType::Q8_0 => blocks(2 + 32),
            TensorType::Q4_0 => blocks(2 + 16),
            TensorType::Q4_1 => blocks(4 + 16),
        }
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

/// One row of weights in f32. `bytes` holds exactly `out.len()` weights.
///
/// F32, F16 and BF16 are exact. In the block types the scale d and minimum m are f16, widened exactly:
/// Q8_0 `w = d·q`, Q4_0 `w = d·(q − 8)`: a product of 11 and at most 8 significant bits, exact in f32.
/// Q4_1 `w = d·q + m`: the product is exact, the sum rounded once, so fused or not is the same.
/// In the nibble types byte i holds weight i in its low and weight i + 16 in its high half.
pub fn dequantise(ty: TensorType, bytes: &[u8], out: &mut [f32]) {
    let half = |b: &[u8]| f16::from_bits(u16::from_le_bytes([b[0], b[1]])).to_f32();
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
        TensorType::Q8_0 => {
            for (w, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(34)) {
                let d = half(b);
                for (w, &q) in w.iter_mut().zip(&b[2..]) {
                    *w = d * f32::from(q as i8);
                }
            }
        }
        TensorType::Q4_0 => {
            for (w, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(18)) {
                let d = half(b);
                nibbles(w, &b[2..], |q| d * (q - 8.0));
            }
        }
        TensorType::Q4_1 => {
            for (w, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(20)) {
                let (d, m) = (half(b), half(&b[2..]));
                nibbles(w, &b[4..], |q| d * q + m);
            }
        }
    }
}

fn nibbles(w: &mut [f32], bytes: &[u8], value: impl Fn(f32) -> f32) {
    let (low, high) = w.split_at_mut(BLOCK / 2);
    for ((low, high), &b) in low.iter_mut().zip(high).zip(bytes) {
        *low = value(f32::from(b & 15));
        *high = value(f32::from(b >> 4));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ty: TensorType, bytes: &[u8], n: usize) -> Vec<f32> {
        assert_eq!(ty.row_bytes(n), Some(bytes.len()));
        let mut out = vec![f32::NAN; n];
        dequantise(ty, bytes, &mut out);
        out
    }

    #[test]
    fn plain_types_are_exact() {
        assert_eq!(row(TensorType::F32, &0x3f80_0001_u32.to_le_bytes(), 1)[0].to_bits(), 0x3f80_0001);
        assert_eq!(row(TensorType::F16, &[0x01, 0x00], 1), [2f32.powi(-24)]);
        assert_eq!(row(TensorType::BF16, &[0xc0, 0x3f], 1), [1.5]);
    }

    #[test]
    fn block_types_follow_their_formulas() {
        // d = 0.5, m = 3: nibble i of a byte sequence 0x10, 0x32, …
        let d = [0x00, 0x38];
        let q: Vec<u8> = (0..16).map(|i| ((i * 2 + 1) as u8 & 15) << 4 | ((i * 2) as u8 & 15)).collect();
        let q4_0 = row(TensorType::Q4_0, &[&d[..], &q].concat(), 32);
        let q4_1 = row(TensorType::Q4_1, &[&d[..], &[0x00, 0x42], &q].concat(), 32);
        for i in 0..16 {
            let (low, high) = (((i * 2) & 15) as f32, ((i * 2 + 1) & 15) as f32);
            assert_eq!((q4_0[i], q4_0[i + 16]), (0.5 * (low - 8.0), 0.5 * (high - 8.0)));
            assert_eq!((q4_1[i], q4_1[i + 16]), (0.5 * low + 3.0, 0.5 * high + 3.0));
        }
        let q: Vec<u8> = (0..32).map(|i| (i * 8) as u8).collect();
        let q8 = row(TensorType::Q8_0, &[&d[..], &q].concat(), 32);
        assert!((0..32).all(|i| q8[i] == 0.5 * f32::from((i * 8) as u8 as i8)));
    }

    #[test]
    fn a_row_that_no_block_can_hold_has_no_size() {
        assert_eq!(TensorType::Q8_0.row_bytes(33), None);
        assert_eq!(TensorType::F32.row_bytes(usize::MAX), None);
    }
}
