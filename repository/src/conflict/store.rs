//! Conflicts in the store: opened, gone on with, read and listed.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use sqlrsync_protocol::exchange::PushId;
use sqlrsync_protocol::page::ConflictNumber;

use super::format::{self, STEP_BYTES_MAX};
use super::{
    CHOICES_BYTES_MAX, CONFLICT_ROWS_BYTES_MAX, CONFLICT_STEPS_MAX, Conflict, Overlap, RowsName, Step,
    StepKind,
};
use crate::candidate::{AddsTo, Candidate};
use crate::error::{Damage, Error};
use crate::id::{Name, SegmentId};
use crate::manifest::Manifest;
use crate::numbers::last_number;
use crate::push::Described;
use crate::replica::{Replica, bounded};
use crate::store::Create;

/// How many other conflicts may be opened first before opening one is given up.
const ATTEMPTS_MAX: u32 = 64;

/// The most conflicts that one listing looks at.
const CONFLICTS_LISTED_MAX: usize = 4096;

/// A part of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConflictPage {
    /// The newest first.
    pub conflicts: Vec<Conflict>,
    /// Where the listing goes on; `None` at its end.
    pub before: Option<ConflictNumber>,
}

impl Replica {
    /// Opens a conflict for a candidate, or gives back the one that it is in already. `rows` is what overlaps,
    /// row by row, in whatever form; 32 MiB at most, and it may be empty.
    ///
    /// # Errors
    /// [`Error::MergedMeanwhile`] where another process merged the candidate.
    pub fn open_conflict(
        &self,
        candidate: &Candidate,
        overlap: Overlap,
        rows: &[u8],
        by: Described,
    ) -> Result<Conflict, Error> {
        let kind = StepKind::Opened(self.overlap_with_rows(overlap, rows)?);
        let step = self.step(1, by, kind)?;
        for _ in 0..ATTEMPTS_MAX {
            // Counted first: all up to this number are looked at, so that the next one may be created.
            let count = self.conflict_count()?;
            if let Some(conflict) = self.conflict_of_candidate(candidate)? {
                return Ok(conflict);
            }
            if let Some(version) = self.merge_of(candidate)? {
                return Err(Error::MergedMeanwhile(version.number));
            }
            let number = count.checked_add(1).and_then(ConflictNumber::new);
            let number = number.ok_or(Error::OutOfOrder("the last conflict number"))?;
            if self.create_step(number, &step)? {
                self.hint_opened(candidate, number);
                return self.conflict(number)?.ok_or(Error::OutOfOrder("a conflict that was opened"));
            }
        }
        Err(Error::Contended(ATTEMPTS_MAX))
    }

    /// Puts a candidate in the place of the one that it is made from. `None` where that one is not in the
    /// conflict any more, since somebody was first with another step: what is to be done is decided anew, by
    /// [`Replica::still_to_merge`].
    pub fn replace_in_conflict(
        &self,
        conflict: &Conflict,
        candidate: &Candidate,
        overlap: Overlap,
        rows: &[u8],
        by: Described,
    ) -> Result<Option<Conflict>, Error> {
        let to = AddsTo { conflict: conflict.number, candidate: conflict.overlap.candidate };
        // Of two candidates made from one, the second does not have the changes of the first.
        if candidate.adds_to != Some(to) || overlap.candidate != candidate.id {
            return Ok(None);
        }
        if self.ended_by(conflict)?.is_some() {
            return Ok(None);
        }
        let kind = StepKind::Replaced(self.overlap_with_rows(overlap, rows)?);
        self.advance_conflict(conflict, kind, by)
    }

    /// Says that a version ended a conflict, once [`Replica::commit_merge`] made it. `None` where somebody was
    /// first with another step: it may have been added to, and is then not over.
    pub fn end_conflict(
        &self,
        conflict: &Conflict,
        version: &Manifest,
        choices: String,
        by: Described,
    ) -> Result<Option<Conflict>, Error> {
        let ends = version.merge.and_then(|merge| merge.ends);
        let version = version.number;
        let kind = match ends {
            Some(ends) if ends.settled => StepKind::Settled { version, choices },
            _ => StepKind::Merged { version },
        };
        self.advance_conflict(conflict, kind, by)
    }

    /// Adds the next step. `None` where somebody was first with another one.
    fn advance_conflict(
        &self,
        conflict: &Conflict,
        kind: StepKind,
        by: Described,
    ) -> Result<Option<Conflict>, Error> {
        if let Some(version) = conflict.version() {
            return Err(Error::ConflictIsOver { conflict: conflict.number, version });
        }
        let ends = kind.ended().is_some();
        if matches!(kind, StepKind::Opened(_)) || (conflict.last.number >= CONFLICT_STEPS_MAX && !ends) {
            return Err(Error::OutOfOrder("a step of a conflict"));
        }
        let last = self.step(conflict.last.number + 1, by, kind)?;
        if !self.create_step(conflict.number, &last)? {
            return Ok(None);
        }
        let overlap = last.kind.overlap().unwrap_or(&conflict.overlap).clone();
        Ok(Some(Conflict { number: conflict.number, opened: conflict.opened.clone(), overlap, last }))
    }

    /// Writes the last step of conflicts whose end was made by a process that was stopped before it could.
    pub(crate) fn mend_conflicts(&self) -> Result<(), Error> {
        let mut before = None;
        loop {
            let page = self.conflicts(true, before, usize::MAX)?;
            for conflict in page.conflicts {
                if let Some(version) = self.ended_by(&conflict)? {
                    let by = Described::of_version(&version);
                    self.end_conflict(&conflict, &version, String::new(), by)?;
                }
            }
            match page.before {
                Some(next) => before = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// A conflict; `None` where there is none of this number.
    pub fn conflict(&self, number: ConflictNumber) -> Result<Option<Conflict>, Error> {
        let key = (self.id(), number);
        if let Some(over) = self.shared().conflicts_over.get(&key) {
            return Ok(Some(Conflict::clone(&over)));
        }
        let Some(opened) = self.read_step(number, 1)? else { return Ok(None) };
        let exists = |step| self.shared().store.exists(&Name::Conflict(number, step).path(self.id()));
        let count = last_number(1, exists)?;
        let last = if count == 1 { opened.clone() } else { self.step_that_is(number, count)? };
        // What ends a conflict comes after a step that does not.
        let current = match last.kind.overlap() {
            Some(_) => last.clone(),
            None => self.step_that_is(number, count.saturating_sub(1))?,
        };
        let Some(overlap) = current.kind.overlap().cloned() else {
            let object = Name::Conflict(number, count).path(self.id());
            return Err(Error::damaged(object, Damage::Structure));
        };
        let conflict = Conflict { number, opened, overlap, last };
        if !conflict.is_open() {
            let bytes = 2048 + 64 * conflict.overlap.tables.len();
            self.shared().conflicts_over.put(key, Arc::new(conflict.clone()), bytes);
        }
        Ok(Some(conflict))
    }

    /// All steps of a conflict from `from` on, `limit` at most, the oldest first.
    pub fn conflict_steps(
        &self,
        number: ConflictNumber,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Step>, Error> {
        let mut steps = Vec::new();
        for at in (from.max(1)..).take(limit) {
            match self.read_step(number, at)? {
                Some(step) => steps.push(step),
                None => break,
            }
        }
        Ok(steps)
    }

    /// Conflicts below `before`, or from the newest on: `limit` at most, and only open ones if so asked.
    pub fn conflicts(
        &self,
        only_open: bool,
        before: Option<ConflictNumber>,
        limit: usize,
    ) -> Result<ConflictPage, Error> {
        let count = self.conflict_count()?;
        let mut at = before.map_or(count, |before| count.min(before.get() - 1));
        let mut page = ConflictPage::default();
        for _ in 0..CONFLICTS_LISTED_MAX {
            let Some(number) = ConflictNumber::new(at) else { return Ok(page) };
            if page.conflicts.len() >= limit {
                break;
            }
            let missing = || Error::damaged(Name::Conflict(number, 1).path(self.id()), Damage::Gap);
            let conflict = self.conflict(number)?.ok_or_else(missing)?;
            if conflict.is_open() || !only_open {
                page.conflicts.push(conflict);
            }
            at -= 1;
        }
        page.before = at.checked_add(1).filter(|_| at > 0).and_then(ConflictNumber::new);
        Ok(page)
    }

    /// The conflict that a candidate is in, or was.
    pub fn conflict_of_candidate(&self, candidate: &Candidate) -> Result<Option<Conflict>, Error> {
        match self.conflict_at_hand(candidate)? {
            Some(conflict) => Ok(Some(conflict)),
            None => self.conflict_opened_by(candidate),
        }
    }

    /// The conflict that a candidate is in, or was, where that is said somewhere and true.
    pub(crate) fn conflict_at_hand(&self, candidate: &Candidate) -> Result<Option<Conflict>, Error> {
        if let Some(to) = candidate.adds_to
            && self.conflict_names(to.conflict, candidate.id)?
        {
            return self.conflict(to.conflict);
        }
        match self.opened_hint(candidate) {
            Some(number) if self.opener(number)? == Some(candidate.id) => self.conflict(number),
            _ => Ok(None),
        }
    }

    /// The rows of an overlap as they were given; `None` where there are none (any more).
    pub fn conflict_rows(&self, overlap: &Overlap) -> Result<Option<Bytes>, Error> {
        let Some(name) = overlap.rows else { return Ok(None) };
        let rows = self.read_rows(SegmentId(name.hash))?;
        match rows {
            Some(rows) if rows.len() as u64 != name.bytes => {
                let object = Name::ConflictRows(SegmentId(name.hash)).path(self.id());
                Err(Error::damaged(object, Damage::Truncated))
            }
            rows => Ok(rows),
        }
    }

    /// An object of rows, which hashes to its name.
    pub(crate) fn read_rows(&self, name: SegmentId) -> Result<Option<Bytes>, Error> {
        let path = Name::ConflictRows(name).path(self.id());
        let Some(bytes) = self.shared().store.get(&path, CONFLICT_ROWS_BYTES_MAX as u64)? else {
            return Ok(None);
        };
        if hash_of(&bytes) == name.0 { Ok(Some(bytes)) } else { Err(Error::damaged(path, Damage::Checksum)) }
    }

    /// Whether a step of the conflict is about the candidate. The last ones are looked at first.
    fn conflict_names(&self, number: ConflictNumber, candidate: PushId) -> Result<bool, Error> {
        let Some(conflict) = self.conflict(number)? else { return Ok(false) };
        if conflict.overlap.candidate == candidate {
            return Ok(true);
        }
        for at in (1..conflict.last.number).rev() {
            let step = self.step_that_is(number, at)?;
            if step.kind.overlap().is_some_and(|overlap| overlap.candidate == candidate) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The conflict that a candidate opened, looked for among all that are newer than itself.
    pub(crate) fn conflict_opened_by(&self, candidate: &Candidate) -> Result<Option<Conflict>, Error> {
        for number in candidate.conflicts_before + 1..=self.conflict_count()? {
            let Some(number) = ConflictNumber::new(number) else { continue };
            match self.opener(number)? {
                Some(opener) if opener == candidate.id => return self.conflict(number),
                Some(_) => {}
                None => drop(self.step_that_is(number, 1)?),
            }
        }
        Ok(None)
    }

    /// The candidate that opened a conflict; `None` where there is none of this number. It never changes.
    fn opener(&self, number: ConflictNumber) -> Result<Option<PushId>, Error> {
        let key = (self.id(), number);
        if let Some(known) = self.shared().openers.get(&key) {
            return Ok(Some(known));
        }
        let Some(step) = self.read_step(number, 1)? else { return Ok(None) };
        let opener = step.kind.overlap().map(|overlap| overlap.candidate);
        if let Some(opener) = opener {
            self.shared().openers.put(key, opener, size_of_val(&key) + 32);
        }
        Ok(opener)
    }

    fn overlap_with_rows(&self, mut overlap: Overlap, rows: &[u8]) -> Result<Overlap, Error> {
        overlap.bounded()?;
        overlap.rows = None;
        if rows.len() > CONFLICT_ROWS_BYTES_MAX {
            return Err(Error::OutOfOrder("too many rows of a conflict"));
        }
        if !rows.is_empty() {
            let hash = hash_of(rows);
            let path = Name::ConflictRows(SegmentId(hash)).path(self.id());
            self.shared().store.put(&path, Bytes::copy_from_slice(rows))?;
            overlap.rows = Some(RowsName { hash, bytes: rows.len() as u64 });
        }
        Ok(overlap)
    }

    fn step(&self, number: u64, by: Described, kind: StepKind) -> Result<Step, Error> {
        by.bounded()?;
        if let StepKind::Settled { choices, .. } = &kind {
            bounded("what was chosen", choices, CHOICES_BYTES_MAX)?;
        }
        let nonce = crate::push::random()?;
        Ok(Step { number, time: Timestamp::now(), by, kind, nonce })
    }

    /// Whether the step of this number is ours. As with manifests, the store is asked what is there.
    fn create_step(&self, conflict: ConflictNumber, step: &Step) -> Result<bool, Error> {
        let path = Name::Conflict(conflict, step.number).path(self.id());
        let outcome = self.shared().store.create(&path, format::encode(self.id(), conflict, step)?);
        if matches!(outcome, Ok(Create::Created)) {
            return Ok(true);
        }
        match (self.read_step(conflict, step.number)?, outcome) {
            (Some(found), _) => Ok(found.nonce == step.nonce),
            (None, Err(error)) => Err(error),
            (None, Ok(_)) => Err(Error::damaged(path, Damage::Missing)),
        }
    }

    pub(crate) fn read_step(&self, conflict: ConflictNumber, number: u64) -> Result<Option<Step>, Error> {
        let path = Name::Conflict(conflict, number).path(self.id());
        let Some(bytes) = self.shared().store.get(&path, STEP_BYTES_MAX)? else { return Ok(None) };
        let found = format::decode(&bytes).map_err(|damage| Error::damaged(path.as_ref(), damage))?;
        match found {
            (replica, named, step) if (replica, named, step.number) == (self.id(), conflict, number) => {
                Ok(Some(step))
            }
            _ => Err(Error::damaged(path, Damage::Misplaced)),
        }
    }

    fn step_that_is(&self, conflict: ConflictNumber, number: u64) -> Result<Step, Error> {
        let missing = || Error::damaged(Name::Conflict(conflict, number).path(self.id()), Damage::Gap);
        self.read_step(conflict, number)?.ok_or_else(missing)
    }
}

fn hash_of(rows: &[u8]) -> [u8; 16] {
    let hash = blake3::derive_key("sqlrsync 2026 repository conflict rows", rows);
    let mut name = [0; 16];
    name.copy_from_slice(&hash[..16]);
    name
}
