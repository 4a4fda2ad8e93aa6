//! What is about to be done in the repository, so that the audit log says of everything that was done who did it.
//!
//! The catalog and the repository cannot change at once. So who does something is noted down before; what was done
//! is put into the audit log and the note taken away in one transaction; and a note that is still there when
//! nobody is at work any more is looked up in the repository. Whoever takes the note away writes the entries: that
//! is why each is written once.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::{Actor, Audit, Catalog, Error, KeyId, Subject, audit};

/// What is about to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Intent {
    /// A push is kept as a candidate, and merged or put into a conflict.
    Merge,
    /// A push goes on top of what others did.
    Overtake,
    /// A conflict is settled.
    Settle,
}

impl Intent {
    const ALL: [Intent; 3] = [Intent::Merge, Intent::Overtake, Intent::Settle];

    const fn as_str(self) -> &'static str {
        match self {
            Intent::Merge => "merge",
            Intent::Overtake => "overtake",
            Intent::Settle => "settle",
        }
    }
}

/// Something that is about to be done.
#[derive(Clone, PartialEq, Debug)]
pub struct Pending {
    /// What.
    pub what: Intent,
    /// Who does it.
    pub actor: Actor,
    /// To which replica; with the conflict that is settled.
    pub subject: Subject,
    /// The number of the latest version; 0 where there is none.
    pub latest: u64,
    /// The candidate that it is about, where its id is known.
    pub candidate: Option<[u8; 16]>,
    /// The candidate was kept before, and that is in the log.
    pub kept: bool,
    /// What the pushed content hashes to.
    pub root: String,
    /// When it was pushed, as the repository has it: with the root it is one push and no other.
    pub pushed: String,
    /// What is known of it already: the details of its entry.
    pub details: serde_json::Value,
}

/// Names a [`Pending`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PendingId(i64);

/// What is known now of something that was pending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// All of it.
    All,
    /// That its candidate was kept, and no more.
    Kept,
}

impl Catalog {
    /// Notes down what is about to be done. It is durable when this returns.
    ///
    /// # Errors
    /// [`Error::Database`]: then it must not be done.
    pub fn announce(&self, pending: &Pending) -> Result<PendingId, Error> {
        let Pending { what, actor, subject, latest, candidate, kept, root, pushed, details } = pending;
        let (replica, path) = subject.replica.as_ref().map(|(id, path)| (id, path)).unzip();
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "INSERT INTO audit_pending (what, namespace, replica, path, key, label, address, client_id, host,
             local_path, latest, candidate, kept, conflict, root, pushed, details)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?;
        let id = statement.insert(params![
            what.as_str(),
            subject.namespace,
            replica,
            path,
            actor.key.map(|key| key.0),
            actor.label,
            actor.address.map(|address| address.to_string()),
            actor.client_id,
            actor.host,
            actor.local_path,
            *latest as i64,
            candidate,
            kept,
            subject.conflict.map(|conflict| conflict as i64),
            root,
            pushed,
            details.to_string(),
        ])?;
        Ok(PendingId(id))
    }

    /// Puts what was done into the audit log, each with when, and takes away what was noted of it before as far as
    /// this is all. Where somebody else did so meanwhile it is in the log already, and nothing is added.
    ///
    /// # Errors
    /// [`Error::Database`]: then nothing was changed, and it is still pending.
    pub fn conclude(&self, id: PendingId, done: &[(Timestamp, Audit)], known: Known) -> Result<(), Error> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let sql = match known {
            Known::All => "DELETE FROM audit_pending WHERE id = ?",
            Known::Kept => "UPDATE audit_pending SET kept = 1 WHERE id = ? AND kept = 0",
        };
        if transaction.prepare_cached(sql)?.execute([id.0])? == 1 {
            for (time, entry) in done {
                audit::insert_at(&transaction, entry, *time)?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// What is pending, of one replica or of all, the oldest first, from the one after `after` on.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Damaged`].
    pub fn next_pending(
        &self,
        replica: Option<&str>,
        after: Option<PendingId>,
    ) -> Result<Option<(PendingId, Pending)>, Error> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "SELECT id, what, namespace, replica, path, key, label, address, client_id, host, local_path, latest,
             candidate, kept, conflict, root, pushed, details
             FROM audit_pending WHERE (?1 IS NULL OR replica = ?1) AND id > ?2 ORDER BY id LIMIT 1",
        )?;
        let after = after.map_or(0, |id| id.0);
        let found = statement.query_row(params![replica, after], |row| Ok(pending(row))).optional()?;
        found.transpose()
    }
}

fn pending(row: &Row<'_>) -> Result<(PendingId, Pending), Error> {
    let (what, details): (String, String) = (row.get(1)?, row.get(17)?);
    let what = Intent::ALL.into_iter().find(|intent| intent.as_str() == what);
    let (address, latest): (Option<String>, i64) = (row.get(7)?, row.get(11)?);
    let conflict: Option<i64> = row.get(14)?;
    let actor = Actor {
        key: row.get::<_, Option<i64>>(5)?.map(KeyId),
        label: row.get(6)?,
        address: address.and_then(|address| address.parse().ok()),
        client_id: row.get(8)?,
        host: row.get(9)?,
        local_path: row.get(10)?,
    };
    let subject = Subject {
        namespace: row.get(2)?,
        replica: Some((row.get(3)?, row.get(4)?)),
        version: None,
        conflict: conflict.map(i64::unsigned_abs),
    };
    let pending = Pending {
        what: what.ok_or(Error::Damaged("pending entry"))?,
        actor,
        subject,
        latest: latest.unsigned_abs(),
        candidate: row.get(12)?,
        kept: row.get(13)?,
        root: row.get(15)?,
        pushed: row.get(16)?,
        details: serde_json::from_str(&details).map_err(|_| Error::Damaged("pending entry"))?,
    };
    Ok((PendingId(row.get(0)?), pending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pending_is_concluded_once_whoever_does_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        let (ours, theirs) = (Catalog::open(&path).unwrap(), Catalog::open(&path).unwrap());
        let subject = Subject {
            namespace: "team".to_owned(),
            replica: Some(("r".to_owned(), "app.db".to_owned())),
            ..Subject::default()
        };
        let actor = Actor { key: Some(KeyId(7)), address: "10.0.0.1".parse().ok(), ..Actor::operator() };
        let details = serde_json::json!({"latest": 3});
        let pending = Pending {
            what: Intent::Merge,
            actor: actor.clone(),
            subject: subject.clone(),
            latest: 3,
            candidate: Some([9; 16]),
            kept: false,
            root: "root".to_owned(),
            pushed: "now".to_owned(),
            details: details.clone(),
        };
        let id = ours.announce(&pending).unwrap();
        assert_eq!(theirs.next_pending(Some("r"), None).unwrap(), Some((id, pending.clone())));
        assert_eq!(theirs.next_pending(Some("x"), None).unwrap(), None);
        assert_eq!(theirs.next_pending(None, Some(id)).unwrap(), None);
        let done = |action| {
            [(
                Timestamp::UNIX_EPOCH,
                Audit { actor: actor.clone(), action, subject: subject.clone(), details: details.clone() },
            )]
        };
        for catalog in [&ours, &theirs] {
            catalog.conclude(id, &done("candidate-kept"), Known::Kept).unwrap();
        }
        let kept = Pending { kept: true, ..pending };
        assert_eq!(ours.next_pending(None, None).unwrap(), Some((id, kept)));
        for catalog in [&theirs, &ours] {
            catalog.conclude(id, &done("merged"), Known::All).unwrap();
        }
        assert_eq!(ours.next_pending(None, None).unwrap(), None);
        let entries = ours.audit_of("r", None, 9).unwrap();
        let actions: Vec<_> = entries.iter().map(|entry| entry.action.as_str()).collect();
        assert_eq!(actions, ["merged", "candidate-kept"]);
        assert_eq!(entries[0].time, Timestamp::UNIX_EPOCH.to_string());
    }
}
