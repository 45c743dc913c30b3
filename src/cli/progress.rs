//! Events on the screen: bars on a terminal, NDJSON with `--json`, silence otherwise.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::out::{Out, bytes, millis};
use crate::ops::{Progress as Beat, Unit};
use crate::run::Event;

/// Shows a run's events as they come, from any thread.
pub struct Progress {
    out: Out,
    bars: Option<Bars>,
}

struct Bars {
    multi: MultiProgress,
    by_step: Mutex<HashMap<String, ProgressBar>>,
}

const TICK: Duration = Duration::from_millis(100);

impl Progress {
    pub fn new(out: Out) -> Self {
        let bars = || Bars { multi: MultiProgress::new(), by_step: Mutex::default() };
        Progress { out, bars: out.stderr_is_rich().then(bars) }
    }

    pub fn tell(&self, event: &Event) {
        if self.out.json {
            // A closed stdout ends the program inside; other errors show at the final result.
            let _ = self.out.value(event);
        } else if let Some(bars) = &self.bars {
            bars.tell(event);
        } else {
            // Worth a line even where nobody watches.
            match event {
                Event::StepFailed { step, error } => self.out.note(format!("{step}: failed: {error}")),
                Event::StepRemade { step, needed_by, digest } => self.out.note(format!(
                    "{step}: runs again, {needed_by} needs {digest}, which is gone or damaged"
                )),
                _ => {}
            }
        }
    }

    /// Take the bars away before results are printed.
    pub fn clear(&self) {
        if let Some(bars) = &self.bars {
            let _ = bars.multi.clear();
        }
    }
}

impl Bars {
    fn tell(&self, event: &Event) {
        let mut by_step = self.by_step.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match event {
            Event::StepStarted { step, op, .. } => {
                let bar = self.multi.add(bar(step));
                bar.set_message(*op);
                by_step.insert(step.clone(), bar);
            }
            Event::StepProgress { step, progress } => {
                by_step.get(step).into_iter().for_each(|bar| beat(bar, *progress));
            }
            Event::StepFinished { step, outputs, wall_ms, .. } => {
                let size = outputs.iter().map(|o| o.artifact.length).sum();
                self.end(
                    by_step.remove(step),
                    &format!("done  {step}  {}  {}", bytes(size), millis(*wall_ms)),
                );
            }
            Event::StepHit { step, .. } => {
                if let Some(bar) = by_step.remove(step) {
                    bar.finish_and_clear();
                }
            }
            Event::StepDisagrees { step, .. } => {
                self.end(by_step.remove(step), &format!("DIFF  {step}  other bytes than recorded"));
            }
            Event::StepRemade { step, needed_by, .. } => {
                let _ = self
                    .multi
                    .println(format!("again {step}  its bytes are gone, and {needed_by} needs them"));
            }
            Event::StepFailed { step, error } => {
                self.end(by_step.remove(step), &format!("FAIL  {step}  {error}"))
            }
            Event::StepSkipped { step, because } => {
                let _ = self.multi.println(format!("skip  {step}  {because}"));
            }
            Event::RunStarted { .. } | Event::RunFinished { .. } => {}
        }
    }

    fn end(&self, bar: Option<ProgressBar>, line: &str) {
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        let _ = self.multi.println(line);
    }
}

/// A bar for a step, before anything is known of it.
pub fn bar(step: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.set_style(style("{spinner} {prefix}  {msg}  {elapsed}"));
    bar.set_prefix(step.to_owned());
    bar.enable_steady_tick(TICK);
    bar
}

/// How far it is.
pub fn beat(bar: &ProgressBar, progress: Beat) {
    if bar.length() != progress.total || bar.position() == 0 {
        if let Some(total) = progress.total {
            bar.set_length(total);
        }
        bar.set_style(style(template(progress.unit, progress.total.is_some())));
    }
    bar.set_position(progress.done);
}

/// Long work that is no run: what is going on, and how far it is. A bar on a terminal, a line a phase elsewhere.
pub struct Phases {
    out: Out,
    bar: Option<ProgressBar>,
}

impl Phases {
    pub fn new(out: Out) -> Self {
        let bar = || {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(TICK);
            bar
        };
        Phases { out, bar: out.stderr_is_rich().then(bar) }
    }

    /// Something begins that has so many steps; 0 when nobody knows.
    pub fn begin(&self, what: &str, steps: usize) {
        let Some(bar) = &self.bar else { return self.out.note(what) };
        let known = "{spinner} {msg}  {bar:24} {pos}/{len}  {elapsed}";
        bar.set_style(style(if steps > 0 { known } else { "{spinner} {msg}  {elapsed}" }));
        bar.reset();
        bar.set_length(steps as u64);
        bar.set_message(what.to_owned());
    }

    pub fn beat(&self, done: usize) {
        self.bar.iter().for_each(|bar| bar.set_position(done as u64));
    }

    pub fn clear(&self) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
    }
}

fn template(unit: Unit, known: bool) -> &'static str {
    match (unit, known) {
        (Unit::Bytes, true) => "{spinner} {prefix}  {bar:24} {bytes}/{total_bytes}  {bytes_per_sec}  {eta}",
        (Unit::Bytes, false) => "{spinner} {prefix}  {bytes}  {bytes_per_sec}",
        (Unit::Tokens, true) => "{spinner} {prefix}  {bar:24} {pos}/{len} tokens  {per_sec}",
        (Unit::Tokens, false) => "{spinner} {prefix}  {pos} tokens  {per_sec}",
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("BUG: the templates are constants")
}
