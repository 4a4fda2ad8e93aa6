//! Started by a peer over ssh: `--origin` or `--replica` on stdin and stdout.
//!
//! Nothing but the conversation is written to stdout. What goes wrong is told to the peer in it, and
//! to people on stderr. With `--remember` (another sqlrsync) state is kept, a changed file is not
//! overwritten, and what goes wrong is told with its kind, in every version of the protocol; without it the
//! rules are those of sqlite3_rsync: the replica becomes the origin, unless their page sizes differ.

use std::io;

use sqlrsync_database::Overwrite;
use sqlrsync_protocol::conversation::{OriginOptions, Quiet, ReplicaOptions, Wire, run_origin, run_replica};
use sqlrsync_protocol::exchange::{Fault, Refusal};
use sqlrsync_protocol::message::{Side, error_bytes};

use super::{Run, failed, pages};
use crate::error::Error;
use crate::plan::{Peer, Way};
use crate::state::{FileLock, State};
use crate::wire::pipes::Pipes;

/// The peer has no name of its own in errors.
const WHO: &str = "the other side";

pub fn serve(run: &Run, plan: &Peer) -> Result<(), Error> {
    let mut wire = Pipes::new(io::stdin(), io::stdout(), &run.cancel);
    match plan.way {
        Way::Out => be_origin(run, plan, &mut wire),
        Way::In => be_replica(run, plan, &mut wire),
    }
}

fn be_origin(run: &Run, plan: &Peer, wire: &mut Pipes) -> Result<(), Error> {
    let mut state = plan.remember.then(|| State::open(run.folders.state(), &plan.local.path, &name(plan)));
    let opened =
        check_wal(plan).and_then(|()| pages::origin(run, &plan.local.path, state.as_ref(), None, false));
    let mut database = opened.map_err(|error| tell(plan, wire, Side::Origin, error))?;
    let options = OriginOptions {
        version_max: plan.protocol,
        knows_refusals: plan.remember,
        ..OriginOptions::default()
    };
    run_origin(options, &mut database, wire, &mut Quiet).map_err(|error| failed(error, WHO))?;
    if let Some(state) = &mut state {
        pages::remember(run, state, database.agreed(), None);
    }
    Ok(())
}

fn be_replica(run: &Run, plan: &Peer, wire: &mut Pipes) -> Result<(), Error> {
    let lock = plan.remember.then(|| FileLock::take(run.folders.state(), &plan.local.path)).transpose();
    let _lock = lock.map_err(|error| tell(plan, wire, Side::Replica, error))?;
    let mut state = plan.remember.then(|| State::open(run.folders.state(), &plan.local.path, &name(plan)));
    let overwrite = if plan.remember { pages::overwrite(plan.force) } else { Overwrite::SamePageSize };
    let opened = check_wal(plan).and_then(|()| pages::replica(&plan.local.path, state.as_ref(), overwrite));
    let mut database = opened.map_err(|error| tell(plan, wire, Side::Replica, error))?;
    let options = ReplicaOptions {
        version_max: plan.protocol,
        knows_refusals: plan.remember,
        ..ReplicaOptions::default()
    };
    run_replica(options, &mut database, wire, &mut Quiet).map_err(|error| failed(error, WHO))?;
    if let Some(state) = &mut state {
        pages::remember(run, state, database.agreed(), None);
    }
    Ok(())
}

/// Tells the peer what went wrong before there was a conversation.
fn tell(plan: &Peer, wire: &mut Pipes, side: Side, error: Error) -> Error {
    let (refusal, text) = match &error {
        Error::Database(error) => (error.refusal(), error.public_text()),
        Error::InUse { .. } => (Refusal::TryLater, "another sqlrsync is at work on the file".to_owned()),
        Error::NotWal { .. } => (Refusal::Failed, "the database is not in WAL mode".to_owned()),
        _ => (Refusal::Failed, "cannot start".to_owned()),
    };
    // sqlite3_rsync, which may have started this as well, would print the kind.
    let refusal = plan.remember.then_some(refusal);
    let _ = wire.send(error_bytes(side, refusal, &text));
    error
}

/// `--wal-only`: a database that exists has to be in WAL mode.
fn check_wal(plan: &Peer) -> Result<(), Error> {
    if plan.wal_only && sqlrsync_database::is_wal(&plan.local.path)? == Some(false) {
        return Err(Error::NotWal { path: plan.local.path.clone() });
    }
    Ok(())
}

/// What names the state: all that is known of the peer is what it calls its file.
fn name(plan: &Peer) -> String {
    format!("peer:{}", plan.name)
}
