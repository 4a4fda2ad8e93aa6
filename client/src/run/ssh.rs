//! A transfer to or from a file on another machine: ssh starts a sqlrsync or sqlite3_rsync there, and
//! the conversation runs over its stdin and stdout.

use std::process::ExitStatus;

use sqlrsync_database::Error as DatabaseError;
use sqlrsync_protocol::conversation::{
    ExchangeError, OriginOptions, ReplicaOptions, Summary, run_origin, run_replica,
};

use super::guard::{Ended, GuardedOrigin, GuardedReplica, OriginGuard, ended};
use super::{Run, failed, pages};
use crate::error::Error;
use crate::outcome::{Kind, Outcome};
use crate::plan::{Ssh, Way};
use crate::progress::Progress;
use crate::ssh::{self, Candidate};
use crate::state::{FileLock, State};
use crate::wire::child::Program;
use crate::wire::pipes::Pipes;
use crate::wire::{Traffic, WireError};

/// What ssh exits with where it cannot get there at all (ssh(1), "EXIT STATUS").
const SSH_FAILED: i32 = 255;

/// How a transfer ended, and what is to be kept of it.
type Transferred = Result<Ended<Summary>, ExchangeError<DatabaseError, WireError>>;

pub fn transfer(run: &Run, plan: &Ssh) -> Result<Outcome, Error> {
    let _lock = FileLock::take(run.folders.state(), &plan.local.path)?;
    let remote = format!("{}:{}", plan.destination, plan.path);
    let port = plan.port.map(|port| format!(":{port}")).unwrap_or_default();
    let mut state = State::open(run.folders.state(), &plan.local.path, &format!("ssh:{port}{remote}"));
    let candidates = ssh::candidates(plan.exe.as_deref());
    for (index, candidate) in candidates.iter().enumerate() {
        let last = index + 1 == candidates.len();
        match attempt(run, plan, candidate, &mut state, &remote)? {
            Attempt::Done(outcome) => return Ok(outcome),
            Attempt::NoSuchProgram if !last => {
                tracing::debug!(program = candidate.program, "there is none of that name");
            }
            Attempt::NoSuchProgram => break,
        }
    }
    let tried = plan.exe.as_deref().unwrap_or("sqlrsync or sqlite3_rsync");
    Err(Error::NoSuchProgram { destination: plan.destination.clone(), program: tried.to_owned() })
}

enum Attempt {
    Done(Outcome),
    NoSuchProgram,
}

fn attempt(
    run: &Run,
    plan: &Ssh,
    candidate: &Candidate,
    state: &mut State,
    remote: &str,
) -> Result<Attempt, Error> {
    let mut progress = run.progress(&plan.local.shown());
    let mut peer = Peer::start(run, plan, candidate)?;
    let transferred = match plan.way {
        Way::Out => send(run, plan, candidate, state, &mut peer, &mut progress),
        Way::In => take(run, plan, candidate, state, &mut peer, &mut progress),
    }?;
    progress.finish();
    let Peer { program, pipes, traffic } = peer;
    // Its stdin ends here: a program that waits for more goes home.
    drop(pipes);
    let ended = program
        .wait()
        .map_err(|error| Error::Program { program: plan.ssh.clone(), why: error.to_string() })?;
    if ended.status.code() == Some(ssh::NO_SUCH_PROGRAM) {
        return Ok(Attempt::NoSuchProgram);
    }
    // Another sqlrsync says in the conversation what is wrong; on a dry run any only says that it was stopped.
    let said = candidate.is_sqlrsync && matches!(&transferred, Err(error) if !closed(error));
    if !said && !matches!(transferred, Ok(Ended::Counted(_))) {
        ended.errors.iter().for_each(|line| eprintln!("{}: {line}", plan.destination));
    }
    let end = match transferred {
        Err(error) if closed(&error) && !run.cancel.is_cancelled() => {
            return Err(died(plan, candidate, ended.status));
        }
        transferred => transferred.map_err(|error| there(failed(error, &plan.destination)))?,
    };
    let mut outcome = outcome(plan, &end, remote, progress.total());
    if !plan.dry {
        (outcome.bytes_sent, outcome.bytes_received) = (traffic.sent(), traffic.received());
    }
    Ok(Attempt::Done(outcome))
}

/// The program there, and the wire to it.
struct Peer {
    program: Program,
    pipes: Pipes,
    traffic: Traffic,
}

impl Peer {
    fn start(run: &Run, plan: &Ssh, candidate: &Candidate) -> Result<Peer, Error> {
        let (program, pipes) = Program::start(&mut ssh::command(plan, candidate), &plan.ssh, &run.cancel)?;
        let traffic = pipes.traffic();
        Ok(Peer { program, pipes, traffic })
    }
}

fn send(
    run: &Run,
    plan: &Ssh,
    candidate: &Candidate,
    state: &mut State,
    peer: &mut Peer,
    progress: &mut Progress,
) -> Result<Transferred, Error> {
    let database = pages::origin(run, &plan.local.path, Some(state), None, false)?;
    let version_max = ssh::protocol(candidate, plan.protocol);
    let options = OriginOptions { version_max, ..OriginOptions::default() };
    let mut guarded = GuardedOrigin::new(database, OriginGuard { dry: plan.dry, stop_stale: false });
    let end = ended(run_origin(options, &mut guarded, &mut peer.pipes, progress));
    if let Ok(Ended::Done(_)) = end {
        pages::remember(run, state, guarded.into_inner().agreed(), None);
    }
    Ok(end)
}

fn take(
    run: &Run,
    plan: &Ssh,
    candidate: &Candidate,
    state: &mut State,
    peer: &mut Peer,
    progress: &mut Progress,
) -> Result<Transferred, Error> {
    let database = pages::replica(&plan.local.path, Some(state), pages::overwrite(plan.force))?;
    let version_max = ssh::protocol(candidate, plan.protocol);
    let options = ReplicaOptions { version_max, ..ReplicaOptions::default() };
    let mut guarded = GuardedReplica::new(database, plan.dry);
    let end = ended(run_replica(options, &mut guarded, &mut peer.pipes, progress));
    if let Ok(Ended::Done(_)) = end {
        pages::remember(run, state, guarded.into_inner().agreed(), None);
    }
    Ok(end)
}

fn closed(error: &ExchangeError<DatabaseError, WireError>) -> bool {
    matches!(error, ExchangeError::Closed | ExchangeError::Wire(_))
}

/// The program ended before the transfer did, and did not say why in the conversation.
fn died(plan: &Ssh, candidate: &Candidate, status: ExitStatus) -> Error {
    if status.code() == Some(SSH_FAILED) {
        return Error::NoWay {
            destination: plan.destination.clone(),
            why: format!("{} ended with exit code {SSH_FAILED}", plan.ssh),
        };
    }
    let program = format!("{} on {}", candidate.program, plan.destination);
    Error::Program { program, why: format!("it ended before the transfer did ({status})") }
}

/// What a server would say no to is another thing than what the program there does: keys and logs are none of it.
fn there(error: Error) -> Error {
    match error {
        Error::Refused { who, refusal, text, .. } => Error::RefusedThere { who, refusal, text },
        error => error,
    }
}

fn outcome(plan: &Ssh, end: &Ended<Summary>, remote: &str, announced: Option<u64>) -> Outcome {
    let new = |kind| Outcome::new(kind, plan.local.shown(), Some(remote.to_owned()));
    let mut outcome = match end {
        Ended::Done(summary) => {
            let moved = summary.pages_sent + summary.pages_received;
            // Only version 3 says whether anything changed; nothing moved, nothing did.
            let unchanged = summary.committed.unchanged || moved == 0;
            let mut outcome = new(if unchanged { Kind::Unchanged } else { Kind::Copied });
            (outcome.pages_sent, outcome.pages_received) = (summary.pages_sent, summary.pages_received);
            outcome
        }
        Ended::Counted(count) => {
            let count = if plan.way == Way::In { count.of_announced(announced) } else { *count };
            let mut outcome = new(if count.pages == 0 { Kind::Unchanged } else { Kind::Copied });
            match plan.way {
                Way::Out => (outcome.pages_sent, outcome.bytes_sent) = (count.pages, count.bytes),
                Way::In => (outcome.pages_received, outcome.bytes_received) = (count.pages, count.bytes),
            }
            outcome.at_most = count.at_most;
            outcome
        }
        Ended::Stale { .. } => new(Kind::Unchanged),
    };
    outcome.dry = plan.dry;
    outcome
}
