//! The catalog's tables and how an older catalog becomes today's.
//!
//! `PRAGMA user_version` counts the steps that were taken. A step, once released, is never changed:
//! the next change is a new step at the end of [`STEPS`].

use rusqlite::{Connection, TransactionBehavior};

use super::Error;

/// Each step takes a catalog from the version that is its index to the next.
const STEPS: &[&str] = &[
    "
    CREATE TABLE namespace (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        created TEXT NOT NULL
    ) STRICT;

    CREATE TABLE replica (
        id TEXT PRIMARY KEY,
        namespace INTEGER NOT NULL REFERENCES namespace (id),
        path TEXT NOT NULL,
        visibility INTEGER NOT NULL CHECK (visibility BETWEEN 0 AND 2),
        -- Who pushed it first: a push that names no path finds its replica again by these.
        client_id TEXT NOT NULL,
        host TEXT NOT NULL,
        local_path TEXT NOT NULL,
        created TEXT NOT NULL,
        UNIQUE (namespace, path)
    ) STRICT;

    CREATE TABLE key (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL CHECK (kind IN ('admin', 'pull', 'replica-push', 'replica-pull')),
        namespace INTEGER NOT NULL REFERENCES namespace (id),
        replica TEXT REFERENCES replica (id),
        -- BLAKE3 of the key. The key itself is nowhere.
        hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
        label TEXT NOT NULL,
        -- The key that asked for this one over the wire.
        parent INTEGER REFERENCES key (id),
        created TEXT NOT NULL,
        revoked TEXT,
        CHECK ((replica IS NOT NULL) = (kind IN ('replica-push', 'replica-pull')))
    ) STRICT;

    CREATE INDEX key_by_replica ON key (replica) WHERE replica IS NOT NULL;
    CREATE INDEX key_by_parent ON key (parent) WHERE parent IS NOT NULL;
",
    "
    -- Counts what takes a right away, whichever program does it: a server that sees the same number again
    -- need not look through its sessions, however much else is written.
    CREATE TABLE withdrawal (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        count INTEGER NOT NULL
    ) STRICT;

    INSERT INTO withdrawal (one, count) VALUES (1, 0);

    CREATE TRIGGER key_revoked AFTER UPDATE OF revoked ON key
    BEGIN
        UPDATE withdrawal SET count = count + 1;
    END;

    CREATE TRIGGER replica_visibility AFTER UPDATE OF visibility ON replica
    BEGIN
        UPDATE withdrawal SET count = count + 1;
    END;

    CREATE TRIGGER replica_gone AFTER DELETE ON replica
    BEGIN
        UPDATE withdrawal SET count = count + 1;
    END;
",
    "
    -- What clients did and said. Times are milliseconds since 1970.
    CREATE TABLE client (
        id INTEGER PRIMARY KEY,
        replica TEXT NOT NULL REFERENCES replica (id) ON DELETE CASCADE,
        -- Who, in its own words; what is not said is empty.
        client_id TEXT NOT NULL,
        host TEXT NOT NULL,
        local_path TEXT NOT NULL,
        -- 0 anybody, 1 with a key for the replica, 2 with one that may push.
        standing INTEGER NOT NULL CHECK (standing BETWEEN 0 AND 2),
        seen INTEGER NOT NULL,
        last_push INTEGER,
        last_push_version INTEGER,
        last_pull INTEGER,
        last_pull_version INTEGER,
        announced INTEGER,
        push_due INTEGER,
        UNIQUE (replica, client_id, host, local_path)
    ) STRICT;

    CREATE INDEX client_by_age ON client (replica, standing, seen);

    CREATE TABLE client_report (
        client INTEGER NOT NULL REFERENCES client (id) ON DELETE CASCADE,
        error TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        since INTEGER,
        reported INTEGER NOT NULL,
        UNIQUE (client, error)
    ) STRICT;
",
    "
    -- What becomes of a push that was made from an older version: 0 merge, 1 reject, 2 latest wins.
    ALTER TABLE replica ADD COLUMN policy INTEGER NOT NULL DEFAULT 0 CHECK (policy BETWEEN 0 AND 2);
    -- Within merge: whether columns are merged, and whether generated keys are given anew.
    ALTER TABLE replica ADD COLUMN merge_cells INTEGER NOT NULL DEFAULT 0 CHECK (merge_cells IN (0, 1));
    ALTER TABLE replica ADD COLUMN merge_renumber INTEGER NOT NULL DEFAULT 0
        CHECK (merge_renumber IN (0, 1));

    -- Who did what. It refers to nothing by key: what is gone from the catalog was there once.
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time INTEGER NOT NULL,
        action TEXT NOT NULL,
        namespace TEXT NOT NULL,
        replica TEXT,
        path TEXT,
        key INTEGER,
        label TEXT NOT NULL,
        address TEXT,
        client_id TEXT NOT NULL,
        host TEXT NOT NULL,
        local_path TEXT NOT NULL,
        version INTEGER,
        conflict INTEGER,
        -- A JSON object.
        details TEXT NOT NULL
    ) STRICT;

    CREATE INDEX audit_by_replica ON audit (replica, id) WHERE replica IS NOT NULL;

    CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
    BEGIN
        SELECT RAISE(ABORT, 'the audit log is only added to');
    END;

    CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
    BEGIN
        SELECT RAISE(ABORT, 'the audit log is only added to');
    END;

    -- INSERT OR REPLACE deletes without a trigger.
    CREATE TRIGGER audit_is_not_replaced BEFORE INSERT ON audit
    WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)
    BEGIN
        SELECT RAISE(ABORT, 'the audit log is only added to');
    END;
",
    "
    -- What is about to be done in the repository, noted before it is: should the server be stopped before its
    -- entry is in the audit log, this says who did it. Gone when it is known what became of it.
    CREATE TABLE audit_pending (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        what TEXT NOT NULL CHECK (what IN ('merge', 'overtake', 'settle')),
        namespace TEXT NOT NULL,
        replica TEXT NOT NULL,
        path TEXT NOT NULL,
        key INTEGER,
        label TEXT NOT NULL,
        address TEXT,
        client_id TEXT NOT NULL,
        host TEXT NOT NULL,
        local_path TEXT NOT NULL,
        -- The latest version at the time; what comes of it has a higher number.
        latest INTEGER NOT NULL,
        -- What tells it from everything else in the repository.
        candidate BLOB CHECK (length(candidate) = 16),
        kept INTEGER NOT NULL CHECK (kept IN (0, 1)),
        conflict INTEGER,
        root TEXT NOT NULL,
        pushed TEXT NOT NULL,
        -- A JSON object.
        details TEXT NOT NULL
    ) STRICT;

    CREATE INDEX audit_pending_by_replica ON audit_pending (replica);
",
];

/// Brings the catalog up to date, in one transaction: two programs that open a new catalog at the
/// same time take the steps once.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = STEPS.len() as u32;
    let Some(missing) = STEPS.get(found as usize..) else { return Err(Error::Newer { found, known }) };
    for step in missing {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(())
}
