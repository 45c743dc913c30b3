//! What is out of the ordinary: by rules that hold for any model, and against a baseline of the same model.

use super::{Inside, Stat, Unusual, UnusualKind};

/// Standard deviations of the baseline from which on a mean is unusual.
const DEVIATIONS: f64 = 4.0;

/// By itself: streams that are mostly one element, hidden units that never do anything, heads that look at one
/// position only.
pub fn alone(inside: &Inside) -> Vec<Unusual> {
    let mut all = Vec::new();
    let mut add = |kind, place: String, value: f64, than: f64| {
        if value > than {
            all.push(Unusual { kind, place, value, than, baseline: false });
        }
    };
    for layer in &inside.layers {
        let place = || format!("layer.{:02}", layer.layer);
        // max² / Σ x² above one half: one element is more than all others together.
        let width = layer.outlier_ratio.mean * layer.outlier_ratio.mean;
        add(UnusualKind::Outlier, place(), width, inside.width as f64 / 2.0);
        add(UnusualKind::DeadUnits, place(), layer.dead_units as f64, 0.0);
    }
    for head in &inside.heads {
        let place = format!("layer.{:02}/head.{}", head.layer, head.head);
        // exp(−entropy): 1 for all weight on one position.
        let collapsed = super::lens::decayed(head.entropy.mean);
        if inside.window.end > 8 {
            add(UnusualKind::CollapsedAttention, place, collapsed, 0.98);
        }
    }
    all
}

/// Against another introspection of the same model: means that lie far outside what the baseline saw.
pub fn against(inside: &Inside, baseline: &Inside) -> Vec<Unusual> {
    let mut all = Vec::new();
    let mut compare = |kind, place: String, found: Stat, usual: Stat| {
        // A baseline that never varied says nothing about what is far.
        let far = DEVIATIONS * usual.std;
        if usual.std > 0.0 && (found.mean - usual.mean).abs() > far {
            all.push(Unusual { kind, place, value: found.mean, than: usual.mean, baseline: true });
        }
    };
    for (found, usual) in inside.layers.iter().zip(&baseline.layers) {
        let place = format!("layer.{:02}", found.layer);
        compare(UnusualKind::Rms, place.clone(), found.rms, usual.rms);
        compare(UnusualKind::Outlier, place, found.outlier_ratio, usual.outlier_ratio);
    }
    for (found, usual) in inside.heads.iter().zip(&baseline.heads) {
        let place = format!("layer.{:02}/head.{}", found.layer, found.head);
        compare(UnusualKind::Entropy, place, found.entropy, usual.entropy);
    }
    all
}
