//! Pictures: grids of coloured cells, bars, legends. Colours are classes, so that the style sheet has them once for
//! light, dark and paper. Knows nothing of what it shows.

use std::fmt::Write;

use super::number::{short, signed};
use super::page::Page;

/// From little to much.
pub const SEQUENTIAL: [&str; 9] = ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8"];
/// From takes most over nothing to adds most.
pub const DIVERGING: [&str; 9] = ["n4", "n3", "n2", "n1", "z", "a1", "a2", "a3", "a4"];

/// How many edges a value is beyond: its level among one more.
pub fn level(edges: &[f64], value: f64) -> usize {
    edges.iter().take_while(|&&edge| value >= edge).count()
}

/// Where the levels of a signed value begin, as shares of the largest.
pub const SHARES: [f64; 4] = [0.01, 0.05, 0.2, 0.6];

/// The level of a signed value among [`DIVERGING`], on a scale that ends at ±`most`.
pub fn signed_level(value: f64, most: f64) -> usize {
    let steps = SHARES.map(|share| share * most);
    let size = if most > 0.0 { level(&steps, value.abs()) } else { 0 };
    if value < 0.0 { 4 - size } else { 4 + size }
}

/// Where the cells of a grid stand in a picture. Row 0 is at the bottom if `up`.
#[derive(Clone, Copy)]
pub struct Grid {
    pub rows: usize,
    pub columns: usize,
    pub cell: (f64, f64),
    pub at: (f64, f64),
    pub up: bool,
}

/// More cells than this have a hint for each row only: pages are to stay small.
const HINTS: usize = 4096;

impl Grid {
    pub fn width(&self) -> f64 {
        self.columns as f64 * self.cell.0
    }

    pub fn height(&self) -> f64 {
        self.rows as f64 * self.cell.1
    }

    pub fn hints_each(&self) -> bool {
        self.rows * self.columns <= HINTS
    }

    fn line(&self, row: usize) -> usize {
        if self.up { self.rows - 1 - row } else { row }
    }

    /// The middle of a cell.
    pub fn middle(&self, row: usize, column: usize) -> (f64, f64) {
        let x = self.at.0 + (column as f64 + 0.5) * self.cell.0;
        (x, self.at.1 + (self.line(row) as f64 + 0.5) * self.cell.1)
    }

    fn open(&self, page: &mut Page) {
        let Grid { cell: (w, h), at: (x, y), .. } = self;
        page.open("g", &[("transform", &format_args!("translate({x} {y}) scale({w:.3} {h:.3})"))]);
    }

    /// The cells, a path for each level; neighbours of one level are one piece.
    pub fn cells(
        &self,
        page: &mut Page,
        classes: &[&'static str],
        level: &dyn Fn(usize, usize) -> Option<usize>,
    ) {
        let mut paths = vec![String::new(); classes.len()];
        for row in 0..self.rows {
            let y = self.line(row);
            let mut column = 0;
            while column < self.columns {
                let Some(own) = level(row, column) else {
                    column += 1;
                    continue;
                };
                let run = (column..self.columns).take_while(|&c| level(row, c) == Some(own)).count();
                let _ = write!(paths[own], "M{column} {y}h{run}v1h-{run}z");
                column += run;
            }
        }
        self.open(page);
        for (class, path) in classes.iter().zip(&paths).filter(|(_, path)| !path.is_empty()) {
            page.open("path", &[("class", class), ("d", path)]).close("path");
        }
        page.raw("</g>");
    }

    /// What appears under the pointer.
    pub fn hints(&self, page: &mut Page, hint: &dyn Fn(usize, usize) -> Option<String>) {
        self.open(page);
        page.raw("<g class=\"hints\">");
        for row in 0..self.rows {
            for column in 0..self.columns {
                let Some(text) = hint(row, column) else { continue };
                let y = self.line(row);
                page.open("path", &[("d", &format_args!("M{column} {y}h1v1h-1z"))]);
                page.element("title", &[], text).close("path");
            }
        }
        page.raw("</g></g>");
    }

    /// A hint for each whole row.
    pub fn row_hints(&self, page: &mut Page, hint: &dyn Fn(usize) -> String) {
        self.open(page);
        page.raw("<g class=\"hints\">");
        for row in 0..self.rows {
            let d = format!("M0 {}h{}v1h-{}z", self.line(row), self.columns, self.columns);
            page.open("path", &[("d", &d)]).element("title", &[], hint(row)).close("path");
        }
        page.raw("</g></g>");
    }

    /// Dots in the middle of cells.
    pub fn dots(&self, page: &mut Page, marked: &dyn Fn(usize, usize) -> bool) {
        let mut path = String::new();
        for row in 0..self.rows {
            for column in (0..self.columns).filter(|&column| marked(row, column)) {
                let (x, y) = self.middle(row, column);
                let _ = write!(path, "M{x:.1} {y:.1}h0");
            }
        }
        page.open("path", &[("class", &"dots"), ("d", &path)]).close("path");
    }

    /// Numbers along the rows, at the left; every so many.
    pub fn row_numbers(&self, page: &mut Page, name: &dyn Fn(usize) -> String) {
        let every = (11.0 / self.cell.1).ceil().max(1.0) as usize;
        let every = [1, 2, 5, 10, 20, 50].into_iter().find(|&n| n >= every).unwrap_or(100);
        for row in (0..self.rows).step_by(every) {
            let (x, y) = (self.at.0 - 5.0, self.middle(row, 0).1 + 3.5);
            words(page, (x, y), "end", "", name(row));
        }
    }

    /// Numbers below the columns; every so many.
    pub fn column_numbers(&self, page: &mut Page, first: usize) {
        let every = (26.0 / self.cell.0).ceil().max(1.0) as usize;
        let every = [1, 2, 5, 10, 20, 50, 100, 200, 500].into_iter().find(|&n| n >= every).unwrap_or(1000);
        for column in (0..self.columns).filter(|c| (c + first).is_multiple_of(every)) {
            let (x, y) = (self.middle(0, column).0, self.at.1 + self.height() + 13.0);
            words(page, (x, y), "middle", "", first + column);
        }
    }
}

/// Opens a picture that shrinks with its place, or keeps its size if that can scroll.
pub fn picture(page: &mut Page, width: f64, height: f64, says: impl std::fmt::Display) {
    let view = format!("0 0 {width:.0} {height:.0}");
    let (width, height) = (format!("{width:.0}"), format!("{height:.0}"));
    let says = says.to_string();
    page.open(
        "svg",
        &[
            ("viewBox", &view),
            ("width", &width),
            ("height", &height),
            ("role", &"img"),
            ("aria-label", &says),
        ],
    );
}

/// Words in a picture.
pub fn words(
    page: &mut Page,
    (x, y): (f64, f64),
    anchor: &'static str,
    class: &'static str,
    text: impl std::fmt::Display,
) {
    let (x, y) = (format!("{x:.1}"), format!("{y:.1}"));
    page.element("text", &[("x", &x), ("y", &y), ("text-anchor", &anchor), ("class", &class)], text);
}

/// A legend: what each colour means.
pub fn legend(page: &mut Page, title: &str, entries: &[(&'static str, String)]) {
    page.raw("<p class=\"legend\">");
    if !title.is_empty() {
        page.element("b", &[], title);
    }
    for (class, text) in entries {
        page.raw("<span>");
        page.open("i", &[("class", class)]).close("i").text(text).raw("</span>");
    }
    page.raw("</p>\n");
}

/// A legend of levels between edges, such as `< 0.1`, `0.1`, `1`.
pub fn levels(page: &mut Page, title: &str, classes: &[&'static str], edges: &[f64]) {
    let first = edges.first().map_or(String::new(), |e| format!("below {}", short(*e)));
    let rest = edges.iter().map(|edge| format!("≥ {}", short(*edge)));
    let texts = std::iter::once(first).chain(rest);
    legend(page, title, &classes.iter().copied().zip(texts).collect::<Vec<_>>());
}

/// A bar of a bar chart.
pub struct Bar {
    pub label: String,
    pub value: f64,
    pub hint: String,
}

/// Horizontal bars with their labels and values. `unit` stands below, at the axis.
pub fn bars(page: &mut Page, bars: &[Bar], unit: &str) {
    let low = bars.iter().map(|bar| bar.value).fold(0.0, f64::min);
    let high = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let span = if high > low { high - low } else { 1.0 };
    let place = |value: f64| 100.0 * (value - low) / span;
    let zero = place(0.0);
    page.raw("<div class=\"bars\">");
    for bar in bars {
        let (from, to) = (place(bar.value.min(0.0)), place(bar.value.max(0.0)));
        let class = if bar.value < 0.0 { "takes" } else { "adds" };
        page.open("div", &[("class", &"bar"), ("title", &bar.hint)]);
        page.element("span", &[("class", &"k")], &bar.label);
        page.raw("<svg viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">");
        let (x, width) = (format!("{from:.2}"), format!("{:.2}", to - from));
        let rect = [("x", &x as &dyn std::fmt::Display), ("y", &0), ("width", &width), ("height", &10)];
        page.open("rect", &[rect.as_slice(), &[("class", &class)]].concat()).close("rect");
        let line = format!("M{zero:.2} 0v10");
        page.open("path", &[("class", &"zero"), ("d", &line)]).raw("</path></svg>");
        let value = if low < 0.0 { signed(bar.value) } else { short(bar.value) };
        page.element("span", &[("class", &"v")], value).raw("</div>");
    }
    page.raw("<div class=\"bar axis\"><span class=\"k\"></span><span class=\"ends\">");
    let ends = |x: f64| if low < 0.0 { signed(x) } else { short(x) };
    page.element("span", &[], ends(low)).element("span", &[], unit).element("span", &[], ends(high));
    page.raw("</span><span class=\"v\"></span></div></div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_values() {
        assert_eq!([0.0, 0.1, 0.5, 9.0].map(|x| level(&[0.1, 1.0], x)), [0, 1, 1, 2]);
        assert_eq!([-4.0, -0.1, 0.0, 0.1, 1.0, 4.0].map(|x| signed_level(x, 4.0)), [0, 3, 4, 5, 7, 8]);
        assert_eq!(signed_level(0.0, 0.0), 4);
    }

    #[test]
    fn neighbours_of_one_level_are_one_piece() {
        let grid = Grid { rows: 2, columns: 3, cell: (1.0, 1.0), at: (0.0, 0.0), up: true };
        let mut page = Page::default();
        grid.cells(&mut page, &["a", "b"], &|row, column| (column <= row + 1).then_some(row));
        let html = page.finish();
        assert!(html.contains("class=\"a\" d=\"M0 1h2v1h-2z\""), "{html}");
        assert!(html.contains("class=\"b\" d=\"M0 0h3v1h-3z\""), "{html}");
    }
}
