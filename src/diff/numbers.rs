//! How far two rows of numbers are apart: bits are compared, distances are told. Knows no file.

use half::{bf16, f16};
use safetensors::Dtype;
use serde::Serialize;

/// What two arrays of one type and shape have in common.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Numbers {
    pub elements: u64,
    /// Elements with other bits.
    pub differing: u64,
    /// The first of them, as an index for each axis.
    pub first: Option<Vec<usize>>,
    /// Largest absolute difference, over the elements that are finite on both sides.
    pub max_abs: f64,
    pub max_abs_at: Option<Vec<usize>>,
    /// Largest number of floats between two elements; None for whole numbers.
    pub max_ulp: Option<u64>,
    /// None when one side is all zero, or holds what is no number.
    pub cosine: Option<f64>,
    /// Differing elements of which one is NaN or infinite: no distance covers them.
    pub not_finite: u64,
}

/// Sums up differences, element by element.
#[derive(Default)]
struct Tally {
    elements: u64,
    differing: u64,
    first: Option<usize>,
    max_abs: f64,
    max_abs_at: Option<usize>,
    max_ulp: Option<u64>,
    dot: f64,
    squares: [f64; 2],
    not_finite: u64,
}

impl Tally {
    fn add(&mut self, a: f64, b: f64, same_bits: bool, ulp: Option<u64>) {
        let at = self.elements as usize;
        self.elements += 1;
        self.dot += a * b;
        self.squares[0] += a * a;
        self.squares[1] += b * b;
        if same_bits {
            return;
        }
        self.differing += 1;
        self.first.get_or_insert(at);
        if !(a.is_finite() && b.is_finite()) {
            self.not_finite += 1;
            return;
        }
        self.max_ulp = self.max_ulp.max(ulp);
        let apart = (a - b).abs();
        if apart > self.max_abs || self.max_abs_at.is_none() {
            (self.max_abs, self.max_abs_at) = (apart, Some(at));
        }
    }

    fn finish(self, shape: &[usize]) -> Numbers {
        let length = self.squares[0].sqrt() * self.squares[1].sqrt();
        let cosine = (length.is_finite() && length > 0.0).then(|| self.dot / length);
        Numbers {
            elements: self.elements,
            differing: self.differing,
            first: self.first.map(|at| unravel(at, shape)),
            max_abs: self.max_abs,
            max_abs_at: self.max_abs_at.map(|at| unravel(at, shape)),
            max_ulp: self.max_ulp,
            // Of equal rows it is 1, whatever rounding says.
            cosine: if self.differing == 0 { cosine.map(|_| 1.0) } else { cosine },
            not_finite: self.not_finite,
        }
    }
}

/// An index for each axis, row-major.
fn unravel(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (axis, &size) in shape.iter().enumerate().rev() {
        if size > 0 {
            index[axis] = at % size;
            at /= size;
        }
    }
    index
}

/// An index as people read it.
pub fn place(index: &[usize]) -> String {
    format!("[{}]", index.iter().map(usize::to_string).collect::<Vec<_>>().join(", "))
}

/// Floats between two, by their bits with the sign in front. ±0 are one apart from nothing but each other.
fn steps32(a: f32, b: f32) -> u64 {
    let order = |x: f32| {
        let bits = i64::from(x.to_bits() & 0x7fff_ffff);
        if x.is_sign_negative() { -bits } else { bits }
    };
    order(a).abs_diff(order(b))
}

fn steps64(a: f64, b: f64) -> u64 {
    let order = |x: f64| {
        let bits = (x.to_bits() & !(1 << 63)) as i64;
        if x.is_sign_negative() { -bits } else { bits }
    };
    order(a).abs_diff(order(b))
}

/// Steps between two 16-bit floats.
fn steps16(a: u16, b: u16) -> u64 {
    let order = |x: u16| {
        let bits = i64::from(x & 0x7fff);
        if x >> 15 == 1 { -bits } else { bits }
    };
    order(a).abs_diff(order(b))
}

/// Compares the bytes of two arrays of one type, little-endian, as far as both go.
pub fn compare(dtype: Dtype, shape: &[usize], a: &[u8], b: &[u8]) -> Numbers {
    let mut tally = Tally::default();
    fn each<const N: usize>(a: &[u8], b: &[u8], mut add: impl FnMut([u8; N], [u8; N])) {
        a.as_chunks().0.iter().zip(b.as_chunks().0).for_each(|(a, b)| add(*a, *b));
    }
    macro_rules! whole {
        ($ty:ty) => {
            each(a, b, |x, y| {
                let (x, y) = (<$ty>::from_le_bytes(x), <$ty>::from_le_bytes(y));
                tally.add(x as f64, y as f64, x == y, None);
            })
        };
    }
    match dtype {
        Dtype::F32 => each(a, b, |x, y| {
            let (x, y) = (f32::from_le_bytes(x), f32::from_le_bytes(y));
            tally.add(x.into(), y.into(), x.to_bits() == y.to_bits(), Some(steps32(x, y)));
        }),
        Dtype::F64 => each(a, b, |x, y| {
            let (x, y) = (f64::from_le_bytes(x), f64::from_le_bytes(y));
            tally.add(x, y, x.to_bits() == y.to_bits(), Some(steps64(x, y)));
        }),
        Dtype::F16 => each(a, b, |x, y| {
            let (x, y) = (f16::from_le_bytes(x), f16::from_le_bytes(y));
            let ulp = steps16(x.to_bits(), y.to_bits());
            tally.add(x.to_f64(), y.to_f64(), x.to_bits() == y.to_bits(), Some(ulp));
        }),
        Dtype::BF16 => each(a, b, |x, y| {
            let (x, y) = (bf16::from_le_bytes(x), bf16::from_le_bytes(y));
            let ulp = steps16(x.to_bits(), y.to_bits());
            tally.add(x.to_f64(), y.to_f64(), x.to_bits() == y.to_bits(), Some(ulp));
        }),
        Dtype::I8 => whole!(i8),
        Dtype::U16 => whole!(u16),
        Dtype::I16 => whole!(i16),
        Dtype::U32 => whole!(u32),
        Dtype::I32 => whole!(i32),
        Dtype::U64 => whole!(u64),
        Dtype::I64 => whole!(i64),
        // What is not read as numbers is compared as bytes.
        _ => whole!(u8),
    }
    tally.finish(shape)
}

/// Compares rows of f32 that were made for it.
pub fn compare_f32(shape: &[usize], a: &[f32], b: &[f32]) -> Numbers {
    let mut tally = Tally::default();
    for (x, y) in a.iter().zip(b) {
        tally.add((*x).into(), (*y).into(), x.to_bits() == y.to_bits(), Some(steps32(*x, *y)));
    }
    tally.finish(shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn distances_are_told_and_places_named() {
        let one_up = f32::from_bits(1.0f32.to_bits() + 1);
        let a = f32s(&[1.0, 2.0, 1.0, -3.0]);
        let b = f32s(&[1.0, 2.0, one_up, 3.0]);
        let found = compare(Dtype::F32, &[2, 2], &a, &b);
        assert_eq!((found.elements, found.differing, found.not_finite), (4, 2, 0));
        assert_eq!((&found.first, &found.max_abs_at), (&Some(vec![1, 0]), &Some(vec![1, 1])));
        assert_eq!(found.max_abs, 6.0);
        assert_eq!(found.max_ulp, Some(2 * u64::from(3.0f32.to_bits())));
        let cosine = (1.0 + 4.0 + f64::from(one_up) - 9.0)
            / (15.0f64.sqrt() * (14.0 + f64::from(one_up) * f64::from(one_up)).sqrt());
        assert!((found.cosine.unwrap() - cosine).abs() < 1e-12, "{found:?}");
        let found = compare(Dtype::F32, &[4], &f32s(&[0.5]), &f32s(&[0.5]));
        assert_eq!((found.differing, found.first, found.max_ulp, found.cosine), (0, None, None, Some(1.0)));
    }

    /// A NaN is never equal by value, nor is it a distance; the same bits are the same.
    #[test]
    fn what_is_no_number_is_counted_apart() {
        let nan = f32s(&[f32::NAN, 1.0]);
        let found = compare(Dtype::F32, &[2], &nan, &f32s(&[0.0, 1.0]));
        assert_eq!((found.differing, found.not_finite, found.max_ulp), (1, 1, None));
        assert_eq!(found.cosine, None);
        assert_eq!(compare(Dtype::F32, &[2], &nan, &nan).differing, 0);
        // Equal values, other bits.
        let zeros = compare(Dtype::F32, &[1], &f32s(&[0.0]), &f32s(&[-0.0]));
        assert_eq!((zeros.differing, zeros.max_abs, zeros.max_ulp), (1, 0.0, Some(0)));
    }

    #[test]
    fn every_type_is_read_as_what_it_is() {
        let found = |dtype, a: &[u8], b: &[u8]| compare(dtype, &[1], a, b);
        let half = found(Dtype::F16, &f16::ONE.to_le_bytes(), &f16::from_bits(0x3c01).to_le_bytes());
        assert_eq!((half.max_ulp, half.max_abs), (Some(1), 0.0009765625));
        assert_eq!(found(Dtype::BF16, &[0x80, 0x3f], &[0x81, 0x3f]).max_abs, 0.0078125);
        assert_eq!(found(Dtype::F64, &1.0f64.to_le_bytes(), &2.0f64.to_le_bytes()).max_abs, 1.0);
        assert_eq!(found(Dtype::I32, &(-1i32).to_le_bytes(), &1i32.to_le_bytes()).max_abs, 2.0);
        assert_eq!(found(Dtype::U32, &u32::MAX.to_le_bytes(), &[0; 4]).max_ulp, None);
        assert_eq!(found(Dtype::U8, &[200], &[100]).max_abs, 100.0);
    }
}
