//! Rows of objects that are numbered from 1 without gaps: versions and conflicts.
//!
//! The last number is found by steps that double from the last one that was seen, and without a listing. Such a
//! search ends too early at a gap (an object that was lost, or one of a copy that is still being put back): what
//! is behind it would be taken for nothing, and its number be given out again. So what a process does not know
//! yet is listed, once, and a number that is missing is damage; from then on only what comes after it is asked
//! for, and its cost does not grow with the row. A sweep, which lists all objects anyway, looks again.

use std::collections::BTreeSet;

use sqlrsync_protocol::page::{ConflictNumber, VersionNumber};

use crate::cache::Cache;
use crate::error::{Damage, Error};
use crate::id::{Name, REPLICAS, ReplicaId};
use crate::replica::Replica;
use crate::repository::Shared;

/// A row of numbered objects of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    Versions,
    Conflicts,
}

/// What a process knows of a row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    /// All numbers up to this one were there.
    last: u64,
    /// They were when they were listed last, and nothing was behind them.
    whole: bool,
}

impl Row {
    fn folder(self) -> &'static str {
        match self {
            Row::Versions => "manifests",
            Row::Conflicts => "conflicts",
        }
    }

    /// The object that is there if this number is.
    fn object(self, number: u64) -> Option<Name> {
        match self {
            Row::Versions => VersionNumber::new(number).map(Name::Manifest),
            Row::Conflicts => ConflictNumber::new(number).map(|number| Name::Conflict(number, 1)),
        }
    }

    fn number(self, name: Name) -> Option<u64> {
        match (self, name) {
            (Row::Versions, Name::Manifest(number)) => Some(number.get()),
            (Row::Conflicts, Name::Conflict(number, _)) => Some(number.get()),
            _ => None,
        }
    }

    fn cache(self, shared: &Shared) -> &Cache<ReplicaId, Known> {
        match self {
            Row::Versions => &shared.latest,
            Row::Conflicts => &shared.conflicts,
        }
    }
}

impl Replica {
    /// The last number of a row; 0 where it has none.
    ///
    /// # Errors
    /// [`Error::Damaged`] where a number is missing that has to be there.
    pub(crate) fn last_number(&self, row: Row) -> Result<u64, Error> {
        let known = row.cache(self.shared()).get(&self.id()).unwrap_or_default();
        let from = if known.whole { known.last } else { self.list_row(row, known.last)? };
        let last = last_number(from, |number| match row.object(number) {
            Some(name) => self.shared().store.exists(&name.path(self.id())),
            None => Ok(true),
        })?;
        if last != known.last || !known.whole {
            self.put_known(row, Known { last, whole: true });
        }
        Ok(last)
    }

    fn list_row(&self, row: Row, known: u64) -> Result<u64, Error> {
        let folder = format!("{REPLICAS}/{}/{}", self.id(), row.folder());
        let listed = self.shared().store.list(&object_store::path::Path::from(folder))?;
        let number = |path| Name::parse(path).and_then(|(_, name)| row.number(name));
        let listed = listed.iter().filter_map(|listed| number(&listed.path)).collect();
        self.last_listed(&listed, known, |number| row.object(number))
    }

    /// Looks at a row in a listing that was just made. Where a number is missing, what was known is not relied
    /// on any more, until it is there again.
    pub(crate) fn look_at_row(&self, row: Row, listed: &BTreeSet<u64>) -> Result<(), Error> {
        let known = row.cache(self.shared()).get(&self.id()).unwrap_or_default();
        match self.last_listed(listed, known.last, |number| row.object(number)) {
            Ok(last) => self.put_known(row, Known { last, whole: true }),
            Err(error) => {
                self.put_known(row, Known { whole: false, ..known });
                return Err(error);
            }
        }
        Ok(())
    }

    /// The last of numbers that were listed, of which none up to there and up to `known` may be missing.
    pub(crate) fn last_listed(
        &self,
        listed: &BTreeSet<u64>,
        known: u64,
        object: impl Fn(u64) -> Option<Name>,
    ) -> Result<u64, Error> {
        let listed_last = listed.last().copied().unwrap_or(0);
        let last = listed_last.max(known);
        for number in (1..=last).filter(|number| !listed.contains(number)) {
            let Some(name) = object(number) else { continue };
            let path = name.path(self.id());
            // A listing takes a while, and may lack what was made meanwhile.
            if !self.shared().store.exists(&path)? {
                let damage = if number < listed_last { Damage::Gap } else { Damage::Missing };
                return Err(Error::damaged(path, damage));
            }
        }
        Ok(last)
    }

    /// An empty row is always listed: that costs nothing, and what is copied into it may come in any order.
    fn put_known(&self, row: Row, known: Known) {
        let known = Known { whole: known.whole && known.last > 0, ..known };
        row.cache(self.shared()).put(self.id(), known, size_of::<(ReplicaId, Known)>());
    }
}

/// The last of the numbers from 1 that exists, where they have no gaps and all up to `known` do; 0 where
/// there is none.
pub(crate) fn last_number(known: u64, exists: impl Fn(u64) -> Result<bool, Error>) -> Result<u64, Error> {
    let (mut is, mut step) = (known, 1u64);
    // Numbers at and below `is` exist.
    let mut is_not = loop {
        let next = is.saturating_add(step);
        if !exists(next)? {
            break next;
        }
        is = next;
        step *= 2;
    };
    while is_not - is > 1 {
        let middle = is + (is_not - is) / 2;
        if exists(middle)? { is = middle } else { is_not = middle }
    }
    Ok(is)
}
