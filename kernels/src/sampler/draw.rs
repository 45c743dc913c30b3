//! The draw of [`Sampler::Draw`](super::Sampler::Draw): whole, as its definition says, and from the front of the
//! order, which is all that most draws need. Nothing here knows seeds.

use super::score::{exp_minus, sum};

/// What is drawn from: finite quotients, the share of the mass that stays, a fraction in [0, 1).
pub struct Draw<'a> {
    pub quotients: &'a [f32],
    pub top_k: Option<u32>,
    pub top_p: Option<f32>,
    pub u: f64,
}

impl Draw<'_> {
    /// The token.
    pub fn token(&self) -> u32 {
        match self.top_k {
            Some(_) => self.whole(),
            // Sorting a vocabulary takes five times as long as all the rest.
            None => self.front().unwrap_or_else(|| self.whole()),
        }
    }

    /// By the definition, word for word.
    fn whole(&self) -> u32 {
        let tokens = ordered(self.quotients, (0..self.quotients.len() as u32).collect(), self.top_k);
        let weights = self.weights(&tokens);
        let total = sums(&weights).last().unwrap_or_default();
        let (kept, mass) = match self.top_p {
            // The last sum is the total, and p at most 1, so one is found.
            Some(p) => sums(&weights).zip(1..).find(|&(sum, _)| sum >= f64::from(p) * total).map(swap),
            None => None,
        }
        .unwrap_or((weights.len(), total));
        // u < 1 leaves the target below the prefix's sum.
        tokens[sums(&weights).take(kept).position(|sum| sum > self.u * mass).unwrap_or(kept - 1)]
    }

    /// The same token from the first few in the order, or nothing where they do not decide it.
    ///
    /// The definition adds up the total in the order of the sort; this one adds it up in another, and two f64 sums
    /// of n numbers that are not negative differ by less than 2n · 2^-53 of them. So a choice that is the same for
    /// the least and the most that the total can be is the definition's.
    fn front(&self) -> Option<u32> {
        let n = self.quotients.len() as f64;
        let largest = self.quotients.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total = sum(&exp_minus(self.quotients, largest));
        let slack = 2.0 * (n + 8.0) * f64::EPSILON;
        // All of the mass is no less than what stays without a bound.
        let top_p = self.top_p.filter(|&p| p < 1.0).map(f64::from);
        let share = top_p.unwrap_or(self.u);

        // What is left out has less than `1 − share` of the mass. No bit of the outcome depends on where this
        // cuts, so it may be any ln.
        let cut = largest + ((1.0 - share) * total / n).ln() as f32;
        let near = self.quotients.iter().zip(0..).filter(|&(&q, _)| q >= cut).map(|(_, token)| token);
        let tokens = ordered(self.quotients, near.collect(), None);
        let weights = self.weights(&tokens);
        let certain = |first: &dyn Fn(f64) -> Option<(usize, f64)>| {
            let least = first(share * total * (1.0 - slack))?;
            (Some(least.0) == first(share * total * (1.0 + slack)).map(|most| most.0)).then_some(least)
        };
        let (chosen, _) = if top_p.is_some() {
            let (kept, mass) = certain(&|bound| sums(&weights).zip(1..).find(|s| s.0 >= bound).map(swap))?;
            sums(&weights).take(kept).zip(0..).find(|s| s.0 > self.u * mass).map(swap)?
        } else {
            certain(&|bound| sums(&weights).zip(0..).find(|s| s.0 > bound).map(swap))?
        };
        Some(tokens[chosen])
    }

    /// `exp(quotient − the first's)` of tokens in order.
    fn weights(&self, tokens: &[u32]) -> Vec<f32> {
        let quotients: Vec<f32> = tokens.iter().map(|&t| self.quotients[t as usize]).collect();
        exp_minus(&quotients, quotients[0])
    }
}

/// The running sums. They are added up anew each time: what is sought is mostly near the front.
fn sums(weights: &[f32]) -> impl Iterator<Item = f64> {
    weights.iter().scan(0.0f64, |sum, &weight| {
        *sum += f64::from(weight);
        Some(*sum)
    })
}

fn swap((sum, n): (f64, usize)) -> (usize, f64) {
    (n, sum)
}

/// These tokens by value, largest first, equal ones (±0 are equal) by lower index; the first `most` of them.
fn ordered(values: &[f32], tokens: Vec<u32>, most: Option<u32>) -> Vec<u32> {
    let mut keys: Vec<u64> =
        tokens.into_iter().map(|t| u64::from(falling(values[t as usize])) << 32 | u64::from(t)).collect();
    let most = most.map_or(keys.len(), |k| (k as usize).min(keys.len()));
    if most < keys.len() {
        keys.select_nth_unstable(most);
        keys.truncate(most);
    }
    keys.sort_unstable();
    keys.into_iter().map(|key| key as u32).collect()
}

/// An integer that falls as the (finite) float rises; −0 and +0 give the same.
fn falling(v: f32) -> u32 {
    let bits = (v + 0.0).to_bits();
    let rising = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !rising
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn order_is_by_value_then_index() {
        let v = [0.0, 5.0, -0.0, -3.0, 5.0, 1e-40, -1e-40];
        let by = |most| ordered(&v, (0..7).collect(), most);
        assert_eq!(by(None), [1, 4, 5, 0, 2, 6, 3]);
        assert_eq!(by(Some(4)), [1, 4, 5, 0]);
        assert_eq!(by(Some(100)).len(), 7);
    }

    #[test]
    fn what_the_front_cannot_decide_is_left_to_the_definition() {
        // Four equal weights: two are exactly half of the mass, to any bit of the total.
        let draw = Draw { quotients: &[1.0; 4], top_k: None, top_p: Some(0.5), u: 0.75 };
        assert_eq!((draw.front(), draw.whole(), draw.token()), (None, 1, 1));
        let draw = Draw { top_p: None, u: 0.5, ..draw };
        assert_eq!((draw.front(), draw.whole(), draw.token()), (None, 2, 2));
    }

    proptest! {
        #[test]
        fn the_front_decides_as_the_definition(
            seed in any::<u64>(),
            n in 1usize..3000,
            spread in prop_oneof![Just(0.0f32), 0.01f32..60.0],
            steps in prop_oneof![Just(1.0f32), Just(4096.0)],
            top_p in prop_oneof![Just(None), Just(Some(1.0f32)), (1e-6f32..1.0).prop_map(Some), (0.9f32..1.0).prop_map(Some)],
            u in 0u32..1 << 24,
        ) {
            let mut word = seed;
            let quotients: Vec<f32> = (0..n).map(|_| {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Rounded, so that equal ones are common where the steps are few.
                (((word >> 40) as f32 / 16_777_216.0 - 0.5) * spread * steps).round() / steps
            }).collect();
            let u = f64::from(u) / 16_777_216.0;
            let draw = Draw { quotients: &quotients, top_k: None, top_p, u };
            if let Some(token) = draw.front() {
                prop_assert_eq!(token, draw.whole());
            }
        }
    }

    #[test]
    fn the_front_decides_nearly_always() {
        let quotients: Vec<f32> =
            (0..50_000).map(|i| ((i * 7919 % 50_021) as f32 / 50_021.0).powi(3) * 30.0).collect();
        let decided = (0..1000).filter(|i| {
            let u = f64::from(*i) / 1000.0;
            Draw { quotients: &quotients, top_k: None, top_p: Some(0.9), u }.front().is_some()
                && Draw { quotients: &quotients, top_k: None, top_p: None, u }.front().is_some()
        });
        assert_eq!(decided.count(), 1000);
    }
}
