//! The conflicts of a replica: which there are, and what each is about.

use serde::Serialize;
use serde_json::value::RawValue;
use sqlrsync_protocol::page::{ConflictNumber, VersionNumber};
use sqlrsync_protocol::remote::RemoteName;
use sqlrsync_repository::{Candidate, Conflict, Replica, StepKind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use utoipa::ToSchema;

use super::Error;
use super::shown::Shown;
use crate::access::Caller;
use crate::backend::{Backend, HISTORY_MAX};
use crate::catalog::ReplicaRecord;
use crate::refused::{Refused, Why};

/// The most rows in one answer.
const ROWS_MAX: usize = 1000;

/// The most bytes of rows in one answer: after the row that goes beyond, the next page begins.
const ROWS_BYTES_MAX: usize = 4 << 20;

/// How many conflicts one listing looks at.
const LOOKED_AT_MAX: u64 = 1000;

/// A conflict.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ConflictInfo {
    /// Its number.
    pub id: u64,
    /// `open`, `settled`, or `merged` where what overlapped went away.
    pub state: &'static str,
    /// When it was opened, RFC 3339.
    pub opened: String,
    /// Who pushed: the key's label.
    pub by: String,
    /// The tables whose rows overlap.
    pub tables: Vec<String>,
    /// How many rows overlap.
    pub rows: u64,
    /// Id of the client that pushed.
    pub client_id: String,
    /// Its host.
    pub host: String,
    /// Path of the file there.
    pub local_path: String,
    /// What was said of the push.
    pub message: String,
    /// What is in the way besides rows; empty where there is nothing.
    pub problem: String,
    /// The version that the push was made from; `null` where that is not known, or is no version.
    pub base: Option<u64>,
    /// The version that the push is compared with.
    pub theirs: u64,
    /// When the pusher last pushed to it, RFC 3339.
    pub pushed: String,
    /// The version that ended it.
    pub version: Option<u64>,
    /// When it ended, RFC 3339.
    pub ended: Option<String>,
    /// Who ended it.
    pub ended_by: Option<String>,
}

/// Conflicts, oldest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ConflictsPage {
    /// The conflicts.
    pub conflicts: Vec<ConflictInfo>,
    /// What to give for `after` to read on; `null` at the end.
    pub next_after: Option<u64>,
}

/// Rows of a conflict.
#[derive(Debug, Serialize, ToSchema)]
pub struct RowsPage {
    /// Each with `table`, `key`, `base`, `theirs`, `mine`, and `differs`: the columns in which the last two
    /// are not the same.
    #[schema(value_type = Vec<Object>)]
    pub rows: Vec<Box<RawValue>>,
    /// How many rows there are in all.
    pub all: u64,
    /// The version that the push is compared with.
    pub theirs: u64,
    /// What to give for `after` to read on; `null` at the end of what is listed.
    pub next_after: Option<u64>,
}

/// An open conflict, with what it takes to look into it.
pub(super) struct Found {
    pub record: ReplicaRecord,
    pub replica: Replica,
    pub conflict: Conflict,
    /// The version that ended it, be it that the conflict does not say so yet.
    pub ended: Option<VersionNumber>,
}

impl Backend {
    /// The conflicts of a replica after `after`; only open ones, or all.
    ///
    /// # Errors
    /// As [`Backend::policy`].
    pub fn conflicts(
        &self,
        caller: &Caller,
        name: &RemoteName,
        (after, all): (u64, bool),
        limit: usize,
    ) -> Result<ConflictsPage, Refused> {
        let record = self.seen(caller, name)?;
        let replica = self.repository_replica(&record)?;
        let mut page = ConflictsPage { conflicts: Vec::new(), next_after: None };
        let last = after.saturating_add(LOOKED_AT_MAX);
        let mut at = after;
        while let Some(number) = at.checked_add(1).and_then(ConflictNumber::new) {
            if page.conflicts.len() >= limit.clamp(1, HISTORY_MAX) || at >= last {
                page.next_after = Some(at);
                break;
            }
            let Some(conflict) = replica.conflict(number)? else { break };
            at = number.get();
            let ended = replica.ended_by(&conflict)?.map(|version| version.number);
            if all || ended.is_none() {
                let shown = Then::of(&conflict);
                page.conflicts.push(info(&conflict, ended, shown.0, shown.1));
            }
        }
        Ok(page)
    }

    /// A conflict, as it is now. It stops when `cancel` becomes true.
    ///
    /// # Errors
    /// As [`Backend::policy`]; [`Why::NotFound`].
    pub fn conflict(
        &self,
        caller: &Caller,
        name: &RemoteName,
        number: ConflictNumber,
        cancel: &Arc<AtomicBool>,
    ) -> Result<ConflictInfo, Refused> {
        let found = self.find_conflict(caller, name, number)?;
        let shown = self.shown_now(&found, cancel)?;
        let tables = (shown.tables.clone(), shown.row_count);
        let mut info = info(&found.conflict, found.ended, tables, shown.theirs);
        info.problem = shown.reasons.join("; ");
        Ok(info)
    }

    /// The rows of a conflict, as they are now, from the one after `after` on. It stops when `cancel` becomes true.
    ///
    /// # Errors
    /// As [`Backend::conflict`].
    pub fn conflict_rows(
        &self,
        caller: &Caller,
        name: &RemoteName,
        number: ConflictNumber,
        (after, limit): (u64, usize),
        cancel: &Arc<AtomicBool>,
    ) -> Result<RowsPage, Refused> {
        let found = self.find_conflict(caller, name, number)?;
        let shown = self.shown_now(&found, cancel)?;
        let mut page =
            RowsPage { rows: Vec::new(), all: shown.row_count, theirs: shown.theirs.get(), next_after: None };
        let (mut bytes, mut at) = (0, after);
        for line in shown.lines().skip(usize::try_from(after).unwrap_or(usize::MAX)) {
            if page.rows.len() >= limit.clamp(1, ROWS_MAX) || bytes > ROWS_BYTES_MAX {
                page.next_after = Some(at);
                break;
            }
            let row = serde_json::from_slice(line)
                .map_err(|error| Refused::failed("reading the rows of a conflict", &error))?;
            page.rows.push(row);
            bytes += line.len();
            at += 1;
        }
        Ok(page)
    }

    /// A conflict that the caller may see.
    pub(super) fn find_conflict(
        &self,
        caller: &Caller,
        name: &RemoteName,
        number: ConflictNumber,
    ) -> Result<Found, Refused> {
        let record = self.seen(caller, name)?;
        let replica = self.repository_replica(&record)?;
        let missing = || Refused::new(Why::NotFound, format!("{name} has no conflict {number}"));
        let conflict = replica.conflict(number)?.ok_or_else(missing)?;
        let ended = replica.ended_by(&conflict)?.map(|version| version.number);
        Ok(Found { record, replica, conflict, ended })
    }

    /// Against the latest version while it is open, and as it was after.
    fn shown_now(&self, found: &Found, cancel: &Arc<AtomicBool>) -> Result<Arc<Shown>, Refused> {
        let Found { record, replica, conflict, ended } = found;
        let open = match ended {
            None => replica.latest()?.zip(replica.candidate(conflict.overlap.candidate)?),
            Some(_) => None,
        };
        let shown = match open {
            Some((latest, candidate)) => {
                self.shown_against(replica, conflict, &candidate, (&latest, record.policy), cancel)
            }
            None => self.shown_then(replica, conflict).map(Arc::new),
        };
        shown.map_err(Refused::from)
    }
}

/// What a conflict was about when it was opened.
struct Then;

impl Then {
    fn of(conflict: &Conflict) -> ((Vec<String>, u64), VersionNumber) {
        let tables = &conflict.overlap.tables;
        let names = tables.iter().map(|table| table.table.clone()).collect();
        ((names, tables.iter().map(|table| table.rows).sum()), conflict.overlap.theirs)
    }
}

fn info(
    conflict: &Conflict,
    ended: Option<VersionNumber>,
    (tables, rows): (Vec<String>, u64),
    theirs: VersionNumber,
) -> ConflictInfo {
    let Conflict { number, opened, overlap, last } = conflict;
    let over = conflict.version().is_some();
    ConflictInfo {
        id: number.get(),
        state: match (&last.kind, ended) {
            (StepKind::Merged { .. }, _) => "merged",
            (_, Some(_)) => "settled",
            (_, None) => "open",
        },
        opened: opened.time.to_string(),
        by: opened.by.author.clone(),
        tables,
        rows,
        client_id: opened.by.client_id.clone(),
        host: opened.by.host.clone(),
        local_path: opened.by.local_path.clone(),
        message: opened.by.message.clone(),
        problem: overlap.reasons.join("; "),
        base: overlap.merge_base.and_then(|base| base.version).map(VersionNumber::get),
        theirs: theirs.get(),
        pushed: if over { &opened.time } else { &last.time }.to_string(),
        version: ended.map(VersionNumber::get),
        ended: over.then(|| last.time.to_string()),
        ended_by: over.then(|| last.by.author.clone()),
    }
}

/// The candidate of an open conflict.
pub(super) fn candidate_of(replica: &Replica, conflict: &Conflict) -> Result<Candidate, Error> {
    let found = replica.candidate(conflict.overlap.candidate)?;
    Ok(found.ok_or(sqlrsync_repository::Error::OutOfOrder("a conflict without its candidate"))?)
}
