//! The card as a picture: speed against fidelity, weights as areas, the Pareto front joined. SVG without script
//! and without a font of its own; its words can be read when it is 320 pixels wide.

mod axis;
mod label;
mod write;

use std::fmt::Write;

use super::card::{Against, By, Card, Row, size};
use axis::{Fidelity, Speed};
use write::{cut, escape, line, text};

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 436.0;
/// The plot's edges.
const LEFT: f64 = 66.0;
const RIGHT: f64 = 466.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 326.0;
/// Radius of the largest version.
const RADIUS: f64 = 22.0;
/// Nobody sees a smaller circle.
const RADIUS_MIN: f64 = 4.0;

const INK: &str = "#1b1f24";
const FAINT: &str = "#d8dee4";
const FRONT: &str = "#0969da";
const OTHER: &str = "#57606a";
const PAPER: &str = "#ffffff";

/// A version's place.
struct Dot<'a> {
    row: &'a Row,
    x: f64,
    y: f64,
    r: f64,
}

/// The picture of a card.
pub fn svg(card: &Card) -> String {
    let (speed, fidelity) = (Speed::of(card), Fidelity::of(card));
    let heaviest = card.specs.iter().map(|row| row.weights_bytes).max().unwrap_or(1).max(1) as f64;
    let dot = |row| Dot {
        row,
        x: fidelity.place(row.fidelity(card.against).mean_kl),
        y: speed.place(row.speed(card.by)),
        r: (RADIUS * (row.weights_bytes as f64 / heaviest).sqrt()).max(RADIUS_MIN),
    };
    let mut dots: Vec<Dot<'_>> = card.specs.iter().map(dot).collect();
    // Small ones over large ones.
    dots.sort_by(|a, b| b.r.total_cmp(&a.r));

    let mut out = String::new();
    head(&mut out, card);
    speed.draw(&mut out);
    fidelity.draw(&mut out);
    text(&mut out, (WIDTH / 2.0, BOTTOM + 44.0), "middle", 15, fidelity_words(card.against));
    let _ = writeln!(
        out,
        r#"<text transform="translate(18 {:.1}) rotate(-90)" text-anchor="middle" font-size="15">{}</text>"#,
        (TOP + BOTTOM) / 2.0,
        speed_words(card.by)
    );
    front(&mut out, &dots);
    dots.iter().for_each(|dot| circle(&mut out, dot));
    let mut taken = Vec::new();
    dots.iter().for_each(|dot| label::label(&mut out, dot, &dots, &mut taken));
    legend(&mut out);
    out.push_str("</svg>\n");
    out
}

fn head(out: &mut String, card: &Card) {
    let (model, by, facts) = (escape(&card.model), speed_words(card.by), &card.facts);
    let best: Vec<_> = card.specs.iter().filter(|row| row.pareto).map(|row| row.spec.name()).collect();
    let _ = write!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="sans-serif" fill="{INK}">
<title>{model}: {by} against fidelity, by spec</title>
<desc>On the Pareto front of speed, fidelity (KL in nats) and bytes of weights: {}.</desc>
<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>
<text x="14" y="25" font-size="18" font-weight="bold">{}</text>
"#,
        best.join(", "),
        escape(&cut(&card.model, 40))
    );
    let s = if facts.threads == 1 { "" } else { "s" };
    let on = format!(
        "{}, {} thread{s}; text of {} tokens",
        facts.implementation, facts.threads, card.text.positions
    );
    text(out, (14.0, 46.0), "start", 15, &escape(&cut(&on, 56)));
}

/// The line that joins the best, from the least to the most faithful.
fn front(out: &mut String, dots: &[Dot<'_>]) {
    let mut best: Vec<_> = dots.iter().filter(|dot| dot.row.pareto).collect();
    best.sort_by(|a, b| a.x.total_cmp(&b.x).then(b.y.total_cmp(&a.y)));
    for pair in best.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        line(out, (a.x, a.y), (b.x, b.y), FRONT, r#" stroke-width="2" stroke-dasharray="6 4""#);
    }
}

fn circle(out: &mut String, dot: &Dot<'_>) {
    let Dot { row, x, y, r } = dot;
    let look = match row.pareto {
        true => format!(r#"class="front" fill="{FRONT}" stroke="{PAPER}""#),
        false => format!(r#"class="beaten" fill="{PAPER}" fill-opacity="0.7" stroke="{OTHER}""#),
    };
    let _ = writeln!(
        out,
        r#"<circle cx="{x:.1}" cy="{y:.1}" r="{r:.1}" {look} stroke-width="2"><title>{}: {} of weights; prefill {:.1}, decode {:.1} tokens/s; mean KL {:.1e} on the same weights, {:.1e} against the stored ones</title></circle>"#,
        row.spec,
        size(row.weights_bytes),
        row.prefill_tokens_per_s,
        row.decode_tokens_per_s,
        row.same_weights.mean_kl,
        row.stored_weights.mean_kl,
    );
}

fn legend(out: &mut String) {
    let (first, second) = (BOTTOM + 70.0, BOTTOM + 92.0);
    let _ = writeln!(
        out,
        r#"<circle cx="22" cy="{:.1}" r="6" fill="{FRONT}"/>
<circle cx="22" cy="{:.1}" r="5" fill="{PAPER}" stroke="{OTHER}" stroke-width="2"/>"#,
        first - 5.0,
        second - 5.0
    );
    text(out, (36.0, first), "start", 14, "on the Pareto front: speed, fidelity, bytes of weights");
    text(out, (36.0, second), "start", 14, "beaten by another · areas: bytes of weights");
}

fn fidelity_words(against: Against) -> &'static str {
    match against {
        Against::Same => "mean KL to f32 on the same weights: better →",
        Against::Stored => "mean KL to f32 on the stored weights: better →",
    }
}

fn speed_words(by: By) -> &'static str {
    match by {
        By::Decode => "decode, tokens/s",
        By::Prefill => "prefill, tokens/s",
    }
}

#[cfg(test)]
mod tests {
    use pipe_kernels::Spec;

    use super::*;
    use crate::specs::card::tests::card;

    fn five() -> Card {
        card(&[
            (Spec::F32, 480.0, 51.0, 538_000_000, 0.0, 0.0),
            (Spec::Q8, 900.0, 138.0, 143_000_000, 2e-9, 1e-3),
            (Spec::Q4, 800.0, 220.0, 92_000_000, 3e-9, 2e-2),
            (Spec::Q8A8, 1900.0, 130.0, 143_000_000, 4e-3, 5e-3),
            (Spec::Q4A8, 1700.0, 210.0, 92_000_000, 5e-3, 3e-2),
        ])
    }

    #[test]
    fn the_front_is_filled_and_joined_and_the_rest_is_hollow() {
        let picture = svg(&five());
        assert_eq!(picture.matches(r#"class="front""#).count(), 3, "{picture}");
        assert_eq!(picture.matches(r#"class="beaten""#).count(), 2, "{picture}");
        assert_eq!(picture.matches(r#"stroke-dasharray="6 4""#).count(), 2, "{picture}");
        assert!(picture.contains("bytes of weights: f32, q8, q4."), "{picture}");
        for spec in Spec::ALL {
            assert!(picture.contains(&format!(">{}</text>", spec.name())), "{spec}");
        }
        let by_prefill = svg(&Card { by: By::Prefill, ..five() }.mark());
        assert_eq!(by_prefill.matches(r#"class="front""#).count(), 5, "{by_prefill}");
        assert!(by_prefill.contains("prefill, tokens/s"));
    }

    #[test]
    fn a_name_with_markup_stays_a_name() {
        let picture = svg(&Card { model: "<script>\"&".into(), ..five() });
        assert!(!picture.contains("<script") && picture.contains("&lt;script&gt;&quot;&amp;"), "{picture}");
    }

    #[test]
    fn one_version_alone_is_a_picture_too() {
        let picture = svg(&card(&[(Spec::Q4, 1.0, 1.0, 1, 1e-3, 1e-3)]));
        assert!(picture.ends_with("</svg>\n") && !picture.contains("exact"), "{picture}");
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    }
}
