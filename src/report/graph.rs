//! The steps as a graph from top to bottom, and as a list with what each took. Knows no op.

use std::collections::BTreeMap;

use super::draw::{Bar, bars, picture, words};
use super::number::millis;
use super::page::Page;
use super::{Report, Step};

const BOX: (f64, f64) = (150.0, 42.0);
const GAP: (f64, f64) = (16.0, 30.0);
/// Room that an edge takes which passes a row of steps.
const PASSING: f64 = 14.0;
/// More steps than this are a list only.
const DRAWN: usize = 40;

pub fn section(page: &mut Page, report: &Report) {
    page.raw("<section id=\"steps\"><h2>Steps</h2>\n");
    let steps = &report.steps;
    page.note(
        "What each step took: in this run, or, where its result was already there, in the run that computed it.",
    );
    page.raw("<div class=\"pair\">");
    if steps.len() <= DRAWN && steps.iter().any(|step| !step.inputs.is_empty()) {
        page.raw("<figure><figcaption>Which step feeds which</figcaption><div class=\"scroll\">");
        draw(page, steps);
        page.raw("</div></figure>");
    }
    page.raw("<figure><figcaption>Wall time</figcaption>");
    let timed = |step: &Step| {
        step.wall_ms.map(|ms| Bar {
            label: step.name.clone(),
            value: ms as f64 / 1000.0,
            hint: format!("{} ({}): {}", step.name, step.op, millis(ms)),
        })
    };
    let mut all: Vec<Bar> = steps.iter().filter_map(timed).collect();
    all.sort_by(|a, b| b.value.total_cmp(&a.value));
    all.truncate(DRAWN);
    match all.is_empty() {
        true => {
            page.note("No run of this store computed these steps.");
        }
        false => bars(page, &all, "seconds"),
    }
    for step in steps.iter().filter(|step| step.error.is_some()).take(DRAWN) {
        let error = step.error.as_deref().unwrap_or_default();
        page.element("p", &[("class", &"warning")], format_args!("{}: {error}", step.name));
    }
    page.raw("</figure></div></section>\n");
}

/// A place in a row: a step, or the way past it of all edges from a step above.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Step(usize),
    Past(usize),
}

/// Rows of items, top to bottom.
struct Layout {
    rows: Vec<Vec<Item>>,
    /// Left and right of each item.
    places: Vec<BTreeMap<Item, (f64, f64)>>,
    width: f64,
}

impl Layout {
    fn of(edges: &[(usize, usize)], steps: usize) -> Self {
        let mut depth = vec![0; steps];
        // A graph without cycles settles within as many rounds as it has steps.
        for _ in 0..steps {
            edges.iter().for_each(|&(from, to)| depth[to] = depth[to].max(depth[from] + 1));
        }
        let mut rows = vec![Vec::new(); depth.iter().max().map_or(0, |d| d + 1)];
        (0..steps).for_each(|step| rows[depth[step]].push(Item::Step(step)));
        for from in 0..steps {
            let last = edges.iter().filter(|edge| edge.0 == from).map(|edge| depth[edge.1]).max();
            for row in rows.iter_mut().take(last.unwrap_or(0)).skip(depth[from] + 1) {
                row.push(Item::Past(from));
            }
        }
        let mut layout = Layout { rows, places: Vec::new(), width: 0.0 };
        layout.place();
        for round in 0..8 {
            layout.order(edges, &depth, round % 2 == 0);
            layout.place();
        }
        layout
    }

    /// Sort each row by where its neighbours stand: those above when going down, else those below.
    fn order(&mut self, edges: &[(usize, usize)], depth: &[usize], down: bool) {
        let last = self.rows.len().saturating_sub(1);
        let order: Vec<usize> = if down { (1..=last).collect() } else { (0..last).rev().collect() };
        for row in order {
            let beside = if down { row - 1 } else { row + 1 };
            // What of an edge stands in the row beside: its end, or its way past.
            let there = |step: usize, from: usize| match depth[step] == beside {
                true => Item::Step(step),
                false => Item::Past(from),
            };
            let key = |item: &Item| {
                let neighbours = edges.iter().filter_map(|&(from, to)| match (*item, down) {
                    (Item::Step(step), true) if step == to => Some(there(from, from)),
                    (Item::Step(step), false) if step == from => Some(there(to, from)),
                    (Item::Past(step), true) if step == from => Some(there(from, from)),
                    (Item::Past(step), false) if step == from && depth[to] >= beside => Some(there(to, from)),
                    _ => None,
                });
                let x = |item: Item| self.places[beside].get(&item).map(|(left, right)| (left + right) / 2.0);
                let all: Vec<f64> = neighbours.filter_map(x).collect();
                match all.is_empty() {
                    true => self.places[row].get(item).map_or(0.0, |p| (p.0 + p.1) / 2.0),
                    false => all.iter().sum::<f64>() / all.len() as f64,
                }
            };
            let mut keyed: Vec<(f64, Item)> = self.rows[row].iter().map(|item| (key(item), *item)).collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            self.rows[row] = keyed.into_iter().map(|(_, item)| item).collect();
            self.places[row] = places(&self.rows[row], self.width);
        }
    }

    fn place(&mut self) {
        let width = |row: &Vec<Item>| row.iter().map(|item| item.width() + GAP.0).sum::<f64>() - GAP.0;
        self.width = self.rows.iter().map(width).fold(0.0, f64::max);
        self.places = self.rows.iter().map(|row| places(row, self.width)).collect();
    }

    fn height(&self) -> f64 {
        self.rows.len() as f64 * (BOX.1 + GAP.1) - GAP.1
    }
}

impl Item {
    fn width(self) -> f64 {
        match self {
            Item::Step(_) => BOX.0,
            Item::Past(_) => PASSING,
        }
    }
}

/// In the middle of the width.
fn places(row: &[Item], width: f64) -> BTreeMap<Item, (f64, f64)> {
    let own: f64 = row.iter().map(|item| item.width() + GAP.0).sum::<f64>() - GAP.0;
    let mut left = (width - own) / 2.0;
    let place = |item: &Item| {
        let at = (left, left + item.width());
        left = at.1 + GAP.0;
        (*item, at)
    };
    row.iter().map(place).collect()
}

fn draw(page: &mut Page, steps: &[Step]) {
    let index = |name: &str| steps.iter().position(|step| step.name == name);
    let mut edges = Vec::new();
    for (to, step) in steps.iter().enumerate() {
        edges.extend(step.inputs.iter().filter_map(|name| Some((index(name)?, to))));
    }
    edges.sort_unstable();
    edges.dedup();
    let layout = Layout::of(&edges, steps.len());
    let margin = 3.0;
    picture(
        page,
        layout.width + 2.0 * margin,
        layout.height() + 2.0 * margin,
        format_args!("{} steps and what feeds what", steps.len()),
    );
    let top = |row: usize| margin + row as f64 * (BOX.1 + GAP.1);
    let row_of = |item: Item| layout.places.iter().position(|places| places.contains_key(&item)).unwrap_or(0);
    let middle = |row: usize, item: Item| {
        margin + layout.places[row].get(&item).map_or(0.0, |(left, right)| (left + right) / 2.0)
    };
    for &(from, to) in &edges {
        let (first, last) = (row_of(Item::Step(from)), row_of(Item::Step(to)));
        let mut x = middle(first, Item::Step(from));
        let mut y = top(first) + BOX.1;
        let mut d = format!("M{x:.1} {y:.1}");
        for row in first + 1..=last {
            let item = if row == last { Item::Step(to) } else { Item::Past(from) };
            let (next, end) = (middle(row, item), top(row) - if row == last { 5.0 } else { 0.0 });
            let half = (y + end) / 2.0;
            d += &format!("C{x:.1} {half:.1} {next:.1} {half:.1} {next:.1} {end:.1}");
            (x, y) = (next, end);
            if row < last {
                y = top(row) + BOX.1;
                d += &format!("V{y:.1}");
            }
        }
        page.open("path", &[("class", &"edge"), ("d", &d)]).close("path");
        let (left, right, tip) = (x - 4.0, x + 4.0, y + 5.0);
        let d = format!("M{left:.1} {:.1}H{right:.1}L{x:.1} {tip:.1}z", y - 2.0);
        page.open("path", &[("class", &"tip"), ("d", &d)]).close("path");
    }
    for (i, step) in steps.iter().enumerate() {
        let row = row_of(Item::Step(i));
        let x = middle(row, Item::Step(i));
        let (left, y) = (format!("{:.1}", x - BOX.0 / 2.0), top(row));
        let outcome = step.outcome.as_deref().unwrap_or("known");
        page.open("g", &[("class", &format_args!("step {outcome}"))]);
        let took = step.wall_ms.map_or(String::new(), |ms| format!(", {}", millis(ms)));
        page.element("title", &[], format_args!("{} ({}): {outcome}{took}", step.name, step.op));
        let rect = [("x", &left as &dyn std::fmt::Display), ("y", &y), ("width", &BOX.0), ("height", &BOX.1)];
        page.open("rect", &[rect.as_slice(), &[("rx", &7)]].concat()).close("rect");
        words(page, (x, y + 17.0), "middle", "name", cut(&step.name, 18));
        words(page, (x, y + 33.0), "middle", "unit", format_args!("{} · {outcome}{took}", step.op));
        page.raw("</g>");
    }
    page.raw("</svg>");
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_stand_below_what_they_take_and_nothing_overlaps() {
        // model → pack, prompt → answer → scores; model → answer; pack → scores.
        let edges = [(0, 1), (0, 2), (1, 3), (2, 3), (0, 3), (3, 4), (1, 4)];
        let layout = Layout::of(&edges, 5);
        let row = |i: usize| layout.places.iter().position(|p| p.contains_key(&Item::Step(i))).unwrap();
        assert!(edges.iter().all(|&(from, to)| row(from) < row(to)));
        for places in &layout.places {
            let mut all: Vec<_> = places.values().copied().collect();
            all.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(all.windows(2).all(|two| two[0].1 < two[1].0), "{all:?}");
            assert!(all[0].0 >= 0.0 && all[all.len() - 1].1 <= layout.width + 1e-9, "{all:?}");
        }
        let past = layout.rows.iter().flatten().filter(|item| matches!(item, Item::Past(_)));
        assert_eq!(past.count(), 2);
    }
}
