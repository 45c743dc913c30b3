//! Judges our functions: every result of every f32, or of a spread of them, against a reference of some 70 bits or
//! more, with the largest error and one number that changes if any bit of any result does. A test takes the
//! spread, `examples/sweep.rs` everything.

use rayon::prelude::*;

use super::dd::{Dd, times_pow2};
pub use super::functions::FUNCTIONS;
use super::reference::{Reference, Truth};
use crate::cpu::{Implementation, Kernels};

/// What the inputs and the results are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// f32 to f32.
    Single,
    /// f32, widened, to f64.
    Double,
}

/// A function over a row, by the table it came with.
pub(super) type Row = fn(&Kernels, &[f32], &mut [f32]);

/// One of our functions, as a function of an f32.
#[derive(Clone, Copy)]
pub struct Function {
    pub name: &'static str,
    pub(super) width: Width,
    pub(super) run: fn(f32) -> f64,
    pub(super) truth: fn(&Reference, f32) -> Truth,
    /// The vectorised form, where there is one.
    pub(super) row: Option<Row>,
    pub known: Known,
}

/// What a sweep has found before, and must find again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    /// Of all 2^32 inputs.
    pub all: Summary,
    /// Of the spread.
    pub spread: u64,
}

/// What there is to say about all results.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The sum, modulo 2^64, of a mix of each input's bits and its result's, all NaN being one.
    pub checksum: u64,
    /// Largest error in units of the last place of the exact value, rounded up to four decimals.
    pub ulp: f64,
    /// How many results, rounded to f32, are not the f32 nearest to the exact value.
    pub not_nearest: u64,
}

/// A [`Summary`], and where the largest error is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    pub summary: Summary,
    pub at: f32,
}

/// Which inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inputs {
    All,
    /// 256 of each sign and exponent: the edges, every power of two, and a spread.
    Spread,
}

impl Inputs {
    fn blocks(self) -> u32 {
        match self {
            Inputs::All => 1 << 16,
            Inputs::Spread => 1 << 9,
        }
    }

    /// The bits of a block's inputs.
    fn block(self, block: u32) -> impl Iterator<Item = u32> {
        let size = match self {
            Inputs::All => 1u32 << 16,
            Inputs::Spread => 1 << 8,
        };
        (0..size).map(move |i| match self {
            Inputs::All => block << 16 | i,
            Inputs::Spread => {
                let mantissa = match i {
                    0..32 => i,
                    32..64 => 0x7f_ffff - (i - 32),
                    64..87 => 1 << (i - 64),
                    87..110 => (1 << (i - 87)) - 1,
                    _ => mix(u64::from(block << 8 | i)) as u32 & 0x7f_ffff,
                };
                block << 23 | mantissa
            }
        })
    }
}

/// A running [`Found`], its error not yet rounded.
#[derive(Clone, Copy)]
struct Sum {
    checksum: u64,
    ulp: f64,
    at: f32,
    not_nearest: u64,
}

impl Sum {
    const NOTHING: Sum = Sum { checksum: 0, ulp: 0.0, at: 0.0, not_nearest: 0 };

    fn join(self, o: Sum) -> Sum {
        let worst = if o.ulp > self.ulp { o } else { self };
        Sum {
            checksum: self.checksum.wrapping_add(o.checksum),
            not_nearest: self.not_nearest + o.not_nearest,
            ..worst
        }
    }
}

impl Function {
    /// Judges every result. The same on every machine; rayon's current pool helps.
    pub fn judge(&self, inputs: Inputs) -> Found {
        let reference = Reference::new();
        let one = |sum: Sum, bits: u32| {
            let x = f32::from_bits(bits);
            let (y, truth) = ((self.run)(x), (self.truth)(&reference, x));
            let same = y.is_nan() && truth.value.hi.is_nan() || y as f32 == truth.nearest();
            let checksum = term(bits, self.bits(y));
            sum.join(Sum { checksum, ulp: self.ulps(y, &truth), at: x, not_nearest: u64::from(!same) })
        };
        let sum = (0..inputs.blocks())
            .into_par_iter()
            .map(|block| inputs.block(block).fold(Sum::NOTHING, one))
            .reduce(|| Sum::NOTHING, Sum::join);
        let ulp = (sum.ulp * 1e4).ceil() / 1e4;
        let summary = Summary { checksum: sum.checksum, ulp, not_nearest: sum.not_nearest };
        Found { summary, at: sum.at }
    }

    /// The checksum that `implementation`'s vectorised form gives; None where it has none or this CPU cannot run it.
    pub fn checksum_of(&self, implementation: Implementation, inputs: Inputs) -> Option<u64> {
        let (row, kernels) = (self.row?, implementation.kernels()?);
        let block = |block: u32| {
            let x: Vec<f32> = inputs.block(block).map(f32::from_bits).collect();
            let mut y = vec![0.0; x.len()];
            row(kernels, &x, &mut y);
            let terms = x.iter().zip(y).map(|(x, y)| term(x.to_bits(), self.bits(y.into())));
            terms.fold(0, u64::wrapping_add)
        };
        Some((0..inputs.blocks()).into_par_iter().map(block).reduce(|| 0, u64::wrapping_add))
    }

    /// The result's bits; all NaN are one.
    fn bits(&self, y: f64) -> u64 {
        match self.width {
            _ if y.is_nan() => u64::MAX,
            Width::Single => (y as f32).to_bits().into(),
            Width::Double => y.to_bits(),
        }
    }

    /// The distance in units of the last place of the truth, subnormals in theirs; infinite where only one is NaN
    /// or infinity.
    fn ulps(&self, y: f64, truth: &Truth) -> f64 {
        let (digits, least, most) = match self.width {
            Width::Single => (24, -126, 127),
            Width::Double => (53, -1022, 1023),
        };
        let Truth { value: Dd { hi, lo }, scale } = *truth;
        let exponent = (hi.to_bits() >> 52 & 0x7ff) as i32 - 1023 + scale;
        let infinite = hi.is_infinite() || hi.is_finite() && exponent > most;
        let error = if hi == 0.0 {
            times_pow2(y.abs(), -least + digits - 1)
        } else if infinite || !hi.is_finite() || !y.is_finite() {
            let same = if hi.is_nan() { y.is_nan() } else { infinite && y.is_infinite() && y * hi > 0.0 };
            if same { 0.0 } else { f64::INFINITY }
        } else {
            let unit = exponent.max(least) - scale - (digits - 1);
            times_pow2((times_pow2(y, -scale) - hi) - lo, -unit).abs()
        };
        // No comparison may pass because a number was none.
        if error.is_nan() { f64::INFINITY } else { error }
    }
}

/// One input's share of the checksum.
fn term(input: u32, result: u64) -> u64 {
    mix(mix(input.into()) ^ result)
}

/// SplitMix64's last steps.
fn mix(z: u64) -> u64 {
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILU: Function = FUNCTIONS[2];

    fn found(run: fn(f32) -> f64) -> Summary {
        Function { run, ..SILU }.judge(Inputs::Spread).summary
    }

    /// silu, but for one input.
    fn but(x: f32, y: f64) -> impl Fn(f32) -> f64 {
        move |v| if v.to_bits() == x.to_bits() { y } else { (SILU.run)(v) }
    }

    #[test]
    fn one_wrong_result_is_seen() {
        let right = found(SILU.run);
        assert_eq!(right.checksum, SILU.known.spread);

        let off_by_three = found(|x| {
            let y = super::super::silu(1.0);
            but(1.0, f64::from(f32::from_bits(y.to_bits() + 3)))(x)
        });
        assert!(off_by_three.checksum != right.checksum && off_by_three.ulp > SILU.known.all.ulp);

        for wrong in [found(|x| but(1.0, f64::NAN)(x)), found(|x| but(1.0, f64::INFINITY)(x))] {
            assert!(wrong.ulp == f64::INFINITY && wrong.checksum != right.checksum);
        }
        // A number where the truth is none, a sign of infinity, a sign of zero.
        assert_eq!(found(|x| but(f32::NEG_INFINITY, 0.0)(x)).ulp, f64::INFINITY);
        assert_eq!(found(|x| but(f32::INFINITY, f64::NEG_INFINITY)(x)).ulp, f64::INFINITY);
        assert!(found(|x| but(-100.0, 0.0)(x)).checksum == right.checksum, "−100 is no input of the spread");
        assert!(found(|x| but(-128.0, 0.0)(x)).checksum != right.checksum);
    }

    #[test]
    fn the_spread_visits_every_sign_and_exponent_and_both_ends() {
        let inputs: Vec<u32> = (0..Inputs::Spread.blocks()).flat_map(|b| Inputs::Spread.block(b)).collect();
        assert_eq!(inputs.len(), 131_072);
        for high in 0..512u32 {
            let has = |mantissa: u32| inputs.contains(&(high << 23 | mantissa));
            assert!(has(0) && has(1) && has(0x7f_ffff) && has(0x40_0000), "{high}");
        }
    }
}
