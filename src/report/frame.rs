//! What stands around the sections: the head with the main figures, hints, addresses and the checksum, the foot.

use super::number::{count, date, millis, score, short};
use super::page::Page;
use super::{Report, Step, number};
use crate::inside::Inside;

const STYLE: &str = include_str!("style.css");

pub fn head(page: &mut Page, report: &Report) {
    page.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    // Nothing is loaded and nothing runs, whatever the texts say.
    page.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n");
    page.element("title", &[], format_args!("{}: what happened inside", report.pipeline));
    page.raw("\n<style>\n").raw(STYLE).raw("</style></head>\n<body><main>\n<header>");
    page.element("p", &[("class", &"eyebrow")], "pipe report");
    page.element("h1", &[], &report.pipeline);
    if let Some(card) = &report.answer {
        page.raw("<p class=\"about\">");
        page.text(format_args!(
            "prompt {}, answered by step {} with {}",
            card.answer.id, card.step, card.spec
        ));
        page.text(format_args!(
            "; {} tokens of prompt, {} of answer, ended by {}",
            count(card.answer.prompt_tokens as u64),
            count(card.answer.tokens.len() as u64),
            card.answer.stopped_by.name().replace('_', " ")
        ));
        page.raw("</p>");
    }
    figures(page, report);
    for text in &report.missing {
        page.element("p", &[("class", &"warning")], text);
    }
    contents(page, report);
    page.raw("</header>\n");
}

/// The main figures in a row.
fn figures(page: &mut Page, report: &Report) {
    page.raw("<div class=\"figures\">");
    let mut figure = |name: &str, value: String, class: &str| {
        page.open("div", &[("class", &class)])
            .element("b", &[], value)
            .element("small", &[], name)
            .raw("</div>");
    };
    if let Some((_, inside)) = &report.inside {
        let passed = inside.checks.iter().filter(|check| check.passed).count();
        let class = if passed == inside.checks.len() { "ok" } else { "bad" };
        figure("checks passed", format!("{passed} of {}", inside.checks.len()), class);
    }
    if let Some((_, three)) = report.scores.first() {
        for (name, of) in
            [("fitness", &three.fitness), ("beauty", &three.beauty), ("relevance", &three.relevance)]
        {
            if let Some(value) = of.value {
                figure(name, score(value), "");
            }
        }
    }
    if let Some(value) = report.inside.as_ref().and_then(|(_, inside)| mean_probability(inside)) {
        figure("mean probability", number::percent(value), "");
    }
    if let Some(run) = &report.run {
        if !run.ok {
            figure("run", "failed".into(), "bad");
        }
        figure("this run took", millis(run.wall_ms), "");
    }
    page.raw("</div>\n");
}

/// Of the answer's tokens.
fn mean_probability(inside: &Inside) -> Option<f64> {
    let of_answer = inside.tokens.iter().filter(|token| token.generated);
    let all: Vec<f64> = of_answer.filter_map(|token| token.prediction.map(|p| p.probability)).collect();
    (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
}

fn contents(page: &mut Page, report: &Report) {
    page.raw("<nav>");
    let mut link = |to: &'static str, name: &'static str| {
        page.element("a", &[("href", &format_args!("#{to}"))], name);
    };
    if report.answer.is_some() {
        link("answer", "Answer");
    }
    if !report.scores.is_empty() || !report.scores_of_all.is_empty() {
        link("scores", "Scores");
    }
    if report.inside.is_some() {
        let all = [
            ("checks", "Checks"),
            ("causes", "Causes"),
            ("attribution", "Attribution"),
            ("lens", "Lens"),
            ("attention", "Attention"),
            ("layers", "Layers"),
            ("unusual", "Unusual"),
        ];
        all.iter().for_each(|(to, name)| link(to, name));
    }
    if report.versions.is_some() {
        link("versions", "Versions");
    }
    link("steps", "Steps");
    link("addresses", "Addresses");
    page.raw("</nav>");
}

/// For a run that did not look inside.
pub fn how_to_get_more(page: &mut Page, report: &Report) {
    let Some(of) = report.answer.as_ref().map(|card| card.step.as_str()) else { return };
    page.raw("<section id=\"more\"><h2>More than this</h2>\n");
    page.note(
        "This run did not look inside the model. With these lines in the recipe it does; the answer stays the same, \
         and is not computed again.",
    );
    let lines = format!(
        "[steps.inside]\nop = \"introspect\"\nof = \"{of}\"\n\n[steps.inside-scores]\nop = \"score\"\nof = \
         \"{of}\"\nintrospection = \"inside\"\n"
    );
    page.element("pre", &[], lines).raw("</section>\n");
}

pub fn addresses(page: &mut Page, report: &Report) {
    page.raw("<section id=\"addresses\"><h2>Addresses</h2>\n");
    page.note("Whoever runs the same recipe gets the same addresses, on any machine.");
    page.raw("<dl class=\"addresses\">");
    let mut row = |name: &str, value: &str| {
        page.element("dt", &[], name).raw("<dd>").element("code", &[], value).raw("</dd>");
    };
    if let Some(cid) = &report.cid {
        row("bundle, CID", cid);
    }
    if let Some(card) = &report.answer {
        row("trace of the answer, root", &card.answer.trace.to_string());
    }
    if let Some(card) = &report.checksum {
        let name = format!("checksum of {} over {} leaves", card.step, count(card.leaves));
        row(&name, &card.checksum.to_string());
    }
    page.raw("</dl>\n");
    if let Some(card) = &report.checksum {
        if let Some(sound) = card.sound {
            page.note(match sound {
                true => "The checksum is over the answer, its trace, what was found inside and the scores; every check passed.",
                false => "The checksum is over the answer, its trace, what was found inside and the scores; a check failed.",
            });
        }
        page.note("pipe prove --list names all that can be proved to belong to it.");
    }
    page.raw("<details><summary>Every output</summary><div class=\"outputs\">");
    for step in &report.steps {
        outputs(page, step);
    }
    page.raw("</div></details></section>\n");
}

fn outputs(page: &mut Page, step: &Step) {
    for output in &step.outputs {
        page.raw("<p>").element("b", &[], format_args!("{}/{}", step.name, output.name));
        page.element("small", &[], number::bytes(output.length)).raw("<br>");
        page.element("code", &[], output.cid.clone().unwrap_or_else(|| format!("blake3 {}", output.digest)));
        page.raw("</p>");
    }
}

pub fn foot(page: &mut Page, report: &Report) {
    page.raw("<footer>");
    if let Some(run) = &report.run {
        let facts = &run.facts;
        page.raw("<p>").text(format_args!(
            "Run {} of {}, {}; pipe {} on {} {}, {} threads, {}.",
            run.id,
            run.recipe.as_deref().unwrap_or("a recipe"),
            date(run.started_ms),
            facts.pipe,
            facts.os,
            facts.arch,
            facts.threads,
            facts.implementation
        ));
        if let Some(git) = &facts.git {
            let changed = if git.recipe_dirty == Some(true) { ", changed since" } else { "" };
            page.text(format_args!(" Recipe of commit {}{changed}.", git.commit));
        }
        page.text(" None of this can change a bit of the result.").raw("</p>");
    }
    if !report.others.is_empty() {
        let most = 24;
        let shown: Vec<&str> = report.others.iter().take(most).map(String::as_str).collect();
        let more = report.others.len().saturating_sub(most);
        page.raw("<p>")
            .text(format_args!("Other prompts of this run, for pipe report --prompt: {}", shown.join(", ")));
        if more > 0 {
            page.text(format_args!(" and {} more", short(more as f64)));
        }
        page.raw(".</p>");
    }
    page.raw("</footer></main></body></html>\n");
}
