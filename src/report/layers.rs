//! Norms, entropies and other features by layer, as lines.

use super::chart::{Chart, Series, chart};
use super::page::Page;
use crate::inside::{Inside, Layer, Stat};

pub fn section(page: &mut Page, inside: &Inside) {
    page.raw("<section id=\"layers\"><h2>Layer by layer</h2>\n");
    page.note(format_args!(
        "Means over positions {} to {}; bands are one standard deviation, of heads the least and the most.",
        inside.window.start,
        inside.window.end.saturating_sub(1)
    ));
    page.raw("<div class=\"charts\">");
    let line = |name, of: fn(&Layer) -> f64| Series {
        name,
        values: inside.layers.iter().map(of).collect(),
        band: None,
    };
    let banded = |name, of: fn(&Layer) -> Stat| Series {
        name,
        values: inside.layers.iter().map(|l| of(l).mean).collect(),
        band: Some(inside.layers.iter().map(of).map(|s| (s.mean - s.std, s.mean + s.std)).collect()),
    };
    let mean = |rows: &[Vec<f64>]| -> Vec<f64> { rows.iter().map(|row| Stat::of(row).mean).collect() };
    let draw = |page: &mut Page, title, unit, across, log, series, note| {
        chart(page, &Chart { title, unit, across, series, log, note });
    };
    let norms = vec![
        banded("residual stream", |l| l.rms),
        line("attention adds", |l| l.attention_rms.mean),
        line("feed-forward adds", |l| l.ffn_rms.mean),
    ];
    draw(
        page,
        "Norms",
        "RMS",
        "layer",
        true,
        norms,
        "Of the stream after the layer, and of what is added to it.",
    );
    let entropy = vec![Series { name: "entropy", values: mean(&inside.lens.entropy), band: None }];
    let note = "How sure the lens is; row 0 is the embedding, the last the model itself.";
    draw(page, "Entropy of the lens", "nats", "row of the lens", false, entropy, note);
    let kl = vec![Series { name: "KL", values: mean(&inside.lens.kl), band: None }];
    let note = "KL(final ‖ lens); the last row is the model itself, so it is exactly 0 there.";
    draw(page, "Distance to the final answer", "nats", "row of the lens", true, kl, note);
    draw(
        page,
        "Entropy of attention",
        "nats",
        "layer",
        false,
        vec![heads(inside)],
        "Mean over the heads of a layer.",
    );
    let outliers = vec![banded("max ÷ RMS", |l| l.outlier_ratio)];
    draw(
        page,
        "Outliers",
        "max ÷ RMS",
        "layer",
        false,
        outliers,
        "Of the stream: 1 if all elements are of one size.",
    );
    let ranks = vec![line("effective rank", |l| l.effective_rank)];
    draw(
        page,
        "Effective rank",
        "dimensions",
        "layer",
        false,
        ranks,
        "Of the stream over the last 64 positions.",
    );
    let gate = vec![banded("share of small units", |l| l.gate_sparsity)];
    draw(
        page,
        "Sparsity of the gate",
        "share",
        "layer",
        false,
        gate,
        "Units of silu(gate) at most a tenth of their RMS.",
    );
    let turn = vec![banded("cosine", |l| l.cosine)];
    draw(
        page,
        "Direction",
        "cosine",
        "layer",
        false,
        turn,
        "Of the stream before and after the layer: 1 if it is kept.",
    );
    let tails = vec![line("kurtosis", |l| l.kurtosis.mean)];
    draw(
        page,
        "Tails",
        "kurtosis",
        "layer",
        true,
        tails,
        "Of the stream: 3 if its elements are normally distributed.",
    );
    page.raw("</div></section>\n");
}

fn heads(inside: &Inside) -> Series<'static> {
    let of = |layer: usize| {
        inside.heads.iter().filter(move |head| head.layer == layer).map(|head| head.entropy.mean)
    };
    let layers = 0..inside.layers.len();
    let values = layers.clone().map(|l| Stat::of(&of(l).collect::<Vec<_>>()).mean).collect();
    let ends = |l| (of(l).fold(f64::INFINITY, f64::min), of(l).fold(0.0, f64::max));
    Series { name: "mean of heads", values, band: Some(layers.map(ends).collect()) }
}
