//! Log-likelihoods of prompt tokens as artifacts: JSON to read, safetensors to compute with.

use std::collections::BTreeMap;

use serde::Serialize;

use super::generate::Generated;
use crate::ops::TokenizedPrompt;

/// JSON of `log_likelihood.json`.
#[derive(Serialize)]
pub struct Likelihoods {
    prompts: Vec<Likelihood>,
}

#[derive(Serialize)]
struct Likelihood {
    id: String,
    tokens: Vec<u32>,
    /// ln p(token | tokens before it), in nats, for every token after the first.
    log_likelihood: Vec<f64>,
    /// Their sum, added in order.
    sum: f64,
    /// exp(−sum / count); absent for a prompt of one token. For people: the sums are what reproduces.
    #[serde(skip_serializing_if = "Option::is_none")]
    perplexity: Option<f64>,
}

/// Both forms. Tensors are named by the prompt's number, `0`, `1`, …
pub fn artifacts(prompts: &[TokenizedPrompt], generated: &[Generated]) -> (Likelihoods, Vec<u8>) {
    let both = || prompts.iter().zip(generated);
    let text = both().map(|(prompt, made)| {
        let sum: f64 = made.log_likelihood.iter().fold(0.0, |sum, x| sum + x);
        let count = made.log_likelihood.len();
        Likelihood {
            id: prompt.id.clone(),
            tokens: prompt.tokens.clone(),
            log_likelihood: made.log_likelihood.clone(),
            sum,
            perplexity: (count > 0).then(|| pipe_kernels::math::double::exp(-sum / count as f64)),
        }
    });
    let text = Likelihoods { prompts: text.collect() };
    let bytes: BTreeMap<String, Vec<u8>> = both()
        .enumerate()
        .map(|(i, (_, made))| {
            (i.to_string(), made.log_likelihood.iter().flat_map(|x| x.to_le_bytes()).collect())
        })
        .collect();
    let views = bytes.iter().map(|(name, bytes)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F64, vec![bytes.len() / 8], bytes);
        (name, view.expect("BUG: the shape is made from the data"))
    });
    (text, safetensors::serialize(views, None).expect("BUG: tensors of plain data can be written"))
}
