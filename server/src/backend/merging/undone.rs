//! Whether a push takes back what was done before its base: what a restored backup and a clone do, and somebody
//! who deletes a row as well.
//!
//! A row that the push changes is looked up in the versions before the base. Where it becomes what it was in
//! one of them, whatever changed it in between is undone. What others changed counts always. What the same
//! file pushed itself counts only where the file's change counter has not gone on since, as in a file that was
//! put back: a row may be inserted, pushed and deleted again. A base that is in no version yet is another matter:
//! what of it is undone would be nowhere any more.

use std::collections::BTreeMap;

use sqlrsync_database::rows::{self, Change, Encoding, Go, Key, Row, Statement, Table, Value, quoted};
use sqlrsync_protocol::canonical::HeaderFields;
use sqlrsync_repository::{ClientKey, Manifest, Replica, Standing};

use super::Error;
use super::push::Push;
use super::versions::{MERGE_TIME, Opened, Versions};

/// How many changed rows are looked into. Of more the first ones speak for the rest.
const ROWS_MAX: usize = 256;

/// How many versions back they are looked up.
const VERSIONS_MAX: usize = 64;

/// How long a row may be that is looked into, in bytes.
const ROW_BYTES_MAX: usize = 64 << 10;

/// A row that a push changes.
struct Changed {
    table: String,
    columns: Vec<String>,
    key: Key,
    /// What it becomes; `None` where it goes.
    becomes: Option<Row>,
    /// What it is in the version that was looked at last.
    is: Option<Row>,
    /// Others changed it between there and the base.
    by_others: bool,
    /// It was what it becomes.
    undone: bool,
}

/// Whether a push from `base` takes back what it should not without being asked. `own`: the base is what was
/// last pushed from the same file.
pub(super) fn takes_back(push: &Push<'_>, base: &Manifest, own: bool) -> Result<bool, Error> {
    let replica = push.received.replica();
    let versions = Versions::new(replica, &push.backend.maps, MERGE_TIME);
    let (mut changed, encoding) = match changed(&versions, base, push.received.content()) {
        Ok(found) => found,
        // What cannot be compared is found out by the merge, which says so.
        Err(error) => return error.of_a_content().map(|_| false),
    };
    if changed.is_empty() {
        return Ok(false);
    }
    let me = ClientKey {
        client_id: push.says.client_id.clone(),
        host: push.says.host.clone(),
        local_path: push.says.local_path.clone(),
    };
    let mut newer_is_mine = ClientKey::of(base) == me;
    // A candidate came after the version of its number less one.
    for version in replica.history(Some(base.number), VERSIONS_MAX)? {
        let opened = match versions.open(&version) {
            Ok(opened) => opened,
            Err(error) => return error.of_a_content().map(|_| true),
        };
        for row in changed.iter_mut().filter(|row| !row.undone) {
            let was = row.in_version(&opened, encoding)?;
            if was != row.is {
                row.by_others |= !newer_is_mine;
                row.undone = was == row.becomes;
                row.is = was;
            }
        }
        if changed.iter().any(|row| row.undone && row.by_others) {
            return Ok(true);
        }
        newer_is_mine = ClientKey::of(&version) == me;
    }
    let put_back = own && went_back(base.fields, push.received.fields());
    Ok((put_back || waits(replica, base)?) && changed.iter().any(|row| row.undone))
}

/// Whether a content is a candidate whose changes are in no version.
pub(super) fn waits(replica: &Replica, content: &Manifest) -> Result<bool, Error> {
    let candidate = content.candidate.map(|id| replica.candidate(id)).transpose()?.flatten();
    let standing = candidate.map(|candidate| replica.standing(&candidate)).transpose()?;
    Ok(matches!(standing, Some(Standing::Kept | Standing::InConflict(_))))
}

/// The rows that a push changes, some of them.
fn changed(
    versions: &Versions<'_>,
    base: &Manifest,
    mine: &Manifest,
) -> Result<(Vec<Changed>, Encoding), Error> {
    let (old, new, touched) = versions.compare(base, mine)?;
    let mut found = Vec::new();
    let mut sink = |change: Change| {
        if let Change::Row(row) = change
            && !row.table.is_internal()
            && row.table.columns == row.table_before.columns
            && [&row.before, &row.after].iter().all(|side| weight(side) <= ROW_BYTES_MAX)
        {
            found.push(Changed {
                table: row.table.name.clone(),
                columns: row.table.columns.iter().map(|column| column.name.clone()).collect(),
                key: row.key,
                becomes: row.after,
                is: row.before,
                by_others: false,
                undone: false,
            });
        }
        Ok(if found.len() < ROWS_MAX { Go::On } else { Go::Stop })
    };
    let (before, after) = (&old.database, &new.database);
    let summary = rows::diff(before.connection(), after.connection(), &touched, &mut sink);
    before.check()?;
    after.check()?;
    summary?;
    Ok((found, new.schema.encoding))
}

fn weight(row: &Option<Row>) -> usize {
    row.as_ref().map_or(0, Row::weight)
}

impl Changed {
    /// The row as a version has it. `None` where it has none of the kind.
    fn in_version(&self, version: &Opened, encoding: Encoding) -> Result<Option<Row>, Error> {
        let Some(table) = version.schema.table(&self.table) else { return Ok(None) };
        let same = table.columns.iter().map(|column| &column.name).eq(&self.columns);
        let Some((condition, values)) = condition(table, &self.key).filter(|_| same) else {
            return Ok(None);
        };
        let names: Vec<String> = self.columns.iter().map(|name| quoted(name)).collect();
        let sql = format!("SELECT {} FROM {} WHERE {condition}", names.join(", "), quoted(&self.table));
        let mut statement = Statement::prepare(version.database.connection(), &sql, "looking up a row")?;
        statement.bind_all(&values, encoding)?;
        // Under a collation several may be found, of which one has the very key.
        while statement.step()? {
            let row = Row { rowid: None, values: statement.values(0, encoding)? };
            let exact = match &self.key {
                Key::Rowid(_) => true,
                key => row.key(table).as_ref() == Some(key),
            };
            if exact {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }
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
    let (wal, count) = counter(now);
    let (_, counted) = counter(before);
    if wal { count < counted } else { count <= counted }
}

/// Whether the file is in WAL mode, and its change counter.
fn counter(fields: HeaderFields) -> (bool, u32) {
    const WAL: u8 = 2;
    let [write_version, _, a, b, c, d, ..] = fields.to_bytes();
    (write_version == WAL, u32::from_be_bytes([a, b, c, d]))
}
