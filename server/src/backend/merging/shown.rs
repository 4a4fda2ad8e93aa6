//! What a conflict is about, as it is now: against the latest version, whichever that was when the conflict was
//! opened.
//!
//! What was found then is stored with the conflict and costs nothing to list. Where the latest has moved on it
//! is found again, and a few of those are kept in memory, since rows are listed a page at a time.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use sqlrsync_database::merge::{MergeOptions, Resolutions};
use sqlrsync_protocol::exchange::PushId;
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_repository::{Candidate, Conflict, Manifest, Replica, ReplicaId};

use super::Error;
use super::given_up::GivenUp;
use super::overlap::{self, Found};
use super::versions::{Outcome, Three};
use crate::backend::Backend;
use crate::catalog::Policy;

/// How many are kept; each has as many rows as a conflict may store.
const KEPT_MAX: usize = 2;

/// What a conflict is about, against one version.
pub(in crate::backend) struct Shown {
    /// The version that the candidate was compared with.
    pub theirs: VersionNumber,
    /// Rows in conflict by table.
    pub tables: Vec<String>,
    /// How many rows.
    pub row_count: u64,
    /// What else is in the way.
    pub reasons: Vec<String>,
    /// The rows, a line of JSON each.
    pub rows: Bytes,
}

/// What was found again lately.
#[derive(Default)]
pub(in crate::backend) struct Recent {
    kept: Mutex<VecDeque<(Of, Arc<Shown>)>>,
}

/// Which candidate was compared with which version.
type Of = (ReplicaId, PushId, VersionNumber);

impl Recent {
    fn get(&self, of: &Of) -> Option<Arc<Shown>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(known, _)| known == of).map(|(_, shown)| shown.clone())
    }

    fn put(&self, of: Of, shown: Arc<Shown>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(known, _)| *known != of);
        kept.push_back((of, shown));
        if kept.len() > KEPT_MAX {
            kept.pop_front();
        }
    }
}

impl Shown {
    fn of(theirs: VersionNumber, found: Found) -> Shown {
        Shown {
            theirs,
            tables: found.tables.into_iter().map(|table| table.table).collect(),
            row_count: found.row_count,
            reasons: found.reasons,
            rows: found.rows.into(),
        }
    }

    /// The lines of the rows.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.rows.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
    }
}

impl Backend {
    /// What a conflict is about, as it was when it was opened, or last added to.
    pub(super) fn shown_then(&self, replica: &Replica, conflict: &Conflict) -> Result<Shown, Error> {
        let overlap = &conflict.overlap;
        Ok(Shown {
            theirs: overlap.theirs,
            tables: overlap.tables.iter().map(|table| table.table.clone()).collect(),
            row_count: overlap.tables.iter().map(|table| table.rows).sum(),
            reasons: overlap.reasons.clone(),
            rows: replica.conflict_rows(overlap)?.unwrap_or_default(),
        })
    }

    /// What a conflict is about, against this version. It stops when `cancel` becomes true.
    pub(super) fn shown_against(
        &self,
        replica: &Replica,
        conflict: &Conflict,
        candidate: &Candidate,
        (theirs, policy): (&Manifest, Policy),
        cancel: &Arc<AtomicBool>,
    ) -> Result<Arc<Shown>, Error> {
        let of = (replica.id(), candidate.id, theirs.number);
        if let Some(found) = self.recent.get(&of) {
            return Ok(found);
        }
        let shown = if theirs.number == conflict.overlap.theirs {
            self.shown_then(replica, conflict)?
        } else {
            Shown::of(theirs.number, self.find(replica, conflict, candidate, (theirs, policy), cancel)?)
        };
        let shown = Arc::new(shown);
        self.recent.put(of, shown.clone());
        Ok(shown)
    }

    fn find(
        &self,
        replica: &Replica,
        conflict: &Conflict,
        candidate: &Candidate,
        (theirs, policy): (&Manifest, Policy),
        cancel: &Arc<AtomicBool>,
    ) -> Result<Found, Error> {
        if let Some(given_up) = GivenUp::of(conflict) {
            // Nobody who looks at it waits for that again. The pusher's next push tries it.
            return Ok(given_up.found());
        }
        let versions = self.to_merge(replica).cancelled_by(cancel.clone());
        let base = conflict.overlap.merge_base.as_ref().map(|base| replica.merge_base(base)).transpose()?;
        let Some(base) = base.flatten() else {
            return Found::without_base(&versions, theirs, &candidate.content);
        };
        let options =
            MergeOptions { cells: policy.cells, renumber: policy.renumber, limits: overlap::limits() };
        let three = Three { base: &base, theirs, mine: &candidate.content };
        match versions.merge(three, &options, &Resolutions::default()) {
            Ok(Outcome::Merged { .. }) => Ok(Found::default()),
            Ok(Outcome::Conflict(conflict, encoding)) => Ok(Found::of(&conflict, encoding)),
            Err(error) => match error.given_up() {
                Some(given_up) => Ok(given_up.found()),
                None => error.of_a_content().map(|why| Found::because(&why)),
            },
        }
    }
}
