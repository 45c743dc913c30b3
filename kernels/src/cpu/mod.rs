//! Implementations of the specs on this CPU: which there are, which this machine can run, and the table of
//! functions each consists of. All of them return the same bits; `scalar` is the oracle.

pub(crate) mod arith;
pub(crate) mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avxvnni;
pub(crate) mod dot;
#[cfg(test)]
mod dot_tests;
mod floats;
pub(crate) mod linear;
#[cfg(target_arch = "x86_64")]
mod madd;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_words;
pub(crate) mod quants;
mod rows;
pub(crate) mod scalar;
#[cfg(target_arch = "aarch64")]
mod sdot;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod vnni;

#[cfg(target_arch = "aarch64")]
use std::arch::is_aarch64_feature_detected;
use std::fmt;
use std::str::FromStr;

use attention::Attend;
use dot::Dot;
use linear::Linear;
use quants::Quants;

use crate::spec::Activations;

/// Code that computes a spec. Which one ran never enters a key: all return the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Implementation {
    /// Plain loops that read like the contract; any CPU.
    Scalar,
    /// x86-64 with AVX2, FMA3 and F16C; integers by AVX-VNNI where the CPU has it.
    Avx2,
    /// x86-64 with AVX-512F; integers by VNNI where the CPU has it, else as in `avx2`.
    Avx512,
    /// AArch64, all of which has NEON; integers by SDOT where the CPU has it.
    Neon,
}

impl Implementation {
    /// Every implementation on any machine; those of one CPU slowest first.
    pub const ALL: [Implementation; 4] = [Self::Scalar, Self::Avx2, Self::Avx512, Self::Neon];

    /// The fastest one this CPU can run.
    pub fn detect() -> Self {
        Self::ALL.into_iter().rev().find(|i| i.is_available()).unwrap_or(Self::Scalar)
    }

    /// Those this CPU can run, slowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|i| i.is_available())
    }

    pub fn is_available(self) -> bool {
        self.kernels().is_some()
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }

    /// The functions, if this CPU has the instructions they are made of.
    pub(crate) fn kernels(self) -> Option<&'static Kernels> {
        match self {
            Self::Scalar => Some(&scalar::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => has_avx2().then(|| if has_avxvnni() { &AVX2_VNNI } else { &AVX2 }),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => (has_avx2() && is_x86_feature_detected!("avx512f"))
                .then(|| if has_avx512vnni() { &AVX512_VNNI } else { &AVX512 }),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => None,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => {
                is_aarch64_feature_detected!("neon").then(|| if has_sdot() { &NEON_SDOT } else { &NEON })
            }
            #[cfg(not(target_arch = "aarch64"))]
            Self::Neon => None,
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
fn has_avxvnni() -> bool {
    has_avx2() && is_x86_feature_detected!("avxvnni")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512vnni() -> bool {
    is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

#[cfg(target_arch = "aarch64")]
fn has_sdot() -> bool {
    is_aarch64_feature_detected!("dotprod")
}

impl fmt::Display for Implementation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no implementation's.
#[derive(Debug, thiserror::Error)]
#[error("no implementation is called `{0}`; there are scalar, avx2, avx512 and neon")]
pub struct UnknownImplementation(pub String);

impl FromStr for Implementation {
    type Err = UnknownImplementation;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|i| i.name() == s).ok_or_else(|| UnknownImplementation(s.to_owned()))
    }
}

/// The functions of one implementation. All are unsafe to call: the CPU must have the instructions, which
/// having the table from [`Implementation::kernels`] proves; slices of one call have one length. What each
/// computes is said in `scalar`.
pub(crate) struct Kernels {
    pub linear: unsafe fn(&Linear),
    pub dot: unsafe fn(&Dot),
    /// A row to row 0.
    pub quantise: unsafe fn(x: &[f32], bits: Activations, out: Quants),
    pub attend: unsafe fn(&Attend<'_>),
    pub rms_norm: unsafe fn(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]),
    pub rope: unsafe fn(x: &[f32], table: &[f32], out: &mut [f32]),
    pub add: unsafe fn(x: &mut [f32], y: &[f32]),
    /// `gate_up` alternates 16 of gate with 16 of up, as the panels give them.
    pub swiglu: unsafe fn(gate_up: &[f32], out: &mut [f32]),
    pub exp_minus: unsafe fn(x: &[f32], max: f32, out: &mut [f32]),
    /// In place; returns the denominator.
    pub softmax: unsafe fn(scores: &mut [f32], scale: f32) -> f32,
    pub all_finite: unsafe fn(x: &[f32]) -> bool,
}

/// Compiles the generic kernels of floats once with the named CPU features.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! floats {
    ($module:ident, $lanes:ty, $features:literal) => {
        mod $module {
            use super::{Attend, Linear, attention, linear, rows};

            // SAFETY of each: the caller promises the CPU features and what the generic function asks for.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn linear(a: &Linear) {
                // SAFETY: as above.
                unsafe { linear::linear::<$lanes>(a) }
            }
            #[target_feature(enable = $features)]
            pub(super) unsafe fn attend(a: &Attend<'_>) {
                // SAFETY: as above.
                unsafe { attention::attend::<$lanes>(a) }
            }
            #[target_feature(enable = $features)]
            pub(super) unsafe fn rms_norm(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
                // SAFETY: as above.
                unsafe { rows::rms_norm::<$lanes>(x, gain, eps, out) }
            }
            #[target_feature(enable = $features)]
            pub(super) unsafe fn rope(x: &[f32], table: &[f32], out: &mut [f32]) {
                // SAFETY: as above.
                unsafe { rows::rope::<$lanes>(x, table, out) }
            }
            #[target_feature(enable = $features)]
            pub(super) unsafe fn add(x: &mut [f32], y: &[f32]) {
                // SAFETY: as above.
                unsafe { rows::add::<$lanes>(x, y) }
            }
            #[target_feature(enable = $features)]
            pub(super) unsafe fn swiglu(gate_up: &[f32], out: &mut [f32]) {
                // SAFETY: as above.
                unsafe { rows::swiglu::<$lanes>(gate_up, out) }
            }
            #[target_feature(enable = $features)]
            pub(super) unsafe fn exp_minus(x: &[f32], max: f32, out: &mut [f32]) {
                // SAFETY: as above.
                unsafe { rows::exp_minus::<$lanes>(x, max, out) }
            }
            #[target_feature(enable = $features)]
            pub(super) unsafe fn softmax(scores: &mut [f32], scale: f32) -> f32 {
                // SAFETY: as above.
                unsafe { rows::softmax::<$lanes>(scores, scale) }
            }
            #[target_feature(enable = $features)]
            pub(super) unsafe fn all_finite(x: &[f32]) -> bool {
                // SAFETY: as above.
                unsafe { rows::all_finite::<$lanes>(x) }
            }
        }
    };
}

/// The same for the kernels of integers.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! integers {
    ($module:ident, $ints:ty, $features:literal) => {
        mod $module {
            use super::{Activations, Dot, Quants, dot, quants};

            // SAFETY of each: the caller promises the CPU features and what the generic function asks for.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn dot(a: &Dot) {
                // SAFETY: as above.
                unsafe { dot::product::<$ints>(a) }
            }
            #[target_feature(enable = $features)]
            pub(super) unsafe fn quantise(x: &[f32], bits: Activations, out: Quants) {
                // SAFETY: as above.
                unsafe { quants::quantise::<$ints>(x, bits, out) }
            }
        }
    };
}

/// The table of two modules' functions.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! table {
    ($table:ident, $floats:ident, $integers:ident) => {
        static $table: Kernels = Kernels {
            linear: $floats::linear,
            dot: $integers::dot,
            quantise: $integers::quantise,
            attend: $floats::attend,
            rms_norm: $floats::rms_norm,
            rope: $floats::rope,
            add: $floats::add,
            swiglu: $floats::swiglu,
            exp_minus: $floats::exp_minus,
            softmax: $floats::softmax,
            all_finite: $floats::all_finite,
        };
    };
}

#[cfg(target_arch = "x86_64")]
floats!(floats_avx2, crate::cpu::avx2::Avx2, "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
floats!(floats_avx512, crate::cpu::avx512::Avx512, "avx512f,avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
integers!(ints_madd, crate::cpu::madd::Madd, "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
integers!(ints_avxvnni, crate::cpu::avxvnni::AvxVnni, "avx2,fma,f16c,avxvnni");
#[cfg(target_arch = "x86_64")]
integers!(ints_vnni, crate::cpu::vnni::Vnni, "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
table!(AVX2, floats_avx2, ints_madd);
#[cfg(target_arch = "x86_64")]
table!(AVX2_VNNI, floats_avx2, ints_avxvnni);
#[cfg(target_arch = "x86_64")]
table!(AVX512, floats_avx512, ints_madd);
#[cfg(target_arch = "x86_64")]
table!(AVX512_VNNI, floats_avx512, ints_vnni);
#[cfg(target_arch = "aarch64")]
floats!(floats_neon, crate::cpu::neon::Neon, "neon");
#[cfg(target_arch = "aarch64")]
integers!(ints_neon, crate::cpu::neon_words::NeonWords, "neon");
#[cfg(target_arch = "aarch64")]
integers!(ints_sdot, crate::cpu::sdot::Sdot, "neon,dotprod");
#[cfg(target_arch = "aarch64")]
table!(NEON, floats_neon, ints_neon);
#[cfg(target_arch = "aarch64")]
table!(NEON_SDOT, floats_neon, ints_sdot);
