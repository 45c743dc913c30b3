//! Implementations of the specs on this CPU: which there are, which this machine can run, and the table of
//! functions each consists of. All of them return the same bits; `scalar` is the oracle.

pub(crate) mod arith;
pub(crate) mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod linear;
#[cfg(target_arch = "aarch64")]
mod neon;
mod rows;
pub(crate) mod scalar;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use attention::Attend;
use linear::Linear;

/// Code that computes a spec. Which one ran never enters a key: all return the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Implementation {
    /// Plain loops that read like the contract; any CPU.
    Scalar,
    /// x86-64 with AVX2 and FMA3.
    Avx2,
    /// x86-64 with AVX-512F.
    Avx512,
    /// AArch64, all of which has NEON.
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
            Self::Avx2 => {
                (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(&AVX2)
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f").then_some(&AVX512),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => None,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon").then_some(&NEON),
            #[cfg(not(target_arch = "aarch64"))]
            Self::Neon => None,
        }
    }
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

/// Compiles the generic kernels once with the named CPU features and makes the table of them.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! kernels {
    ($table:ident, $module:ident, $lanes:ty, $features:literal) => {
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
        static $table: Kernels = Kernels {
            linear: $module::linear,
            attend: $module::attend,
            rms_norm: $module::rms_norm,
            rope: $module::rope,
            add: $module::add,
            swiglu: $module::swiglu,
            exp_minus: $module::exp_minus,
            softmax: $module::softmax,
            all_finite: $module::all_finite,
        };
    };
}

#[cfg(target_arch = "x86_64")]
kernels!(AVX2, for_avx2, crate::cpu::avx2::Avx2, "avx2,fma");
#[cfg(target_arch = "x86_64")]
kernels!(AVX512, for_avx512, crate::cpu::avx512::Avx512, "avx512f,avx2,fma");
#[cfg(target_arch = "aarch64")]
kernels!(NEON, for_neon, crate::cpu::neon::Neon, "neon");
