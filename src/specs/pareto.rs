//! The Pareto front of speed, fidelity and memory: what no other version beats.

/// What a version costs and gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Tokens per second; more is better.
    pub speed: f64,
    /// Divergence from the reference; less is better.
    pub kl: f64,
    /// Bytes of weights; less is better.
    pub bytes: u64,
}

impl Point {
    /// At least as good in all three, and better in one.
    fn beats(&self, other: &Point) -> bool {
        let no_worse = self.speed >= other.speed && self.kl <= other.kl && self.bytes <= other.bytes;
        let better = self.speed > other.speed || self.kl < other.kl || self.bytes < other.bytes;
        no_worse && better
    }

    fn is_number(&self) -> bool {
        !self.speed.is_nan() && !self.kl.is_nan()
    }
}

/// For each point: is it on the front? Equals stand or fall together. A point with a NaN is never on it.
pub fn front(points: &[Point]) -> Vec<bool> {
    points.iter().map(|point| point.is_number() && !points.iter().any(|other| other.beats(point))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Few values, so that ties are common.
    fn points() -> impl Strategy<Value = Vec<Point>> {
        let point = (0..5, 0..5, 0..5u64).prop_map(|(s, k, bytes)| Point {
            speed: f64::from(s),
            kl: f64::from(k),
            bytes,
        });
        prop::collection::vec(point, 1..12)
    }

    /// By the definition in words: whoever is as good everywhere is an equal.
    fn beaten(point: &Point, points: &[Point]) -> bool {
        points.iter().any(|other| {
            other != point && other.speed >= point.speed && other.kl <= point.kl && other.bytes <= point.bytes
        })
    }

    proptest! {
        #[test]
        fn the_front_is_what_nobody_beats(points in points()) {
            let front = front(&points);
            prop_assert!(front.iter().any(|&on| on), "of some points one is best");
            for (point, &on) in points.iter().zip(&front) {
                prop_assert_eq!(on, !beaten(point, &points));
                // Whoever is off the front is beaten by somebody on it.
                let by_front = points.iter().zip(&front).any(|(other, &on)| on && other.beats(point));
                prop_assert!(on || by_front);
            }
        }

        #[test]
        fn order_does_not_matter(points in points(), turn in 0usize..12) {
            let turn = turn % points.len();
            let mut turned = points.clone();
            turned.rotate_left(turn);
            let mut expected = front(&points);
            expected.rotate_left(turn);
            prop_assert_eq!(front(&turned), expected);
        }

        #[test]
        fn a_worse_point_changes_nothing(points in points(), which in 0usize..12) {
            let mut worse = points[which % points.len()];
            worse.speed -= 1.0;
            let mut more = points.clone();
            more.push(worse);
            let mut expected = front(&points);
            expected.push(false);
            prop_assert_eq!(front(&more), expected);
        }
    }

    #[test]
    fn a_nan_is_never_best_and_beats_nobody() {
        let good = Point { speed: 1.0, kl: 1.0, bytes: 1 };
        let bad = [Point { speed: f64::NAN, ..good }, Point { kl: f64::NAN, ..good }];
        assert_eq!(front(&[bad[0], good, bad[1]]), [false, true, false]);
    }
}
