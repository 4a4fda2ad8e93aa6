//! `check` and `sweep`: what can be done to a repository beside serving it.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;
use sqlrsync_protocol::exchange::Refusal;
use sqlrsync_repository::{CheckProgress, CheckReport, Repository, SweepOptions};

use super::error::Error;
use super::serve::runtime;
use crate::data_folder::{self, DataFolder};

/// How often the progress line is drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);

/// `check`: 0 where everything is proved, 12 where not.
pub fn check(folder: &DataFolder, json: bool) -> Result<ExitCode, Error> {
    let runtime = runtime()?;
    let repository = Repository::local(&folder.repository(), runtime.handle().clone())?;
    let mut line = ProgressLine::new();
    let report = repository.check(&mut |progress| line.draw(&progress));
    line.clear();
    let report = report?;
    print(&report, json)?;
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::from(Refusal::Integrity.exit_code()) })
}

fn print(report: &CheckReport, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        for problem in &report.problems {
            let line = json!({
                "replica": problem.replica.map(|id| id.to_string()),
                "object": problem.object,
                "damage": problem.damage.to_string(),
                "version": problem.version.map(|version| version.get()),
            });
            writeln!(out, "{line}")?;
        }
        let outcome = json!({
            "outcome": if report.is_sound() { "proved" } else { "damaged" },
            "replicas": report.replicas,
            "versions": report.versions,
            "versions_proved": report.versions_proved,
            "candidates": report.candidates,
            "candidates_proved": report.candidates_proved,
            "objects": report.objects,
            "bytes": report.bytes,
            "problems": report.problems.len(),
        });
        return writeln!(out, "{outcome}");
    }
    for problem in &report.problems {
        writeln!(out, "{problem}")?;
    }
    let CheckReport { replicas, versions, versions_proved, objects, bytes, .. } = report;
    writeln!(
        out,
        "{versions_proved} of {versions} versions of {replicas} replicas proved; \
         read {objects} objects, {bytes} bytes"
    )?;
    if report.candidates > 0 {
        let CheckReport { candidates, candidates_proved, .. } = report;
        writeln!(out, "{candidates_proved} of {candidates} pushes that were kept for merging proved")?;
    }
    match report.problems.len() {
        0 => writeln!(out, "nothing is damaged"),
        count => writeln!(out, "{count} problems: restore what is named above from a copy"),
    }
}

/// `sweep`: beside a running server with the grace period of its pushes, without one with a shorter one.
pub fn sweep(folder: &DataFolder, json: bool) -> Result<ExitCode, Error> {
    let lock = match folder.lock() {
        Ok(lock) => Some(lock),
        Err(data_folder::Error::InUse(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let runtime = runtime()?;
    let repository = Repository::local(&folder.repository(), runtime.handle().clone())?;
    let report =
        repository.sweep(if lock.is_some() { SweepOptions::ALONE } else { SweepOptions::default() })?;
    let mut out = io::stdout().lock();
    if json {
        let line = json!({
            "objects_removed": report.objects_removed,
            "bytes_removed": report.bytes_removed,
            "staging_files_removed": report.staging_files_removed,
            "replicas_skipped": report.replicas_skipped.iter().map(|id| id.to_string()).collect::<Vec<_>>(),
        });
        writeln!(out, "{line}")?;
    } else {
        writeln!(out, "removed {} objects, {} bytes", report.objects_removed, report.bytes_removed)?;
        for id in &report.replicas_skipped {
            writeln!(out, "left {id} alone, which is damaged: run check")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One line on a terminal, drawn over again.
struct ProgressLine {
    shown: bool,
    drawn: Option<Instant>,
}

impl ProgressLine {
    fn new() -> ProgressLine {
        ProgressLine { shown: io::stderr().is_terminal(), drawn: None }
    }

    fn draw(&mut self, at: &CheckProgress) {
        if !self.shown || self.drawn.is_some_and(|drawn| drawn.elapsed() < DRAW_INTERVAL) {
            return;
        }
        self.drawn = Some(Instant::now());
        eprint!(
            "\r\x1b[Kreplica {} of {}, version {} of {}, {} MB read",
            (at.replicas_done + 1).min(at.replicas),
            at.replicas,
            at.versions_done,
            at.versions,
            at.bytes_read / 1_000_000
        );
    }

    fn clear(&self) {
        if self.drawn.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
