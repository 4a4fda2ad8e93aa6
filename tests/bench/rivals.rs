//! The programs that ours is compared with, on the same file in the same run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sqlrsync_tests::measure;
use sqlrsync_tests::programs::on_path;

/// What a rival took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// From its start to its end.
    pub time: Duration,
    /// Both ways.
    pub wire_bytes: u64,
}

/// `rsync --inplace --no-whole-file`: as between two machines, without a network between them.
pub fn rsync(origin: &Path, replica: &Path) -> Took {
    let mut command = Command::new("rsync");
    // Two files of one size and one second count as the same without --ignore-times.
    command.args(["--inplace", "--no-whole-file", "--ignore-times", "--stats"]);
    let run = measure::run(command.arg(origin).arg(replica)).expect("rsync can be started");
    assert!(run.status.success(), "rsync: {}", run.stderr);
    let bytes = |name| {
        let line = run.stdout.lines().find_map(|line| line.strip_prefix(name));
        let digits: String = line.unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
        digits.parse::<u64>().unwrap_or(0)
    };
    Took { time: run.time, wire_bytes: bytes("Total bytes sent: ") + bytes("Total bytes received: ") }
}

/// Where `sqlite3_rsync` is, if it is.
pub fn sqlite3_rsync_path() -> Option<PathBuf> {
    on_path("sqlite3_rsync")
}

/// `sqlite3_rsync` between two local files; `None` where it is not installed.
pub fn sqlite3_rsync(origin: &Path, replica: &Path) -> Option<Took> {
    let mut command = Command::new(sqlite3_rsync_path()?);
    let run = measure::run(command.arg("-v").arg(origin).arg(replica)).expect("it can be started");
    assert!(run.status.success(), "sqlite3_rsync: {}", run.stderr);
    // "sent 1,234 bytes, received 5 bytes, …"
    let mut numbers = run.stdout.split("bytes").map(|part| {
        let digits: String = part.chars().filter(char::is_ascii_digit).collect();
        digits.parse::<u64>().unwrap_or(0)
    });
    let wire_bytes = numbers.next().unwrap_or(0) + numbers.next().unwrap_or(0);
    Some(Took { time: run.time, wire_bytes })
}
