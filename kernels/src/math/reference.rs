//! exp, ln, sin and cos of every f32 to some 70 bits or more: what our functions are judged against. Tables and
//! short series over two-word numbers; no libm.

use super::dd::{Dd, times_pow2};

/// `value · 2^scale`; NaN and infinities in `value.hi`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Truth {
    pub value: Dd,
    pub scale: i32,
}

impl Truth {
    pub const fn exactly(value: f64) -> Truth {
        Truth { value: Dd { hi: value, lo: 0.0 }, scale: 0 }
    }

    const fn of(value: Dd) -> Truth {
        Truth { value, scale: 0 }
    }

    /// The nearest f32.
    pub fn nearest(&self) -> f32 {
        let Dd { hi, lo } = self.value;
        // Rounded to odd first, so that the second rounding sees on which side of a tie the number lies.
        let odd = if lo == 0.0 || !hi.is_finite() || hi.to_bits() & 1 == 1 {
            hi
        } else if (lo > 0.0) == (hi > 0.0) {
            f64::from_bits(hi.to_bits() + 1)
        } else {
            f64::from_bits(hi.to_bits() - 1)
        };
        times_pow2(odd, self.scale) as f32
    }
}

/// Steps of the tables of exp, sin and cos.
const STEP: f64 = 64.0;
/// π/4·64 rounds to 50; one more for the reduction's own error.
const LAST: i32 = 51;
/// ln's table, over m·64 for √½ ≤ m ≤ √2.
const LN_FIRST: i32 = 45;
const LN_LAST: i32 = 91;

/// π/2 in terms of 33, 33, 33 and 53 bits, as fdlibm has them.
const HALF_PI: [f64; 4] = [
    f64::from_bits(0x3ff9_21fb_5440_0000),
    f64::from_bits(0x3dd0_b461_1a60_0000),
    f64::from_bits(0x3ba3_198a_2e00_0000),
    f64::from_bits(0x397b_839a_2520_49c1),
];

/// The tables.
pub(super) struct Reference {
    /// In terms of 32, 32 and 53 bits.
    ln2: [f64; 3],
    /// At (i − LAST)/64.
    exp: Vec<Dd>,
    sin: Vec<Dd>,
    cos: Vec<Dd>,
    /// c near 64/(i + LN_FIRST), and −ln c.
    ln: Vec<(f64, Dd)>,
    sixth: Dd,
    third: Dd,
}

impl Reference {
    pub fn new() -> Self {
        let at = |series: fn(Dd, bool) -> Dd, odd: bool| -> Vec<Dd> {
            (-LAST..=LAST).map(|j| series(Dd { hi: f64::from(j) / STEP, lo: 0.0 }, odd)).collect()
        };
        let ln2 = ln_series(Dd { hi: 2.0, lo: 0.0 });
        let top = |x: f64| f64::from_bits(x.to_bits() & !0x1f_ffff);
        let first = top(ln2.hi);
        let rest = ln2.plus(-first);
        let second = top(rest.hi);
        Reference {
            ln2: [first, second, rest.plus(-second).hi],
            exp: at(|x, _| exp_series(x), false),
            sin: at(circular_series, true),
            cos: at(circular_series, false),
            ln: (LN_FIRST..=LN_LAST)
                .map(|i| (512.0 * STEP / f64::from(i)).round() / 512.0)
                .map(|c| (c, ln_series(Dd { hi: c, lo: 0.0 }).neg()))
                .collect(),
            sixth: Dd::ONE.div(Dd { hi: 6.0, lo: 0.0 }),
            third: Dd::ONE.div(Dd { hi: 3.0, lo: 0.0 }),
        }
    }

    pub fn exp(&self, x: f32) -> Truth {
        match f64::from(x) {
            x if x.is_nan() => Truth::exactly(x),
            x if x > 800.0 => Truth::exactly(f64::INFINITY),
            x if x < -800.0 => Truth::exactly(0.0),
            x => {
                let n = (x * std::f64::consts::LOG2_E).round();
                // n has 11 bits, so the first two products and the first difference are exact.
                let r = Dd::sum(x - n * self.ln2[0], -n * self.ln2[1]).plus(-n * self.ln2[2]);
                let j = (r.hi * STEP).round();
                let s = r.plus(-j / STEP);
                let h = s.hi;
                let tail = 1.0 / 720.0
                    + h * (1.0 / 5040.0 + h * (1.0 / 40_320.0 + h * (1.0 / 362_880.0 + h / 3_628_800.0)));
                let tail = h * h * h * (1.0 / 6.0 + h * (1.0 / 24.0 + h * (1.0 / 120.0 + h * tail)));
                let e = s.mul(s).scaled(-1).plus(tail).add(s).plus(1.0);
                Truth { value: self.exp[(j as i32 + LAST) as usize].mul(e), scale: n as i32 }
            }
        }
    }

    pub fn ln(&self, x: f32) -> Truth {
        match f64::from(x) {
            x if x.is_nan() || x < 0.0 => Truth::exactly(f64::NAN),
            0.0 => Truth::exactly(f64::NEG_INFINITY),
            x if x.is_infinite() => Truth::exactly(x),
            x => {
                // Every f32 is a normal f64: x = 2^k·m.
                let mut k = (x.to_bits() >> 52) as i32 - 1023;
                let mut m = f64::from_bits(x.to_bits() & 0x000f_ffff_ffff_ffff | 1023 << 52);
                if m > std::f64::consts::SQRT_2 {
                    (k, m) = (k + 1, m / 2.0);
                }
                let i = (m * STEP).round() as i32;
                let (c, minus_ln_c) = self.ln[(i - LN_FIRST) as usize];
                // 24 and 10 bits: exact, below 2^-6; and m itself where m is near 1.
                let r = m * c - 1.0;
                let square = Dd { hi: r, lo: 0.0 }.times(r);
                // r⁴/4 and on; signs alternate.
                let tail = (4..=14).rev().fold(0.0, |sum, n| {
                    let term = 1.0 / f64::from(n);
                    if n % 2 == 0 { -term + r * sum } else { term + r * sum }
                });
                let cube = square.times(r).mul(self.third);
                let near = cube.plus(square.hi * square.hi * tail).add(square.scaled(-1).neg()).plus(r);
                let k = f64::from(k);
                let whole = Dd::sum(k * self.ln2[0], k * self.ln2[1]).plus(k * self.ln2[2]);
                Truth::of(whole.add(minus_ln_c).add(near))
            }
        }
    }

    /// For |x| below 2^20 quarter turns.
    pub fn sin_cos(&self, x: f32) -> (Truth, Truth) {
        let x = f64::from(x);
        let n = (x * std::f64::consts::FRAC_2_PI).round();
        let r = Dd::sum(x - n * HALF_PI[0], -n * HALF_PI[1]).plus(-n * HALF_PI[2]).plus(-n * HALF_PI[3]);
        let j = (r.hi * STEP).round();
        let s = r.plus(-j / STEP);
        let (square, z) = (s.mul(s), s.hi * s.hi);
        let tail = 1.0 / 120.0 - z * (1.0 / 5040.0 - z * (1.0 / 362_880.0 - z / 39_916_800.0));
        let sin = square.mul(s).mul(self.sixth).neg().plus(z * z * s.hi * tail).add(s);
        let tail = 1.0 / 24.0 - z * (1.0 / 720.0 - z * (1.0 / 40_320.0 - z / 3_628_800.0));
        let cos_minus_one = square.scaled(-1).neg().plus(z * z * tail);

        let j = (j as i32 + LAST) as usize;
        let (sin_j, cos_j) = (self.sin[j], self.cos[j]);
        let s = sin_j.mul(cos_minus_one).add(cos_j.mul(sin)).add(sin_j);
        let c = cos_j.mul(cos_minus_one).add(sin_j.mul(sin).neg()).add(cos_j);
        let (s, c) = match n as i64 & 3 {
            0 => (s, c),
            1 => (c, s.neg()),
            2 => (s.neg(), c.neg()),
            _ => (c.neg(), s),
        };
        (Truth::of(s), Truth::of(c))
    }

    /// `numerator / (1 + exp(−x))`.
    pub fn over_one_plus_exp(&self, numerator: f32, x: f32) -> Truth {
        let e = self.exp(-x);
        let below = e.value.scaled(e.scale).add(Dd::ONE);
        Truth::of(Dd { hi: f64::from(numerator), lo: 0.0 }.div(below))
    }
}

/// Σ xⁿ/n!, |x| < 1.
fn exp_series(x: Dd) -> Dd {
    (1..=30).rev().fold(Dd::ONE, |sum, n| sum.mul(x).div(Dd { hi: f64::from(n), lo: 0.0 }).plus(1.0))
}

/// The alternating odd (sin) or even (cos) terms of the same.
fn circular_series(x: Dd, odd: bool) -> Dd {
    let first = if odd { 1 } else { 0 };
    let minus_square = x.mul(x).neg();
    let sum = (1..=15).rev().fold(Dd::ONE, |sum, n| {
        let n = f64::from(2 * n + first);
        sum.mul(minus_square).div(Dd { hi: n * (n - 1.0), lo: 0.0 }).plus(1.0)
    });
    if odd { sum.mul(x) } else { sum }
}

/// `ln c = 2·atanh((c − 1)/(c + 1))`, ½ < c ≤ 2.
fn ln_series(c: Dd) -> Dd {
    let z = c.plus(-1.0).div(c.plus(1.0));
    let square = z.mul(z);
    let sum = (0..40)
        .rev()
        .fold(Dd::ZERO, |sum, n| sum.mul(square).add(Dd::ONE.div(Dd { hi: f64::from(2 * n + 1), lo: 0.0 })));
    sum.mul(z).scaled(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Function, bits of x, of the nearest f64, and of the f64 nearest to the rest; by mpmath with 300 bits.
    const VECTORS: [(&str, u32, u64, u64); 23] = [
        ("exp", 0xc2af_0000, 0x380b_2cae_eaab_824a, 0xb440_fc7e_5a94_fa0c),
        ("exp", 0xbfb0_76da, 0x3fd0_1f86_a580_f4e6, 0x3c7f_3bae_ae29_061a),
        ("exp", 0x3727_c5ac, 0x3ff0_000a_7c5e_2f9d, 0xbc91_e1cc_ebca_4588),
        ("exp", 0x3c34_3958, 0x3ff0_2d4e_020e_94fb, 0xbc72_6abf_b49f_ac94),
        ("exp", 0x41a5_999a, 0x41cd_1df1_e79c_4d95, 0x3e6c_d6d5_36ed_0199),
        ("exp", 0x42b1_0000, 0x47e9_9b98_7155_fe28, 0xc47b_4c50_eedc_40c4),
        ("ln", 0x0001_16c2, 0xc057_069e_413e_07a0, 0x3cf1_9e79_e767_792c),
        ("ln", 0x3f34_fdf4, 0xbfd6_30bc_5468_d2d5, 0x3c60_2388_699e_7440),
        ("ln", 0x3f7e_0fde, 0xbf7f_2053_2939_a63d, 0x3c17_66f1_c908_1b06),
        ("ln", 0x3f80_0001, 0x3e7f_ffff_e000_002b, 0xbb15_5565_5555_3bbc),
        ("ln", 0x3fb5_0481, 0x3fd6_2e1a_9e73_00ff, 0x3c73_9315_0ceb_7a03),
        ("ln", 0x7f61_b1e6, 0x4056_2632_b8d4_00d2, 0x3cfb_b1ea_2cf4_6fa7),
        ("sin", 0x1e3c_e508, 0x3bc7_9ca1_0000_0000, 0xb351_2403_0112_5a81),
        ("sin", 0x3bff_9724, 0x3f7f_f2cf_44db_2ad1, 0xbc11_2704_795a_ac25),
        ("sin", 0x3fc9_0fdb, 0x3fef_ffff_ffff_fff7, 0x3c89_4849_271d_08a5),
        ("sin", 0x4049_0fdb, 0xbe77_77a5_cf72_cec6, 0x3ac4_f3b4_9a58_5f97),
        ("sin", 0x4431_8000, 0x3f0f_9bd0_303f_6faf, 0x3b92_03af_947a_249c),
        ("sin", 0x49c2_a62d, 0x3f80_c4d8_3fba_6b06, 0xbc29_8f40_5ca6_fb5d),
        ("cos", 0x3a83_126f, 0x3fef_fffe_f390_85c0, 0x3c6c_4a9e_3640_52fa),
        ("cos", 0x3fc9_0fdb, 0xbe67_77a5_cf72_cecc, 0xbb03_378e_8c79_f568),
        ("cos", 0x412f_eddf, 0xbe93_774e_ea7b_8abf, 0x3b3c_15cf_1ffa_f51a),
        ("cos", 0x4925_7631, 0x3f80_efc8_abfa_9e8c, 0x3bf3_f63d_63d9_b444),
        ("cos", 0xc9c9_0fd0, 0x3fce_a0f1_80b7_1c45, 0xbc42_bc3a_37e8_e25e),
    ];

    #[test]
    fn the_reference_has_74_bits() {
        let reference = Reference::new();
        for (name, x, hi, lo) in VECTORS {
            let x = f32::from_bits(x);
            let truth = match name {
                "exp" => reference.exp(x),
                "ln" => reference.ln(x),
                "sin" => reference.sin_cos(x).0,
                _ => reference.sin_cos(x).1,
            };
            let (found, hi, lo) = (truth.value.scaled(truth.scale), f64::from_bits(hi), f64::from_bits(lo));
            let error = ((found.hi - hi) + (found.lo - lo)).abs() / hi.abs();
            assert!(error <= 2f64.powi(-74), "{name}({x:e}) is off by {error:e}");
        }
    }

    #[test]
    fn the_nearest_f32_is_rounded_once() {
        // Half way between two f32, and a hair to each side of it.
        let tie = 1.0 + 2f64.powi(-24);
        let at = |lo: f64| Truth { value: Dd { hi: tie, lo }, scale: -3 }.nearest() * 8.0;
        assert_eq!([at(-1e-20), at(0.0), at(1e-20)], [1.0, 1.0, 1.0 + f32::EPSILON]);
    }
}
