//! The settlement of a conflict: a merge with what somebody chose, and a version like any other.
//!
//! It is settled as it was looked at: where the latest version has moved on since and there is something new to
//! choose, nothing is settled. What others did meanwhile that overlaps with nothing is merged as always.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use sqlrsync_database::merge::{Drawn, MergeOptions, Resolutions, Side};
use sqlrsync_database::rows::{self, Change, Encoding, Go, Key, Schema, Table};
use sqlrsync_database::version::VersionError;
use sqlrsync_protocol::canonical::HeaderFields;
use sqlrsync_protocol::content::ContentError;
use sqlrsync_protocol::page::{ConflictNumber, Geometry, VersionNumber};
use sqlrsync_protocol::remote::RemoteName;
use sqlrsync_repository::{
    CHOICES_BYTES_MAX, Candidate, Described, Error as Repository, MESSAGE_BYTES_MAX, Manifest, MergePages,
    MergedPages, Permission,
};
use utoipa::ToSchema;

use super::audited::Deed;
use super::conflicts::{Found, candidate_of};
use super::given_up::GivenUp;
use super::versions::{Outcome, Three, Versions};
use super::{Error, json, overlap};
use crate::access::Caller;
use crate::backend::{Backend, ClientSays, Pusher, rules};
use crate::catalog::{Audit, Intent, Pending, Subject};
use crate::refused::{Refused, Why};
use crate::sessions::Ground;

/// The most rows that may be named.
const ROWS_MAX: usize = 100_000;

/// How often others may be first.
const ATTEMPTS_MAX: u32 = 16;

/// How many rows that are left to choose are named.
const NAMED_MAX: usize = 10;

/// How many characters of each value of their keys.
const NAMED_VALUE_LEN_MAX: usize = 60;

/// Whose outcome counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The latest version's.
    Theirs,
    /// The candidate's.
    Mine,
}

impl Keep {
    const fn side(self) -> Side {
        match self {
            Keep::Theirs => Side::Theirs,
            Keep::Mine => Side::Mine,
        }
    }
}

/// What somebody chose.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Settlement {
    /// For all that `rows` does not name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// For single rows.
    #[serde(default)]
    pub rows: Vec<Chosen>,
    /// What the version is about.
    #[serde(default)]
    pub message: String,
    /// The version that the rows were compared with when they were looked at: `theirs` of the conflict. Where
    /// it is left out, the one that the conflict was opened against.
    #[serde(default, alias = "seen", skip_serializing_if = "Option::is_none")]
    pub latest: Option<u64>,
}

/// A row, and what becomes of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Chosen {
    /// Its table.
    pub table: String,
    /// Its key, as the conflict's rows have it.
    #[schema(value_type = Object)]
    pub key: Map<String, Json>,
    /// Whose outcome counts.
    pub keep: Keep,
}

/// A settlement under way.
struct Settling<'a> {
    backend: &'a Arc<Backend>,
    caller: &'a Caller,
    address: Option<IpAddr>,
    found: &'a Found,
    candidate: Candidate,
    wanted: &'a Settlement,
    cancel: &'a Arc<AtomicBool>,
}

impl Backend {
    /// Settles a conflict: gives the version that came of it. The push's turn is the caller's. It stops when
    /// `cancel` becomes true, unless the version is being made by then.
    ///
    /// # Errors
    /// [`Why::NotAllowed`]; [`Why::Conflict`] where there is more to choose, or it is over.
    pub fn settle(
        self: &Arc<Backend>,
        caller: &Caller,
        name: &RemoteName,
        number: ConflictNumber,
        wanted: &Settlement,
        address: Option<IpAddr>,
        cancel: &Arc<AtomicBool>,
    ) -> Result<VersionNumber, Refused> {
        let bad = |what: &str| Err(Refused::new(Why::BadRequest, what));
        if wanted.keep.is_none() && wanted.rows.is_empty() {
            return bad("say what is kept: theirs or mine, for all rows or by row");
        }
        if wanted.rows.len() > ROWS_MAX || wanted.message.len() > MESSAGE_BYTES_MAX {
            return bad("that is more than a settlement may have");
        }
        for _ in 0..ATTEMPTS_MAX {
            let found = self.find_conflict(caller, name, number)?;
            caller.may_settle(&found.record)?;
            self.conclude_pending(Some(&found.record.id))?;
            if let Some(version) = found.ended {
                let text = format!("conflict {number} of {name} is over: it ended with version {version}");
                return Err(Refused::new(Why::Conflict, text));
            }
            let candidate = candidate_of(&found.replica, &found.conflict)?;
            let settling =
                Settling { backend: self, caller, address, found: &found, candidate, wanted, cancel };
            let latest = found.replica.latest()?;
            let latest =
                latest.ok_or_else(|| Refused::new(Why::NotFound, format!("{name} has no version")))?;
            settling.is_as_it_was_seen(&latest)?;
            if let Some(version) = settling.attempt(&latest)? {
                return Ok(version);
            }
        }
        Err(Refused::new(Why::TryLater, "others were first again and again: try again later"))
    }
}

impl Settling<'_> {
    /// Refuses where there is something to choose that was not there when somebody looked.
    fn is_as_it_was_seen(&self, latest: &Manifest) -> Result<(), Refused> {
        let Found { record, replica, conflict, .. } = self.found;
        let seen = self.wanted.latest.unwrap_or(conflict.overlap.theirs.get());
        if seen == latest.number.get() {
            return Ok(());
        }
        let moved = |what: &str| {
            let text =
                format!("version {} came meanwhile, {what}: look at the conflict again", latest.number);
            Err(Refused::new(Why::Conflict, text))
        };
        let then = VersionNumber::new(seen).map(|seen| replica.manifest(seen)).transpose()?.flatten();
        let Some(then) = then.filter(|then| then.number < latest.number) else {
            return moved("and what was looked at is not known");
        };
        if GivenUp::of(conflict).is_some() {
            // Of what others did since nothing is shown. Theirs has it all the same.
            return match self.wanted.keep {
                Some(Keep::Theirs) if self.wanted.rows.is_empty() => Ok(()),
                _ => moved("and what it brought could not be compared"),
            };
        }
        let shown = |at: &Manifest| {
            let against = (at, record.policy);
            self.backend.shown_against(replica, conflict, &self.candidate, against, self.cancel)
        };
        let (then, now) = (shown(&then)?, shown(latest)?);
        let listed = |shown: &super::shown::Shown| shown.lines().count() as u64 == shown.row_count;
        if !listed(&then) || !listed(&now) {
            return moved("and the conflict has more rows than are kept to compare");
        }
        let known: HashSet<&[u8]> = then.lines().collect();
        let new = now.lines().filter(|line| !known.contains(line) || is_cut(line)).count();
        if new > 0 || now.reasons.iter().any(|reason| !then.reasons.contains(reason)) {
            return moved(&format!("with {new} rows that are new to choose"));
        }
        Ok(())
    }

    /// `None` where somebody was first.
    fn attempt(&self, latest: &Manifest) -> Result<Option<VersionNumber>, Refused> {
        let Found { record, replica, conflict, .. } = self.found;
        let versions = self.backend.to_merge(replica).cancelled_by(self.cancel.clone());
        let base = conflict.overlap.merge_base.as_ref().map(|base| replica.merge_base(base)).transpose()?;
        let base = base.flatten();
        let whole = self.wanted.keep.filter(|_| self.wanted.rows.is_empty());
        if let Some(keep) = whole
            && (base.is_none() || GivenUp::of(conflict).is_some())
        {
            // Without a base there is nothing to put together: each row that differs is somebody's to choose. And
            // what was given up takes as much again; the conflict says what is taken then.
            return self.take_whole(latest, keep);
        }
        let outcome = self.resolutions(&versions, base.as_ref(), latest).and_then(|resolve| {
            let options = MergeOptions {
                cells: record.policy.cells,
                renumber: record.policy.renumber,
                limits: overlap::limits(),
            };
            // Where it is not known what the candidate was made from, each row in which it differs is chosen.
            let base = base.as_ref().unwrap_or(latest);
            versions.merge(Three { base, theirs: latest, mine: &self.candidate.content }, &options, &resolve)
        });
        match (outcome, whole) {
            (Ok(Outcome::Merged { on, mut written, drawn, encoding, .. }), _) => {
                self.was_shown(latest, &drawn, encoding)?;
                let on = if on == Side::Theirs { latest } else { &self.candidate.content };
                let header = (written.geometry, written.fields);
                let mut pages =
                    written.pages().map(|page| page.map_err(|error| Box::new(error) as ContentError));
                self.commit(latest, on, header, &mut pages)
            }
            // Nothing can be put together here: one of the two as it is.
            (Ok(Outcome::Conflict(conflict, _)), Some(keep)) if !conflict.can_be_settled() => {
                self.take_whole(latest, keep)
            }
            (Ok(Outcome::Conflict(conflict, encoding)), _) => Err(left_to_choose(&conflict, encoding)),
            (Err(error), _) => self.failed(error, latest, whole),
        }
    }

    /// Refuses where the choice for all would take rows that were not among those to choose. What either side
    /// alone draws in is; what a choice by row and one for all draw in together need not be.
    fn was_shown(&self, latest: &Manifest, drawn: &Drawn, encoding: Encoding) -> Result<(), Refused> {
        if drawn.count == 0 {
            return Ok(());
        }
        let Found { record, replica, conflict, .. } = self.found;
        let against = (latest, record.policy);
        let shown = self.backend.shown_against(replica, conflict, &self.candidate, against, self.cancel)?;
        let known: HashSet<(String, String)> = shown.lines().filter_map(named_by).collect();
        if known.len() as u64 != shown.row_count {
            // More than are kept: whoever settles it had to name the version.
            return Ok(());
        }
        let is_new = |(table, key): &&(Arc<Table>, Key)| {
            !known.contains(&(table.name.clone(), json::key(table, key, encoding).to_string()))
        };
        let new: Vec<_> = drawn.rows.iter().filter(is_new).collect();
        if new.is_empty() {
            return Ok(());
        }
        let rows = named(new.iter().map(|(table, key)| (&**table, key)), new.len() as u64, encoding);
        let text = format!(
            "nothing was settled: what is kept breaks a constraint together with {} rows that the conflict does \
             not show{rows}; choose otherwise, or keep one side for all rows",
            new.len()
        );
        Err(Refused::new(Why::Conflict, sqlrsync_protocol::text::printable(&text)))
    }

    /// Where nothing could be put together; `whole`: the side that is kept for all.
    fn failed(
        &self,
        error: Error,
        latest: &Manifest,
        whole: Option<Keep>,
    ) -> Result<Option<VersionNumber>, Refused> {
        match (error.given_up(), whole) {
            (Some(_), Some(Keep::Theirs)) => self.take_whole(latest, Keep::Theirs),
            // Mine would take back what others did, for no better reason than that this took much.
            (Some(given_up), _) => {
                let why = if given_up == GivenUp::Time { Why::TryLater } else { Why::Conflict };
                Err(Refused::new(why, given_up.of_a_settlement()))
            }
            (None, Some(keep)) => {
                error.of_a_content()?;
                self.take_whole(latest, keep)
            }
            (None, None) => Err(error.into()),
        }
    }

    fn take_whole(&self, latest: &Manifest, keep: Keep) -> Result<Option<VersionNumber>, Refused> {
        let on = if keep == Keep::Theirs { latest } else { &self.candidate.content };
        self.commit(latest, on, (on.geometry, on.fields), &mut std::iter::empty())
    }

    /// What was chosen, as the merge takes it.
    fn resolutions(
        &self,
        versions: &Versions<'_>,
        base: Option<&Manifest>,
        latest: &Manifest,
    ) -> Result<Resolutions, Error> {
        let mut chosen: HashMap<(String, Key), Side> = HashMap::new();
        if !self.wanted.rows.is_empty() {
            let schemas = [versions.open(latest)?.schema, versions.open(&self.candidate.content)?.schema];
            for row in &self.wanted.rows {
                let key = key_of(&schemas, row).ok_or_else(|| Error::NoSuchRow(row.table.clone()))?;
                note(&mut chosen, (row.table.clone(), key), row.keep.side())?;
            }
        }
        let default = self.wanted.keep.map(Keep::side);
        if base.is_none() {
            self.choose_all(versions, latest, &mut chosen)?;
        }
        Ok(Resolutions { default, rows: chosen })
    }

    /// Names each row in which the candidate differs from the latest version: without a base all of them are
    /// somebody's to choose, and to a merge none is.
    fn choose_all(
        &self,
        versions: &Versions<'_>,
        latest: &Manifest,
        chosen: &mut HashMap<(String, Key), Side>,
    ) -> Result<(), Error> {
        let default = self.wanted.keep.map(Keep::side);
        let (old, new, touched) = versions.compare(latest, &self.candidate.content)?;
        let (mut missing, mut schemas_differ) = (0, false);
        let mut sink = |change: Change| {
            let Change::Row(change) = change else {
                schemas_differ = true;
                return Ok(Go::Stop);
            };
            let name = (change.table.name.clone(), change.key);
            match (chosen.entry(name), default) {
                (Entry::Occupied(_), _) => {}
                (Entry::Vacant(row), Some(side)) => drop(row.insert(side)),
                (Entry::Vacant(_), None) => missing += 1,
            }
            Ok(if chosen.len() > ROWS_MAX { Go::Stop } else { Go::On })
        };
        let (old, new) = (&old.database, &new.database);
        let summary = rows::diff(old.connection(), new.connection(), &touched, &mut sink);
        old.check()?;
        new.check()?;
        let stopped = summary?.stopped;
        if schemas_differ {
            return Err(Error::SchemasDiffer);
        }
        if stopped {
            return Err(Error::TooManyRows(ROWS_MAX));
        }
        if missing > 0 { Err(Error::LeftToChoose(missing)) } else { Ok(()) }
    }

    fn commit(
        &self,
        latest: &Manifest,
        on: &Manifest,
        (geometry, fields): (Geometry, HeaderFields),
        pages: &mut MergedPages<'_>,
    ) -> Result<Option<VersionNumber>, Refused> {
        let Found { record, replica, conflict, .. } = self.found;
        let key = self.caller.key();
        let described = Described {
            author: key.map(|key| key.label.clone()).unwrap_or_default(),
            message: if self.wanted.message.is_empty() {
                format!("settles conflict {}", conflict.number)
            } else {
                self.wanted.message.clone()
            },
            ..Described::default()
        };
        let ground = Ground { key: key.map(|key| key.id), open_replica: None };
        let backend = self.backend.clone();
        let merge = MergePages {
            after: latest,
            candidate: &self.candidate,
            on,
            geometry,
            fields,
            ends: Some(conflict),
            settled: true,
            described: described.clone(),
            permission: Permission::new(move || backend.still_holds(&ground).is_ok()),
        };
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::from(VersionError::Cancelled).into());
        }
        let mut deed = Deed::default();
        deed.announce(self.backend, || self.pending(latest))?;
        let version = match replica.commit_merge(&merge, pages) {
            Ok(Some(version)) => version,
            // Looked at again, it says what has become of it.
            Ok(None) | Err(Repository::InConflict(_) | Repository::ConflictIsOver { .. }) => {
                deed.conclude(self.backend, true);
                return Ok(None);
            }
            // It may have been made all the same.
            Err(error) => return Err(error.into()),
        };
        let Pending { actor, subject, details, .. } = self.pending(latest);
        let subject = subject.version(version.number.get());
        deed.came_to(Audit { actor, action: "conflict-settled", subject, details });
        deed.conclude(self.backend, true);
        let choices = serde_json::to_string(self.wanted).unwrap_or_default();
        let choices = if choices.len() > CHOICES_BYTES_MAX { String::new() } else { choices };
        replica.end_conflict(conflict, &version, choices, described)?;
        self.backend.notices.announce(&record.name(), version.number, Pusher::default());
        Ok(Some(version.number))
    }
}

impl Settling<'_> {
    /// For the audit log, before it is done.
    fn pending(&self, latest: &Manifest) -> Pending {
        let Found { record, conflict, .. } = self.found;
        let content = &self.candidate.content;
        Pending {
            what: Intent::Settle,
            actor: rules::actor(self.caller, self.address, &ClientSays::default()),
            subject: Subject::replica(record).conflict(conflict.number.get()),
            latest: latest.number.get(),
            candidate: Some(self.candidate.id.0),
            kept: true,
            root: content.root.to_string(),
            pushed: content.time.to_string(),
            details: json!({
                "keep": self.wanted.keep, "rows": self.wanted.rows.len(), "onto": latest.number.get(),
            }),
        }
    }
}

/// Whether a line of a row has values that were cut: then it does not say all of the row.
fn is_cut(line: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Row {
        #[serde(default)]
        cut: Vec<String>,
    }
    serde_json::from_slice::<Row>(line).map_or(true, |row| !row.cut.is_empty())
}

fn key_of(schemas: &[Schema], row: &Chosen) -> Option<Key> {
    schemas.iter().find_map(|schema| json::parse_key(schema.table(&row.table)?, schema.encoding, &row.key))
}

/// What is in conflict still. Rows that break a constraint together with what was chosen were in no listing, so
/// some are named.
fn left_to_choose(conflict: &sqlrsync_database::merge::Conflict, encoding: Encoding) -> Refused {
    let rows = conflict.rows.iter().map(|row| (&*row.table, &row.key));
    let rows = named(rows, conflict.row_count, encoding);
    let mut text = format!("nothing was settled: {} rows are left to choose{rows}", conflict.row_count);
    for reason in conflict.reasons.iter().take(4) {
        text.push_str("; ");
        text.push_str(&reason.to_string());
    }
    Refused::new(Why::Conflict, sqlrsync_protocol::text::printable(&text))
}

/// The first of so many rows, after a colon.
fn named<'r>(rows: impl Iterator<Item = (&'r Table, &'r Key)>, count: u64, encoding: Encoding) -> String {
    let name = |(table, key): (&Table, &Key)| {
        format!("{}:{}", table.name, json::key_text(key, encoding, NAMED_VALUE_LEN_MAX))
    };
    let names = rows.take(NAMED_MAX).map(name).collect::<Vec<_>>().join(", ");
    let more = if count > NAMED_MAX as u64 { ", ..." } else { "" };
    if names.is_empty() { names } else { format!(": {names}{more}") }
}

/// The row that a line of a listing is about.
fn named_by(line: &[u8]) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Row {
        table: String,
        key: Json,
    }
    let Row { table, key } = serde_json::from_slice(line).ok()?;
    Some((table, key.to_string()))
}

/// Notes what was chosen for a row. One that is to be as both sides have it is nobody's choice.
fn note(chosen: &mut HashMap<(String, Key), Side>, row: (String, Key), side: Side) -> Result<(), Error> {
    match chosen.entry(row) {
        Entry::Occupied(held) if *held.get() != side => Err(Error::ChosenTwice(held.key().0.clone())),
        Entry::Occupied(_) => Ok(()),
        Entry::Vacant(row) => {
            row.insert(side);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_chosen_of_both_sides_is_refused() {
        let mut chosen = HashMap::new();
        let row = || ("t".to_owned(), Key::Rowid(1));
        note(&mut chosen, row(), Side::Mine).unwrap();
        note(&mut chosen, row(), Side::Mine).unwrap();
        let refused = note(&mut chosen, row(), Side::Theirs).unwrap_err();
        assert!(matches!(&refused, Error::ChosenTwice(table) if table == "t"));
        assert_eq!(chosen.values().collect::<Vec<_>>(), [&Side::Mine]);
    }
}
