//! A copy from one local file to another: the conversation that a server has with a client, between
//! two threads of this process.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use sqlrsync_protocol::conversation::{
    ExchangeError, OriginOptions, Quiet, ReplicaOptions, run_origin, run_replica,
};

use super::guard::{Count, Ended, GuardedOrigin, GuardedReplica, OriginGuard, ended};
use super::{Run, failed, pages};
use crate::error::Error;
use crate::outcome::{Kind, Outcome};
use crate::plan::Copy;
use crate::state::{FileLock, State};
use crate::wire::memory;

pub fn copy(run: &Run, plan: &Copy) -> Result<Outcome, Error> {
    let (from, to) = (&plan.origin.path, &plan.replica.path);
    if same_file(from, to) {
        return Err(Error::SameFile {
            origin: plan.origin.typed.clone(),
            replica: plan.replica.typed.clone(),
        });
    }
    let _lock = FileLock::take(run.folders.state(), to)?;
    let mut from_state = State::open(run.folders.state(), from, &name(to));
    let mut to_state = State::open(run.folders.state(), to, &name(from));
    let guard = OriginGuard { dry: plan.dry, stop_stale: false };
    let mut origin = GuardedOrigin::new(pages::origin(run, from, Some(&from_state), None, false)?, guard);
    let mut replica =
        GuardedReplica::new(pages::replica(to, Some(&to_state), pages::overwrite(plan.force))?, plan.dry);

    let (here, there) = memory::pair(&run.cancel);
    let traffic = here.traffic();
    let origin_options = OriginOptions { version_max: plan.protocol, ..OriginOptions::default() };
    let replica_options = ReplicaOptions { version_max: plan.protocol, ..ReplicaOptions::default() };
    let mut progress = run.progress(&plan.origin.shown());
    let (sent, taken) = thread::scope(|scope| {
        // The wire is dropped with the end of the conversation, also by a panic: that is how the other side hears of it.
        let mut here = here;
        let other = scope.spawn(|| {
            let mut there = there;
            run_replica(replica_options, &mut replica, &mut there, &mut Quiet)
        });
        let sent = run_origin(origin_options, &mut origin, &mut here, &mut progress);
        drop(here);
        (sent, other.join())
    });
    progress.finish();
    let taken =
        taken.map_err(|_| Error::Program { program: "the copy".into(), why: "a thread panicked".into() })?;
    let (sent, taken) = (ended(sent), ended(taken));

    // An error of one side's own says more than what the other side heard of it.
    let (end, committed) = match (sent, taken) {
        (Err(error @ ExchangeError::Local(_)), _) | (_, Err(error @ ExchangeError::Local(_))) => {
            return Err(failed(error, "the copy"));
        }
        (Ok(end @ (Ended::Counted(_) | Ended::Stale { .. })), _) => (end, None),
        (Ok(end), Ok(Ended::Done(summary))) => (end, Some(summary.committed)),
        (Ok(end), Ok(_)) => (end, None),
        (Err(error), _) | (_, Err(error)) => return Err(failed(error, "the copy")),
    };
    let outcome = |kind| Outcome::new(kind, plan.origin.shown(), Some(plan.replica.shown()));
    let mut outcome = match &end {
        Ended::Counted(Count { pages: 0, .. }) => outcome(Kind::Unchanged),
        Ended::Done(_) if committed.is_some_and(|committed| committed.unchanged) => outcome(Kind::Unchanged),
        _ => outcome(Kind::Copied),
    };
    outcome.dry = plan.dry;
    (outcome.bytes_sent, outcome.bytes_received) = (traffic.sent(), traffic.received());
    match end {
        Ended::Done(summary) => {
            outcome.pages_sent = summary.pages_sent;
            let origin = origin.into_inner();
            outcome.scanned = Some(origin.has_read_all());
            pages::remember(run, &mut from_state, origin.agreed(), None);
            pages::remember(run, &mut to_state, replica.into_inner().agreed(), None);
        }
        Ended::Counted(count) => (outcome.pages_sent, outcome.bytes_sent) = (count.pages, count.bytes),
        Ended::Stale { .. } => {}
    }
    Ok(outcome)
}

/// What names the state towards another file.
fn name(other: &Path) -> String {
    format!("file:{}", other.to_string_lossy())
}

/// Whether both are one file, by whatever names.
fn same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|data| (data.dev(), data.ino()));
    one == other || identity(one).is_some_and(|id| identity(other) == Some(id))
}
