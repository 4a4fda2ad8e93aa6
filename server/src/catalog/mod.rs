//! The catalog: namespaces, replica paths, key hashes and what clients did, in one SQLite file of the data
//! folder.
//!
//! - Losing it loses no version: the repository keeps what it needs to register replicas again.
//! - Several programs open it at once (a running server and `key create`), so every write is a
//!   transaction of its own and nothing is cached here.
//! - A key is never in it, only its hash.
//!
//! All calls block.

mod activity;
mod audit;
mod keys;
mod pending;
mod policy;
mod replicas;
mod schema;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, ffi, params};

pub use activity::{
    ActivityTable, CLIENT_REPORTS_MAX, CLIENTS_MAX, ClientActivity, ClientName, Done, Event, Happened,
    KeptReport, REPLICA_REPORTS_MAX, Report, Standing,
};
pub use audit::{Actor, Audit, AuditEntry, Subject};
pub use keys::{KeyId, KeyRecord, NewKey, REPLICA_KEYS_MAX, Scope, kind_word};
pub use pending::{Intent, Known, Pending, PendingId};
pub use policy::{Policy, Rule};
pub use replicas::{Found, NewReplica, ReplicaRecord, Visibility};

/// How long a write waits for another program's write.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Why the catalog cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database of the catalog cannot be read or written.
    #[error("the catalog cannot be used: {0}")]
    Database(#[from] rusqlite::Error),
    /// A later release made it.
    #[error(
        "the catalog was made by a later release (its version is {found}, this program knows {known}): \
         install that release"
    )]
    Newer {
        /// Version of the file.
        found: u32,
        /// Version that this program knows.
        known: u32,
    },
    /// No namespace of this name.
    #[error("there is no namespace {0}: make it with `sqlrsync-server namespace create {0}`")]
    NoNamespace(String),
    /// No replica of this name.
    #[error("there is no replica {0}: `sqlrsync-server replica list` shows the replicas")]
    NoReplica(String),
    /// No key of this id.
    #[error("there is no key {0}: `sqlrsync-server key list` shows the keys")]
    NoKey(KeyId),
    /// The replica has as many keys as it may have.
    #[error("the replica has {0} keys, the most it may have: revoke some")]
    TooManyKeys(u32),
    /// A key that was revoked asked for a new one.
    #[error("the key that asks for this one has been revoked")]
    ParentRevoked,
    /// A row holds what no row may hold.
    #[error("the catalog holds a {0} that is none: it was changed by hand or is damaged")]
    Damaged(&'static str),
}

impl Error {
    /// Whether the disk with the catalog is full.
    pub fn is_full(&self) -> bool {
        let Error::Database(rusqlite::Error::SqliteFailure(error, _)) = self else { return false };
        // The second is what SQLite says where the index of the WAL finds no room.
        error.code == ErrorCode::DiskFull || error.extended_code == ffi::SQLITE_IOERR_SHMSIZE
    }
}

/// An open catalog. One connection behind a lock: a look-up takes microseconds.
pub struct Catalog {
    connection: Mutex<Connection>,
}

impl Catalog {
    /// Opens the catalog at `path`, and makes it where there is none.
    ///
    /// # Errors
    /// [`Error::Newer`] where a later release made it, [`Error::Database`] where it cannot be opened.
    pub fn open(path: &Path) -> Result<Catalog, Error> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_WAIT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A revocation that was confirmed has to outlast a power cut.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        schema::migrate(&mut connection)?;
        Ok(Catalog { connection: Mutex::new(connection) })
    }

    /// Whether it answers: for the readiness probe.
    ///
    /// # Errors
    /// [`Error::Database`] where it does not.
    pub fn ping(&self) -> Result<(), Error> {
        self.lock().query_row("SELECT count(*) FROM namespace", [], |_| Ok(()))?;
        Ok(())
    }

    /// A number that changes whenever another connection has written to the catalog.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn data_version(&self) -> Result<i64, Error> {
        let connection = self.lock();
        // Prepared once: this is asked several times a second, for as long as the server runs.
        let mut statement = connection.prepare_cached("PRAGMA data_version")?;
        Ok(statement.query_row([], |row| row.get(0))?)
    }

    /// A number that changes whenever a key is revoked or a replica is open to fewer than before.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn withdrawals(&self) -> Result<i64, Error> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("SELECT count FROM withdrawal")?;
        Ok(statement.query_row([], |row| row.get(0))?)
    }

    /// Makes a namespace; false where it was there already. The caller has checked the name.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn create_namespace(&self, name: &str) -> Result<bool, Error> {
        let made = self.lock().execute(
            "INSERT INTO namespace (name, created) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
            params![name, now()],
        )?;
        Ok(made == 1)
    }

    /// The names of all namespaces, in order.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn namespaces(&self) -> Result<Vec<String>, Error> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("SELECT name FROM namespace ORDER BY name")?;
        let names = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(names)
    }

    /// A panic while the lock was held has left no transaction open (each is rolled back when it is
    /// dropped), so the connection goes on to be used.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn namespace_id(connection: &Connection, name: &str) -> Result<i64, Error> {
    connection
        .prepare_cached("SELECT id FROM namespace WHERE name = ?")?
        .query_row([name], |row| row.get(0))
        .optional()?
        .ok_or_else(|| Error::NoNamespace(name.to_owned()))
}

/// The time as the catalog stores it: RFC 3339, seconds, UTC.
fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_of_a_later_release_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        drop(Catalog::open(&path).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(Catalog::open(&path), Err(Error::Newer { found: 99, .. })));
    }

    #[test]
    fn a_write_by_another_program_changes_the_data_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        let (ours, theirs) = (Catalog::open(&path).unwrap(), Catalog::open(&path).unwrap());
        let before = ours.data_version().unwrap();
        assert_eq!(ours.data_version().unwrap(), before);
        assert!(theirs.create_namespace("team").unwrap());
        assert_ne!(ours.data_version().unwrap(), before);
        assert_eq!(ours.withdrawals().unwrap(), 0, "it takes no right away");
        assert!(!ours.create_namespace("team").unwrap());
        assert_eq!(ours.namespaces().unwrap(), ["team"]);
    }
}
