//! Whether a push takes back what was done before its base: what a restored backup and a clone do, and somebody
//! who deletes a row as well.
//!
//! What the push changes, a row or a thing of the schema, is looked up in the versions before the base. Where it
//! becomes what it was in one of them, whatever changed it in between is undone. What others changed counts
//! always. What the same file pushed itself counts only where the file's change counter has not gone on since,
//! as in a file that was put back: a row may be inserted, pushed and deleted again. So it is with a base that
//! waits in a conflict. One of which nobody knows what it was made from is another matter: it may be a clone's,
//! and what of it is undone would be nowhere any more.
//!
//! And the other way round: what becomes what it was in a version after the base, and is not in the latest one any
//! more, was not done by this push. The file was made from something later, as a copy of another file is that was
//! pushed, and what undid it since would be undone in turn.
//!
//! Not everything can be looked into. Where too much was left out, or nothing can be read, it counts as taken
//! back as soon as others pushed: a conflict loses nothing, and a push that is let through in error does.

use std::collections::BTreeMap;

use sqlrsync_database::rows::{
    self, Change, Encoding, Go, Key, ObjectKind, Row, RowChange, SchemaChange, Statement, Table, Value,
    quoted,
};
use sqlrsync_protocol::canonical::HeaderFields;
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_repository::{Candidate, ClientKey, Manifest, Replica, Standing};

use super::Error;
use super::push::Push;
use super::versions::{Opened, Versions};

/// How many deleted and updated rows are looked into, and as many inserted ones.
const ROWS_MAX: usize = 1024;

/// How many versions back everything is looked up.
const VERSIONS_MAX: usize = 64;

/// Of how many things it is found out which version changed them, before those.
const BISECTED_MAX: usize = 8;

/// How long the key of a row may be that is looked into, in bytes.
const KEY_BYTES_MAX: usize = 4 << 10;

/// Something that a push changes.
struct Changed {
    what: What,
    /// What it becomes.
    becomes: State,
    /// What it is in the version that was looked at last.
    is: State,
    /// Others changed it between there and the base.
    by_others: bool,
    /// It was what it becomes.
    undone: bool,
}

/// What it is.
enum What {
    /// A row of a table with these columns.
    Row { table: String, columns: Vec<String>, key: Key },
    /// Something of the schema.
    Object { kind: ObjectKind, name: String },
}

/// A hash of what something was: of a row or a statement, which may be long. `None` where there is none.
type State = Option<blake3::Hash>;

/// What a push changes.
#[derive(Default)]
struct Found {
    /// What was or is there before.
    changed: Vec<Changed>,
    /// Rows that it brings. They are looked into after the others: what they undo is a deletion, and nothing is
    /// gone by that.
    inserted: Vec<Changed>,
    /// Something that was there before is left out.
    left_out: bool,
}

/// Whether a push from `base` takes back what it should not without being asked. `own`: the base is what was
/// last pushed from the same file.
pub(super) fn takes_back(
    push: &Push<'_>,
    base: &Manifest,
    latest: &Manifest,
    own: bool,
) -> Result<bool, Error> {
    let replica = push.received.replica();
    let put_back = own && went_back(base.fields, push.received.fields());
    let me = ClientKey {
        client_id: push.says.client_id.clone(),
        host: push.says.host.clone(),
        local_path: push.says.local_path.clone(),
    };
    let waiting = waiting(replica, base)?;
    let history = replica.history(before(replica, base, waiting.as_ref())?, VERSIONS_MAX)?;
    let others = history.iter().chain([base]).any(|version| ClientKey::of(version) != me);
    let versions = push.backend.to_merge(replica);
    let (found, encoding) = match found(&versions, base, push.received.content()) {
        Ok(found) => found,
        Err(error) => return error.stays_unknown().map(|()| others || put_back),
    };
    let Found { mut changed, inserted, left_out } = found;
    if left_out && (others || put_back) {
        return Ok(true);
    }
    changed.extend(inserted);
    if changed.is_empty() {
        return Ok(false);
    }
    let unknown = others || put_back;
    let mut look = Look { replica, versions: &versions, me, encoding, changed, bisected: 0 };
    let since = since(replica, base, latest)?;
    let taken_back = match look.does_again(latest, &since) {
        Ok(false) => match look.through(base, &history) {
            Ok(false) => look.further_back(&history),
            found => found,
        },
        found => found,
    };
    match taken_back {
        Ok(false) => Ok((put_back || waiting.is_some_and(|waiting| is_lost(&waiting, own)))
            && look.changed.iter().any(|one| one.undone)),
        Ok(true) => Ok(true),
        Err(error) => error.stays_unknown().map(|()| unknown),
    }
}

/// Looking up in older versions what a push changes.
struct Look<'a> {
    replica: &'a Replica,
    versions: &'a Versions<'a>,
    me: ClientKey,
    encoding: Encoding,
    changed: Vec<Changed>,
    /// Of how many it was found out who changed them long ago.
    bisected: usize,
}

impl Look<'_> {
    /// Whether something becomes what it was in one of these versions, which are older than the latest, and is
    /// there no more.
    fn does_again(&self, latest: &Manifest, since: &[Manifest]) -> Result<bool, Error> {
        if since.is_empty() {
            return Ok(false);
        }
        let Some(now) = self.open(latest)? else { return Ok(false) };
        let mut left = Vec::new();
        for one in &self.changed {
            if one.what.in_version(&now, self.encoding)?.is_some_and(|is| is != one.becomes) {
                left.push(one);
            }
        }
        for version in since {
            let Some(opened) = self.open(version)?.filter(|_| !left.is_empty()) else { continue };
            for one in &left {
                if one.what.in_version(&opened, self.encoding)?.is_some_and(|was| was == one.becomes) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Whether what others did in these versions, or in the base after them, is undone.
    fn through(&mut self, base: &Manifest, history: &[Manifest]) -> Result<bool, Error> {
        let mut by_others = ClientKey::of(base) != self.me;
        for version in history {
            let is_theirs = ClientKey::of(version) != self.me;
            let Some(opened) = self.open(version)? else {
                // The next one shows what was changed since all the same.
                by_others |= is_theirs;
                continue;
            };
            for one in self.changed.iter_mut().filter(|one| !one.undone) {
                let Some(was) = one.what.in_version(&opened, self.encoding)? else { continue };
                if was != one.is {
                    one.by_others |= by_others;
                    one.undone = was == one.becomes;
                    one.is = was;
                }
            }
            if self.changed.iter().any(|one| one.undone && one.by_others) {
                return Ok(true);
            }
            by_others = is_theirs;
        }
        Ok(false)
    }

    /// Whether what others did before these versions is undone. Of those, one after the other is left out: twice
    /// as many each time.
    fn further_back(&mut self, history: &[Manifest]) -> Result<bool, Error> {
        let Some(mut newer) = history.last().map(|version| version.number) else { return Ok(false) };
        let mut step = VERSIONS_MAX as u64;
        while newer > VersionNumber::FIRST {
            let older = newer.back(step).unwrap_or(VersionNumber::FIRST);
            step = step.saturating_mul(2);
            let version = self.replica.manifest(older)?;
            let opened = version.map(|version| self.open(&version)).transpose()?.flatten();
            // Older ones are gone as well.
            let Some(opened) = opened else { return Ok(false) };
            for place in 0..self.changed.len() {
                if self.changed[place].undone {
                    continue;
                }
                let Some(was) = self.changed[place].what.in_version(&opened, self.encoding)? else {
                    continue;
                };
                if was == self.changed[place].is {
                    continue;
                }
                let undone = was == self.changed[place].becomes;
                (self.changed[place].is, self.changed[place].undone) = (was, undone);
                if undone && (self.changed[place].by_others || self.changed_by_others(place, older, newer)?) {
                    return Ok(true);
                }
            }
            newer = older;
        }
        Ok(false)
    }

    /// Whether others changed what was in `older` as it becomes now, and in `newer` was not any more.
    fn changed_by_others(
        &mut self,
        place: usize,
        mut older: VersionNumber,
        mut newer: VersionNumber,
    ) -> Result<bool, Error> {
        if self.bisected >= BISECTED_MAX {
            return Ok(false);
        }
        self.bisected += 1;
        let one = &self.changed[place];
        while let Some(between) = between(older, newer) {
            let version = self.replica.manifest(between)?;
            let opened = version.map(|version| self.open(&version)).transpose()?.flatten();
            let Some(opened) = opened else { return Ok(true) };
            match one.what.in_version(&opened, self.encoding)? {
                Some(was) if was == one.becomes => older = between,
                _ => newer = between,
            }
        }
        Ok(self.replica.manifest(newer)?.is_none_or(|version| ClientKey::of(&version) != self.me))
    }

    /// Opens a version; `None` where its pages are gone.
    fn open(&self, version: &Manifest) -> Result<Option<Opened>, Error> {
        match self.versions.open(version) {
            Ok(opened) => Ok(Some(opened)),
            Err(Error::Repository(sqlrsync_repository::Error::Expired(_))) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The versions between a base and the latest, newest first; of many the last ones.
fn since(replica: &Replica, base: &Manifest, latest: &Manifest) -> Result<Vec<Manifest>, Error> {
    let mut versions = replica.history(Some(latest.number), VERSIONS_MAX)?;
    // A candidate came after the version of its number less one.
    let oldest = base.number.get() + u64::from(!base.is_candidate());
    versions.retain(|version| version.number.get() >= oldest);
    Ok(versions)
}

/// Whether what is undone of a candidate that waits would be nowhere any more, and may be another's.
fn is_lost(waiting: &Candidate, own: bool) -> bool {
    !own || waiting.merge_base.is_none()
}

/// The versions that a content came from are the ones before this. (A candidate came after the version of its
/// number less one.) What waits has nothing of what others did
/// since its own base.
fn before(
    replica: &Replica,
    content: &Manifest,
    waiting: Option<&Candidate>,
) -> Result<Option<VersionNumber>, Error> {
    let base = waiting.and_then(|waiting| waiting.merge_base);
    let base = base.map(|base| replica.merge_base(&base)).transpose()?.flatten();
    Ok(match base {
        Some(base) if base.is_candidate() => Some(base.number),
        Some(base) => base.number.next(),
        None => Some(content.number),
    })
}

/// Whether a content is a candidate whose changes are in no version.
pub(super) fn waits(replica: &Replica, content: &Manifest) -> Result<bool, Error> {
    Ok(waiting(replica, content)?.is_some())
}

fn waiting(replica: &Replica, content: &Manifest) -> Result<Option<Candidate>, Error> {
    let candidate = content.candidate.map(|id| replica.candidate(id)).transpose()?.flatten();
    let Some(candidate) = candidate else { return Ok(None) };
    let waits = matches!(replica.standing(&candidate)?, Standing::Kept | Standing::InConflict(_));
    Ok(waits.then_some(candidate))
}

/// What a push changes, as far as there is room.
fn found(versions: &Versions<'_>, base: &Manifest, mine: &Manifest) -> Result<(Found, Encoding), Error> {
    let (old, new, touched) = versions.compare(base, mine)?;
    let mut found = Found::default();
    let mut sink = |change: Change| {
        match change {
            Change::Schema(change) => found.changed.push(Changed::object(change)),
            Change::Row(row) => found.row(row),
        }
        Ok(if found.left_out { Go::Stop } else { Go::On })
    };
    let (before, after) = (&old.database, &new.database);
    let summary = rows::diff(before.connection(), after.connection(), &touched, &mut sink);
    before.check()?;
    after.check()?;
    summary?;
    Ok((found, new.schema.encoding))
}

impl Found {
    fn row(&mut self, row: RowChange) {
        // Of a table whose columns change, that change is looked into.
        if row.table.is_internal() || row.table.columns != row.table_before.columns {
            return;
        }
        let (to, is_insert) = match row.before {
            None => (&mut self.inserted, true),
            Some(_) => (&mut self.changed, false),
        };
        if to.len() >= ROWS_MAX || key_len(&row.key) > KEY_BYTES_MAX {
            self.left_out |= !is_insert;
            return;
        }
        to.push(Changed {
            becomes: row.after.as_ref().map(hash_of_row),
            is: row.before.as_ref().map(hash_of_row),
            what: What::Row {
                table: row.table.name.clone(),
                columns: row.table.columns.iter().map(|column| column.name.clone()).collect(),
                key: row.key,
            },
            by_others: false,
            undone: false,
        });
    }
}

impl Changed {
    fn object(change: SchemaChange) -> Changed {
        let hash = |sql: Option<String>| sql.map(|sql| blake3::hash(sql.as_bytes()));
        Changed {
            becomes: hash(change.after),
            is: hash(change.before),
            what: What::Object { kind: change.kind, name: change.name },
            by_others: false,
            undone: false,
        }
    }
}

impl What {
    /// As a version has it; `None` where it is there in another form, which says nothing.
    fn in_version(&self, version: &Opened, encoding: Encoding) -> Result<Option<State>, Error> {
        match self {
            What::Row { table, columns, key } => {
                let found = row_in(version, (table, columns, key), encoding);
                // What lies below SQLite says more than SQLite can.
                version.database.check()?;
                found
            }
            What::Object { kind, name } => {
                let schema = &version.schema;
                let text = match kind {
                    ObjectKind::ApplicationId => Some(schema.application_id.to_string()),
                    ObjectKind::UserVersion => Some(schema.user_version.to_string()),
                    _ => {
                        let mut objects = schema.objects.iter();
                        let object = objects.find(|object| object.kind == *kind && object.name == *name);
                        object.and_then(|object| object.sql.clone())
                    }
                };
                Ok(Some(text.map(|text| blake3::hash(text.as_bytes()))))
            }
        }
    }
}

fn row_in(
    version: &Opened,
    (table, columns, key): (&str, &[String], &Key),
    encoding: Encoding,
) -> Result<Option<State>, Error> {
    let Some(table) = version.schema.table(table) else { return Ok(Some(None)) };
    let Some((condition, values)) = condition(table, key) else { return Ok(None) };
    let names: Vec<String> = table.columns.iter().map(|column| quoted(&column.name)).collect();
    let sql = format!("SELECT {} FROM {} WHERE {condition}", names.join(", "), quoted(&table.name));
    let mut statement = Statement::prepare(version.database.connection(), &sql, "looking up a row")?;
    statement.bind_all(&values, encoding)?;
    // Under a collation several may be found, of which one has the very key.
    while statement.step()? {
        let row = Row { rowid: None, values: statement.values(0, encoding)? };
        let exact = match key {
            Key::Rowid(_) => true,
            key => row.key(table).as_ref() == Some(key),
        };
        if exact {
            let same = table.columns.iter().map(|column| &column.name).eq(columns);
            return Ok(same.then(|| Some(hash_of_row(&row))));
        }
    }
    Ok(Some(None))
}

/// The version in the middle of two; `None` where there is none between them.
fn between(older: VersionNumber, newer: VersionNumber) -> Option<VersionNumber> {
    let middle = older.get() + (newer.get() - older.get()) / 2;
    VersionNumber::new(middle).filter(|middle| *middle > older)
}

fn key_len(key: &Key) -> usize {
    match key {
        Key::Rowid(_) => 0,
        Key::Declared(values) => values.iter().map(|value| size_of::<Value>() + value.len()).sum(),
    }
}

fn hash_of_row(row: &Row) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for value in &row.values {
        let (kind, bytes): (u8, &[u8]) = match value {
            Value::Null => (0, &[]),
            Value::Integer(value) => (1, &value.to_be_bytes()),
            Value::Real(value) => (2, &value.to_bits().to_be_bytes()),
            Value::Text(bytes) => (3, bytes),
            Value::Blob(bytes) => (4, bytes),
        };
        hasher.update(&[kind]).update(&(bytes.len() as u64).to_be_bytes()).update(bytes);
    }
    hasher.finalize()
}

/// What finds a row by its key.
fn condition(table: &Table, key: &Key) -> Option<(String, Vec<Value>)> {
    match key {
        Key::Rowid(rowid) => Some((format!("{} = ?1", table.rowid.as_ref()?), vec![Value::Integer(*rowid)])),
        Key::Declared(values) => {
            let columns: Vec<_> = table.key.iter().filter_map(|column| table.columns.get(*column)).collect();
            let parts = columns.iter().enumerate();
            let parts: BTreeMap<usize, String> = parts
                .map(|(place, column)| (place, format!("{} = ?{}", quoted(&column.name), place + 1)))
                .collect();
            let condition = parts.into_values().collect::<Vec<_>>().join(" AND ");
            (columns.len() == values.len() && !columns.is_empty()).then(|| (condition, values.clone()))
        }
    }
}

/// Whether the change counter says that a file is none that came after: with a rollback journal every change
/// counts, and in WAL mode not each does.
fn went_back(before: HeaderFields, now: HeaderFields) -> bool {
    let (count, counted) = (now.change_counter(), before.change_counter());
    if now.is_wal() { count < counted } else { count <= counted }
}
