//! Lines over layers, with bands, axes and legends. Knows nothing of what it shows.

use std::fmt::Write;

use super::draw::{legend, picture, words};
use super::number::short;
use super::page::Page;

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 214.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 346.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 176.0;

/// Classes of the lines of a chart: a colour and a dash each, so that they differ without colours as well.
const LINES: [&str; 3] = ["l1", "l2", "l3"];

pub struct Chart<'a> {
    pub title: &'a str,
    /// Of the vertical axis.
    pub unit: &'a str,
    /// Of the horizontal one.
    pub across: &'a str,
    /// At most three.
    pub series: Vec<Series<'a>>,
    /// Ask for decades; given where nothing is negative and they are more than one. Zero stands at the bottom.
    pub log: bool,
    pub note: &'a str,
}

pub struct Series<'a> {
    pub name: &'a str,
    pub values: Vec<f64>,
    /// Below and above each value.
    pub band: Option<Vec<(f64, f64)>>,
}

/// The vertical axis.
struct Scale {
    low: f64,
    high: f64,
    log: bool,
}

impl Scale {
    fn of(chart: &Chart<'_>) -> Self {
        let values = || chart.series.iter().flat_map(|s| s.values.iter().copied());
        let bands = chart.series.iter().flat_map(|s| s.band.iter().flatten()).flat_map(|&(a, b)| [a, b]);
        let all = || values().chain(bands.clone()).filter(|x| x.is_finite());
        let least = values().filter(|&x| x > 0.0).fold(f64::INFINITY, f64::min);
        let high = all().fold(f64::NEG_INFINITY, f64::max);
        if chart.log && values().all(|x| x >= 0.0) && high / least > 10.0 {
            return Scale { low: least.log10().floor(), high: high.log10().ceil(), log: true };
        }
        let low = all().fold(0.0, f64::min);
        let high = if high > low { high } else { low + 1.0 };
        let step = step(high - low);
        Scale { low: (low / step).floor() * step, high: (high / step - 1e-9).ceil() * step, log: false }
    }

    fn y(&self, value: f64) -> f64 {
        // A band may reach below what a logarithm has.
        let value = if self.log { value.max(1e-300).log10() } else { value };
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        BOTTOM - (BOTTOM - TOP) * share
    }

    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let stride = ((self.high - self.low) / 5.0).ceil().max(1.0) as usize;
            return (self.low as i32..=self.high as i32).step_by(stride).map(|e| 10f64.powi(e)).collect();
        }
        let step = step(self.high - self.low);
        (0..=((self.high - self.low) / step).round() as usize).map(|i| self.low + step * i as f64).collect()
    }
}

/// 1, 2 or 5 times a power of ten, at most five of them.
fn step(span: f64) -> f64 {
    let power = 10f64.powf((span / 5.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| span / step <= 5.0).unwrap_or(span)
}

pub fn chart(page: &mut Page, chart: &Chart<'_>) {
    let points = chart.series.iter().map(|s| s.values.len()).max().unwrap_or(0);
    if points == 0 {
        return;
    }
    let scale = Scale::of(chart);
    let x = |i: usize| LEFT + (RIGHT - LEFT) * i as f64 / (points - 1).max(1) as f64;
    page.raw("<figure class=\"chart\">").element("figcaption", &[], chart.title);
    picture(page, WIDTH, HEIGHT, format_args!("{} in {}, by {}", chart.title, chart.unit, chart.across));
    words(page, (4.0, 12.0), "start", "unit", chart.unit);
    for tick in scale.ticks() {
        let y = scale.y(tick);
        page.open("path", &[("class", &"rule"), ("d", &format_args!("M{LEFT} {y:.1}H{RIGHT}"))]);
        page.close("path");
        // Far from zero a step's rounding is not to be read.
        let tick = if tick.abs() < 1e-12 { 0.0 } else { tick };
        words(page, (LEFT - 6.0, y + 4.0), "end", "", short(tick));
    }
    let every = [1, 2, 5, 10, 20, 50].into_iter().find(|n| points / n <= 7).unwrap_or(100);
    for i in (0..points).step_by(every) {
        words(page, (x(i), BOTTOM + 15.0), "middle", "", i);
    }
    words(page, ((LEFT + RIGHT) / 2.0, BOTTOM + 32.0), "middle", "unit", chart.across);
    for (class, series) in LINES.iter().zip(&chart.series) {
        if let Some(band) = &series.band {
            let mut d = String::new();
            let up = band.iter().enumerate().map(|(i, b)| (i, b.1));
            let down = band.iter().enumerate().rev().map(|(i, b)| (i, b.0));
            for (n, (i, value)) in up.chain(down).enumerate() {
                let _ = write!(d, "{}{:.1} {:.1}", if n == 0 { "M" } else { "L" }, x(i), scale.y(value));
            }
            page.open("path", &[("class", &format_args!("band {class}")), ("d", &(d + "z"))]).close("path");
        }
    }
    for (class, series) in LINES.iter().zip(&chart.series) {
        let mut d = String::new();
        for (i, &value) in series.values.iter().enumerate() {
            let _ = write!(d, "{}{:.1} {:.1}", if i == 0 { "M" } else { "L" }, x(i), scale.y(value));
        }
        page.open("path", &[("class", &format_args!("line {class}")), ("d", &d)]).close("path");
    }
    page.raw("<g class=\"hints\">");
    let half = (RIGHT - LEFT) / (points - 1).max(1) as f64 / 2.0;
    for i in 0..points {
        let at = |s: &Series<'_>| s.values.get(i).map(|v| format!("{} {}", s.name, short(*v)));
        let values: Vec<String> = chart.series.iter().filter_map(at).collect();
        let d = format!("M{:.1} {TOP}h{:.1}V{BOTTOM}h-{:.1}z", x(i) - half, 2.0 * half, 2.0 * half);
        page.open("path", &[("d", &d)]);
        page.element("title", &[], format_args!("{} {i}: {}", chart.across, values.join(", ")));
        page.close("path");
    }
    page.raw("</g></svg>");
    if chart.series.len() > 1 {
        let keys = LINES.iter().zip(&chart.series);
        legend(page, "", &keys.map(|(class, s)| (*class, s.name.to_owned())).collect::<Vec<_>>());
    }
    page.note(chart.note).raw("</figure>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_place_within_its_chart() {
        for values in [vec![0.0], vec![1e-4, 3.0, 1e5], vec![-2.0, 5.0], vec![7.0, 7.0], vec![0.0, 0.0]] {
            for log in [false, true] {
                let band = Some(values.iter().map(|v| (v - 1.0, v + 1.0)).collect());
                let series = vec![Series { name: "x", values: values.clone(), band }];
                let chart = Chart { title: "t", unit: "u", across: "layer", series, log, note: "" };
                let scale = Scale::of(&chart);
                let ticks = scale.ticks();
                assert!((2..=7).contains(&ticks.len()), "{ticks:?} of {values:?}");
                for v in values.iter().chain(&ticks) {
                    assert!((TOP..=BOTTOM).contains(&scale.y(*v)) && scale.y(*v).is_finite(), "{v}");
                }
                // Larger is higher.
                assert!(ticks.windows(2).all(|t| scale.y(t[1]) < scale.y(t[0])), "{ticks:?}");
            }
        }
    }
}
