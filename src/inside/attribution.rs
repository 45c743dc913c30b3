//! Direct logit attribution: the last stream is the sum of what every component added, so the difference of two
//! logits is the sum of what each adds to it, once the final norm's scale is held fixed.
//!
//! Source: Elhage and others 2021, "A mathematical framework for transformer circuits"; the logit difference of
//! Wang and others 2022 (arXiv 2211.00593).

use rayon::prelude::*;

use super::record::Record;
use super::{Attribution, Component, Direct, Look, Neuron, Target};

/// Neurons that are named.
const NEURONS: usize = 20;

/// A target's direction in the stream: the product with it is the part of the logits' difference.
struct Aim {
    position: usize,
    direction: Vec<f64>,
}

/// What a layer's parts add, for each target in turn.
struct LayerParts {
    heads: Vec<Vec<f64>>,
    ffn: Vec<f64>,
    /// Sum over the targets, for each hidden unit.
    neurons: Vec<f64>,
}

pub fn attribute(look: &Look<'_>, record: &Record) -> Attribution {
    let targets: Vec<Target> = record.targets().map(|p| target(look, record, p)).collect();
    let aims: Vec<Aim> = targets.iter().map(|t| aim(look, record, t)).collect();
    let parts: Vec<LayerParts> =
        (0..record.g.layers).into_par_iter().map(|layer| parts(look, record, layer, &aims)).collect();
    let embedding: Vec<f64> = aims.iter().map(|a| dot(&a.direction, record.embed.at(a.position))).collect();

    let n = targets.len().max(1) as f64;
    let mean = |values: &[f64]| values.iter().fold(0.0, |sum, x| sum + x) / n;
    let mut residue: f64 = 0.0;
    for (t, target) in targets.iter().enumerate() {
        let mut sum = embedding[t];
        for layer in &parts {
            sum = layer.heads.iter().fold(sum, |sum, head| sum + head[t]);
            sum += layer.ffn[t];
        }
        residue = residue.max((sum - target.difference).abs());
    }
    let components = Component::all(&record.g).into_iter().map(|component| {
        let direct = match component {
            Component::Head { layer, head } => mean(&parts[layer].heads[head]),
            Component::Ffn { layer } => mean(&parts[layer].ffn),
        };
        Direct { component, direct }
    });
    let mut neurons: Vec<Neuron> = parts
        .iter()
        .enumerate()
        .flat_map(|(layer, parts)| {
            parts.neurons.iter().enumerate().map(move |(neuron, sum)| (layer, neuron, sum))
        })
        .map(|(layer, neuron, sum)| Neuron { layer, neuron, direct: sum / n })
        .collect();
    let by = |a: &Neuron, b: &Neuron| {
        let size = b.direct.abs().total_cmp(&a.direct.abs());
        size.then((a.layer, a.neuron).cmp(&(b.layer, b.neuron)))
    };
    neurons.sort_unstable_by(by);
    neurons.truncate(NEURONS);
    Attribution { components: components.collect(), embedding: mean(&embedding), neurons, residue, targets }
}

/// The token that comes after a position, or the likeliest where none does, and the best of the others.
fn target(look: &Look<'_>, record: &Record, position: usize) -> Target {
    let prediction = record.prediction(position);
    let known = record.choices.iter().find(|choice| choice.position == position + 1);
    let token = known.map_or(prediction.likeliest[0], |choice| choice.found);
    let other = prediction.likeliest.iter().copied().find(|&t| t != token).unwrap_or(token);
    let pair = super::record::logits_from(look.model, record.last().at(position), &[token, other]);
    Target {
        position,
        token,
        text: (look.piece)(token),
        other,
        other_text: (look.piece)(other),
        difference: f64::from(pair[0]) - f64::from(pair[1]),
    }
}

fn aim(look: &Look<'_>, record: &Record, target: &Target) -> Aim {
    let stream = record.last().at(target.position);
    let squares = stream.iter().fold(0.0, |sum, &x| sum + f64::from(x) * f64::from(x));
    let scale = 1.0 / (squares / stream.len() as f64 + f64::from(record.g.norm_eps)).sqrt();
    let mut rows = [vec![0.0; stream.len()], vec![0.0; stream.len()]];
    look.model.lm_head.row(target.token as usize, &mut rows[0]);
    look.model.lm_head.row(target.other as usize, &mut rows[1]);
    let direction = (0..stream.len()).map(|i| {
        (f64::from(rows[0][i]) - f64::from(rows[1][i])) * (f64::from(look.model.final_norm[i]) * scale)
    });
    Aim { position: target.position, direction: direction.collect() }
}

fn parts(look: &Look<'_>, record: &Record, layer: usize, aims: &[Aim]) -> LayerParts {
    let (weights, rows) = (&look.model.layers[layer], &record.layers[layer]);
    let (dim, heads) = (record.g.head_dim, record.g.heads);
    let back = |w: &pipe_kernels::matrix::Matrix<'_>| -> Vec<Vec<f64>> {
        let mut sums = vec![vec![0.0; w.k]; aims.len()];
        let mut row = vec![0.0f32; w.k];
        for n in 0..record.g.width {
            w.row(n, &mut row);
            for (sum, aim) in sums.iter_mut().zip(aims) {
                let d = aim.direction[n];
                sum.iter_mut().zip(&row).for_each(|(sum, &w)| *sum += d * f64::from(w));
            }
        }
        sums
    };
    let through = back(&weights.o_proj);
    let of_head = |head: usize| {
        let range = head * dim..(head + 1) * dim;
        let one = |(aim, through): (&Aim, &Vec<f64>)| {
            dot(&through[range.clone()], &rows.context.at(aim.position)[range.clone()])
        };
        aims.iter().zip(&through).map(one).collect()
    };
    let mut neurons = vec![0.0; record.g.ffn];
    for (aim, through) in aims.iter().zip(&back(&weights.down)) {
        let hidden = rows.hidden.at(aim.position);
        for ((sum, &h), u) in neurons.iter_mut().zip(hidden).zip(through) {
            *sum += f64::from(h) * u;
        }
    }
    LayerParts {
        heads: (0..heads).map(of_head).collect(),
        ffn: aims.iter().map(|a| dot(&a.direction, rows.down.at(a.position))).collect(),
        neurons,
    }
}

fn dot(a: &[f64], b: &[f32]) -> f64 {
    a.iter().zip(b).fold(0.0, |sum, (a, &b)| sum + a * f64::from(b))
}
