//! What a publisher says: a line for each event to people, an object a line to programs, and to the
//! server what has failed for a while.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use sqlrsync_protocol::duration::Seconds;
use sqlrsync_protocol::text::printable;

use super::schedule::{RETRY_WAITS, Trouble};
use crate::error::Error;
use crate::outcome::print_json;
use crate::plan::{Output, Timing};
use crate::service;

/// Longest error that is reported, in bytes.
const ERROR_BYTES_MAX: usize = 1024;

/// What happens between pushes.
#[derive(Debug)]
pub enum Event<'a> {
    /// The watch begins.
    Watching {
        /// What is watched, as the user named it.
        local: &'a str,
        /// When it is pushed.
        timing: Timing,
    },
    /// The database was written to, and a push follows.
    Wrote {
        /// In so many seconds.
        seconds: u32,
    },
    /// A push failed and is tried again.
    Retry {
        /// Why.
        error: &'a Error,
        /// Which of the tries follows, counted from one.
        number: usize,
        /// After how long.
        wait: Duration,
    },
    /// A push failed for good; the next one follows a write.
    GaveUp {
        /// Why.
        error: &'a Error,
    },
}

impl Event<'_> {
    fn is_failure(&self) -> bool {
        matches!(self, Event::Retry { .. } | Event::GaveUp { .. })
    }

    /// For people.
    fn text(&self) -> String {
        match self {
            Event::Watching { local, timing } => format!("watching {}: {}", printable(local), when(timing)),
            Event::Wrote { seconds } => format!("written to: push in {seconds} s"),
            Event::Retry { error, number, wait } => {
                let (error, seconds) = (printable(&error.to_string()), whole_seconds(*wait));
                format!("{error}: trying again in {seconds} s ({number} of {})", RETRY_WAITS.len())
            }
            Event::GaveUp { error } => {
                format!("{}: waiting for the next write", printable(&error.to_string()))
            }
        }
    }

    /// For programs.
    fn json(&self) -> Value {
        match self {
            Event::Watching { local, timing } => json!({
                "event": "watching",
                "local": local,
                "wait_idle_seconds": timing.wait_idle.as_secs(),
                "min_interval_seconds": timing.min_interval.as_secs(),
                "max_interval_seconds": timing.max_interval.map(|max| max.as_secs()),
            }),
            Event::Wrote { seconds } => json!({ "event": "written", "push_in_seconds": seconds }),
            Event::Retry { error, number, wait } => json!({
                "event": "failed",
                "error": printable(&error.to_string()),
                "retry_in_seconds": whole_seconds(*wait),
                "retry": number,
                "retries": RETRY_WAITS.len(),
            }),
            Event::GaveUp { error } => json!({
                "event": "failed",
                "error": printable(&error.to_string()),
                "retry_in_seconds": null,
            }),
        }
    }

    /// Says it: to programs on stdout, to people on stderr, since stdout has what the pushes came to.
    /// `--quiet` hides no failure. The service manager is told the same.
    ///
    /// # Errors
    /// Where stdout cannot be written.
    pub fn say(&self, output: Output) -> Result<(), Error> {
        let text = self.text();
        service::status(&text);
        if output.json {
            return print_json(&self.json());
        }
        if self.is_failure() || !output.quiet {
            // That nobody reads is no reason to stop.
            let _ = writeln!(std::io::stderr(), "sqlrsync: {text}");
        }
        Ok(())
    }
}

fn when(timing: &Timing) -> String {
    let mut text = format!("a push {} after the last write", span(timing.wait_idle));
    if !timing.min_interval.is_zero() {
        text += &format!(", {} after the last push at the soonest", span(timing.min_interval));
    }
    if let Some(max) = timing.max_interval {
        text += &format!(", {} after it at the latest", span(max));
    }
    text
}

/// As it is typed: `1h30m`.
fn span(time: Duration) -> String {
    let seconds = u32::try_from(time.as_secs()).ok().and_then(Seconds::new);
    seconds.map_or_else(|| format!("{}s", time.as_secs()), |seconds| seconds.to_string())
}

/// Rounded up.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// What the server is told of a push that keeps failing.
#[derive(Debug, Serialize)]
pub struct Report {
    error: String,
    attempts: u32,
    since: String,
    #[serde(rename = "clientID")]
    client_id: String,
    hostname: String,
    #[serde(rename = "localPath")]
    local_path: String,
}

impl Report {
    /// Of a trouble whose last error was this, at `now` of the clock that the trouble's times are of.
    pub fn new(trouble: &Trouble, now: Duration, error: &str, client_id: &str, local: &Path) -> Report {
        let lasts = now.saturating_sub(trouble.since);
        let since = Timestamp::now().checked_sub(lasts).unwrap_or(Timestamp::UNIX_EPOCH);
        Report {
            error: shortened(&printable(error)),
            attempts: trouble.failures,
            since: since.to_string(),
            client_id: client_id.to_owned(),
            hostname: gethostname::gethostname().to_string_lossy().into_owned(),
            local_path: local.to_string_lossy().into_owned(),
        }
    }
}

/// At most [`ERROR_BYTES_MAX`], cut between two characters.
fn shortened(text: &str) -> String {
    let mut end = text.len().min(ERROR_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing() -> Timing {
        let seconds = Duration::from_secs;
        Timing { wait_idle: seconds(600), min_interval: seconds(60), max_interval: Some(seconds(3600)) }
    }

    #[test]
    fn an_event_is_a_line_that_no_name_and_no_error_can_break() {
        let error = Error::Unreachable { server: "ws://x".into(), why: "no\n\x1b[2Jway".into() };
        for event in [
            Event::Watching { local: "a\x1b[2J\n.db", timing: timing() },
            Event::Wrote { seconds: 600 },
            Event::Retry { error: &error, number: 3, wait: Duration::from_secs(20) },
            Event::GaveUp { error: &error },
        ] {
            for line in [event.text(), event.json().to_string()] {
                assert!(!line.contains(['\n', '\x1b']), "{line:?}");
            }
        }
    }

    #[test]
    fn what_is_watched_says_its_times_as_they_are_typed() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let timing =
            Timing { wait_idle: minutes(10), min_interval: minutes(90), max_interval: Some(minutes(1440)) };
        let text = "a push 10m after the last write, 1h30m after the last push at the soonest, 1d after it at the \
                    latest";
        assert_eq!(when(&timing), text);
    }

    #[test]
    fn a_retry_says_when_and_how_many_are_left() {
        let error = Error::Unreachable { server: "ws://x".into(), why: "refused".into() };
        let event = Event::Retry { error: &error, number: 3, wait: Duration::from_millis(19_500) };
        assert!(event.text().ends_with(": trying again in 20 s (3 of 5)"), "{}", event.text());
        assert_eq!(event.json()["retry_in_seconds"], 20);
    }

    #[test]
    fn a_report_has_the_fields_that_the_server_reads() {
        let trouble = Trouble { since: Duration::from_secs(100), failures: 6 };
        let long = "é".repeat(ERROR_BYTES_MAX);
        let report = Report::new(&trouble, Duration::from_secs(400), &long, "me", Path::new("/srv/app.db"));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["attempts"], 6);
        assert_eq!(json["clientID"], "me");
        assert_eq!(json["localPath"], "/srv/app.db");
        assert!(json["hostname"].is_string() && json["error"].as_str().unwrap().len() <= ERROR_BYTES_MAX);
        let since: Timestamp = json["since"].as_str().unwrap().parse().unwrap();
        let ago = Timestamp::now().duration_since(since).as_secs();
        assert!((295..=305).contains(&ago), "{ago}");
    }
}
