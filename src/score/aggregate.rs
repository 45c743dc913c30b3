//! Metrics over all documents, with their standard errors.

use pipe_kernels::math::double;
use pipe_kernels::sampler::philox4x32;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Measured, Parts, Score};

/// Resampling for the standard errors that have no formula.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrap {
    pub resamples: u32,
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Bootstrap { resamples: 1000, seed: 0 }
    }
}

/// What was measured, by metric, in the order of the documents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    means: Vec<(&'static str, Vec<f64>)>,
    log_likelihoods: Vec<f64>,
    /// Log-likelihood and weight.
    by_word: Vec<(f64, f64)>,
    by_byte: Vec<(f64, f64)>,
}

impl Metrics {
    pub fn add(&mut self, measured: &[Measured]) {
        for one in measured {
            match *one {
                Measured::Mean(name, value) => match self.means.iter_mut().find(|m| m.0 == name) {
                    Some((_, values)) => values.push(value),
                    None => self.means.push((name, vec![value])),
                },
                Measured::LogLikelihood(ll) => self.log_likelihoods.push(ll),
                Measured::Rolling { log_likelihood, words, bytes } => {
                    self.by_word.push((log_likelihood, words as f64));
                    self.by_byte.push((log_likelihood, bytes as f64));
                }
            }
        }
    }

    /// Each metric under its name, and its standard error under that with `_stderr`: of a mean by the formula, of a
    /// perplexity by bootstrap; none for a single document.
    pub fn parts(&self, bootstrap: Bootstrap) -> Parts {
        let mut parts = Parts::new();
        let mut put = |name: &str, value: f64, error: Option<f64>| {
            parts.insert(name.into(), json!(value));
            if let Some(error) = error {
                parts.insert(format!("{name}_stderr"), json!(error));
            }
        };
        for (name, values) in &self.means {
            let error = (values.len() > 1).then(|| sample_stddev(values) / (values.len() as f64).sqrt());
            put(name, mean(values), error);
        }
        if !self.log_likelihoods.is_empty() {
            let of = |items: &[f64]| double::exp(-mean(items));
            put("perplexity", of(&self.log_likelihoods), stderr(of, &self.log_likelihoods, bootstrap));
        }
        let perplexity = |items: &[(f64, f64)]| double::exp(-weighted_mean(items));
        let bits = |items: &[(f64, f64)]| -weighted_mean(items) / std::f64::consts::LN_2;
        if !self.by_byte.is_empty() {
            let (words, bytes) = (&self.by_word, &self.by_byte);
            put("word_perplexity", perplexity(words), stderr(perplexity, words, bootstrap));
            put("byte_perplexity", perplexity(bytes), stderr(perplexity, bytes, bootstrap));
            put("bits_per_byte", bits(bytes), stderr(bits, bytes, bootstrap));
        }
        parts
    }
}

/// Fitness over all documents: the mean of the values that say right or wrong, else of all; the metrics; how many
/// documents had a value.
pub fn fitness_of_all(each: &[&Score], metrics: &Metrics, bootstrap: Bootstrap) -> Score {
    let mut parts = metrics.parts(bootstrap);
    let scored = each.iter().filter(|score| score.value.is_some()).count();
    parts.insert("documents".into(), json!({ "all": each.len(), "scored": scored }));
    if let Some(confidence) = confidence(each) {
        parts.insert("confidence".into(), confidence);
    }
    // How likely a text is says less than what is right: it counts where nothing can be right or wrong.
    let right = |score: &Score| score.parts.contains_key("contains") || score.parts.contains_key("acc");
    let any = each.iter().any(|score| right(score));
    let value = super::mean_value(each.iter().copied().filter(|score| !any || right(score)));
    let reason = value.is_none().then(|| "no prompt has a reference; confidence is not accuracy".into());
    Score { value, parts, reason }
}

/// Means over all tokens of all answers.
fn confidence(each: &[&Score]) -> Option<Value> {
    let parts: Vec<&Value> = each.iter().filter_map(|score| score.parts.get("confidence")).collect();
    let tokens = |part: &Value| part["tokens"].as_f64().unwrap_or(0.0);
    let total = parts.iter().fold(0.0, |sum, part| sum + tokens(part));
    let mean = |name: &str| {
        parts.iter().fold(0.0, |sum, part| sum + part[name].as_f64().unwrap_or(0.0) * tokens(part)) / total
    };
    (total > 0.0).then(|| {
        // Keys in order: how a library keeps them must not show.
        let mut all = serde_json::Map::new();
        if parts.iter().all(|part| part.get("mean_kl_to_f32").is_some()) {
            let kl = mean("mean_kl_to_f32");
            all.insert("fidelity_to_f32".into(), json!(double::exp(-kl)));
            all.insert("mean_kl_to_f32".into(), json!(kl));
        }
        all.insert("mean_margin".into(), json!(mean("mean_margin")));
        all.insert("mean_probability".into(), json!(mean("mean_probability")));
        all.insert("tokens".into(), json!(total as u64));
        Value::Object(all)
    })
}

/// `sum / len`; 0 for none.
pub(super) fn mean(items: &[f64]) -> f64 {
    if items.is_empty() {
        return 0.0;
    }
    items.iter().fold(0.0, |sum, x| sum + x) / items.len() as f64
}

fn weighted_mean(items: &[(f64, f64)]) -> f64 {
    let (a, b) = items.iter().fold((0.0, 0.0), |(a, b), (x, w)| (a + x, b + w));
    a / b
}

fn sample_stddev(items: &[f64]) -> f64 {
    let mu = mean(items);
    let squares = items.iter().fold(0.0, |sum, x| sum + (x - mu) * (x - mu));
    (squares / (items.len() as f64 - 1.0)).sqrt()
}

/// Standard deviation of a metric over resamples of its items, drawn with replacement: the harness's
/// `bootstrap_stderr`, with Philox4x32-10 for its generator. Draw j of resample i is word `j mod 4` of the block with
/// counter (i, j div 4) under the seed, times the number of items, divided by 2^32.
fn stderr<T: Copy>(metric: impl Fn(&[T]) -> f64, items: &[T], bootstrap: Bootstrap) -> Option<f64> {
    if items.len() < 2 || bootstrap.resamples < 2 {
        return None;
    }
    let key = [bootstrap.seed as u32, (bootstrap.seed >> 32) as u32];
    let mut drawn = Vec::with_capacity(items.len());
    let values: Vec<f64> = (0..bootstrap.resamples)
        .map(|i| {
            drawn.clear();
            for block in 0..items.len().div_ceil(4) as u64 {
                let words = philox4x32([i, 0, block as u32, (block >> 32) as u32], key);
                let left = (items.len() - drawn.len()).min(4);
                let pick = |word: u32| items[((u64::from(word) * items.len() as u64) >> 32) as usize];
                drawn.extend(words[..left].iter().map(|&word| pick(word)));
            }
            metric(&drawn)
        })
        .collect();
    Some(sample_stddev(&values))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(lls: &[f64]) -> Metrics {
        let mut metrics = Metrics::default();
        lls.iter()
            .for_each(|&ll| metrics.add(&[Measured::LogLikelihood(ll), Measured::Mean("acc", ll + 3.0)]));
        metrics
    }

    #[test]
    fn errors_are_near_their_formulas_and_follow_the_seed() {
        let lls = [-1.0, -2.0, -3.0];
        let with = |seed| metrics(&lls).parts(Bootstrap { resamples: 2000, seed });
        let parts = with(7);
        assert_eq!(parts["acc"], json!(1.0));
        assert!((parts["acc_stderr"].as_f64().unwrap() - 1.0 / 3f64.sqrt()).abs() < 1e-12);
        assert!((parts["perplexity"].as_f64().unwrap() - 2f64.exp()).abs() < 1e-9);
        // exp(mean) of 27 equally likely resamples.
        let all =
            (0..27).map(|i| [i % 3, i / 3 % 3, i / 9].iter().map(|&i| f64::from(i) + 1.0).sum::<f64>() / 3.0);
        let all: Vec<f64> = all.map(f64::exp).collect();
        let mu = all.iter().sum::<f64>() / 27.0;
        let exact = (all.iter().map(|x| (x - mu) * (x - mu)).sum::<f64>() / 27.0).sqrt();
        let found = parts["perplexity_stderr"].as_f64().unwrap();
        assert!((found / exact - 1.0).abs() < 0.05, "{found} {exact}");
        assert_eq!(with(7), parts);
        assert_ne!(with(8)["perplexity_stderr"], parts["perplexity_stderr"]);
    }

    #[test]
    fn one_document_has_no_error() {
        let parts = metrics(&[-1.0]).parts(Bootstrap::default());
        assert_eq!(parts.keys().collect::<Vec<_>>(), ["acc", "perplexity"]);
    }
}
