//! The two things that have and take pages here, opened as the state of the file has it.

use std::path::Path;

use sqlrsync_database::{
    Agreed, Error as DatabaseError, FileReplica, FileReplicaOptions, LiveOrigin, LiveOriginOptions, Overwrite,
};
use sqlrsync_protocol::exchange::{Committed, PushId};
use sqlrsync_protocol::page::VersionNumber;

use super::Run;
use crate::error::Error;
use crate::state::State;

/// A local file to be sent from. With `scan` all of it is read, whatever its WAL says.
pub fn origin(
    run: &Run,
    path: &Path,
    state: Option<&State>,
    push_id: Option<PushId>,
    scan: bool,
) -> Result<LiveOrigin, Error> {
    let options = LiveOriginOptions {
        hashes: state.map(State::hashes).transpose()?,
        known: state.and_then(State::known),
        base: state.and_then(State::base),
        push_id,
        scan,
        temp_dir: run.temp_folder()?,
    };
    Ok(LiveOrigin::open(path, options)?)
}

/// What becomes of a file with changes of its own.
pub fn overwrite(force: bool) -> Overwrite {
    if force { Overwrite::Force } else { Overwrite::Never }
}

/// A local file to become a copy; it may not exist.
pub fn replica(path: &Path, state: Option<&State>, overwrite: Overwrite) -> Result<FileReplica, Error> {
    let options = FileReplicaOptions {
        hashes: state.map(State::hashes).transpose()?,
        known: state.and_then(State::known),
        base: state.and_then(State::base),
        overwrite,
        // Beside the file, so that a new one can be linked into place.
        temp_dir: None,
    };
    Ok(FileReplica::open(path, options)?)
}

/// Keeps what was agreed on. That it cannot be kept costs a scan the next time, and is no failure.
pub fn remember(
    run: &Run,
    state: &mut State,
    agreed: Result<Agreed, DatabaseError>,
    version: Option<VersionNumber>,
) {
    keep(run, state, agreed, |state, agreed| state.agree(agreed, version));
}

/// Keeps what was pushed, as what it has become: that version, or a part of a merge or a conflict. Then the
/// file is not the version that there now is, and must not pass for it.
pub fn remember_pushed(
    run: &Run,
    state: &mut State,
    agreed: Result<Agreed, DatabaseError>,
    committed: &Committed,
    version: Option<VersionNumber>,
) {
    if committed.as_sent() {
        return remember(run, state, agreed, version);
    }
    keep(run, state, agreed, |state, agreed| state.agree_as_sent(agreed, committed.conflict));
}

fn keep(
    run: &Run,
    state: &mut State,
    agreed: Result<Agreed, DatabaseError>,
    keep: impl FnOnce(&mut State, &Agreed) -> Result<(), Error>,
) {
    let kept = match agreed {
        Ok(agreed) => keep(state, &agreed),
        // The older protocol versions prove nothing that could be kept.
        Err(DatabaseError::NothingAgreed) => state.end_push(),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = kept {
        run.warn(&format!("the next run reads the whole file again: {error}"));
    }
}
