//! The start-up vectors: does this machine, on this thread, compute as the numeric contract says? Microseconds.

use std::hint::black_box;

use crate::cpu::arith::{fma, fma_exact};
use crate::cpu::dot::{self, Dot};
use crate::cpu::linear::{Linear, PANEL};
use crate::cpu::quants::{self, Quants};
use crate::cpu::{Implementation, Kernels, scalar};
use crate::math;
use crate::matrix::{BLOCK, Format, NARROW, WIDE};
use crate::spec::Activations;

/// A vector that came out otherwise than the contract says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "start-up vector `{vector}` gave {found:#010x} where the contract says {expected:#010x}: this machine, or the \
     mode its floating-point unit was left in, cannot compute reproducibly"
)]
pub struct SelfTestError {
    pub vector: &'static str,
    pub found: u32,
    pub expected: u32,
}

fn expect(vector: &'static str, found: f32, expected: u32) -> Result<(), SelfTestError> {
    match found.to_bits() {
        bits if bits == expected => Ok(()),
        found => Err(SelfTestError { vector, found, expected }),
    }
}

/// Every vector, for one implementation, on the calling thread.
pub fn run(implementation: Implementation) -> Result<(), SelfTestError> {
    environment()?;
    basics()?;
    functions()?;
    match implementation.kernels() {
        Some(kernels) => tile(kernels),
        None => Ok(()),
    }
}

/// The modes of the floating-point unit: rounding to nearest even, subnormals read and written. Nanoseconds;
/// run before every pass, since any code of the process may have changed them.
pub fn environment() -> Result<(), SelfTestError> {
    let f = |bits: u32| black_box(f32::from_bits(bits));
    // A subnormal result from normal numbers (no FTZ), and a normal one from a subnormal (no DAZ).
    expect("subnormals written", f(0x0080_0000) * 0.5, 0x0040_0000)?;
    expect("subnormals read", f(0x0000_0001) * 16_777_216.0, 0x0100_0000)?;
    // 1 + 2^-24 is a tie that goes to even; 1 + 3·2^-24 too, upwards; a hair below 1 rounds neither way only
    // when rounding is to nearest.
    expect("ties to even, down", f(0x3f80_0000) + f(0x3380_0000), 0x3f80_0000)?;
    expect("ties to even, up", f(0x3f80_0001) + f(0x3380_0000), 0x3f80_0002)?;
    expect("rounding to nearest, down", -f(0x3f80_0000) - f(0x3300_0000), 0xbf80_0000)?;
    expect("rounding to nearest, up", f(0x3f80_0000) + f(0x33c0_0000), 0x3f80_0001)
}

fn basics() -> Result<(), SelfTestError> {
    let f = |bits: u32| black_box(f32::from_bits(bits));
    let (a, b, c) = (f(0x9700_0800), f(0x1cff_f001), f(0x0001_0002));
    expect("fma, compiled", fma(a, b, c), 0x0001_0001)?;
    expect("fma, from f64", fma_exact(a, b, c), 0x0001_0001)?;
    expect("division", f(0x3f80_0000) / f(0x4040_0000), 0x3eaa_aaab)?;
    expect("division, subnormal", f(0x0080_0000) / f(0x4040_0000), 0x002a_aaab)?;
    expect("square root", f(0x4000_0000).sqrt(), 0x3fb5_04f3)?;
    expect("square root, subnormal", f(0x0000_0001).sqrt(), 0x1a35_04f3)
}

/// Known bits of our own functions.
fn functions() -> Result<(), SelfTestError> {
    for (vector, x, expected) in [
        ("exp(1)", 0x3f80_0000, 0x402d_f854),
        ("exp(-1)", 0xbf80_0000, 0x3ebc_5ab2),
        ("exp(-0)", 0x8000_0000, 0x3f80_0000),
        ("exp(88.5)", 0x42b1_0000, 0x7f4c_dcc4),
        ("exp(-100)", 0xc2c8_0000, 0x0000_001b),
        ("exp(-104)", 0xc2d0_0000, 0x0000_0000),
        ("exp(89)", 0x42b2_0000, 0x7f80_0000),
    ] {
        expect(vector, math::exp(black_box(f32::from_bits(x))), expected)?;
    }
    expect("silu(-2)", math::silu(black_box(-2.0)), 0xbe74_20a9)
}

/// The implementation's kernels beside the scalar ones, over a shape with every kind of remainder: rows beyond
/// a tile, two chunks, panels beyond a group.
fn tile(kernels: &Kernels) -> Result<(), SelfTestError> {
    const ROWS: usize = 9;
    const K: usize = 259;
    const PANELS: usize = 5;
    let value = |i: usize| f32::from_bits(0x3f00_0000 | (i as u32).wrapping_mul(0x9e37_79b1) >> 9) - 0.7;
    let x: Vec<f32> = (0..ROWS * K).map(value).collect();
    let w: Vec<f32> = (0..PANELS * K * PANEL).map(|i| value(i + 77)).collect();
    let run = |kernels: &Kernels| {
        let mut out = vec![0.0f32; ROWS * PANELS * PANEL];
        let (panel, out_pitch) = (K * PANEL, PANELS * PANEL);
        let a = Linear {
            x: x.as_ptr(),
            x_pitch: K,
            rows: ROWS,
            w: w.as_ptr().cast(),
            format: Format::F32,
            panel: panel * 4,
            k: K,
            panels: PANELS,
            out: out.as_mut_ptr(),
            out_pitch,
        };
        // SAFETY: the vectors have the sizes the product names, and the table came from `kernels()`.
        unsafe { (kernels.linear)(&a) };
        let mut row = vec![0.0; K];
        // SAFETY: slices of one length.
        unsafe { (kernels.rms_norm)(&x[..K], &w[..K], 1e-5, &mut row) };
        out.extend_from_slice(&row);
        // SAFETY: as above.
        let sum = unsafe { (kernels.softmax)(&mut row, 3.0) };
        out.extend_from_slice(&row);
        out.push(sum);
        out
    };
    for (vector, format, bits, expected) in [
        ("q8 product, 16-bit activations", Format::Q8, Activations::A16, 0x8e59_2bf8),
        ("q8 product, 8-bit activations", Format::Q8, Activations::A8, 0xd255_c153),
        ("q4 product, 16-bit activations", Format::Q4, Activations::A16, 0x19f5_e0ae),
        ("q4 product, 8-bit activations", Format::Q4, Activations::A8, 0x38b6_b460),
        ("q4 product with minimums, 16-bit activations", Format::Q4Min, Activations::A16, 0xf8e3_e6fb),
        ("q4 product with minimums, 8-bit activations", Format::Q4Min, Activations::A8, 0x8ab4_5397),
    ] {
        // One number that changes if any bit does (FNV-1a); pinned, since the scalar loops would take milliseconds.
        let out = integers(kernels, &x, format, bits);
        let found = out.iter().fold(0x811c_9dc5u32, |sum, v| (sum ^ v.to_bits()).wrapping_mul(0x0100_0193));
        if found != expected {
            return Err(SelfTestError { vector, found, expected });
        }
    }
    for (found, expected) in run(kernels).into_iter().zip(run(&scalar::KERNELS)) {
        expect("kernels against scalar", found, expected.to_bits())?;
    }
    Ok(())
}

/// Products of integers over every kind of remainder: 9 rows of two chunks, the last block short, in products of 1,
/// 2 and 6, which implementations take in different ways, and 5 panels whose bytes are a pattern; the scales are 1.
fn integers(kernels: &Kernels, x: &[f32], format: Format, bits: Activations) -> Vec<f32> {
    const ROWS: usize = 9;
    const K: usize = 259;
    const PANELS: usize = 5;
    let blocks = K.div_ceil(BLOCK);
    let panel = format.panel_bytes(K);
    let integers = blocks * if format == Format::Q8 { WIDE } else { NARROW };
    let byte = |i: usize| match (i % panel).checked_sub(integers) {
        None => (i * 151 + i / 7) as u8,
        // f16's 1 is 0x3c00.
        Some(at) => 0x3c * (at % 2) as u8,
    };
    let w: Vec<u8> = (0..PANELS * panel).map(byte).collect();
    let pitch = quants::row_bytes(K);
    let mut rows = vec![0u64; ROWS * pitch / 8];
    let mut wide = vec![0u8; dot::WIDE_BYTES];
    let mut out = vec![0.0f32; ROWS * PANELS * PANEL];
    let all = Quants { at: rows.as_mut_ptr().cast(), pitch, blocks };
    // SAFETY: the vectors have the sizes the product names, and the table came from `kernels()`.
    unsafe {
        for (r, x) in x.chunks_exact(K).take(ROWS).enumerate() {
            (kernels.quantise)(x, bits, Quants { at: all.slots(r), ..all });
        }
        for (first, rows) in [(0, 1), (1, 2), (3, 6)] {
            (kernels.dot)(&Dot {
                x: Quants { at: all.slots(first), ..all },
                bits,
                rows,
                w: w.as_ptr(),
                format,
                panel,
                panels: PANELS,
                out: out.as_mut_ptr().add(first * PANELS * PANEL),
                out_pitch: PANELS * PANEL,
                wide: wide.as_mut_ptr(),
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_passes_with_every_implementation() {
        for implementation in Implementation::available() {
            assert_eq!(run(implementation), Ok(()), "{implementation}");
        }
    }

    #[test]
    fn kernels_that_round_otherwise_are_caught() {
        fn off(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
            scalar::rms_norm(x, gain, eps, out);
            out[100] = f32::from_bits(out[100].to_bits() ^ 1);
        }
        let broken = Kernels { rms_norm: off, ..scalar::KERNELS };
        assert!(tile(&broken).is_err_and(|e| e.vector == "kernels against scalar"));
        assert_eq!(tile(&scalar::KERNELS), Ok(()));
    }

    /// What code that sets its own modes, as some libraries do, leaves behind.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[test]
    fn a_floating_point_unit_in_another_mode_is_caught() {
        let set = |mode: u64| {
            // SAFETY: loads the control register from a valid address; restored below, and nothing but opaque
            // operations runs in between.
            #[cfg(target_arch = "x86_64")]
            unsafe {
                std::arch::asm!("ldmxcsr [{}]", in(reg) &(0x1f80 | mode as u32), options(nostack))
            };
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            unsafe {
                std::arch::asm!("msr fpcr, {}", in(reg) mode, options(nostack))
            };
        };
        let with = |mode: u64| {
            set(mode);
            let found = environment();
            set(0);
            found.err().map(|e| e.vector)
        };
        assert_eq!(with(0), None);
        // AArch64 flushes what it reads and what it writes by one bit.
        #[cfg(target_arch = "x86_64")]
        let (flushing, rounding) =
            ([(0x8000, "subnormals written"), (0x0040, "subnormals read")], [0x2000, 0x4000, 0x6000]);
        #[cfg(target_arch = "aarch64")]
        let (flushing, rounding) = ([(1 << 24, "subnormals written")], [1 << 22, 2 << 22, 3 << 22]);
        for (mode, vector) in flushing {
            assert_eq!(with(mode), Some(vector));
        }
        for mode in rounding {
            assert!(with(mode).is_some_and(|v| v.contains("to")), "{mode:#x}");
        }
    }
}
