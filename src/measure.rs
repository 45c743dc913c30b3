//! The load that speed is measured with: one prefill, or decode from an empty context, and how long it took.
//! Knows no clock but a stopwatch, and no terminal.

use std::time::{Duration, Instant};

use pipe_kernels::{ComputeError, Engine, KvCache, Logits, PackedModel, Slice, Want};

/// A packed model and the load to put on it.
pub struct Bench<'a> {
    pub engine: &'a Engine,
    pub packed: &'a PackedModel<'a>,
    /// Tokens of a prompt.
    pub prompt: usize,
    /// Tokens to decode, one a pass.
    pub generate: usize,
}

impl Bench<'_> {
    /// Tokens that visit all of the vocabulary.
    fn token(&self, i: usize) -> u32 {
        (i * 7919 % self.packed.geometry.vocab) as u32
    }

    /// The prompt in one pass, with the logits of its last token.
    pub fn prefill(&self) -> Result<Duration, ComputeError> {
        let tokens: Vec<u32> = (0..self.prompt).map(|i| self.token(i)).collect();
        let (mut cache, mut logits) = (KvCache::new(&self.packed.geometry), Logits::new());
        let began = Instant::now();
        let slice = Slice { cache: &mut cache, tokens: &tokens, want: Want::Last };
        self.engine.forward(self.packed, &mut [slice], &mut logits)?;
        Ok(began.elapsed())
    }

    /// Token after token, each with its logits.
    pub fn decode(&self) -> Result<Duration, ComputeError> {
        let (mut cache, mut logits) = (KvCache::new(&self.packed.geometry), Logits::new());
        let began = Instant::now();
        for i in 0..self.generate {
            let token = [self.token(i)];
            let slice = Slice { cache: &mut cache, tokens: &token, want: Want::Last };
            self.engine.forward(self.packed, &mut [slice], &mut logits)?;
        }
        Ok(began.elapsed())
    }
}

/// Tokens per second at the median of `times`, the slower of the two in the middle; None without times.
pub fn rate(tokens: usize, mut times: Vec<Duration>) -> Option<f64> {
    times.sort();
    let median = times.get(times.len() / 2)?;
    // A clock that saw no time pass says nothing; it would be a division by zero.
    Some(tokens as f64 / median.max(&Duration::from_nanos(1)).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_median() {
        let ms = |list: &[u64]| list.iter().copied().map(Duration::from_millis).collect::<Vec<_>>();
        assert_eq!(rate(100, ms(&[900, 100, 200])), Some(500.0));
        assert_eq!(rate(100, ms(&[100, 200])), Some(500.0));
        assert_eq!(rate(100, vec![]), None);
        assert!(rate(100, vec![Duration::ZERO]).unwrap().is_finite());
    }
}
