//! A pull: a local file becomes a version of a replica on a server.

use sqlrsync_database::{FileReplica, Overwrite};
use sqlrsync_protocol::conversation::{ReplicaOptions, Summary, run_replica};
use sqlrsync_protocol::exchange::Refusal;
use sqlrsync_protocol::page::{ConflictNumber, VersionNumber};
use sqlrsync_protocol::text::Config;

use super::guard::{Ended, GuardedReplica, ended};
use super::{Run, failed, keys, pages, state_name};
use crate::client_id::client_id;
use crate::connect::{Asking, Purpose, connect};
use crate::error::Error;
use crate::outcome::{Kind, Outcome};
use crate::plan::Pull;
use crate::prompt::ask_for_key;
use crate::state::{FileLock, State};
use crate::wire::Traffic;
use crate::wire::websocket::{Greeting, Said, WebSocket};

pub fn pull(run: &Run, plan: Pull) -> Result<Outcome, Error> {
    let overwrite = pages::overwrite(plan.force);
    pull_over(run, plan, overwrite)
}

/// Pulls, with that rule for a file that is not what the pull is a difference to.
pub fn pull_over(run: &Run, mut plan: Pull, overwrite: Overwrite) -> Result<Outcome, Error> {
    let path = &plan.local.path;
    let _lock = FileLock::take(run.folders.state(), path)?;
    let mut state =
        State::open(run.folders.state(), path, &state_name(&plan.access.server, Some(&plan.remote)));
    let database = pages::replica(path, Some(&state), overwrite)?;
    let Pulled { mut outcome, said, done } = transfer(run, &mut plan, database)?;
    if let Some((database, version)) = done {
        if outcome.kind == Kind::Pulled {
            outcome.conflict = state.conflict().map(ConflictNumber::get);
        }
        pages::remember(run, &mut state, database.agreed(), version);
        keys::keep_after_pull(run, &plan.local, &plan.remote, &plan.access.server, &said.config);
    }
    Ok(outcome)
}

/// What came of a transfer.
pub struct Pulled {
    /// What is said of it.
    pub outcome: Outcome,
    /// What the server said beside the pages.
    said: Said,
    /// What took the pages, and which version it now has; `None` for a dry run.
    done: Option<(FileReplica, Option<VersionNumber>)>,
}

impl Pulled {
    /// What took the pages; `None` for a dry run.
    pub fn into_replica(self) -> Option<FileReplica> {
        self.done.map(|(replica, _)| replica)
    }
}

/// Has a version come into what takes it, and remembers nothing. A key that had to be asked for is in the
/// plan afterwards.
pub fn transfer(run: &Run, plan: &mut Pull, database: FileReplica) -> Result<Pulled, Error> {
    let (mut wire, traffic) = open(run, plan)?;
    let who = format!("the server {}", plan.access.server);
    let options = ReplicaOptions { version_max: plan.access.protocol, ..ReplicaOptions::default() };
    let mut guarded = GuardedReplica::new(database, plan.dry);
    let mut progress = run.progress(&plan.remote.to_string());
    let end = ended(run_replica(options, &mut guarded, &mut wire, &mut progress));
    progress.finish();
    let end = end.map_err(|error| failed(error, &who))?;

    let said = match &end {
        // Whoever closed first would miss a key that the server says last.
        Ended::Done(summary) if summary.version >= 3 => wire.last_words(),
        _ => wire.hang_up(),
    };
    let mut outcome = outcome(plan, &end, &said, progress.total());
    if !plan.dry {
        (outcome.bytes_sent, outcome.bytes_received) = (traffic.sent(), traffic.received());
    }
    outcome.messages.extend(progress.messages().iter().cloned());
    let done = match &end {
        Ended::Done(summary) => Some((guarded.into_inner(), version(summary, &said.config))),
        _ => None,
    };
    Ok(Pulled { outcome, said, done })
}

/// Connects. Without a key a public replica can be pulled; where the server wants one, the user is asked.
fn open(run: &Run, plan: &mut Pull) -> Result<(WebSocket, Traffic), Error> {
    let client_id = client_id(&run.folders)?;
    let request_keys = keys::are_wanted(&plan.request_keys, &plan.access, Some(&plan.remote));
    let greeting = Greeting { message: String::new(), request_keys };
    loop {
        run.warn_of_plain_text(&plan.access);
        let asking = Asking {
            purpose: Purpose::Pull(plan.version),
            remote: Some(&plan.remote),
            replica_id: plan.replica_id.as_ref(),
            access: &plan.access,
            client_id: &client_id,
        };
        match connect(&run.runtime, &asking, &greeting, run.silence_max, &run.cancel) {
            Err(Error::Refused { refusal: Refusal::NotAllowed, .. }) if plan.access.credential.is_none() => {
                plan.access.credential = Some(ask_for_key("pull", &plan.remote.to_string())?);
            }
            opened => return opened,
        }
    }
}

fn version(summary: &Summary, said: &Config) -> Option<VersionNumber> {
    said.committed_version.or(summary.committed.version)
}

fn outcome(plan: &Pull, end: &Ended<Summary>, said: &Said, announced: Option<u64>) -> Outcome {
    let new = |kind| Outcome::new(kind, plan.local.shown(), Some(plan.remote.to_string()));
    let mut outcome = match end {
        Ended::Done(summary) => {
            let unchanged = summary.committed.unchanged;
            let mut outcome = new(if unchanged { Kind::Unchanged } else { Kind::Pulled });
            outcome.version = version(summary, &said.config).map(VersionNumber::get);
            outcome.pages_received = summary.pages_received;
            outcome
        }
        Ended::Counted(count) => {
            let count = count.of_announced(announced);
            let mut outcome = new(if count.pages == 0 { Kind::Unchanged } else { Kind::Pulled });
            outcome.version = said.config.committed_version.map(VersionNumber::get);
            (outcome.pages_received, outcome.bytes_received) = (count.pages, count.bytes);
            outcome.at_most = count.at_most;
            outcome
        }
        Ended::Stale { .. } => new(Kind::Unchanged),
    };
    outcome.dry = plan.dry;
    outcome.messages = said.messages.clone();
    outcome
}
