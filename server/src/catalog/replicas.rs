//! Replicas in the catalog: which id stands behind a path, and who may see it.

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use serde_json::json;

use super::audit::{self, Actor, Audit, Subject};
use super::{Catalog, Error, Policy, namespace_id, now};

/// Who may pull a replica without a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Visibility {
    /// Nobody.
    Private = 0,
    /// Who knows its path.
    Unlisted = 1,
    /// Everybody; it may be listed.
    Public = 2,
}

impl Visibility {
    /// From its number in the catalog and in `X-Visibility`.
    pub const fn from_number(number: u8) -> Option<Visibility> {
        match number {
            0 => Some(Visibility::Private),
            1 => Some(Visibility::Unlisted),
            2 => Some(Visibility::Public),
            _ => None,
        }
    }

    /// As a word for people and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Visibility::Private => "private",
            Visibility::Unlisted => "unlisted",
            Visibility::Public => "public",
        }
    }
}

/// A replica as the catalog has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaRecord {
    /// Its id in the repository.
    pub id: String,
    /// Its namespace.
    pub namespace: String,
    /// Its path in the namespace.
    pub path: String,
    /// Who may pull it without a key.
    pub visibility: Visibility,
    /// When it was registered, RFC 3339.
    pub created: String,
    /// What becomes of a push that was made from an older version.
    pub policy: Policy,
}

impl ReplicaRecord {
    /// `NAMESPACE/PATH`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.path)
    }
}

/// A replica to be registered.
#[derive(Clone, Debug)]
pub struct NewReplica<'a> {
    /// Its id in the repository.
    pub id: &'a str,
    /// Its namespace, which exists.
    pub namespace: &'a str,
    /// Its path, checked by the caller.
    pub path: &'a str,
    /// Who may pull it without a key.
    pub visibility: Visibility,
    /// Client id of its first pusher, empty where there is none.
    pub client_id: &'a str,
    /// Host name that the pusher gave.
    pub host: &'a str,
    /// Path of the database on that host.
    pub local_path: &'a str,
}

/// Whether a name was free.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// It was: this replica was registered under it.
    Made(ReplicaRecord),
    /// It belongs to this replica.
    Existing(ReplicaRecord),
}

impl Found {
    /// The replica, whether it was there before or not.
    pub fn into_record(self) -> ReplicaRecord {
        match self {
            Found::Made(record) | Found::Existing(record) => record,
        }
    }
}

const SELECT: &str = "SELECT replica.id, namespace.name, path, visibility, replica.created,
     policy, merge_cells, merge_renumber
     FROM replica JOIN namespace ON namespace.id = replica.namespace ";

impl Catalog {
    /// The replica at a path.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn replica(&self, namespace: &str, path: &str) -> Result<Option<ReplicaRecord>, Error> {
        one(&self.lock(), "WHERE namespace.name = ? AND path = ?", params![namespace, path])
    }

    /// The replica of an id.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn replica_by_id(&self, id: &str) -> Result<Option<ReplicaRecord>, Error> {
        one(&self.lock(), "WHERE replica.id = ?", params![id])
    }

    /// The replica that this client first pushed from this file, in this namespace.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn replica_pushed_from(
        &self,
        namespace: &str,
        client_id: &str,
        host: &str,
        local_path: &str,
    ) -> Result<Option<ReplicaRecord>, Error> {
        one(
            &self.lock(),
            "WHERE namespace.name = ? AND client_id = ? AND host = ? AND local_path = ?
             ORDER BY replica.created, replica.id LIMIT 1",
            params![namespace, client_id, host, local_path],
        )
    }

    /// Registers a replica, unless its path is taken.
    ///
    /// # Errors
    /// [`Error::NoNamespace`], [`Error::Database`].
    pub fn create_replica(&self, new: &NewReplica<'_>) -> Result<Found, Error> {
        let connection = self.lock();
        let namespace = namespace_id(&connection, new.namespace)?;
        let made = connection.execute(
            "INSERT INTO replica (id, namespace, path, visibility, client_id, host, local_path, created)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (namespace, path) DO NOTHING",
            params![
                new.id,
                namespace,
                new.path,
                new.visibility as u8,
                new.client_id,
                new.host,
                new.local_path,
                now()
            ],
        )?;
        let record = one(&connection, "WHERE namespace.id = ? AND path = ?", params![namespace, new.path])?
            .ok_or(Error::Damaged("replica"))?;
        Ok(if made == 1 { Found::Made(record) } else { Found::Existing(record) })
    }

    /// Says who may pull a replica without a key, from the next request on. Only who has access to the data
    /// folder can.
    ///
    /// # Errors
    /// [`Error::NoReplica`], [`Error::Database`].
    pub fn set_visibility(&self, namespace: &str, path: &str, visibility: Visibility) -> Result<(), Error> {
        let details = json!({"visibility": visibility.as_str()});
        let change = "UPDATE replica SET visibility = ?1 WHERE id = ?2";
        self.change(namespace, path, &Actor::operator(), "visibility-changed", details, |connection, id| {
            connection.execute(change, params![visibility as u8, id])
        })
    }

    /// Says what becomes of pushes that are made from an older version, from the next one on.
    ///
    /// # Errors
    /// [`Error::NoReplica`], [`Error::Database`].
    pub fn set_policy(
        &self,
        namespace: &str,
        path: &str,
        policy: Policy,
        actor: &Actor,
    ) -> Result<(), Error> {
        let details =
            json!({"policy": policy.rule.as_str(), "cells": policy.cells, "renumber": policy.renumber});
        let change = "UPDATE replica SET policy = ?1, merge_cells = ?2, merge_renumber = ?3 WHERE id = ?4";
        self.change(namespace, path, actor, "policy-changed", details, |connection, id| {
            connection.execute(change, params![policy.rule as u8, policy.cells, policy.renumber, id])
        })
    }

    /// Changes a replica and notes that down, both or neither.
    fn change(
        &self,
        namespace: &str,
        path: &str,
        actor: &Actor,
        action: &'static str,
        details: serde_json::Value,
        change: impl FnOnce(&Connection, &str) -> rusqlite::Result<usize>,
    ) -> Result<(), Error> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found = one(&transaction, "WHERE namespace.name = ? AND path = ?", params![namespace, path])?;
        let record = found.ok_or_else(|| Error::NoReplica(format!("{namespace}/{path}")))?;
        change(&transaction, &record.id)?;
        let subject = Subject::replica(&record);
        audit::insert(&transaction, &Audit { actor: actor.clone(), action, subject, details })?;
        transaction.commit()?;
        Ok(())
    }

    /// Whether everybody may pull the replica of this id.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn replica_is_open(&self, id: &str) -> Result<bool, Error> {
        let connection = self.lock();
        let mut statement =
            connection.prepare_cached("SELECT 1 FROM replica WHERE id = ? AND visibility <> ?")?;
        Ok(statement.exists(params![id, Visibility::Private as u8])?)
    }

    /// Takes back a registration of which nothing came: false where a key refers to it meanwhile.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn forget_replica(&self, id: &str) -> Result<bool, Error> {
        let gone = self.lock().execute(
            "DELETE FROM replica WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM key WHERE replica = ?1)",
            [id],
        )?;
        Ok(gone == 1)
    }

    /// The replicas of a namespace whose path comes after `after`, in order of path.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn replicas(&self, namespace: &str, after: &str, limit: u32) -> Result<Vec<ReplicaRecord>, Error> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(&format!(
            "{SELECT} WHERE namespace.name = ? AND path > ? ORDER BY path LIMIT ?"
        ))?;
        let mut rows = statement.query(params![namespace, after, limit])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(record(row)?);
        }
        Ok(found)
    }
}

fn one(
    connection: &Connection,
    condition: &str,
    parameters: &[&dyn rusqlite::ToSql],
) -> Result<Option<ReplicaRecord>, Error> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} {condition}"))?;
    statement.query_row(parameters, |row| Ok(record(row))).optional()?.transpose()
}

fn record(row: &Row<'_>) -> Result<ReplicaRecord, Error> {
    let visibility = Visibility::from_number(row.get(3)?).ok_or(Error::Damaged("visibility"))?;
    Ok(ReplicaRecord {
        id: row.get(0)?,
        namespace: row.get(1)?,
        path: row.get(2)?,
        visibility,
        created: row.get(4)?,
        policy: Policy::from_columns(row.get(5)?, row.get(6)?, row.get(7)?)
            .ok_or(Error::Damaged("merge policy"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::Rule;
    use super::*;

    fn new<'a>(id: &'a str, path: &'a str) -> NewReplica<'a> {
        NewReplica {
            id,
            namespace: "team",
            path,
            visibility: Visibility::Unlisted,
            client_id: "client",
            host: "host",
            local_path: "/srv/app.db",
        }
    }

    #[test]
    fn a_path_belongs_to_the_first_that_takes_it() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&folder.path().join("catalog.db")).unwrap();
        assert!(matches!(catalog.create_replica(&new("a", "app.db")), Err(Error::NoNamespace(_))));
        catalog.create_namespace("team").unwrap();
        let Found::Made(made) = catalog.create_replica(&new("a", "app.db")).unwrap() else { panic!() };
        assert_eq!((made.name().as_str(), made.visibility), ("team/app.db", Visibility::Unlisted));
        assert_eq!(catalog.create_replica(&new("b", "app.db")).unwrap(), Found::Existing(made.clone()));
        assert_eq!(catalog.replica("team", "app.db").unwrap(), Some(made.clone()));
        assert_eq!(catalog.replica_by_id("a").unwrap(), Some(made.clone()));
        let pushed_from = catalog.replica_pushed_from("team", "client", "host", "/srv/app.db").unwrap();
        assert_eq!(pushed_from, Some(made));
        assert_eq!(catalog.replica_pushed_from("team", "other", "host", "/srv/app.db").unwrap(), None);
        assert!(catalog.replica_is_open("a").unwrap());
        catalog.set_visibility("team", "app.db", Visibility::Private).unwrap();
        let changed = catalog.replica("team", "app.db").unwrap().unwrap();
        assert_eq!(changed.visibility, Visibility::Private);
        assert!(!catalog.replica_is_open("a").unwrap());
        assert_eq!(changed.policy, Policy::default());
        let cells = Policy { rule: Rule::Merge, cells: true, renumber: false };
        for policy in [Policy { rule: Rule::Reject, ..Policy::default() }, cells] {
            catalog.set_policy("team", "app.db", policy, &Actor::operator()).unwrap();
            assert_eq!(catalog.replica("team", "app.db").unwrap().unwrap().policy, policy);
        }
        let none = catalog.set_visibility("other", "app.db", Visibility::Public);
        assert!(matches!(none, Err(Error::NoReplica(_))));
        let log = catalog.audit_of("a", None, 10).unwrap();
        let actions: Vec<_> = log.iter().map(|entry| entry.action.as_str()).collect();
        assert_eq!(actions, ["policy-changed", "policy-changed", "visibility-changed"]);
        assert!(catalog.forget_replica("a").unwrap());
        assert_eq!(catalog.replica("team", "app.db").unwrap(), None);
    }
}
