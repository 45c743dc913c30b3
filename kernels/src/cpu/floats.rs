//! Weights as a product of floats reads them: f32, or 16 bits widened exactly on the way into a register.
//! Knows one vector of 16 weights.

use half::{bf16, f16};

use super::arith::Lanes;

/// 16 weights of one input, side by side in a panel.
pub(crate) trait Weights {
    /// Bytes of one weight.
    const BYTES: usize;

    /// # Safety
    /// The CPU has `L`'s instructions; 16 weights are readable at `p`.
    unsafe fn load<L: Lanes>(p: *const u8) -> L;
}

pub(crate) struct F32;
pub(crate) struct F16;
pub(crate) struct Bf16;

impl Weights for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load<L: Lanes>(p: *const u8) -> L {
        // SAFETY: the caller's promise; any alignment will do.
        unsafe { L::load(p.cast()) }
    }
}

impl Weights for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<L: Lanes>(p: *const u8) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load_f16(p.cast()) }
    }
}

impl Weights for Bf16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<L: Lanes>(p: *const u8) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load_bf16(p.cast()) }
    }
}

/// One weight of `W` at `p`; for plain loops.
///
/// # Safety
/// The weight is readable.
pub(crate) unsafe fn one(format: crate::matrix::Format, p: *const u8) -> f32 {
    use crate::matrix::Format;
    // SAFETY: the caller's promise; any alignment will do.
    unsafe {
        match format {
            Format::F16 => f16::from_bits(p.cast::<u16>().read_unaligned()).to_f32(),
            Format::Bf16 => bf16::from_bits(p.cast::<u16>().read_unaligned()).to_f32(),
            _ => p.cast::<f32>().read_unaligned(),
        }
    }
}
