//! The progress bar of a run, on stderr; plain lines where there is no
//! terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::plan::Plan;
use crate::record::{Outcome, Sample};
use crate::run::Observer;

/// Without a terminal, one line at most this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows cell, round, elapsed and remaining time.
pub struct Progress {
    bar: ProgressBar,
    labels: Vec<String>,
    rounds: usize,
    failures: u32,
    remaining: Option<Duration>,
    started: Instant,
    last_line: Option<Instant>,
}

impl Progress {
    /// A bar for the trials of a plan, `done` of which are done already.
    pub fn new(plan: &Plan, done: usize) -> Self {
        let bar = ProgressBar::new(u64::try_from(plan.trials()).unwrap_or(u64::MAX));
        let template = "{bar:24} {pos}/{len} {wide_msg} {elapsed} {prefix}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_position(u64::try_from(done).unwrap_or_default());
        bar.enable_steady_tick(Duration::from_millis(500));
        Self {
            bar,
            labels: plan.cells.iter().map(|cell| cell.key.to_string()).collect(),
            rounds: plan.order.len(),
            failures: 0,
            remaining: None,
            started: Instant::now(),
            last_line: None,
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Without a terminal there is no bar; a line now and then says as much.
    #[allow(clippy::print_stderr, reason = "progress is for people")]
    fn line(&mut self, message: &str) {
        let due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
        if std::io::stderr().is_terminal() || !due {
            return;
        }
        self.last_line = Some(Instant::now());
        let elapsed = HumanDuration(self.started.elapsed());
        let (position, len) = (self.bar.position() + 1, self.bar.length().unwrap_or(0));
        eprintln!("[{position}/{len}] {message}; {elapsed} elapsed, {}", self.left());
    }

    fn left(&self) -> String {
        self.remaining.map_or_else(
            || "estimating the rest".to_owned(),
            |left| format!("{} left", HumanDuration(left)),
        )
    }
}

impl Observer for Progress {
    fn started(&mut self, cell: usize, round: u32) {
        let failures = match self.failures {
            0 => String::new(),
            n => format!(", {n} failed"),
        };
        let message = format!("round {round}/{} {}{failures}", self.rounds, self.labels[cell]);
        self.line(&message);
        self.bar.set_message(message);
        self.bar.set_prefix(self.left());
    }

    fn finished(&mut self, _: usize, _: u32, samples: &[Sample], remaining: Duration) {
        if samples.iter().any(|sample| sample.outcome == Outcome::Failed) {
            self.failures += 1;
        }
        self.remaining = Some(remaining);
        self.bar.inc(1);
    }
}
