//! A progress bar on stderr: pages, bytes, rate and time left. On a terminal only, and not where
//! `--quiet`, `--json` or `--no-progress` say so; without colour where NO_COLOR is set.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sqlrsync_protocol::conversation::Observer;
use sqlrsync_protocol::duration::Seconds;
use sqlrsync_protocol::text::printable;

use crate::outcome::bytes_text;

/// How long a run goes on in silence; a bar that flickers by says nothing.
const APPEARS_AFTER: Duration = Duration::from_millis(300);

/// How many characters of the database's name are shown.
const NAME_LEN_MAX: usize = 24;

/// How often the bar is drawn at most.
const REDRAWS_A_SECOND: u8 = 8;

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
        let bar = (wanted && std::io::stderr().is_terminal()).then(|| bar(&shortened(&printable(what))));
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

/// A bar that draws nothing yet: the first that is seen has numbers in it.
fn bar(what: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    bar.set_prefix(what.to_owned());
    bar.set_style(style("{prefix} {spinner} {pos} pages, {msg}"));
    bar
}

fn style(template: &str) -> ProgressStyle {
    // Colour only where it is wanted (https://no-color.org).
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let template =
        if no_color { template.to_owned() } else { template.replace("{wide_bar}", "{wide_bar:.cyan/dim}") };
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Observer for Progress {
    fn total(&mut self, pages: u64) {
        self.total = Some(pages);
        if let Some(bar) = &self.bar {
            // As wide as there is room: a line that wraps would not be cleared.
            bar.set_style(style("{prefix} {wide_bar} {pos}/{len} pages, {msg}"));
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
        bar.set_message(rate(self.pages, self.total, self.bytes, passed));
        bar.set_position(self.pages);
        if bar.is_hidden() {
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(REDRAWS_A_SECOND));
            bar.tick();
        }
    }

    fn message(&mut self, text: &str) {
        if self.messages.len() < MESSAGES_MAX {
            self.messages.push(text.to_owned());
        }
    }
}

/// The end of a name that is long.
fn shortened(name: &str) -> String {
    let len = name.chars().count();
    if len <= NAME_LEN_MAX {
        return name.to_owned();
    }
    std::iter::once('…').chain(name.chars().skip(len + 1 - NAME_LEN_MAX)).collect()
}

/// Bytes, bytes a second, and the time that is left at this rate.
fn rate(pages: u64, total: Option<u64>, bytes: u64, passed: Duration) -> String {
    let passed = passed.as_secs_f64();
    let a_second = bytes as f64 / passed;
    let text = format!("{}, {}/s", bytes_text(bytes), bytes_text(a_second as u64));
    match total {
        Some(total) if pages > 0 => {
            let left = total.saturating_sub(pages) as f64 / pages as f64 * passed;
            format!(
                "{text}, {} left",
                Seconds::new(left.ceil() as u32).map_or("0s".to_owned(), |s| s.to_string())
            )
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_name_the_end_is_shown() {
        assert_eq!(shortened("./app.db"), "./app.db");
        assert_eq!(shortened(&"a".repeat(24)), "a".repeat(24));
        assert_eq!(shortened("/var/lib/application/data/app.db"), "…application/data/app.db");
    }

    #[test]
    fn the_rate_is_that_of_the_whole_time_and_what_is_left_goes_by_the_pages() {
        let passed = Duration::from_millis(500);
        assert_eq!(rate(250, Some(1000), 1_000_000, passed), "1.0 MB, 2.0 MB/s, 2s left");
        assert_eq!(rate(1000, Some(1000), 1_000_000, passed), "1.0 MB, 2.0 MB/s, 0s left");
        assert_eq!(rate(1, Some(1000), 4096, passed), "4.1 KB, 8.2 KB/s, 8m20s left");
        assert_eq!(rate(7, None, 28_672, passed), "28.7 KB, 57.3 KB/s");
    }
}
