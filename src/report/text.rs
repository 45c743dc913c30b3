//! Tokens as running text, shaded: the answer by probability, the prompt by what the answer rests on.

use super::draw::{Bar, bars, legend, level, levels};
use super::number::{count, percent, short};
use super::page::Page;
use super::{Report, foremost, foremost_tokens, parts, visible};
use crate::features::token::Distribution;
use crate::inside::{Inside, Token};

const BY_PROBABILITY: [&str; 7] = ["p0", "p1", "p2", "p3", "p4", "p5", "p6"];
const PROBABILITIES: [f64; 6] = [0.01, 0.1, 0.25, 0.5, 0.75, 0.95];
const BY_EFFECT: [&str; 7] = ["e0", "e1", "e2", "e3", "e4", "e5", "e6"];
/// Most tokens of a prompt on the page: the last so many.
const SHOWN: usize = 512;
/// Most bars of a chart.
pub const BARS: usize = 16;

pub fn answer(page: &mut Page, report: &Report) {
    let Some(card) = &report.answer else { return };
    page.raw("<section id=\"answer\"><h2>Answer</h2>\n");
    match &report.inside {
        Some((_, inside)) => tokens_of(page, inside, card.answer.tokens.is_empty()),
        None => {
            if let Some(prompt) = &card.prompt {
                page.raw("<p class=\"sub\">Prompt</p>");
                page.element("div", &[("class", &"tokens quiet")], prompt);
            }
            page.raw("<p class=\"sub\">Answer</p>");
            match card.answer.tokens.is_empty() {
                true => page.note("No token was generated."),
                false => page.element("div", &[("class", &"tokens large")], &card.answer.text),
            };
        }
    }
    page.raw("</section>\n");
}

fn tokens_of(page: &mut Page, inside: &Inside, empty: bool) {
    let answer: Vec<(usize, &Token)> =
        inside.tokens.iter().enumerate().filter(|(_, t)| t.generated).collect();
    match empty {
        true => {
            page.note("No token was generated; below is what the model thought of each token of the prompt.");
        }
        false => {
            page.raw("<div class=\"tokens large\">");
            answer.iter().for_each(|(at, token)| predicted(page, *at, token));
            page.raw("</div>\n");
        }
    }
    let mut names: Vec<String> = vec!["below 1 %".into()];
    names.extend(PROBABILITIES.map(|p| format!("≥ {:.0} %", p * 100.0)));
    legend(page, "probability", &BY_PROBABILITY.into_iter().zip(names).collect::<Vec<_>>());
    page.note(
        "Underlined with dots: another token was likelier. Hold the pointer over a token for its numbers.",
    );
    let prompt: Vec<(usize, &Token)> =
        inside.tokens.iter().enumerate().filter(|(_, t)| !t.generated).collect();
    page.raw("<details><summary>The prompt, as the model expected it</summary><div class=\"tokens\">");
    left_out(page, prompt.len());
    for (at, token) in prompt.iter().skip(prompt.len().saturating_sub(SHOWN)) {
        predicted(page, *at, token);
    }
    page.raw("</div></details>\n");
    if !empty {
        page.raw("<details><summary>Every token of the answer in numbers</summary>");
        table(page, &answer);
        page.raw("</details>\n");
    }
}

fn left_out(page: &mut Page, tokens: usize) {
    if tokens > SHOWN {
        let n = count((tokens - SHOWN) as u64);
        page.element("span", &[("class", &"more")], format_args!("{n} earlier tokens, then "));
    }
}

fn predicted(page: &mut Page, at: usize, token: &Token) {
    let (class, hint) = match &token.prediction {
        Some(d) => {
            let second = if d.rank > 1 { " other" } else { "" };
            (format!("t {}{second}", BY_PROBABILITY[level(&PROBABILITIES, d.probability)]), seen(d))
        }
        None => ("t".into(), "not predicted".into()),
    };
    spell(page, &class, &format!("position {at}: {hint}"), &token.text);
}

fn seen(d: &Distribution) -> String {
    format!(
        "probability {}, rank {}, entropy {} nats, margin {}",
        percent(d.probability),
        d.rank,
        short(d.entropy),
        short(d.margin)
    )
}

/// A token. Line breaks show as arrows, and break as well.
fn spell(page: &mut Page, class: &str, hint: &str, text: &str) {
    let special = text.starts_with("<|") || (text.starts_with('<') && text.ends_with('>') && text.len() > 1);
    let class = format!("{class}{}", if special { " special" } else { "" });
    page.open("span", &[("class", &class), ("title", &hint)]);
    for (i, line) in text.split('\n').enumerate() {
        if i > 0 {
            page.raw("<i>↵</i><br>");
        }
        page.text(line);
    }
    page.close("span");
}

fn table(page: &mut Page, tokens: &[(usize, &Token)]) {
    page.raw(
        "<div class=\"scroll\"><table><thead><tr><th>position<th>token<th class=\"n\">probability<th class=\"n\">rank\
         <th class=\"n\">entropy, nats<th class=\"n\">margin<th class=\"n\">tokens in 90 %</tr></thead><tbody>",
    );
    for (at, token) in tokens {
        page.raw("<tr>").element("td", &[], at).raw("<td>").element("code", &[], visible(&token.text));
        if let Some(d) = &token.prediction {
            let cells = [
                percent(d.probability),
                d.rank.to_string(),
                short(d.entropy),
                short(d.margin),
                count(d.top_p_size as u64),
            ];
            cells.iter().for_each(|cell| {
                page.element("td", &[("class", &"n")], cell);
            });
        }
        page.raw("</tr>");
    }
    page.raw("</tbody></table></div>");
}

/// What the answer rests on: effects of tokens and components, found by taking them away.
pub fn rests_on(page: &mut Page, inside: &Inside) {
    page.raw("<section id=\"causes\"><h2>What the answer rests on</h2>\n");
    let Some(relevance) = &inside.relevance else {
        page.note(
            "Not looked for: `causes` of the introspect step says for how many prompts each component and each token of \
             the prompt is taken away in turn, to see what the answer would be without it.",
        );
        page.raw("</section>\n");
        return;
    };
    page.note(format_args!(
        "Each part is taken away in turn, and the model asked again. The effect is the divergence KL(p ‖ p without \
         it) in nats, mean over the {} tokens of the answer that were looked at. Without the whole prompt it is {}; with \
         nothing taken away exactly {}.",
        inside.attribution.targets.len(),
        short(relevance.prompt_kl),
        short(relevance.null),
    ));
    page.raw("<p class=\"sub\">The prompt</p><div class=\"tokens\">");
    let most = relevance.tokens.iter().copied().fold(0.0, f64::max);
    let least = relevance.tokens.iter().copied().fold(f64::INFINITY, f64::min).min(most);
    // From the least to the most: what all have in common says nothing about any of them.
    let edges: [f64; 6] = std::array::from_fn(|i| least + (most - least) * (i + 1) as f64 / 7.0);
    left_out(page, relevance.tokens.len());
    let shaded = inside.tokens.iter().zip(&relevance.tokens).enumerate();
    for (at, (token, &kl)) in shaded.skip(relevance.tokens.len().saturating_sub(SHOWN)) {
        let class = format!("t {}", BY_EFFECT[if most > least { level(&edges, kl) } else { 0 }]);
        spell(page, &class, &format!("position {at}: {} nats", short(kl)), &token.text);
    }
    page.raw("</div>\n");
    if most > least {
        levels(page, "effect, nats", &BY_EFFECT, &edges);
    }
    page.raw("<div class=\"pair\"><figure><figcaption>Tokens with the largest effect</figcaption>");
    let token = |(at, text, kl): &(usize, &str, f64)| Bar {
        label: format!("{at} {}", visible(text)),
        value: *kl,
        hint: format!("position {at}: {} nats", short(*kl)),
    };
    let tokens = foremost_tokens(inside);
    bars(page, &tokens.iter().take(BARS).map(token).collect::<Vec<_>>(), "KL without it, nats");
    page.raw("</figure><figure><figcaption>Components with the largest effect</figcaption>");
    let (all, _) = foremost(inside);
    let of = |(component, kl): &(crate::inside::Component, f64)| Bar {
        label: component.to_string(),
        value: *kl,
        hint: format!("{component}: {} nats", short(*kl)),
    };
    bars(page, &all.iter().take(BARS).map(of).collect::<Vec<_>>(), "KL without it, nats");
    page.raw("</figure>");
    parts::effects(page, inside, relevance);
    page.raw("</div></section>\n");
}
