//! exp, ln, sin and cos in f64 from `+ − × ÷` and integer steps on the bits. The reductions and coefficients
//! are those of fdlibm (Sun Microsystems, 1993), which states an error below 1 ulp for each; [`super`] has what the
//! sweep found.

/// 1.5·2^52: adding it rounds to an integer, half to even.
const MAGIC: f64 = 6_755_399_441_055_744.0;
const LN2_HI: f64 = 6.931_471_803_691_238e-1;
const LN2_LO: f64 = 1.908_214_929_270_587_7e-10;

/// `exp(x)`; 0 below −745, infinity above 709.78.
pub fn exp(x: f64) -> f64 {
    const P: [f64; 5] = [
        1.666_666_666_666_660_2e-1,
        -2.777_777_777_701_559_3e-3,
        6.613_756_321_437_934e-5,
        -1.653_390_220_546_525_2e-6,
        4.138_136_797_057_238_5e-8,
    ];
    if x.is_nan() {
        return x;
    }
    let x = x.clamp(-750.0, 750.0);
    let n = (x * std::f64::consts::LOG2_E + MAGIC) - MAGIC;
    let hi = x - n * LN2_HI;
    let lo = n * LN2_LO;
    let r = hi - lo;
    let t = r * r;
    let c = r - t * (P[0] + t * (P[1] + t * (P[2] + t * (P[3] + t * P[4]))));
    let y = 1.0 - ((lo - (r * c) / (2.0 - c)) - hi);
    // Two factors, so that a subnormal result is rounded once.
    let n = n as i64;
    let half = n >> 1;
    y * pow2(half) * pow2(n - half)
}

fn pow2(n: i64) -> f64 {
    f64::from_bits(((n + 1023) as u64) << 52)
}

/// `ln(x)` for normal positive x; −infinity at zero, NaN below. Subnormals are scaled first.
pub fn ln(x: f64) -> f64 {
    const L: [f64; 7] = [
        6.666_666_666_666_735e-1,
        3.999_999_999_940_942e-1,
        2.857_142_874_366_239e-1,
        2.222_219_843_214_978_4e-1,
        1.818_357_216_161_805e-1,
        1.531_383_769_920_937_3e-1,
        1.479_819_860_511_658_6e-1,
    ];
    if x.is_nan() || x < 0.0 {
        return f64::NAN;
    }
    if x == 0.0 {
        return f64::NEG_INFINITY;
    }
    if x.is_infinite() {
        return x;
    }
    let (x, shift) = if x < f64::MIN_POSITIVE { (x * pow2(54), -54) } else { (x, 0) };
    // x = 2^k · m with sqrt(1/2) ≤ m < sqrt(2): shift the exponent so that the cut falls at sqrt(1/2).
    let cut = std::f64::consts::FRAC_1_SQRT_2.to_bits();
    let over = x.to_bits().wrapping_sub(cut) as i64;
    let k = (over >> 52) + shift;
    let m = f64::from_bits((over as u64 & 0x000f_ffff_ffff_ffff).wrapping_add(cut));

    let f = m - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let w = z * z;
    let odd = z * (L[0] + w * (L[2] + w * (L[4] + w * L[6])));
    let even = w * (L[1] + w * (L[3] + w * L[5]));
    let r = even + odd;
    let half_square = 0.5 * f * f;
    let k = k as f64;
    k * LN2_HI - ((half_square - (s * (half_square + r) + k * LN2_LO)) - f)
}

/// Largest |x| that [`sin_cos`] reduces exactly enough: 2^20 quarter turns.
pub const SIN_COS_LIMIT: f64 = 1_647_099.0;

/// `(sin(x), cos(x))` for |x| ≤ [`SIN_COS_LIMIT`]; NaN beyond it.
pub fn sin_cos(x: f64) -> (f64, f64) {
    // π/2 in terms of 33 bits: n·term is exact for n < 2^20.
    const FIRST: f64 = 1.570_796_326_734_125_6;
    const SECOND: f64 = 6.077_100_506_303_966e-11;
    const REST: f64 = 2.022_266_248_795_950_6e-21;
    if x.is_nan() || x.abs() > SIN_COS_LIMIT {
        return (f64::NAN, f64::NAN);
    }
    let n = (x * std::f64::consts::FRAC_2_PI + MAGIC) - MAGIC;
    let t = x - n * FIRST;
    let w = n * SECOND;
    let r = t - w;
    // What the second subtraction lost, and the remainder of π/2.
    let w = n * REST - ((t - r) - w);
    let y = r - w;
    let tail = (r - y) - w;

    let (s, c) = (kernel_sin(y, tail), kernel_cos(y, tail));
    match n as i64 & 3 {
        0 => (s, c),
        1 => (c, -s),
        2 => (-s, -c),
        _ => (-c, s),
    }
}

/// sin(x + tail) for |x| ≤ π/4.
fn kernel_sin(x: f64, tail: f64) -> f64 {
    const S: [f64; 6] = [
        -1.666_666_666_666_663_2e-1,
        8.333_333_333_322_49e-3,
        -1.984_126_982_985_795e-4,
        2.755_731_370_707_006_8e-6,
        -2.505_076_025_340_686_3e-8,
        1.589_690_995_211_55e-10,
    ];
    let z = x * x;
    let w = z * z;
    let r = S[1] + z * (S[2] + z * S[3]) + z * w * (S[4] + z * S[5]);
    let v = z * x;
    x - ((z * (0.5 * tail - v * r) - tail) - v * S[0])
}

/// cos(x + tail) for |x| ≤ π/4.
fn kernel_cos(x: f64, tail: f64) -> f64 {
    const C: [f64; 6] = [
        4.166_666_666_666_66e-2,
        -1.388_888_888_887_411e-3,
        2.480_158_728_947_673e-5,
        -2.755_731_435_139_066_3e-7,
        2.087_572_321_298_175e-9,
        -1.135_964_755_778_819_5e-11,
    ];
    let z = x * x;
    let w = z * z;
    let r = z * (C[0] + z * (C[1] + z * C[2])) + w * w * (C[3] + z * (C[4] + z * C[5]));
    let hz = 0.5 * z;
    let w = 1.0 - hz;
    w + (((1.0 - w) - hz) + (z * r - x * tail))
}
