//! What clients did and said, by replica: pushes, pulls, announced pushes and reported failures.
//!
//! - Nothing depends on it: it is there to be shown. So it is written in batches, by a connection of its
//!   own, and without waiting for the disk: a power cut may cost the last batches, a killed server none
//!   that was written. Keys and names keep their own, stricter connection.
//! - It is bounded by the maxima below; the oldest goes first. Each [`Standing`] has its own room, so that
//!   nobody without a key can push out who has one.
//! - Names of clients are what they say of themselves: made printable and bounded, and no proof of
//!   anything.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_protocol::text::printable;

use super::{BUSY_WAIT, Error, schema};

/// The most clients of a replica that are kept, of each [`Standing`].
pub const CLIENTS_MAX: u32 = 500;

/// The most reports of one client of a replica.
pub const CLIENT_REPORTS_MAX: u32 = 8;

/// The most reports of a replica.
pub const REPLICA_REPORTS_MAX: u32 = 200;

/// Longest client id and host name that is kept, in bytes; what is longer is cut.
const WORD_BYTES_MAX: usize = 255;

/// Longest path of a client's database that is kept, in bytes; what is longer is cut.
const LOCAL_PATH_BYTES_MAX: usize = 1024;

/// Longest text of a report that is kept, in bytes; what is longer is cut.
const ERROR_BYTES_MAX: usize = 1000;

/// Who did something, in its own words.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct ClientName {
    /// Its id: stable for a machine; empty where it has none.
    pub client_id: String,
    /// What its machine is called; empty where it does not say (the public client does on a push only).
    pub host: String,
    /// The database on that machine; empty where it does not say (on a pull nobody does).
    pub local_path: String,
}

impl ClientName {
    /// A name out of what a client says: made printable, and cut.
    pub fn new(client_id: &str, host: &str, local_path: &str) -> ClientName {
        ClientName {
            client_id: bounded(client_id, WORD_BYTES_MAX),
            host: bounded(host, WORD_BYTES_MAX),
            local_path: bounded(local_path, LOCAL_PATH_BYTES_MAX),
        }
    }

    /// Whether two names may be one client's: what both say is the same.
    pub fn may_be(&self, other: &ClientName) -> bool {
        let agree = |one: &str, other: &str| one.is_empty() || other.is_empty() || one == other;
        self.client_id == other.client_id
            && agree(&self.host, &other.host)
            && agree(&self.local_path, &other.local_path)
    }
}

/// What stands behind what a client says; the higher ones keep their place when the lower ones throng.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Standing {
    /// It pulled, and showed no key that is for the replica.
    Anybody = 0,
    /// It pulled with a key for the replica.
    Puller = 1,
    /// It has pushed, announced or reported, with a key that may push.
    Pusher = 2,
}

/// A push that keeps failing, as its client reports it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The error, in one line.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Since when it fails, by the client's clock; `None` where it does not say.
    pub since: Option<Timestamp>,
}

impl Report {
    /// A report out of what a client says: its text made printable, and cut.
    pub fn new(error: &str, attempts: u32, since: Option<Timestamp>) -> Report {
        Report { error: bounded(error, ERROR_BYTES_MAX), attempts, since }
    }
}

fn bounded(text: &str, bytes_max: usize) -> String {
    let mut text = printable(text);
    while text.len() > bytes_max {
        text.pop();
    }
    text
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Happened {
    /// A push was committed, or found nothing to commit.
    Pushed(Option<VersionNumber>),
    /// A push of earlier times, as its manifest tells: it says nothing of what was told since.
    FoundPush(VersionNumber),
    /// A version was pulled.
    Pulled(VersionNumber),
    /// CHANGED: a push is to come by this time.
    Announced(Timestamp),
    /// A push keeps failing.
    Failed(Report),
}

/// Something that a client did with a replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// The replica's id.
    pub replica: String,
    /// Who.
    pub client: ClientName,
    /// What stands behind it.
    pub standing: Standing,
    /// When, by the server's clock.
    pub time: Timestamp,
    /// What.
    pub what: Happened,
}

/// A time, and the version that it is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Done {
    /// When.
    pub time: Timestamp,
    /// Which; `None` where that is not known.
    pub version: Option<u64>,
}

/// A report that is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptReport {
    /// What was reported.
    pub report: Report,
    /// When it came last.
    pub reported: Timestamp,
}

/// What is known of a client of a replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientActivity {
    /// Who.
    pub client: ClientName,
    /// When it last did anything.
    pub seen: Timestamp,
    /// Its last push.
    pub push: Option<Done>,
    /// Its last pull.
    pub pull: Option<Done>,
    /// When it last announced a push.
    pub announced: Option<Timestamp>,
    /// By when that push is to come; `None` where it has come.
    pub push_due: Option<Timestamp>,
    /// What it has reported since its last push, newest first.
    pub reports: Vec<KeptReport>,
}

/// The catalog's tables of what clients did, through a connection that does not wait for the disk.
#[derive(Debug)]
pub struct ActivityTable {
    connection: Mutex<Connection>,
}

impl ActivityTable {
    /// Opens the tables of the catalog at `path`.
    ///
    /// # Errors
    /// As [`super::Catalog::open`].
    pub fn open(path: &Path) -> Result<ActivityTable, Error> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_WAIT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // No sync for a commit, and still no damage by a power cut.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        schema::migrate(&mut connection)?;
        Ok(ActivityTable { connection: Mutex::new(connection) })
    }

    /// Writes what happened, in this order and in one transaction. What is about a replica that is not
    /// there any more is passed over.
    ///
    /// # Errors
    /// [`Error::Database`]; nothing is written then.
    pub fn write(&self, events: &[Event]) -> Result<(), Error> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut touched = BTreeSet::new();
        for event in events {
            if let Some(client) = enter(&transaction, event)? {
                note(&transaction, client, event)?;
                touched.insert(event.replica.as_str());
            }
        }
        for replica in touched {
            bound(&transaction, replica)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// The clients of a replica, who was seen last first.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Damaged`].
    pub fn clients(&self, replica: &str) -> Result<Vec<ClientActivity>, Error> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "SELECT id, client_id, host, local_path, seen, last_push, last_push_version, last_pull,
                    last_pull_version, announced, push_due
             FROM client WHERE replica = ? ORDER BY seen DESC, id DESC",
        )?;
        let mut reports = connection.prepare_cached(
            "SELECT error, attempts, since, reported FROM client_report WHERE client = ?
             ORDER BY reported DESC, rowid DESC",
        )?;
        let mut rows = statement.query([replica])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let mut client = activity(row)?;
            let mut kept = reports.query([row.get::<_, i64>(0)?])?;
            while let Some(row) = kept.next()? {
                client.reports.push(kept_report(row)?);
            }
            found.push(client);
        }
        Ok(found)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client's row; `None` where its replica is gone.
fn enter(transaction: &Transaction<'_>, event: &Event) -> Result<Option<i64>, Error> {
    let Event { replica, client, .. } = event;
    let row = transaction
        .prepare_cached(
            "INSERT INTO client (replica, client_id, host, local_path, standing, seen)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM replica WHERE id = ?1)
             ON CONFLICT (replica, client_id, host, local_path) DO UPDATE
             SET standing = max(standing, excluded.standing), seen = max(seen, excluded.seen)
             RETURNING id",
        )?
        .query_row(
            params![
                replica,
                client.client_id,
                client.host,
                client.local_path,
                event.standing as u8,
                event.time.as_millisecond()
            ],
            |row| row.get(0),
        )
        .optional()?;
    Ok(row)
}

fn note(transaction: &Transaction<'_>, client: i64, event: &Event) -> Result<(), Error> {
    let time = event.time.as_millisecond();
    match &event.what {
        Happened::Pushed(version) => {
            transaction
                .prepare_cached("UPDATE client SET last_push = ?2, last_push_version = ?3 WHERE id = ?1")?
                .execute(params![client, time, version.and_then(stored)])?;
            settle(transaction, event)
        }
        Happened::FoundPush(version) => {
            transaction
                .prepare_cached(
                    "UPDATE client SET last_push = ?2, last_push_version = ?3
                     WHERE id = ?1 AND last_push IS NULL",
                )?
                .execute(params![client, time, stored(*version)])?;
            Ok(())
        }
        Happened::Pulled(version) => {
            transaction
                .prepare_cached("UPDATE client SET last_pull = ?2, last_pull_version = ?3 WHERE id = ?1")?
                .execute(params![client, time, stored(*version)])?;
            Ok(())
        }
        Happened::Announced(due) => {
            transaction
                .prepare_cached("UPDATE client SET announced = ?2, push_due = ?3 WHERE id = ?1")?
                .execute(params![client, time, due.as_millisecond()])?;
            Ok(())
        }
        Happened::Failed(report) => keep_report(transaction, client, time, report),
    }
}

/// A push has come: nothing that this client told before is outstanding. The client may have named less
/// of itself then, or now: what both name has to agree.
fn settle(transaction: &Transaction<'_>, event: &Event) -> Result<(), Error> {
    let ClientName { client_id, host, local_path } = &event.client;
    const SAME: &str = "replica = ?1 AND client_id = ?2 AND (host = ?3 OR host = '' OR ?3 = '')
         AND (local_path = ?4 OR local_path = '' OR ?4 = '')";
    let same = params![event.replica, client_id, host, local_path];
    transaction
        .prepare_cached(&format!("UPDATE client SET push_due = NULL WHERE push_due IS NOT NULL AND {SAME}"))?
        .execute(same)?;
    transaction
        .prepare_cached(&format!(
            "DELETE FROM client_report WHERE client IN (SELECT id FROM client WHERE {SAME})"
        ))?
        .execute(same)?;
    Ok(())
}

/// The same error again takes the place of the earlier report of it.
fn keep_report(transaction: &Transaction<'_>, client: i64, time: i64, report: &Report) -> Result<(), Error> {
    let since = report.since.map(Timestamp::as_millisecond);
    transaction
        .prepare_cached(
            "INSERT INTO client_report (client, error, attempts, since, reported) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (client, error) DO UPDATE
             SET attempts = excluded.attempts, since = excluded.since, reported = excluded.reported",
        )?
        .execute(params![client, report.error, report.attempts, since, time])?;
    transaction
        .prepare_cached(
            "DELETE FROM client_report WHERE rowid IN (
                 SELECT rowid FROM client_report WHERE client = ?
                 ORDER BY reported DESC, rowid DESC LIMIT -1 OFFSET ?)",
        )?
        .execute(params![client, CLIENT_REPORTS_MAX])?;
    Ok(())
}

/// Lets the oldest go, where there are more than the maxima allow.
fn bound(transaction: &Transaction<'_>, replica: &str) -> Result<(), Error> {
    transaction
        .prepare_cached(
            "DELETE FROM client WHERE id IN (
                 SELECT id FROM (
                     SELECT id, row_number() OVER (PARTITION BY standing ORDER BY seen DESC, id DESC) AS place
                     FROM client WHERE replica = ?)
                 WHERE place > ?)",
        )?
        .execute(params![replica, CLIENTS_MAX])?;
    transaction
        .prepare_cached(
            "DELETE FROM client_report WHERE rowid IN (
                 SELECT client_report.rowid FROM client_report JOIN client ON client.id = client_report.client
                 WHERE client.replica = ? ORDER BY reported DESC, client_report.rowid DESC LIMIT -1 OFFSET ?)",
        )?
        .execute(params![replica, REPLICA_REPORTS_MAX])?;
    Ok(())
}

fn activity(row: &Row<'_>) -> Result<ClientActivity, Error> {
    let done = |at: usize| -> Result<Option<Done>, Error> {
        let version = row.get::<_, Option<i64>>(at + 1)?.and_then(|number| number.try_into().ok());
        Ok(time(row.get(at)?)?.map(|time| Done { time, version }))
    };
    Ok(ClientActivity {
        client: ClientName { client_id: row.get(1)?, host: row.get(2)?, local_path: row.get(3)? },
        seen: time(row.get(4)?)?.unwrap_or_default(),
        push: done(5)?,
        pull: done(7)?,
        announced: time(row.get(9)?)?,
        push_due: time(row.get(10)?)?,
        reports: Vec::new(),
    })
}

fn kept_report(row: &Row<'_>) -> Result<KeptReport, Error> {
    let report = Report { error: row.get(0)?, attempts: row.get(1)?, since: time(row.get(2)?)? };
    Ok(KeptReport { report, reported: time(row.get(3)?)?.unwrap_or_default() })
}

/// A version's number as the tables have it.
fn stored(version: VersionNumber) -> Option<i64> {
    version.get().try_into().ok()
}

/// A time of the tables: milliseconds since 1970.
fn time(stored: Option<i64>) -> Result<Option<Timestamp>, Error> {
    stored.map(|ms| Timestamp::from_millisecond(ms).map_err(|_| Error::Damaged("time"))).transpose()
}

#[cfg(test)]
mod tests;
