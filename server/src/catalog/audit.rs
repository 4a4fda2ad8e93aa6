//! The audit log: who did what, when, and from where.
//!
//! - It is only added to: triggers refuse every change, whichever program asks for it.
//! - It refers to nothing: names and ids stay readable when what they name is gone.
//! - An entry is written when what it says has happened. A change of the catalog and its entry are one
//!   transaction; what is done in the repository is announced before ([`super::Pending`]), so that its entry is
//!   written later where the server was stopped in between.

use std::net::IpAddr;

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{Catalog, Error, KeyId, ReplicaRecord};

/// Who did it, as far as is known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Actor {
    /// The key; `None` for who has access to the data folder, and for the server itself.
    pub key: Option<KeyId>,
    /// The key's label, or who it was in a word.
    pub label: String,
    /// The address that it came from.
    pub address: Option<IpAddr>,
    /// Id of the client.
    pub client_id: String,
    /// Host name that the client gave.
    pub host: String,
    /// Path of the file there.
    pub local_path: String,
}

impl Actor {
    /// Who works on the data folder itself.
    pub fn operator() -> Actor {
        Actor { label: "operator".to_owned(), ..Actor::default() }
    }

    /// The server, of its own accord.
    pub fn server() -> Actor {
        Actor { label: "server".to_owned(), ..Actor::default() }
    }
}

/// What it was done to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Subject {
    /// The namespace.
    pub namespace: String,
    /// The replica: its id and its path; `None` where it was done to the namespace.
    pub replica: Option<(String, String)>,
    /// The version that came of it.
    pub version: Option<u64>,
    /// The conflict that it is about.
    pub conflict: Option<u64>,
}

impl Subject {
    /// A replica.
    pub fn replica(record: &ReplicaRecord) -> Subject {
        Subject {
            namespace: record.namespace.clone(),
            replica: Some((record.id.clone(), record.path.clone())),
            ..Subject::default()
        }
    }

    /// With a version.
    pub fn version(self, version: u64) -> Subject {
        Subject { version: Some(version), ..self }
    }

    /// With a conflict.
    pub fn conflict(self, conflict: u64) -> Subject {
        Subject { conflict: Some(conflict), ..self }
    }
}

/// What is to be written down.
#[derive(Clone, PartialEq, Debug)]
pub struct Audit {
    /// Who.
    pub actor: Actor,
    /// What was done, in a word: `merge`, `conflict-opened`, `key-revoked`.
    pub action: &'static str,
    /// To what.
    pub subject: Subject,
    /// More about it: a JSON object.
    pub details: Value,
}

/// An entry as it is told.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    /// Counts up; not without gaps.
    pub id: i64,
    /// When, RFC 3339.
    pub time: String,
    /// What was done, in a word.
    pub action: String,
    /// `NAMESPACE/PATH`, or the namespace.
    pub subject: String,
    /// Id of the replica.
    pub replica_id: Option<String>,
    /// Id of the key.
    pub key: Option<i64>,
    /// The key's label, or who it was in a word.
    pub by: String,
    /// The address that it came from.
    pub address: Option<String>,
    /// Id of the client.
    pub client_id: String,
    /// Host name that the client gave.
    pub host: String,
    /// Path of the file there.
    pub local_path: String,
    /// The version that came of it.
    pub version: Option<u64>,
    /// The conflict that it is about.
    pub conflict: Option<u64>,
    /// More about it.
    #[schema(value_type = Object)]
    pub details: Value,
}

impl Catalog {
    /// Writes an entry down.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn note(&self, audit: &Audit) -> Result<(), Error> {
        insert(&self.lock(), audit)
    }

    /// At most `limit` entries about a replica, newest first, from the one before `before` on.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Damaged`].
    pub fn audit_of(&self, replica: &str, before: Option<i64>, limit: u32) -> Result<Vec<AuditEntry>, Error> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "SELECT id, time, action, namespace, replica, path, key, label, address, client_id, host,
             local_path, version, conflict, details
             FROM audit WHERE replica = ? AND id < ? ORDER BY id DESC LIMIT ?",
        )?;
        let mut rows = statement.query(params![replica, before.unwrap_or(i64::MAX), limit])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(entry(row)?);
        }
        Ok(found)
    }
}

/// Writes an entry down within a transaction that may do more.
pub(super) fn insert(connection: &Connection, audit: &Audit) -> Result<(), Error> {
    insert_at(connection, audit, Timestamp::now())
}

/// As [`insert`], of something that happened then.
pub(super) fn insert_at(connection: &Connection, audit: &Audit, time: Timestamp) -> Result<(), Error> {
    let Audit { actor, action, subject, details } = audit;
    let (replica, path) = subject.replica.as_ref().map(|(id, path)| (id, path)).unzip();
    let mut statement = connection.prepare_cached(
        "INSERT INTO audit (time, action, namespace, replica, path, key, label, address, client_id, host,
         local_path, version, conflict, details) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    statement.execute(params![
        time.as_millisecond(),
        action,
        subject.namespace,
        replica,
        path,
        actor.key.map(|key| key.0),
        actor.label,
        actor.address.map(|address| address.to_string()),
        actor.client_id,
        actor.host,
        actor.local_path,
        subject.version.map(|version| version as i64),
        subject.conflict.map(|conflict| conflict as i64),
        details.to_string(),
    ])?;
    Ok(())
}

fn entry(row: &Row<'_>) -> Result<AuditEntry, Error> {
    let time = Timestamp::from_millisecond(row.get(1)?).map_err(|_| Error::Damaged("time"))?;
    let (namespace, path): (String, Option<String>) = (row.get(3)?, row.get(5)?);
    let details: String = row.get(14)?;
    let number = |value: Option<i64>| value.map(i64::unsigned_abs);
    Ok(AuditEntry {
        id: row.get(0)?,
        time: time.to_string(),
        action: row.get(2)?,
        subject: match path {
            Some(path) => format!("{namespace}/{path}"),
            None => namespace,
        },
        replica_id: row.get(4)?,
        key: row.get(6)?,
        by: row.get(7)?,
        address: row.get(8)?,
        client_id: row.get(9)?,
        host: row.get(10)?,
        local_path: row.get(11)?,
        version: number(row.get(12)?),
        conflict: number(row.get(13)?),
        details: serde_json::from_str(&details).map_err(|_| Error::Damaged("audit entry"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_newest_first_and_nothing_changes_them() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&folder.path().join("catalog.db")).unwrap();
        let of = |replica: &str| Subject {
            namespace: "team".to_owned(),
            replica: Some((replica.to_owned(), "app.db".to_owned())),
            ..Subject::default()
        };
        for number in 1..=3 {
            let actor = Actor { key: Some(KeyId(7)), address: "10.0.0.1".parse().ok(), ..Actor::operator() };
            let details = serde_json::json!({"rows": number});
            let subject = of("r").version(number).conflict(number);
            catalog.note(&Audit { actor, action: "merge", subject, details }).unwrap();
        }
        let other = Audit {
            actor: Actor::server(),
            action: "merge",
            subject: of("x"),
            details: serde_json::json!({}),
        };
        catalog.note(&other).unwrap();
        let page = catalog.audit_of("r", None, 2).unwrap();
        let versions: Vec<_> = page.iter().map(|entry| entry.version).collect();
        assert_eq!(versions, [Some(3), Some(2)]);
        assert_eq!((page[0].subject.as_str(), page[0].by.as_str()), ("team/app.db", "operator"));
        assert_eq!((page[0].key, page[0].address.as_deref()), (Some(7), Some("10.0.0.1")));
        let rest = catalog.audit_of("r", Some(page[1].id), 2).unwrap();
        assert_eq!(rest.len(), 1);
        assert_eq!(rest[0].details, serde_json::json!({"rows": 1}));
        for change in [
            "UPDATE audit SET label = 'x'",
            "DELETE FROM audit",
            "INSERT OR REPLACE INTO audit SELECT * FROM audit LIMIT 1",
        ] {
            let error = catalog.lock().execute(change, []).unwrap_err();
            assert!(error.to_string().contains("only added to"), "{change}: {error}");
        }
        assert_eq!(catalog.audit_of("r", None, 9).unwrap().len(), 3);
    }
}
