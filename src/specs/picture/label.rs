//! Where a version's name and size go: beside its circle, and on nothing else if there is room.

use std::fmt::Write;

use super::write::text;
use super::{BOTTOM, Dot, LEFT, RIGHT, TOP};
use crate::specs::size;

/// Height of two lines.
const HEIGHT: f64 = 34.0;

/// A rectangle.
#[derive(Clone, Copy)]
pub struct Area {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

/// Where words may stand. Above the plot there is a little room.
const WHOLE: Area =
    Area { left: LEFT + 2.0, top: TOP - 10.0, width: RIGHT - LEFT, height: BOTTOM - TOP + 8.0 };

impl Area {
    fn overlap(&self, other: &Area) -> f64 {
        let along = |a: f64, al: f64, b: f64, bl: f64| ((a + al).min(b + bl) - a.max(b)).max(0.0);
        let wide = along(self.left, self.width, other.left, other.width);
        wide * along(self.top, self.height, other.top, other.height)
    }

    fn of(dot: &Dot<'_>) -> Self {
        Area { left: dot.x - dot.r, top: dot.y - dot.r, width: 2.0 * dot.r, height: 2.0 * dot.r }
    }
}

/// Writes name and size at the first place around the circle that is free, else at the freest.
pub fn label(out: &mut String, dot: &Dot<'_>, dots: &[Dot<'_>], taken: &mut Vec<Area>) {
    let (name, size) = (dot.row.spec.name(), size(dot.row.weights_bytes));
    // Fonts differ; these are wide ones.
    let width = (name.len() as f64 * 10.0).max(size.chars().count() as f64 * 8.2);
    let (x, y, gap) = (dot.x, dot.y, dot.r + 6.0);
    let (right, left, mid) = (x + gap, x - gap - width, x - width / 2.0);
    let (above, below, level) = (y - gap - HEIGHT, y + gap, y - HEIGHT / 2.0);
    let (up, down) = (y - HEIGHT, y);
    let places = [
        (right, level),
        (mid, above),
        (left, level),
        (mid, below),
        (right, up),
        (left, up),
        (right, down),
        (left, down),
    ];
    let crowd = |area: &Area| {
        let circles: f64 = dots.iter().map(|d| area.overlap(&Area::of(d))).sum();
        let words: f64 = taken.iter().map(|t| area.overlap(t)).sum();
        circles + words + (area.width * area.height - area.overlap(&WHOLE))
    };
    let areas = places.map(|(left, top)| Area { left, top, width, height: HEIGHT });
    let best = areas.into_iter().min_by(|a, b| crowd(a).total_cmp(&crowd(b))).unwrap_or(areas[0]);
    let middle = best.left + width / 2.0;
    let _ = writeln!(
        out,
        r#"<text x="{middle:.1}" y="{:.1}" text-anchor="middle" font-size="16" font-weight="bold">{name}</text>"#,
        best.top + 14.0
    );
    text(out, (middle, best.top + 30.0), "middle", 14, &size);
    taken.push(best);
}
