//! The two axes: speeds in round steps, divergences in decades with a column for none at all.

use super::write::{line, text};
use super::{BOTTOM, FAINT, INK, LEFT, OTHER, RIGHT, TOP};
use crate::specs::Card;

/// Width of the column for what is exact, which has no place on a logarithmic axis.
const EXACT: f64 = 74.0;
/// Most decades between two ticks' worth of room.
const TICKS: i32 = 6;

/// Speeds, from zero up.
pub struct Speed {
    step: f64,
    steps: u32,
}

/// Divergences, better to the right.
pub struct Fidelity {
    /// −log10 KL at the left and at the right.
    from: i32,
    to: i32,
    right: f64,
    exact: Option<f64>,
}

impl Speed {
    /// Steps of 1, 2 or 5 times a power of ten, at most six of them, up to some way above everything.
    pub fn of(card: &Card) -> Self {
        let most = card.specs.iter().map(|row| row.speed(card.by)).fold(0.0, f64::max) * 1.12;
        let most = if most > 0.0 && most.is_finite() { most } else { 1.0 };
        let power = 10f64.powf((most / 6.0).log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|m| m * power);
        let step = steps.into_iter().find(|step| most / step <= 6.0).unwrap_or(most);
        Speed { step, steps: (most / step).ceil() as u32 }
    }

    pub fn place(&self, speed: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * speed / (self.step * f64::from(self.steps))
    }

    pub fn draw(&self, out: &mut String) {
        for i in 0..=self.steps {
            let speed = self.step * f64::from(i);
            let y = self.place(speed);
            line(out, (LEFT, y), (RIGHT, y), FAINT, "");
            text(out, (LEFT - 8.0, y + 5.0), "end", 15, &short(speed));
        }
    }
}

/// A multiple of a step of one digit: what follows its digits is rounding.
fn short(speed: f64) -> String {
    match speed {
        s if s >= 10_000.0 => format!("{}k", (s / 100.0).round() / 10.0),
        s => format!("{}", (s * 1000.0).round() / 1000.0),
    }
}

impl Fidelity {
    pub fn of(card: &Card) -> Self {
        let kls = || card.specs.iter().map(|row| row.fidelity(card.against).mean_kl);
        let exact = kls().any(|kl| kl == 0.0);
        let decades = kls().filter(|kl| *kl > 0.0).map(|kl| -kl.log10());
        let (from, to) = decades.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
        let (from, to) = if from <= to { (from, to) } else { (0.0, 1.0) };
        // Room for the circles.
        let (from, to) = ((from - 0.4).floor() as i32, (to + 0.4).ceil() as i32);
        let right = if exact { RIGHT - EXACT } else { RIGHT };
        Fidelity { from, to, right, exact: exact.then_some(RIGHT - EXACT / 2.0) }
    }

    pub fn place(&self, kl: f64) -> f64 {
        match self.exact {
            Some(x) if kl == 0.0 => x,
            _ => self.at(-kl.log10()),
        }
    }

    fn at(&self, decades: f64) -> f64 {
        LEFT + (self.right - LEFT) * (decades - f64::from(self.from)) / f64::from(self.to - self.from)
    }

    pub fn draw(&self, out: &mut String) {
        let stride = (self.to - self.from + TICKS - 1) / TICKS;
        let mut tick = self.from;
        while tick <= self.to {
            let x = self.at(f64::from(tick));
            line(out, (x, BOTTOM), (x, BOTTOM + 5.0), INK, "");
            // At the border its number would run into the word beside it.
            if self.exact.is_none() || self.right - x > 20.0 {
                text(out, (x, BOTTOM + 21.0), "middle", 15, &format!("1e{}", -tick));
            }
            tick += stride;
        }
        line(out, (LEFT, BOTTOM), (RIGHT, BOTTOM), INK, "");
        if let Some(x) = self.exact {
            line(out, (self.right, TOP), (self.right, BOTTOM), OTHER, r#" stroke-dasharray="2 4""#);
            text(out, (x, BOTTOM + 21.0), "middle", 15, "exact");
        }
    }
}

#[cfg(test)]
mod tests {
    use pipe_kernels::Spec;

    use super::*;
    use crate::specs::card::tests::card;

    #[test]
    fn everything_has_a_place_within_the_plot() {
        for speeds in [[1e-3, 2e-3], [61.0, 61.1], [0.0, 0.0], [8e4, 3.0]] {
            for kls in [[0.0, 0.0], [0.0, 1e-300], [3.0, 40.0], [1e-5, 1e-5], [1e-9, 1e-2]] {
                let rows = [0, 1].map(|i| (Spec::ALL[i], 1.0, speeds[i], 1, kls[i], 0.0));
                let card = card(&rows);
                let (speed, fidelity) = (Speed::of(&card), Fidelity::of(&card));
                for i in 0..2 {
                    let (x, y) = (fidelity.place(kls[i]), speed.place(speeds[i]));
                    assert!((LEFT..=RIGHT).contains(&x) && (TOP..=BOTTOM).contains(&y), "{x} {y}: {card:?}");
                }
                assert!(kls[0] == kls[1] || fidelity.place(kls[0]) != fidelity.place(kls[1]));
            }
        }
    }

    #[test]
    fn less_divergence_is_further_right_and_none_is_rightmost() {
        let rows = [1e-2, 1e-9, 0.0].map(|kl| (Spec::Q8, 1.0, 1.0, 1, kl, 0.0));
        let axis = Fidelity::of(&card(&rows));
        let places = [1e-2, 1e-9, 0.0].map(|kl| axis.place(kl));
        assert!(places.is_sorted() && places[1] < axis.right && axis.right < places[2], "{places:?}");
    }

    #[test]
    fn steps_are_round() {
        assert_eq!([0.6, 0.1 + 0.2, 1500.0, 20_000.0].map(short), ["0.6", "0.3", "1500", "20k"]);
        let axis = Speed::of(&card(&[(Spec::Q8, 1.0, 137.0, 1, 0.0, 0.0)]));
        assert_eq!((axis.step, axis.steps), (50.0, 4));
    }
}
