//! Seeded draws: functions of the seed and of what is drawn, by Philox4x32-10 with key = the seed's halves and
//! counter = (index, its upper half, width, purpose).

use pipe_kernels::sampler::philox4x32;

const RESERVOIR: u32 = 1;
const STRATUM: u32 = 2;
const SIGNS: u32 = 3;

fn words(index: u64, width: usize, purpose: u32, seed: u64) -> [u32; 4] {
    let counter = [index as u32, (index >> 32) as u32, width as u32, purpose];
    philox4x32(counter, [seed as u32, (seed >> 32) as u32])
}

/// A number below `bound`: the upper half of the product with the first two words, the first the lower.
fn below(bound: u64, words: [u32; 4]) -> u64 {
    let word = u64::from(words[0]) | u64::from(words[1]) << 32;
    ((u128::from(word) * u128::from(bound)) >> 64) as u64
}

/// `n` distinct numbers below `width`, rising; all if there are no more. Algorithm R (Waterman; Vitter 1985): number i
/// takes the place of the one drawn below i + 1, if that is a place.
pub fn reservoir(n: usize, width: usize, seed: u64) -> Vec<u32> {
    let mut places: Vec<u32> = (0..n.min(width) as u32).collect();
    for i in n..width {
        let place = below(i as u64 + 1, words(i as u64, width, RESERVOIR, seed)) as usize;
        if let Some(place) = places.get_mut(place) {
            *place = i as u32;
        }
    }
    places.sort_unstable();
    places
}

/// One of each of `n` equal strata of `items`; all if there are no more. Stratum i goes from ⌊i·m/n⌋ to ⌊(i+1)·m/n⌋.
pub fn stratified(items: &[u32], n: usize, seed: u64) -> Vec<u32> {
    let m = items.len();
    if n >= m {
        return items.to_vec();
    }
    let one = |i: usize| {
        let (from, to) = (i * m / n, (i + 1) * m / n);
        items[from + below((to - from) as u64, words(i as u64, m, STRATUM, seed)) as usize]
    };
    (0..n).map(one).collect()
}

/// Signs of a matrix with `n` rows of `width`, row by row, 64 to a word from its lowest bit; a set bit is a minus.
pub fn signs(n: usize, width: usize, seed: u64) -> Vec<u64> {
    let calls = (n * width).div_ceil(128) as u64;
    let four = (0..calls).map(|call| words(call, width, SIGNS, seed));
    four.flat_map(|w| [u64::from(w[0]) | u64::from(w[1]) << 32, u64::from(w[2]) | u64::from(w[3]) << 32])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservoir_is_distinct_rising_and_fair() {
        let mut counts = vec![0; 50];
        for seed in 0..4000 {
            let drawn = reservoir(10, 50, seed);
            assert!(drawn.len() == 10 && drawn.windows(2).all(|pair| pair[0] < pair[1]));
            drawn.iter().for_each(|i| counts[*i as usize] += 1);
        }
        // 800 each, with a standard deviation of 25.
        assert!(counts.iter().all(|n| (680..920).contains(n)), "{counts:?}");
        assert_eq!(reservoir(50, 50, 1), (0..50).collect::<Vec<_>>());
        assert_eq!(reservoir(60, 3, 1), [0, 1, 2]);
    }

    #[test]
    fn a_stratum_gives_one_of_its_own() {
        let items: Vec<u32> = (0..30).map(|i| 3 * i).collect();
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let drawn = stratified(&items, 4, seed);
            for (i, layer) in drawn.iter().enumerate() {
                let (from, to) = (i * 30 / 4, (i + 1) * 30 / 4);
                assert!(items[from..to].contains(layer), "{drawn:?}");
            }
            seen.extend(drawn);
        }
        assert_eq!(seen.len(), 30, "every layer can be drawn");
        assert_eq!(stratified(&items, 30, 7), items);
    }

    #[test]
    fn signs_are_as_many_of_either_kind() {
        let words = signs(64, 1000, 9);
        assert_eq!(words.len(), 1000);
        let minus: u32 = words.iter().map(|w| w.count_ones()).sum();
        assert!((31_000..33_000).contains(&minus), "{minus}");
        assert_ne!(words, signs(64, 1000, 10));
    }
}
