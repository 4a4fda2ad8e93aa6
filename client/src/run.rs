//! Carrying out a plan. Each kind of run has a file of its own; what they share is here.

mod config;
mod conflicts;
mod copy;
mod diff;
mod follow;
mod guard;
mod keys;
mod log;
mod merge;
mod pages;
mod peer;
mod publish;
mod pull;
mod push;
mod query;
mod resolve;
mod rest;
mod ssh;
mod status;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlrsync_protocol::conversation::ExchangeError;
use sqlrsync_protocol::exchange::Refusal;

use crate::error::Error;
use crate::folders::Folders;
use crate::outcome::{Kind, Outcome};
use crate::plan::{Access, Output, Plan, Resolved};
use crate::progress::Progress;
use crate::wire::{Cancel, WireError};

/// What every run needs.
#[derive(Debug)]
pub struct Run {
    output: Output,
    folders: Folders,
    silence_max: Duration,
    cancel: Cancel,
    runtime: tokio::runtime::Runtime,
    began: Instant,
    /// Whether [`Run::warn_of_plain_text`] has: a subscription connects again and again.
    warned: AtomicBool,
}

/// The exit code that says that something differs, as that of `diff`, `cmp` and `git diff --exit-code`. Where it
/// says that, [`crate::program`] gives no error the same.
pub const DIFFERS: u8 = 1;

/// How a run ended that did what it could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Done.
    Done,
    /// Something waits for a person to settle it, and that was said.
    Conflict,
    /// What was compared is not the same, and whoever asked wants the exit code to say so.
    Differs,
}

impl Finish {
    /// The exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            Finish::Done => 0,
            Finish::Conflict => Refusal::Conflict.exit_code(),
            Finish::Differs => DIFFERS,
        }
    }
}

/// Carries out a plan and prints what came of it.
///
/// # Errors
/// Whatever ends it before it is done. What a push came to has been printed where only what `--merge` does
/// after it failed; else nothing has been printed on stdout.
pub fn carry_out(
    resolved: Resolved,
    runtime: tokio::runtime::Runtime,
    cancel: Cancel,
) -> Result<Finish, Error> {
    let Resolved { plan, output, folders, timeout } = resolved;
    let (began, warned) = (Instant::now(), AtomicBool::new(false));
    let run = Run { output, folders, silence_max: timeout.duration(), cancel, runtime, began, warned };
    let outcome = match plan {
        Plan::Push(plan) => merge::push(&run, plan)?,
        Plan::Pull(plan) => pull::pull(&run, plan)?,
        Plan::Copy(plan) => copy::copy(&run, &plan)?,
        Plan::Ssh(plan) => ssh::transfer(&run, &plan)?,
        Plan::Peer(plan) => return peer::serve(&run, &plan).map(done),
        Plan::Publish(plan) => return publish::publish(&run, &plan).map(done),
        Plan::Follow(plan) => return follow::follow(&run, &plan).map(done),
        Plan::Log(plan) => return log::list(&run, &plan).map(done),
        Plan::Status(plan) => return status::show(&run, &plan).map(done),
        Plan::Conflicts(plan) => return conflicts::show(&run, &plan).map(done),
        Plan::Resolve(plan) => return resolve::resolve(&run, &plan),
        Plan::Diff(plan) => return diff::show(&run, &plan),
        Plan::Query(plan) => return query::ask(&run, &plan).map(done),
        Plan::ShowConfig(settings, problems) => return config::show(&run, &settings, problems).map(done),
        Plan::Completions(shell) => return config::completions(shell).map(done),
        Plan::Man(folder) => return config::man(&folder).map(done),
    };
    let finish = if outcome.kind == Kind::Conflict { Finish::Conflict } else { Finish::Done };
    run.finished(outcome).map(|()| finish)
}

/// What only shows something is done when it has.
fn done((): ()) -> Finish {
    Finish::Done
}

impl Run {
    fn progress(&self, what: &str) -> Progress {
        Progress::new(self.output.progress, what)
    }

    /// Something that is worth knowing and stops nothing.
    fn warn(&self, text: &str) {
        if !self.output.quiet {
            eprintln!("warning: {}", sqlrsync_protocol::text::printable(text));
        }
    }

    /// A key that goes over the network for everybody to read is worth a word.
    fn warn_of_plain_text(&self, access: &Access) {
        let server = &access.server;
        let plain = access.credential.is_some() && !server.tls() && !server.is_loopback();
        if plain && !self.warned.swap(true, Ordering::Relaxed) {
            self.warn(&format!("the key goes to {server} unencrypted; wss:// is the safe way"));
        }
    }

    /// Where what is too large for memory goes: beside the state, so that what is worth keeping can be
    /// moved into it.
    fn temp_folder(&self) -> Result<PathBuf, Error> {
        let folder = self.folders.state().join("tmp");
        crate::files::make_folder(&folder).map_err(Error::file(crate::error::MAKE, &folder))?;
        Ok(folder)
    }

    fn finished(&self, mut outcome: Outcome) -> Result<(), Error> {
        outcome.seconds = self.began.elapsed().as_secs_f64();
        self.print(&outcome)
    }

    fn print(&self, outcome: &Outcome) -> Result<(), Error> {
        outcome.print(self.output.json, self.output.quiet)
    }

    /// Does nothing for that long.
    ///
    /// # Errors
    /// [`Error::Cancelled`] as soon as somebody says stop.
    fn pause(&self, time: Duration) -> Result<(), Error> {
        let stopped = self
            .runtime
            .block_on(async { tokio::time::timeout(time, self.cancel.cancelled()).await.is_ok() });
        if stopped { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// Whether anybody still reads what is printed. That nobody does is no error.
fn goes_on(written: io::Result<()>) -> Result<bool, Error> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).map_err(Error::Output),
    }
}

/// What went wrong between us and `who`, by whose fault it was.
fn failed(error: ExchangeError<sqlrsync_database::Error, WireError>, who: &str) -> Error {
    let who = who.to_owned();
    match error {
        ExchangeError::Local(error) => error.into(),
        ExchangeError::Wire(error) => wire_failed(error, &who),
        ExchangeError::Peer { refusal, text } => Error::Refused { who, refusal, text, retry_after: None },
        ExchangeError::Protocol(violation) => Error::Protocol { who, why: violation.to_string() },
        ExchangeError::Closed => {
            Error::Cut { who, why: "it closed in the middle of the transfer".to_owned() }
        }
    }
}

fn wire_failed(error: WireError, who: &str) -> Error {
    let who = who.to_owned();
    match error {
        WireError::Cancelled => Error::Cancelled,
        WireError::Aborted(refusal, text) => Error::Refused { who, refusal, text, retry_after: None },
        WireError::Malformed(why) => Error::Protocol { who, why },
        WireError::Closed | WireError::Silent(_) | WireError::Io(_) => {
            Error::Cut { who, why: error.to_string() }
        }
    }
}

/// What names the state of a file towards a replica on a server. A replica that has no name yet has
/// the empty one.
fn state_name(
    server: &crate::server_url::ServerUrl,
    remote: Option<&sqlrsync_protocol::remote::RemoteName>,
) -> String {
    format!("{server} {}", remote.map(ToString::to_string).unwrap_or_default())
}
