//! Keys in the catalog: what each allows, whose it is, and whether it was revoked.

use std::fmt;
use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use serde_json::json;
use sqlrsync_protocol::key::{KeyHash, Kind};

use super::audit::{self, Actor, Audit, Subject};
use super::{Catalog, Error, namespace_id, now};

/// The most live keys of a replica: what stops a peer that asks for keys again and again.
pub const REPLICA_KEYS_MAX: u32 = 10_000;

/// Names a key in `key list`, `key revoke` and the logs. It opens nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct KeyId(pub i64);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for KeyId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<KeyId, Self::Err> {
        text.parse().map(KeyId)
    }
}

/// What a kind is called in the catalog, the listing and the logs.
pub const fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::AccountAdmin => "admin",
        Kind::AccountPull => "pull",
        Kind::ReplicaPush => "replica-push",
        Kind::ReplicaPull => "replica-pull",
    }
}

/// What a key opens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Every replica of a namespace.
    Namespace(String),
    /// One replica.
    Replica {
        /// Its namespace.
        namespace: String,
        /// Its path.
        path: String,
        /// Its id.
        id: String,
    },
}

impl Scope {
    /// The namespace it lies in.
    pub fn namespace(&self) -> &str {
        match self {
            Scope::Namespace(namespace) | Scope::Replica { namespace, .. } => namespace,
        }
    }

    /// The replica it is for, where it is for one.
    pub fn replica_id(&self) -> Option<&str> {
        match self {
            Scope::Namespace(_) => None,
            Scope::Replica { id, .. } => Some(id),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Namespace(namespace) => f.write_str(namespace),
            Scope::Replica { namespace, path, .. } => write!(f, "{namespace}/{path}"),
        }
    }
}

/// A key as the catalog has it: all but the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyRecord {
    /// Names it.
    pub id: KeyId,
    /// What it allows.
    pub kind: Kind,
    /// What it opens.
    pub scope: Scope,
    /// A word of the user's for it.
    pub label: String,
    /// The key that asked for it, where it was made over the wire.
    pub parent: Option<KeyId>,
    /// When it was made, RFC 3339.
    pub created: String,
    /// When it was revoked, RFC 3339; it opens nothing from then on.
    pub revoked: Option<String>,
}

/// A key to be put into the catalog.
#[derive(Clone, Copy, Debug)]
pub struct NewKey<'a> {
    /// What it allows.
    pub kind: Kind,
    /// Its namespace, which exists.
    pub namespace: &'a str,
    /// Its replica, which exists, for the two kinds that are for one.
    pub replica: Option<&'a str>,
    /// What is stored in place of the key.
    pub hash: &'a KeyHash,
    /// A word for the listing.
    pub label: &'a str,
    /// The key that asked for it.
    pub parent: Option<KeyId>,
}

const SELECT: &str = "SELECT key.id, key.kind, namespace.name, replica.id, replica.path, key.label,
     key.parent, key.created, key.revoked, key.hash
     FROM key JOIN namespace ON namespace.id = key.namespace LEFT JOIN replica ON replica.id = key.replica ";

impl Catalog {
    /// Puts a key into the catalog.
    ///
    /// # Errors
    /// [`Error::TooManyKeys`], [`Error::NoNamespace`], [`Error::ParentRevoked`], [`Error::Database`].
    pub fn add_key(&self, new: &NewKey<'_>) -> Result<KeyId, Error> {
        let mut locked = self.lock();
        let connection = locked.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let namespace = namespace_id(&connection, new.namespace)?;
        if let Some(replica) = new.replica {
            let live: u32 = connection
                .prepare_cached("SELECT count(*) FROM key WHERE replica = ? AND revoked IS NULL")?
                .query_row([replica], |row| row.get(0))?;
            if live >= REPLICA_KEYS_MAX {
                return Err(Error::TooManyKeys(REPLICA_KEYS_MAX));
            }
        }
        // One statement: a key that is revoked meanwhile, by this process or another, makes none.
        let made = connection.execute(
            "INSERT INTO key (kind, namespace, replica, hash, label, parent, created)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7
             WHERE ?6 IS NULL OR EXISTS (SELECT 1 FROM key WHERE id = ?6 AND revoked IS NULL)",
            params![
                kind_word(new.kind),
                namespace,
                new.replica,
                new.hash.as_bytes(),
                new.label,
                new.parent.map(|id| id.0),
                now()
            ],
        )?;
        if made == 0 {
            return Err(Error::ParentRevoked);
        }
        let id = KeyId(connection.last_insert_rowid());
        let actor = new.parent.map_or(Ok(Actor::operator()), |parent| holder(&connection, parent))?;
        note(&connection, id, actor, "key-created")?;
        connection.commit()?;
        Ok(id)
    }

    /// The key of this hash, revoked or not.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn key_by_hash(&self, hash: &KeyHash) -> Result<Option<KeyRecord>, Error> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE key.hash = ?"))?;
        let found = statement.query_row([hash.as_bytes()], |row| Ok((record(row), row.get(9)?)));
        match found.optional()? {
            // The index has compared already, on hashes of 168 random bits; this keeps the rule that what
            // stands for a secret is compared in constant time, whatever becomes of the query above.
            Some((found, stored)) if KeyHash::from_bytes(stored) == *hash => found.map(Some),
            _ => Ok(None),
        }
    }

    /// Whether a key opens anything still.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn key_is_live(&self, id: KeyId) -> Result<bool, Error> {
        let connection = self.lock();
        let mut statement =
            connection.prepare_cached("SELECT 1 FROM key WHERE id = ? AND revoked IS NULL")?;
        Ok(statement.exists([id.0])?)
    }

    /// All keys, oldest first.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn keys(&self) -> Result<Vec<KeyRecord>, Error> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(&format!("{SELECT} ORDER BY key.id"))?;
        let mut rows = statement.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(record(row)?);
        }
        Ok(found)
    }

    /// Revokes a key, and the keys that it asked for over the wire: who stole a replica key may have
    /// made more of them. What an admin key made stays, unless `derived` says otherwise. Returns the
    /// keys that were live until now.
    ///
    /// # Errors
    /// [`Error::NoKey`], [`Error::Database`].
    pub fn revoke_key(&self, id: KeyId, derived: bool) -> Result<Vec<KeyId>, Error> {
        let mut locked = self.lock();
        let connection = locked.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let kind: String = connection
            .prepare_cached("SELECT kind FROM key WHERE id = ?")?
            .query_row([id.0], |row| row.get(0))
            .optional()?
            .ok_or(Error::NoKey(id))?;
        let derived = derived || kind != kind_word(Kind::AccountAdmin);
        let mut statement = connection.prepare_cached(
            "WITH RECURSIVE chosen (id) AS (
                 VALUES (?1)
                 UNION SELECT key.id FROM key JOIN chosen ON key.parent = chosen.id WHERE ?2
             )
             UPDATE key SET revoked = ?3 WHERE id IN chosen AND revoked IS NULL RETURNING id",
        )?;
        let revoked = statement.query_map(params![id.0, derived, now()], |row| row.get(0).map(KeyId))?;
        let mut revoked = revoked.collect::<Result<Vec<_>, _>>()?;
        drop(statement);
        revoked.sort_unstable();
        for key in &revoked {
            note(&connection, *key, Actor::operator(), "key-revoked")?;
        }
        connection.commit()?;
        Ok(revoked)
    }
}

fn by_id(connection: &Connection, id: KeyId) -> Result<KeyRecord, Error> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE key.id = ?"))?;
    statement.query_row([id.0], |row| Ok(record(row))).optional()?.ok_or(Error::NoKey(id))?
}

/// Who holds a key.
fn holder(connection: &Connection, id: KeyId) -> Result<Actor, Error> {
    let label = by_id(connection, id)?.label;
    Ok(Actor { key: Some(id), label, ..Actor::default() })
}

/// Notes down what became of a key.
fn note(connection: &Connection, id: KeyId, actor: Actor, action: &'static str) -> Result<(), Error> {
    let key = by_id(connection, id)?;
    let subject = Subject {
        namespace: key.scope.namespace().to_owned(),
        replica: match &key.scope {
            Scope::Namespace(_) => None,
            Scope::Replica { path, id, .. } => Some((id.clone(), path.clone())),
        },
        ..Subject::default()
    };
    let details = json!({"key": id.0, "kind": kind_word(key.kind), "label": key.label});
    audit::insert(connection, &Audit { actor, action, subject, details })
}

fn record(row: &Row<'_>) -> Result<KeyRecord, Error> {
    let kind: String = row.get(1)?;
    let namespace = row.get(2)?;
    let scope = match (row.get(3)?, row.get(4)?) {
        (Some(id), Some(path)) => Scope::Replica { namespace, path, id },
        _ => Scope::Namespace(namespace),
    };
    Ok(KeyRecord {
        id: KeyId(row.get(0)?),
        kind: Kind::ALL
            .into_iter()
            .find(|known| kind_word(*known) == kind)
            .ok_or(Error::Damaged("kind of key"))?,
        scope,
        label: row.get(5)?,
        parent: row.get::<_, Option<i64>>(6)?.map(KeyId),
        created: row.get(7)?,
        revoked: row.get(8)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{NewReplica, Visibility};
    use super::*;

    fn catalog() -> (tempfile::TempDir, Catalog) {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&folder.path().join("catalog.db")).unwrap();
        catalog.create_namespace("team").unwrap();
        let replica = NewReplica {
            id: "r",
            namespace: "team",
            path: "app.db",
            visibility: Visibility::Private,
            client_id: "",
            host: "",
            local_path: "",
        };
        catalog.create_replica(&replica).unwrap();
        (folder, catalog)
    }

    fn add(catalog: &Catalog, kind: Kind, hash: u8, parent: Option<KeyId>) -> KeyId {
        let replica = kind.is_of_replica().then_some("r");
        let hash = &KeyHash::from_bytes([hash; 32]);
        catalog.add_key(&NewKey { kind, namespace: "team", replica, hash, label: "", parent }).unwrap()
    }

    #[test]
    fn a_key_is_found_by_its_hash_alone() {
        let (_folder, catalog) = catalog();
        let id = add(&catalog, Kind::ReplicaPush, 1, None);
        let found = catalog.key_by_hash(&KeyHash::from_bytes([1; 32])).unwrap().unwrap();
        assert_eq!((found.id, found.kind), (id, Kind::ReplicaPush));
        assert_eq!(found.scope.to_string(), "team/app.db");
        assert_eq!(catalog.key_by_hash(&KeyHash::from_bytes([2; 32])).unwrap(), None);
    }

    #[test]
    fn a_revoked_key_makes_no_keys() {
        let (_folder, catalog) = catalog();
        let parent = add(&catalog, Kind::ReplicaPush, 1, None);
        catalog.revoke_key(parent, false).unwrap();
        let hash = &KeyHash::from_bytes([2; 32]);
        let new = NewKey {
            kind: Kind::ReplicaPull,
            namespace: "team",
            replica: Some("r"),
            hash,
            label: "",
            parent: Some(parent),
        };
        assert!(matches!(catalog.add_key(&new), Err(Error::ParentRevoked)));
        assert_eq!(catalog.key_by_hash(hash).unwrap(), None);
    }

    #[test]
    fn revoking_a_replica_key_revokes_the_keys_it_made() {
        let (_folder, catalog) = catalog();
        let admin = add(&catalog, Kind::AccountAdmin, 1, None);
        let push = add(&catalog, Kind::ReplicaPush, 2, Some(admin));
        let pull = add(&catalog, Kind::ReplicaPull, 3, Some(push));
        let more = add(&catalog, Kind::ReplicaPull, 4, Some(pull));
        assert_eq!(catalog.revoke_key(admin, false).unwrap(), [admin]);
        assert!(catalog.key_is_live(push).unwrap());
        assert_eq!(catalog.revoke_key(push, false).unwrap(), [push, pull, more]);
        assert!(!catalog.key_is_live(more).unwrap());
        assert_eq!(catalog.revoke_key(push, false).unwrap(), []);
        assert!(matches!(catalog.revoke_key(KeyId(99), false), Err(Error::NoKey(_))));
    }
}
