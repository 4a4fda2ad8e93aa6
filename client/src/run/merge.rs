//! A push, and with `--merge` what others pushed meanwhile: one command that brings both sides in step.
//!
//! What is pulled goes into the file in one write transaction, which first makes sure that the file still is
//! what was pushed. Where it is not (somebody has written to it), it is left as it is.

use std::time::Instant;

use sqlrsync_database::{Error as DatabaseError, Overwrite};
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_protocol::remote::{RemoteName, VersionSelector};

use super::{Run, pull, push};
use crate::error::Error;
use crate::outcome::{Kind, Outcome};
use crate::plan::{KeysWanted, Pull, Push};

pub fn push(run: &Run, mut plan: Push) -> Result<Outcome, Error> {
    let began = Instant::now();
    let mut pushed = push::push(run, &mut plan)?;
    pushed.seconds = began.elapsed().as_secs_f64();
    match newer(&pushed) {
        Some((remote, version)) if plan.merge => take_over(run, plan, pushed, remote, version),
        _ => Ok(pushed),
    }
}

/// The version that has what was pushed and more, where there is one.
fn newer(pushed: &Outcome) -> Option<(RemoteName, VersionNumber)> {
    let version = match pushed.kind {
        Kind::Merged => pushed.version,
        Kind::Unchanged => pushed.latest,
        _ => None,
    };
    Some((pushed.remote.as_ref()?.parse().ok()?, version.and_then(VersionNumber::new)?))
}

/// Pulls that version over what was pushed.
fn take_over(
    run: &Run,
    plan: Push,
    mut pushed: Outcome,
    remote: RemoteName,
    version: VersionNumber,
) -> Result<Outcome, Error> {
    let pull = Pull {
        remote,
        version: VersionSelector::Number(version),
        replica_id: pushed.replica_id.clone().or(plan.replica_id),
        local: plan.local,
        access: plan.access,
        request_keys: KeysWanted::No,
        dry: false,
        force: false,
    };
    match pull::pull_over(run, pull, Overwrite::UnlessBase) {
        Ok(pulled) if pushed.kind == Kind::Unchanged => Ok(pulled),
        Ok(pulled) => {
            pushed.pulled = Some(true);
            pushed.pages_received += pulled.pages_received;
            pushed.bytes_received += pulled.bytes_received;
            pushed.bytes_sent += pulled.bytes_sent;
            Ok(pushed)
        }
        Err(Error::Database(error)) if is_written_to(&error) => {
            pushed.pulled = Some(false);
            Ok(pushed)
        }
        Err(error) => {
            // The push is done, and that is said before what is not.
            run.print(&pushed)?;
            Err(error)
        }
    }
}

/// Whether somebody else has the file, or has changed it.
fn is_written_to(error: &DatabaseError) -> bool {
    matches!(
        error,
        DatabaseError::LocallyChanged { .. }
            | DatabaseError::ChangedMeanwhile { .. }
            | DatabaseError::Busy { .. }
    )
}
