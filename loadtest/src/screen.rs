//! What the person at the terminal sees while a run lasts: a bar, or plain lines where there is no terminal.

use std::{
    cell::Cell,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::driver::Progress;

/// Plain lines come so often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The terminal, or the log in its place. Everything goes to standard error; standard output is for results.
#[derive(Debug)]
pub struct Screen {
    bar: ProgressBar,
    terminal: bool,
    quiet: bool,
    began: Cell<Option<(Instant, Duration)>>,
    last_line: Cell<Option<Instant>>,
    last_seals: Cell<(Option<Instant>, u64, f64)>,
}

impl Screen {
    /// A bar on a terminal, lines elsewhere, nothing where `quiet`.
    pub fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal() && !quiet;
        let target = if terminal {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            // Its own style from the beginning: what it draws before a run has begun is not a bar of nothing.
            bar: ProgressBar::with_draw_target(Some(0), target).with_style(spinner()),
            terminal,
            quiet,
            began: Cell::new(None),
            last_line: Cell::new(None),
            last_seals: Cell::new((None, 0, 0.0)),
        }
    }

    /// Something else goes on; an empty text clears the line.
    pub fn stage(&self, text: &str) {
        if self.terminal {
            if text.is_empty() {
                self.bar.finish_and_clear();
            } else {
                self.bar.set_style(spinner());
                self.bar.reset();
                self.bar.enable_steady_tick(Duration::from_millis(100));
                self.bar.set_message(text.to_owned());
            }
        } else if !self.quiet && !text.is_empty() {
            eprintln!("    {text}");
        }
    }

    /// A line that stays, of a search.
    pub(crate) fn say(&self, line: &str) {
        if self.terminal {
            self.bar.println(format!("    {line}"));
        } else if !self.quiet {
            eprintln!("    {line}");
        }
    }

    pub(crate) fn begin(&self, total: Duration) {
        self.began.set(Some((Instant::now(), total)));
        self.last_line.set(Some(Instant::now()));
        // A search is many runs, and each counts from nothing.
        self.last_seals.set((None, 0, 0.0));
        if self.terminal {
            self.bar.disable_steady_tick();
            self.bar.set_message("");
            let template = "    {prefix:9} {bar:28.cyan/blue} {msg}";
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bar.set_style(style.progress_chars("━╸─"));
            self.bar.reset();
            self.bar
                .set_length(u64::try_from(total.as_millis()).unwrap_or(u64::MAX));
        }
    }

    pub(crate) fn tick(&self, segment: &str, progress: &Progress) {
        let (sealed, failed, in_flight) = progress.read();
        let now = Instant::now();
        let (last, before, mut rate) = self.last_seals.get();
        match last {
            Some(last) if now.duration_since(last) >= Duration::from_millis(500) => {
                rate = sealed.saturating_sub(before) as f64 / now.duration_since(last).as_secs_f64();
                self.last_seals.set((Some(now), sealed, rate));
            }
            None => self.last_seals.set((Some(now), sealed, 0.0)),
            Some(_) => {}
        }
        let elapsed = self.began.get().map_or(Duration::ZERO, |(began, _)| began.elapsed());
        if self.terminal {
            self.bar.set_prefix(segment.to_owned());
            self.bar
                .set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
            let failures = if failed > 0 {
                format!(", {failed} failed")
            } else {
                String::new()
            };
            self.bar.set_message(format!(
                "{rate:>6.0} seals/s   {sealed} sealed{failures}, {in_flight} in flight"
            ));
        } else if !self.quiet
            && self
                .last_line
                .get()
                .is_some_and(|last| now.duration_since(last) >= LINE_EVERY)
        {
            self.last_line.set(Some(now));
            eprintln!(
                "    {:>4.0} s  {segment:9} {rate:.0} seals/s, {sealed} sealed, {failed} failed, {in_flight} in flight",
                elapsed.as_secs_f64()
            );
        }
    }

    pub(crate) fn end(&self) {
        if self.terminal {
            self.bar.finish_and_clear();
        }
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("    {spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}
