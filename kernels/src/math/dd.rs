//! Numbers of two f64 (some 106 bits), for judging functions: error-free sums and products by Knuth and Dekker.
//! Far from overflow and underflow only.

/// `hi + lo`, with `hi` the nearest f64 to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Dd {
    pub hi: f64,
    pub lo: f64,
}

/// `a + b` exactly.
fn two_sum(a: f64, b: f64) -> Dd {
    let hi = a + b;
    let t = hi - a;
    Dd { hi, lo: (a - (hi - t)) + (b - t) }
}

/// The same for |a| ≥ |b|.
fn quick_two_sum(a: f64, b: f64) -> Dd {
    let hi = a + b;
    Dd { hi, lo: b - (hi - a) }
}

/// `a · b` exactly.
fn two_product(a: f64, b: f64) -> Dd {
    // Halves of 26 bits, whose products are exact.
    let split = |x: f64| {
        let t = 134_217_729.0 * x;
        let high = t - (t - x);
        (high, x - high)
    };
    let hi = a * b;
    let ((a1, a2), (b1, b2)) = (split(a), split(b));
    Dd { hi, lo: ((a1 * b1 - hi) + a1 * b2 + a2 * b1) + a2 * b2 }
}

impl Dd {
    pub const ZERO: Dd = Dd { hi: 0.0, lo: 0.0 };
    pub const ONE: Dd = Dd { hi: 1.0, lo: 0.0 };

    pub fn sum(a: f64, b: f64) -> Dd {
        two_sum(a, b)
    }

    pub fn add(self, o: Dd) -> Dd {
        let (s, t) = (two_sum(self.hi, o.hi), two_sum(self.lo, o.lo));
        let s = quick_two_sum(s.hi, s.lo + t.hi);
        quick_two_sum(s.hi, s.lo + t.lo)
    }

    pub fn plus(self, o: f64) -> Dd {
        let s = two_sum(self.hi, o);
        quick_two_sum(s.hi, s.lo + self.lo)
    }

    pub fn neg(self) -> Dd {
        Dd { hi: -self.hi, lo: -self.lo }
    }

    pub fn mul(self, o: Dd) -> Dd {
        let p = two_product(self.hi, o.hi);
        quick_two_sum(p.hi, p.lo + (self.hi * o.lo + self.lo * o.hi))
    }

    pub fn times(self, o: f64) -> Dd {
        let p = two_product(self.hi, o);
        quick_two_sum(p.hi, p.lo + self.lo * o)
    }

    pub fn div(self, o: Dd) -> Dd {
        let first = self.hi / o.hi;
        let rest = self.add(o.times(-first));
        let second = rest.hi / o.hi;
        let rest = rest.add(o.times(-second));
        quick_two_sum(first, second).plus(rest.hi / o.hi)
    }

    /// Times 2^n, exactly.
    pub fn scaled(self, n: i32) -> Dd {
        Dd { hi: times_pow2(self.hi, n), lo: times_pow2(self.lo, n) }
    }
}

/// `x · 2^n` for |n| ≤ 2000, in two steps: exact unless the result is subnormal.
pub(super) fn times_pow2(x: f64, n: i32) -> f64 {
    let pow2 = |n: i32| f64::from_bits(((n + 1023) as u64) << 52);
    x * pow2(n / 2) * pow2(n - n / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_bits_are_kept() {
        // (1 + 2^-60)·(1 − 2^-60) = 1 − 2^-120, and a third taken three times.
        let e = 2f64.powi(-60);
        let product = Dd { hi: 1.0, lo: e }.mul(Dd { hi: 1.0, lo: -e });
        assert_eq!(product, Dd::ONE);
        let third = Dd::ONE.div(Dd { hi: 3.0, lo: 0.0 });
        let rest = third.times(3.0).plus(-1.0);
        assert!(third.lo != 0.0 && rest.hi.abs() < 2f64.powi(-104), "{rest:?}");
        assert_eq!(Dd::sum(1.0, e), Dd { hi: 1.0, lo: e });
        assert_eq!(two_product(1.0 + 2f64.powi(-52), 1.0 + 2f64.powi(-52)).lo, 2f64.powi(-104));
    }
}
