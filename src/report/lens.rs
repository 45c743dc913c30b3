//! The logit lens as a heat map: what each layer would have said, at each position.

use super::draw::{Grid, SEQUENTIAL, level, levels, picture, words};
use super::number::short;
use super::page::Page;
use super::{row_name, visible};
use crate::inside::Inside;

const WIDTH: f64 = 17.0;
/// Most characters of a token.
const TOKEN: usize = 10;
const LEFT: f64 = 74.0;
/// For what slants beyond the last column.
const RIGHT: f64 = 62.0;
const KL: [f64; 8] = [0.03, 0.1, 0.3, 1.0, 3.0, 6.0, 12.0, 24.0];
/// Most positions in the picture: the last so many.
const POSITIONS: usize = 128;

pub fn section(page: &mut Page, inside: &Inside) {
    let lens = &inside.lens;
    page.raw("<section id=\"lens\"><h2>What each layer would have said</h2>\n");
    page.note(format_args!(
        "The final norm and head on the stream after each layer, among the {} tokens that the last layer puts first. \
         Below stands the token that was read, above the one that the model puts first after it. A dot marks where \
         that token is already first.",
        lens.among,
    ));
    let from = lens.positions.len().saturating_sub(POSITIONS);
    if from > 0 {
        page.note(format_args!(
            "The last {POSITIONS} of {} positions; introspection.json has all.",
            lens.positions.len()
        ));
    }
    map(page, inside, from, "KL to the final distribution", &KL, &lens.kl, true);
    levels(page, "KL(final ‖ lens), nats", &SEQUENTIAL, &KL);
    decided(page, inside);
    page.raw("<details><summary>The same by entropy: how sure each layer was</summary>");
    let most = (lens.among.max(2) as f64).ln();
    let edges: [f64; 8] = std::array::from_fn(|i| most * (i + 1) as f64 / 9.0);
    map(page, inside, from, "entropy of the lens", &edges, &lens.entropy, false);
    levels(page, "entropy, nats", &SEQUENTIAL, &edges);
    page.raw("</details></section>\n");
}

fn decided(page: &mut Page, inside: &Inside) {
    let all = inside.lens.positions.len();
    let [first, rest @ ..] = inside.deciding.as_slice() else { return };
    let name = |row: usize| if row == 0 { "the embedding".into() } else { row_name(row) };
    let mut text = format!(
        "The final token is first to stay from {} on at {} of {all} positions",
        name(first.row),
        first.positions
    );
    for (i, d) in rest.iter().take(3).enumerate() {
        text += &format!("{} from {} at {}", if i == 0 { ";" } else { "," }, name(d.row), d.positions);
    }
    page.note(text + ".");
}

fn map(
    page: &mut Page,
    inside: &Inside,
    from: usize,
    says: &str,
    edges: &[f64],
    of: &[Vec<f64>],
    ranks: bool,
) {
    let lens = &inside.lens;
    let columns = lens.positions.len() - from;
    let read =
        |at: usize| inside.tokens.get(lens.positions[from + at]).map_or("", |token| token.text.as_str());
    let longest = (0..columns).flat_map(|at| [read(at), lens.texts[from + at].as_str()]);
    let longest = longest.map(|text| shown(text).chars().count()).max().unwrap_or(0);
    // Room above and below for tokens, at their slant.
    let room = 22.0 + 5.8 * longest as f64;
    let cell = (WIDTH, (240.0 / of.len() as f64).clamp(13.0, 26.0));
    let grid = Grid { rows: of.len(), columns, cell, at: (0.0, room), up: true };
    let height = grid.height() + 2.0 * room;
    // On paper both pictures shrink alike: their places share the width as they do.
    let width = grid.width() + RIGHT;
    page.open("div", &[("class", &"lens"), ("style", &format_args!("--all:{:.0}px", LEFT + width))]);
    page.open("div", &[("class", &"rows"), ("style", &format_args!("--own:{LEFT:.0}"))]);
    picture(page, LEFT, height, "layers");
    words(page, (LEFT - 6.0, room - 6.0), "end", "unit", "predicts ↑");
    words(page, (LEFT - 6.0, room + grid.height() + 15.0), "end", "unit", "reads ↓");
    let axis = Grid { at: (LEFT, room), ..grid };
    axis.row_numbers(page, &row_name);
    page.raw("</svg></div>");
    page.open("div", &[("class", &"scroll"), ("style", &format_args!("--own:{width:.0}"))]);
    picture(page, width, height, format_args!("{says}, {} layers by {columns} positions", of.len() - 1));
    grid.cells(page, &SEQUENTIAL, &|row, at| Some(level(edges, of[row][from + at])));
    grid.dots(page, &|row, at| lens.rank[row][from + at] == 1);
    for at in 0..columns {
        let (x, _) = grid.middle(0, at);
        token(page, x, grid.at.1 + grid.height() + 5.0, 52, read(at));
        token(page, x, grid.at.1 - 6.0, -52, &lens.texts[from + at]);
    }
    let start = lens.positions.iter().skip(from).take_while(|&&p| p < inside.prompt_tokens).count();
    if (1..columns).contains(&start) {
        let x = start as f64 * WIDTH;
        let d = format!("M{x} {}V{}", room - 3.0, room + grid.height() + 3.0);
        page.open("path", &[("class", &"mark"), ("d", &d)]);
        page.element("title", &[], "the answer begins").close("path");
    }
    if ranks {
        let hint = |row: usize, at: usize| {
            let at = from + at;
            format!(
                "{}, position {}: “{}” has rank {}, entropy {} nats, KL {} nats",
                row_name(row),
                lens.positions[at],
                visible(&lens.texts[at]),
                lens.rank[row][at],
                short(lens.entropy[row][at]),
                short(lens.kl[row][at]),
            )
        };
        match grid.hints_each() {
            true => grid.hints(page, &|row, at| Some(hint(row, at))),
            false => grid.row_hints(page, &row_name),
        }
    }
    page.raw("</svg></div></div>\n");
}

/// A token beside its column, at a slant.
fn token(page: &mut Page, x: f64, y: f64, slant: i32, text: &str) {
    let (x, y) = (x + if slant > 0 { -3.0 } else { 3.0 }, y + if slant > 0 { 5.0 } else { 0.0 });
    let turn = format!("translate({x:.1} {y:.1}) rotate({slant})");
    page.element("text", &[("transform", &turn), ("class", &"token")], shown(text));
}

fn shown(text: &str) -> String {
    let all = visible(text);
    match all.char_indices().nth(TOKEN) {
        Some((at, _)) => format!("{}…", &all[..at]),
        None => all,
    }
}
