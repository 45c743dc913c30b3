//! Components and heads: maps and bars of what they add, cause and attend to; checks and what is unusual.

use super::draw::{
    Bar, DIVERGING, Grid, SEQUENTIAL, SHARES, bars, legend, level, levels, picture, signed_level, words,
};
use super::number::{count, percent, short, signed};
use super::page::Page;
use super::text::BARS;
use super::{sentence, visible};
use crate::inside::{AttentionMap, Component, Head, Inside, Relevance, Role};

const LEFT: f64 = 46.0;
const EFFECTS: [f64; 8] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0];
const WEIGHTS: [f64; 8] = [0.01, 0.03, 0.06, 0.1, 0.2, 0.35, 0.5, 0.75];
const ROLES: [(&str, Role, &str); 5] = [
    ("r0", Role::Mixed, "mixed"),
    ("r1", Role::Sink, "first position (sink)"),
    ("r2", Role::PreviousToken, "previous token"),
    ("r3", Role::DuplicateToken, "same token earlier"),
    ("r4", Role::Induction, "what followed it earlier (induction)"),
];

fn role(role: Role) -> usize {
    ROLES.iter().position(|(_, of, _)| *of == role).expect("BUG: every role is listed")
}

/// Layers upwards, heads across, and the feed-forward network last if it is shown.
fn components(inside: &Inside, ffn: bool) -> Grid {
    let heads = inside.heads.iter().map(|head| head.head + 1).max().unwrap_or(0);
    let (rows, columns) = (inside.layers.len(), heads + usize::from(ffn));
    let cell = ((300.0 / columns.max(1) as f64).min(26.0), (360.0 / rows.max(1) as f64).clamp(4.0, 22.0));
    Grid { rows, columns, cell, at: (LEFT, 8.0), up: true }
}

fn map(
    page: &mut Page,
    inside: &Inside,
    says: &str,
    classes: &[&'static str],
    level: &dyn Fn(usize, usize) -> Option<usize>,
    hint: &dyn Fn(usize, usize) -> Option<String>,
    ffn: bool,
) {
    let grid = components(inside, ffn);
    picture(page, LEFT + grid.width() + 20.0, grid.height() + 44.0, says);
    grid.cells(page, classes, level);
    grid.row_numbers(page, &|row| row.to_string());
    let heads = Grid { columns: grid.columns - usize::from(ffn), ..grid };
    heads.column_numbers(page, 0);
    let below = grid.at.1 + grid.height();
    words(page, (LEFT + heads.width() / 2.0, below + 29.0), "middle", "unit", "head");
    if ffn {
        words(page, (LEFT + grid.width() - grid.cell.0 / 2.0, below + 13.0), "middle", "", "ffn");
    }
    words(page, (LEFT - 5.0, below + 13.0), "end", "unit", "layer");
    if grid.hints_each() {
        grid.hints(page, hint);
    }
    page.raw("</svg>");
}

/// The value of a component by its place in the map.
fn at(inside: &Inside, values: &[(Component, f64)]) -> Vec<Vec<Option<(Component, f64)>>> {
    let grid = components(inside, true);
    let mut all = vec![vec![None; grid.columns]; grid.rows];
    for &(component, value) in values {
        let (row, column) = match component {
            Component::Head { layer, head } => (layer, head),
            Component::Ffn { layer } => (layer, grid.columns - 1),
        };
        if let Some(place) = all.get_mut(row).and_then(|row| row.get_mut(column)) {
            *place = Some((component, value));
        }
    }
    all
}

/// Effects of all components.
pub fn effects(page: &mut Page, inside: &Inside, relevance: &Relevance) {
    let values: Vec<_> = relevance.components.iter().map(|c| (c.component, c.kl)).collect();
    let values = at(inside, &values);
    page.raw("<figure><figcaption>All components</figcaption>");
    let hint = |r: usize, c: usize| values[r][c].map(|(name, kl)| format!("{name}: {} nats", short(kl)));
    let shade = |r: usize, c: usize| values[r][c].map(|(_, kl)| level(&EFFECTS, kl));
    map(page, inside, "effect of each component, layers by heads", &SEQUENTIAL, &shade, &hint, true);
    levels(page, "KL without it, nats", &SEQUENTIAL, &EFFECTS);
    page.raw("</figure>");
}

pub fn attribution(page: &mut Page, inside: &Inside) {
    let attribution = &inside.attribution;
    page.raw("<section id=\"attribution\"><h2>What each part adds</h2>\n");
    if attribution.targets.is_empty() {
        page.note("There is no token of the answer to look at.").raw("</section>\n");
        return;
    }
    page.note(format_args!(
        "Direct logit attribution: what each part adds to logit(token) − logit(best other), mean over {} tokens. The \
         embedding adds {}. The sum of all parts is within {} of the logits themselves.",
        attribution.targets.len(),
        signed(attribution.embedding),
        short(attribution.residue),
    ));
    let mut all: Vec<_> = attribution.components.iter().map(|c| (c.component, c.direct)).collect();
    let values = at(inside, &all);
    all.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
    all.truncate(BARS);
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    page.raw("<div class=\"pair\"><figure><figcaption>Components that add or take most</figcaption>");
    let bar =
        |label: String, value: f64| Bar { hint: format!("{label}: {} logits", signed(value)), label, value };
    bars(page, &all.iter().map(|(c, v)| bar(c.to_string(), *v)).collect::<Vec<_>>(), "logits");
    page.raw("</figure><figure><figcaption>Neurons that add or take most</figcaption>");
    let mut neurons: Vec<_> = attribution.neurons.iter().collect();
    neurons.sort_by(|a, b| b.direct.abs().total_cmp(&a.direct.abs()));
    neurons.truncate(BARS);
    neurons.sort_by(|a, b| b.direct.total_cmp(&a.direct));
    let name = |n: &crate::inside::Neuron| format!("layer.{:02}/unit {}", n.layer, n.neuron);
    bars(page, &neurons.iter().map(|n| bar(name(n), n.direct)).collect::<Vec<_>>(), "logits");
    page.raw("</figure><figure><figcaption>All components</figcaption>");
    let most = attribution.components.iter().map(|c| c.direct.abs()).fold(0.0, f64::max);
    let hint = |r: usize, c: usize| values[r][c].map(|(name, v)| format!("{name}: {} logits", signed(v)));
    let shade = |r: usize, c: usize| values[r][c].map(|(_, v)| signed_level(v, most));
    map(page, inside, "attribution of each component, layers by heads", &DIVERGING, &shade, &hint, true);
    let edge = |i: usize| short(SHARES[i] * most);
    let names = [
        ("n4", format!("−{} and less", edge(3))),
        ("n2", format!("−{} and less", edge(1))),
        ("z", "hardly any".into()),
        ("a2", format!("+{} and more", edge(1))),
        ("a4", format!("+{} and more", edge(3))),
    ];
    legend(page, "logits", &names);
    page.raw("</figure></div>\n<details><summary>The tokens, each against the best other</summary>");
    page.raw("<div class=\"scroll\"><table><thead><tr><th>after position<th>token<th>best other<th class=\"n\">difference, logits</tr></thead><tbody>");
    for t in &attribution.targets {
        page.raw("<tr>").element("td", &[], t.position);
        page.raw("<td>").element("code", &[], visible(&t.text));
        page.raw("<td>").element("code", &[], visible(&t.other_text));
        page.element("td", &[("class", &"n")], signed(t.difference)).raw("</tr>");
    }
    page.raw("</tbody></table></div></details></section>\n");
}

pub fn attention(page: &mut Page, inside: &Inside) {
    page.raw("<section id=\"attention\"><h2>What the heads look at</h2>\n");
    let heads = |layer: usize, head: usize| inside.heads.iter().find(|h| (h.layer, h.head) == (layer, head));
    let shade = |layer: usize, head: usize| heads(layer, head).map(|h| role(h.role));
    let hint = |layer: usize, head: usize| {
        heads(layer, head).map(|h| {
            format!(
                "layer {layer}, head {head}: {}; first {}, previous {}, same {}, induction {}, entropy {} nats",
                ROLES[role(h.role)].2,
                percent(h.sink.mean),
                percent(h.previous.mean),
                percent(h.duplicate.mean),
                percent(h.induction.mean),
                short(h.entropy.mean)
            )
        })
    };
    page.raw("<div class=\"pair\"><figure><figcaption>What takes most of each head’s weight</figcaption>");
    let classes = ROLES.map(|(class, ..)| class);
    map(page, inside, "role of each head, layers by heads", &classes, &shade, &hint, false);
    legend(page, "", &ROLES.map(|(class, _, name)| (class, name.to_owned())));
    page.raw("</figure>");
    let best = |page: &mut Page, title: &str, of: fn(&Head) -> f64| {
        let mut all: Vec<&Head> = inside.heads.iter().collect();
        all.sort_by(|a, b| of(b).total_cmp(&of(a)).then((a.layer, a.head).cmp(&(b.layer, b.head))));
        let bar = |h: &&Head| {
            let label = Component::Head { layer: h.layer, head: h.head }.to_string();
            Bar { hint: format!("{label}: {}", percent(of(h))), label, value: of(h) }
        };
        page.raw("<figure>").element("figcaption", &[], title);
        bars(page, &all.iter().take(10).map(bar).collect::<Vec<_>>(), "mean share");
        page.raw("</figure>");
    };
    best(page, "On the token before", |h| h.previous.mean);
    best(page, "On what followed the same token (induction)", |h| h.induction.mean);
    page.raw("</div>\n");
    let by = if inside.relevance.is_some() { "effect" } else { "attribution" };
    page.element("p", &[("class", &"sub")], format_args!("The heads with the largest {by}"));
    page.raw("<div class=\"pair\">");
    for one in &inside.attention {
        weights(page, inside, one, heads(one.layer, one.head));
    }
    page.raw("</div>\n");
    if !inside.attention.is_empty() {
        levels(page, "attention weight", &SEQUENTIAL, &WEIGHTS);
        page.note("The line marks where the answer begins; the pointer shows what a position looks at.");
    }
    page.raw("</section>\n");
}

fn weights(page: &mut Page, inside: &Inside, of: &AttentionMap, head: Option<&Head>) {
    let columns = of.rows.last().map_or(0, Vec::len);
    if columns == 0 {
        return;
    }
    page.raw("<figure><figcaption>");
    page.text(format_args!("layer {}, head {}", of.layer, of.head));
    if let Some(head) = head {
        page.element("small", &[], ROLES[role(head.role)].2);
    }
    page.raw("</figcaption>");
    let side = 270.0;
    let cell = (side / columns as f64, side / of.rows.len() as f64);
    let grid = Grid { rows: of.rows.len(), columns, cell, at: (LEFT, 8.0), up: false };
    let says = format!("attention of layer {} head {}, positions by positions", of.layer, of.head);
    picture(page, LEFT + side + 16.0, side + 46.0, says);
    grid.cells(page, &SEQUENTIAL, &|row, c| of.rows[row].get(c).map(|w| level(&WEIGHTS, f64::from(*w))));
    grid.row_numbers(page, &|row| (of.start + row).to_string());
    grid.column_numbers(page, 0);
    words(page, (LEFT + side / 2.0, side + 38.0), "middle", "unit", "looks at position");
    words(page, (LEFT - 5.0, side + 21.0), "end", "unit", "from ↑");
    let begin = inside.prompt_tokens;
    if begin > of.start && begin < of.start + of.rows.len() {
        let y = grid.at.1 + (begin - of.start) as f64 * cell.1;
        let x = LEFT + begin as f64 * cell.0;
        page.open(
            "path",
            &[("class", &"mark"), ("d", &format_args!("M{LEFT} {y:.1}H{x:.1}V{:.1}", side + 8.0))],
        );
        page.element("title", &[], "the answer begins").close("path");
    }
    grid.row_hints(page, &|row| {
        let text = |p: usize| inside.tokens.get(p).map_or(String::new(), |t| visible(&t.text));
        let mut most: Vec<(usize, f32)> = of.rows[row].iter().copied().enumerate().collect();
        most.sort_by(|a, b| b.1.total_cmp(&a.1));
        let seen = most.iter().take(4).filter(|(_, w)| *w >= 0.01);
        let seen: Vec<String> =
            seen.map(|&(p, w)| format!("{p} “{}” {}", text(p), percent(f64::from(w)))).collect();
        format!("{} “{}” looks at {}", of.start + row, text(of.start + row), seen.join(", "))
    });
    page.raw("</svg></figure>");
}

pub fn checks(page: &mut Page, inside: &Inside) {
    let failed = inside.checks.iter().filter(|check| !check.passed).count();
    page.raw("<section id=\"checks\"><h2>Checks of the inside</h2>\n");
    page.note(match failed {
        0 => format!(
            "All {} passed: the inside that this page shows is the one that gave the answer.",
            inside.checks.len()
        ),
        n => format!("{n} of {} failed: do not trust this page.", inside.checks.len()),
    });
    page.raw("<div class=\"checks\">");
    for check in &inside.checks {
        let (class, verdict) = if check.passed { ("check ok", "passed") } else { ("check bad", "failed") };
        page.open("div", &[("class", &class)]);
        page.element("b", &[], check.name.replace('_', " ")).element("em", &[], verdict);
        page.element("p", &[], &check.evidence);
        page.element("small", &[], format_args!("{} compared", count(check.compared))).raw("</div>");
    }
    page.raw("</div></section>\n");
}

pub fn unusual(page: &mut Page, inside: &Inside) {
    page.raw("<section id=\"unusual\"><h2>What is unusual</h2>\n");
    match inside.unusual.is_empty() {
        true => {
            page.note("Nothing.");
        }
        false => {
            page.raw("<ul>");
            inside.unusual.iter().for_each(|one| {
                page.element("li", &[], sentence(one));
            });
            page.raw("</ul>");
        }
    }
    page.raw("</section>\n");
}
