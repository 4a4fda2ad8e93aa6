//! What a push was made from.
//!
//! Our own client says it. Of a peer that says nothing it is found from what is known of it, and where that is
//! not enough it stays unknown.

use sqlrsync_repository::{KeepOptions, Manifest, Standing};

use super::Error;
use super::push::Push;

/// What a push was made from.
pub(super) enum Ground {
    /// The latest version.
    Latest,
    /// From this content.
    Older(KeepOptions),
    /// It is what it was made from: nothing was changed.
    Unchanged,
    /// Nobody knows.
    Unknown,
}

/// What a push was made from.
pub(super) fn ground(push: &Push<'_>, latest: &Manifest) -> Result<Ground, Error> {
    match push.received.agreed() {
        Some(agreed) => known(push, agreed, latest),
        None => Ok(Ground::Latest),
    }
}

/// The pusher has said it.
fn known(push: &Push<'_>, agreed: &Manifest, latest: &Manifest) -> Result<Ground, Error> {
    if agreed.root == latest.root {
        return Ok(Ground::Latest);
    }
    let replica = push.received.replica();
    if agreed.root == push.received.root() {
        // What waits in a conflict, or was never merged, is looked at again.
        let waits = match agreed.candidate.map(|id| replica.candidate(id)).transpose()?.flatten() {
            Some(candidate) => {
                matches!(replica.standing(&candidate)?, Standing::Kept | Standing::InConflict(_))
            }
            None => false,
        };
        if !waits {
            return Ok(Ground::Unchanged);
        }
    }
    Ok(Ground::Older(replica.keep_options(Some(agreed))?))
}
