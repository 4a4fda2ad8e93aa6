//! What was measured, what it is to be, and how both are printed.

use std::fmt::Write as _;
use std::time::Duration;

/// One job.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// What was done.
    pub job: String,
    /// The median time.
    pub time: Duration,
    /// Bytes both ways, the median.
    pub wire_bytes: u64,
    /// Peak memory of the client over all runs, bytes.
    pub client_bytes_max: u64,
    /// Peak memory of the server over all runs, bytes.
    pub server_bytes_max: u64,
    /// What it is compared with.
    pub checks: Vec<Check>,
    /// The best that the machine could do, and from which work that follows.
    pub limit: Option<(Duration, &'static str)>,
}

/// A figure beside what it is to be.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was found.
    pub found: String,
    /// What is asked for, and whether it was reached; `None` where nothing is asked for.
    pub target: Option<(String, bool)>,
}

impl Check {
    /// A figure that nothing is asked of.
    pub fn note(found: String) -> Check {
        Check { found, target: None }
    }

    /// A figure that must be at most `most`.
    pub fn at_most(found: String, value: f64, most: f64, most_text: &str) -> Check {
        Check { found, target: Some((format!("at most {most_text}"), value <= most)) }
    }

    /// A time beside a rival's.
    pub fn ratio(time: Duration, rival: &str, rival_time: Duration, most: Option<f64>) -> Check {
        let ratio = time.as_secs_f64() / rival_time.as_secs_f64();
        let found = format!("{ratio:.2} × {rival} ({})", seconds(rival_time));
        Check { found, target: most.map(|most| (format!("at most {most}"), ratio <= most)) }
    }
}

impl Row {
    /// The row as text, several lines.
    pub fn text(&self) -> String {
        let mut text = format!("{:<52} {:>9}", self.job, seconds(self.time));
        if self.wire_bytes > 0 {
            _ = write!(text, "  {:>9} on the wire", bytes(self.wire_bytes));
        }
        text.push('\n');
        for check in &self.checks {
            match &check.target {
                None => _ = writeln!(text, "    {}", check.found),
                Some((target, reached)) => {
                    let mark = if *reached { "reached" } else { "MISSED" };
                    _ = writeln!(text, "    {:<48} {target:<14} {mark}", check.found);
                }
            }
        }
        if self.client_bytes_max + self.server_bytes_max > 0 {
            let most = self.client_bytes_max.max(self.server_bytes_max);
            let found =
                format!("memory: client {}, server {}", mb(self.client_bytes_max), mb(self.server_bytes_max));
            let mark = if most <= 128_000_000 { "reached" } else { "MISSED" };
            _ = writeln!(text, "    {found:<48} {:<14} {mark}", "at most 128 MB");
        }
        if let Some((limit, why)) = self.limit {
            let times = self.time.as_secs_f64() / limit.as_secs_f64();
            _ = writeln!(text, "    {times:.1} × the limit of {} ({why})", seconds(limit));
        }
        text
    }
}

impl Row {
    /// Whether all that is asked for was reached.
    pub fn reached(&self) -> bool {
        self.checks.iter().all(|check| check.target.as_ref().is_none_or(|(_, reached)| *reached))
    }
}

/// The middle one; the mean of the two in the middle would be a figure that was never measured.
pub fn median<T: Copy + PartialOrd>(values: &[T]) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).expect("no NaN is measured"));
    sorted[sorted.len() / 2]
}

/// A time, to three figures.
pub fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 0.1 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.2} s") }
}

/// A size, in the decimal units that the targets are given in.
pub fn bytes(count: u64) -> String {
    let count = count as f64;
    match count {
        c if c < 1e3 => format!("{c} B"),
        c if c < 1e6 => format!("{:.1} KB", c / 1e3),
        c if c < 1e9 => format!("{:.1} MB", c / 1e6),
        c => format!("{:.2} GB", c / 1e9),
    }
}

fn mb(count: u64) -> String {
    format!("{:.0} MB", count as f64 / 1e6)
}
