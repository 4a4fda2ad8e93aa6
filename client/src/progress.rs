//! A progress bar on stderr: pages, bytes, rate and time left. On a terminal only, and not where
//! `--quiet`, `--json` or `--no-progress` say so; without colour where NO_COLOR is set.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sqlrsync_protocol::conversation::Observer;
use sqlrsync_protocol::text::printable;

/// How long a run goes on in silence; a bar that flickers by says nothing.
const APPEARS_AFTER: Duration = Duration::from_millis(300);

/// The most messages of a peer that are kept.
const MESSAGES_MAX: usize = 32;

/// Watches a conversation.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    began: std::time::Instant,
    pages: u64,
    bytes: u64,
    total: Option<u64>,
    messages: Vec<String>,
}

impl Progress {
    /// With a bar where `wanted` and stderr is a terminal.
    pub fn new(wanted: bool, what: &str) -> Progress {
        let bar = (wanted && std::io::stderr().is_terminal()).then(|| bar(&printable(what)));
        Progress {
            bar,
            began: std::time::Instant::now(),
            pages: 0,
            bytes: 0,
            total: None,
            messages: Vec::new(),
        }
    }

    /// How many pages will move in all, where that was announced.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// What the peer wants to be shown.
    pub fn messages(&self) -> &[String] {
        &self.messages
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
    bar.set_prefix(what.to_owned());
    bar.set_style(style("{prefix} {spinner} {pos} pages, {msg}"));
    bar
}

fn style(template: &str) -> ProgressStyle {
    // Colour only where it is wanted (https://no-color.org).
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let template =
        if no_color { template.to_owned() } else { template.replace("{bar:30}", "{bar:30.cyan/dim}") };
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Observer for Progress {
    fn total(&mut self, pages: u64) {
        self.total = Some(pages);
        if let Some(bar) = &self.bar {
            bar.set_style(style("{prefix} {bar:30} {pos}/{len} pages, {msg}, {eta} left"));
            bar.set_length(pages);
        }
    }

    fn page_progress(&mut self, pages: u64, bytes: u64) {
        self.pages += pages;
        self.bytes += bytes;
        let Some(bar) = &self.bar else { return };
        let passed = self.began.elapsed();
        if passed < APPEARS_AFTER {
            return;
        }
        let rate = self.bytes as f64 / passed.as_secs_f64();
        let text = crate::outcome::bytes_text(self.bytes);
        bar.set_message(format!("{text}, {}/s", crate::outcome::bytes_text(rate as u64)));
        bar.set_position(self.pages);
    }

    fn message(&mut self, text: &str) {
        if self.messages.len() < MESSAGES_MAX {
            self.messages.push(text.to_owned());
        }
    }
}
