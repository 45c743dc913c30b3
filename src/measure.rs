//! The load that speed is measured with: one prefill, or decode from an empty context, and how long it took.
//! Knows no clock but a stopwatch, and no terminal.

use std::time::{Duration, Instant};

use pipe_kernels::{Engine, KvCache, Logits, PackedModel, Slice, Want};
use pipe_store::Store;

use crate::ops::OpError;
use crate::recipe::op::TraceLevel;
use crate::trace::{Collector, Layout, Part, Spool};

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

    /// The prompt in one pass, with the logits of its last token. With a level of trace the pass is observed as a
    /// step's is; without, nothing is hashed.
    pub fn prefill(&self, trace: Option<TraceLevel>) -> Result<Duration, OpError> {
        self.time(trace, &[self.prompt])
    }

    /// Token after token, each with its logits.
    pub fn decode(&self, trace: Option<TraceLevel>) -> Result<Duration, OpError> {
        self.time(trace, &vec![1; self.generate])
    }

    /// Passes of so many tokens each, one after the other.
    fn time(&self, trace: Option<TraceLevel>, passes: &[usize]) -> Result<Duration, OpError> {
        let mut collector = trace.map(|level| self.collector(level)).transpose()?;
        let tokens: Vec<u32> = (0..passes.iter().sum()).map(|i| self.token(i)).collect();
        let (mut cache, mut logits) = (KvCache::new(&self.packed.geometry), Logits::new());
        let began = Instant::now();
        let mut start = 0;
        for &count in passes {
            let slice = Slice { cache: &mut cache, tokens: &tokens[start..start + count], want: Want::Last };
            match &mut collector {
                None => self.engine.forward(self.packed, &mut [slice], &mut logits)?,
                Some(collector) => {
                    collector.observe(&[Part { prompt: 0, start, count }], |tap| -> Result<(), OpError> {
                        Ok(self.engine.observed(self.packed, &mut [slice], &mut logits, Some(tap))?)
                    })?;
                }
            }
            start += count;
        }
        Ok(began.elapsed())
    }

    fn collector(&self, level: TraceLevel) -> Result<Collector, OpError> {
        let layout = Layout::new(level, &self.packed.geometry);
        let spool = match layout.kept_bytes() {
            0 => None,
            record => Some(Spool::new(Some(Store::memory().stage()?), record)),
        };
        Ok(Collector::new(layout, 1, spool))
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
