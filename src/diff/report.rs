//! A comparison as lines of text, for the terminal.

use std::fmt::Write;

use super::numbers::place;
use super::structure::told;
use super::{
    AnswerDiff, Cause, Detail, Diff, Distributions, Judged, Named, Numbers, On, OutputDiff, ScoreChange,
    StepDiff, TensorDiff, TensorsDiff, Token, TraceDiff,
};
use crate::ops::Next;

/// Tensors of a file that are told one by one.
const TENSORS_MAX: usize = 5;

/// All of it.
pub fn render(diff: &Diff, judged: &[Judged]) -> String {
    let mut out = String::new();
    let side = |name: &str, side: &Named| {
        let cid = side.cid.as_ref().filter(|cid| **cid != side.name);
        format!("{name}  {}{}\n", side.name, cid.map_or_else(String::new, |cid| format!("  {cid}")))
    };
    out += &side("A", &diff.a);
    out += &side("B", &diff.b);
    out += &verdict(diff);
    out.push('\n');
    for change in &diff.pipeline {
        line(&mut out, 0, &format!("pipeline\n    {}", told(change)));
    }
    let (by_itself, following): (Vec<_>, Vec<_>) = diff.steps.iter().partition(|s| !s.causes.is_empty());
    by_itself.into_iter().for_each(|step| self::step(&mut out, step));
    if !following.is_empty() {
        line(&mut out, 0, "what follows:");
        following.into_iter().for_each(|step| self::step(&mut out, step));
    }
    scores(diff, judged).iter().for_each(|told| line(&mut out, 0, told));
    out
}

/// The scores of the whole, and what the conditions say of them.
pub(super) fn scores(diff: &Diff, judged: &[Judged]) -> Vec<String> {
    let score = |s: &ScoreChange| format!("score {}/{}: {}", s.step, s.name, change(s));
    let judged = judged.iter().map(|Judged { condition, score, holds }| {
        let verdict = match (holds, score.change) {
            (true, Some(_)) => "FAILS",
            (true, None) => "FAILS: a side has no value",
            (false, _) => "does not hold",
        };
        format!("fail-on {condition}: {}/{}: {verdict}", score.step, score.name)
    });
    diff.scores.iter().map(score).chain(judged).collect()
}

/// In a line: the same, or where it begins.
pub(super) fn verdict(diff: &Diff) -> String {
    match &diff.first {
        _ if diff.same => format!("the same: {} steps", diff.compared),
        Some(first) => {
            let step = first.step.as_deref().unwrap_or("pipeline");
            format!("different, first in {step}: {}", first.what)
        }
        None => "different: the bundles have other bytes, and all that is compared here is the same".into(),
    }
}

fn line(out: &mut String, indent: usize, text: &str) {
    let _ = writeln!(out, "{:indent$}{text}", "");
}

/// What a step is, on which side, and from what it follows.
pub(super) fn head(step: &StepDiff) -> String {
    let mut head = format!("{} ({})", step.step, step.op);
    match step.on {
        On::Both => {}
        On::OnlyA => head += ", only in A",
        On::OnlyB => head += ", only in B",
    }
    if !step.follows.is_empty() {
        head += &format!(", follows from {}", step.follows.join(", "));
    }
    head
}

fn step(out: &mut String, step: &StepDiff) {
    line(out, 0, &head(step));
    body(out, step);
    step.outputs.iter().for_each(|output| self::output(out, output));
}

/// What differs in a step beside its outputs.
pub(super) fn body(out: &mut String, step: &StepDiff) {
    step.fields.iter().for_each(|change| line(out, 4, &told(change)));
    for cause in &step.causes {
        match cause {
            Cause::Version => {
                line(out, 4, "another key for the same recipe and inputs: another version of the op")
            }
            Cause::OtherBytes => line(out, 4, "one key, other bytes: not deterministic, or not what it says"),
            Cause::Fields | Cause::Presence | Cause::Contents => {}
        }
    }
    if !step.inputs.is_empty() {
        let inputs: Vec<_> = step.inputs.iter().map(|i| format!("{}/{}", i.port, i.name)).collect();
        line(out, 4, &format!("other inputs: {}", inputs.join(", ")));
    }
    if step.on == On::Both && step.outputs_known && step.outputs.is_empty() {
        line(out, 4, "its outputs are the same");
    }
}

/// What differs in an output.
pub(super) fn output(out: &mut String, output: &OutputDiff) {
    match (&output.detail, output.a) {
        (Some(detail), _) => self::detail(out, &output.name, detail),
        (None, Some(_)) => line(out, 4, &format!("{}: only A has it", output.name)),
        (None, None) => line(out, 4, &format!("{}: only B has it", output.name)),
    }
}

fn detail(out: &mut String, name: &str, detail: &Detail) {
    let tell = |out: &mut String, text: String| line(out, 4, &format!("{name}: {text}"));
    match detail {
        Detail::Answers { answers, only } => {
            only_prompts(out, name, *only);
            answers.iter().for_each(|a| answer(out, name, a));
        }
        Detail::Prompts { prompts } => {
            for prompt in prompts {
                let texts = [0, 1].map(|i| prompt.texts[i].as_ref().map(|text| format!("{text:?}")));
                let at = prompt.parts_at.map_or("in text alone".into(), |at| format!("from token {at} on"));
                tell(out, format!("prompt {} differs {at}", prompt.id));
                for (side, text) in ["A", "B"].into_iter().zip(texts) {
                    text.into_iter().for_each(|text| line(out, 8, &format!("{side}  {text}")));
                }
            }
        }
        Detail::Trace(trace) => self::trace(out, name, trace),
        Detail::Tensors(tensors) => self::tensors(out, name, tensors),
        Detail::Scores(scores) => {
            for score in &scores.changed {
                let of = score.prompt.as_ref().map_or_else(String::new, |id| format!("prompt {id}, "));
                tell(out, format!("{of}{} {}", score.name, change(score)));
            }
        }
        Detail::Json(json) => {
            json.changes.iter().for_each(|change| tell(out, told(change)));
            if json.more > 0 {
                tell(out, format!("and {} more fields", json.more));
            }
        }
        Detail::Bytes { first, lengths: [a, b] } => {
            tell(out, format!("other bytes from {first} on; {a} and {b} bytes long"));
        }
        Detail::Absent { sides } => {
            tell(out, format!("differs; not looked into, the bytes of {} are not here", sides.join(" and ")));
        }
    }
}

fn only_prompts(out: &mut String, name: &str, only: [usize; 2]) {
    for (side, n) in ["A", "B"].into_iter().zip(only).filter(|(_, n)| *n > 0) {
        line(out, 4, &format!("{name}: {n} prompts only in {side}"));
    }
}

fn token(token: &Option<Token>, stopped_by: &str) -> String {
    match token {
        None => format!("ended ({stopped_by})"),
        Some(Token { token, text: Some(text) }) => format!("{text:?} ({token})"),
        Some(Token { token, text: None }) => format!("token {token}"),
    }
}

fn answer(out: &mut String, name: &str, answer: &AnswerDiff) {
    let Some(parts_at) = answer.parts_at else {
        let why = match (answer.same_inside, answer.stopped_by[0] == answer.stopped_by[1]) {
            (_, false) => format!("stopped by {} -> {}", answer.stopped_by[0], answer.stopped_by[1]),
            (false, _) => "the same tokens, another inside".to_owned(),
            (true, _) => "the same tokens".to_owned(),
        };
        return line(out, 4, &format!("{name}: prompt {}: {why}", answer.id));
    };
    let [a, b] = [0, 1].map(|i| token(&answer.tokens[i], answer.stopped_by[i]));
    line(out, 4, &format!("{name}: prompt {} parts at generated token {parts_at}: {a} -> {b}", answer.id));
    for (side, text) in ["A", "B"].into_iter().zip(&answer.texts) {
        line(out, 8, &format!("{side}  {:?}", text.trim()));
    }
    match &answer.distributions {
        Some(Distributions::Computed { a, b }) if a == b => {
            line(out, 8, &format!("both there: {}", likely(a)));
        }
        Some(Distributions::Computed { a, b }) => {
            for (side, next) in [("A", a), ("B", b)] {
                line(out, 8, &format!("{side} there: {}", likely(next)));
            }
        }
        Some(Distributions::Not { not_computed }) => {
            line(out, 8, &format!("distributions not computed: {not_computed}"));
        }
        None => {}
    }
}

fn likely(next: &Next) -> String {
    let one = |l: &crate::ops::next::Likely| format!("{:?} {:.4}", l.text, l.p);
    let mut told: Vec<String> = next.top.iter().map(one).collect();
    let further = next.asked.iter().filter(|l| !next.top.iter().any(|top| top.token == l.token));
    told.extend(further.map(|l| format!("… {}", one(l))));
    told.join("  ")
}

fn trace(out: &mut String, name: &str, trace: &TraceDiff) {
    for (field, both) in [("spec", trace.spec.clone()), ("level", trace.level.map(|l| l.map(str::to_owned)))]
    {
        both.into_iter().for_each(|[a, b]| line(out, 4, &format!("{name}: {field} {a} -> {b}")));
    }
    let [a, b] = trace.prompts;
    if a != b {
        line(out, 4, &format!("{name}: {a} -> {b} prompts"));
    }
    for found in &trace.differing {
        let token = |t: Option<u32>| t.map_or_else(|| "ended".to_owned(), |t| format!("token {t}"));
        let [a, b] = found.tokens.map(token);
        let what = match &found.block {
            Some(block) => block.clone(),
            None if a == b => "one side did not compute it".into(),
            None => format!("{a} -> {b}"),
        };
        let (prompt, position) = (found.prompt, found.position);
        let (n, of) = (found.rows_differing, found.rows);
        line(
            out,
            4,
            &format!("{name}: prompt {prompt}, position {position}: {what}; {n} of {of} rows differ"),
        );
        if let Some(row) = &found.row {
            line(out, 8, &format!("that row: {}", numbers(row)));
        }
        if let Some((block, far)) = &found.farthest {
            line(out, 8, &format!("farthest {block}: {}", numbers(far)));
        }
    }
}

fn tensors(out: &mut String, name: &str, found: &TensorsDiff) {
    found.metadata.iter().for_each(|change| line(out, 4, &format!("{name}: {}", told(change))));
    for (side, only) in [("A", &found.only_a), ("B", &found.only_b)] {
        if !only.is_empty() {
            line(out, 4, &format!("{name}: only in {side}: {}", only.join(", ")));
        }
    }
    for tensor in found.tensors.iter().take(TENSORS_MAX) {
        self::tensor(out, name, tensor);
    }
    let more = found.tensors.len().saturating_sub(TENSORS_MAX);
    if more > 0 {
        line(out, 4, &format!("{name}: and {more} more tensors; {} are the same", found.same));
    }
}

fn tensor(out: &mut String, name: &str, tensor: &TensorDiff) {
    let [a, b] = &tensor.shape;
    let shape = if a == b { format!("{a:?}") } else { format!("{a:?} -> {b:?}") };
    let told = tensor.numbers.as_ref().map_or("not comparable".into(), numbers);
    line(out, 4, &format!("{name}: {} {} {shape}: {told}", tensor.name, tensor.dtype));
}

fn numbers(n: &Numbers) -> String {
    let mut told = format!("{} of {} differ", n.differing, n.elements);
    if let Some(first) = &n.first {
        let _ = write!(told, ", first {}", place(first));
    }
    if let Some(at) = &n.max_abs_at {
        let _ = write!(told, "; largest {:e} at {}", n.max_abs, place(at));
    }
    if let Some(ulp) = n.max_ulp {
        let _ = write!(told, ", {ulp} ulp");
    }
    if let Some(cosine) = n.cosine {
        let _ = write!(told, "; cosine {cosine:.9}");
    }
    if n.not_finite > 0 {
        let _ = write!(told, "; {} NaN or infinite", n.not_finite);
    }
    told
}

fn change(score: &ScoreChange) -> String {
    let side = |v: Option<f64>| v.map_or_else(|| "none".to_owned(), |v| format!("{v}"));
    let change = score.change.map_or_else(String::new, |change| format!(" ({change:+.6})"));
    format!("{} -> {}{change}", side(score.a), side(score.b))
}
