//! The versions card: what each arithmetic of the model costs and how far it is from f32, as `pipe specs` measured it.

use super::draw::{Bar, bars};
use super::number::{bytes, count, percent, short};
use super::page::Page;
use crate::specs::{Card, Row};

pub fn section(page: &mut Page, card: &Card, own: Option<&str>) {
    page.raw("<section id=\"versions\"><h2>Versions of the arithmetic</h2>\n");
    let facts = &card.facts;
    page.note(format_args!(
        "{}, measured by pipe specs with {} threads of {}: a prompt of {} tokens, {} generated, medians of {}; fidelity to \
         f32 over {} positions of the {} text.",
        card.model,
        facts.threads,
        facts.implementation,
        card.prompt,
        card.generate,
        card.reps,
        count(card.text.positions as u64),
        card.text.name,
    ));
    page.raw("<div class=\"pair\">");
    chart(page, card, "Decode", "tokens per second", |row| row.decode_tokens_per_s);
    chart(page, card, "Prefill", "tokens per second", |row| row.prefill_tokens_per_s);
    chart(page, card, "Weights", "MiB", |row| row.weights_bytes as f64 / f64::from(1 << 20));
    page.raw("</div><div class=\"scroll\"><table><thead><tr><th>spec");
    for head in ["peak memory", "KL, same weights", "top-1", "KL, stored weights", "top-1"] {
        page.element("th", &[("class", &"n")], head);
    }
    page.raw("<th>Pareto front</tr></thead><tbody>");
    for row in &card.specs {
        let id = row.spec.id();
        let name = if Some(id) == own { format!("{id}, of this answer") } else { id.to_string() };
        page.raw("<tr>").element("td", &[], name);
        let cells = [
            row.memory.map_or("not told".into(), |memory| bytes(memory.peak_bytes)),
            short(row.same_weights.mean_kl),
            percent(row.same_weights.top1_agreement / 100.0),
            short(row.stored_weights.mean_kl),
            percent(row.stored_weights.top1_agreement / 100.0),
        ];
        cells.iter().for_each(|cell| {
            page.element("td", &[("class", &"n")], cell);
        });
        page.element("td", &[], if row.pareto { "yes" } else { "no" }).raw("</tr>");
    }
    page.raw("</tbody></table></div>");
    page.note(format_args!(
        "KL in nats, mean; top-1: how often the likeliest token is that of f32, once with the weights the version has and \
         once with those that the model stores. On the front: no other version is at least as good in {}, fidelity and \
         weights.",
        card.by.name()
    ));
    page.raw("</section>\n");
}

fn chart(page: &mut Page, card: &Card, title: &str, unit: &str, of: fn(&Row) -> f64) {
    let bar = |row: &Row| Bar {
        label: row.spec.id().to_string(),
        value: of(row),
        hint: format!("{}: {} {unit}", row.spec.id(), short(of(row))),
    };
    page.raw("<figure>").element("figcaption", &[], title);
    bars(page, &card.specs.iter().map(bar).collect::<Vec<_>>(), unit);
    page.raw("</figure>");
}
