//! Ends the open sessions that have lost their right: those of revoked keys, and those that had a replica
//! because everybody might, until it became private. Within [`POLL_INTERVAL`] of it, whichever program
//! wrote it.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::catalog::{Catalog, Error};
use crate::sessions::Sessions;

/// How often the catalog is asked whether somebody wrote to it; the question costs microseconds.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// What was seen of the catalog.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Seen {
    /// [`Catalog::data_version`].
    data: Option<i64>,
    /// [`Catalog::withdrawals`].
    withdrawals: Option<i64>,
}

/// A watch that goes on until this is dropped.
#[derive(Debug)]
pub struct Watch {
    _stop: mpsc::Sender<()>,
}

/// Watches on a thread of its own: that the question wakes one thread, and not three of the runtime, is
/// most of what a server at rest costs. `catalog` is a connection of its own: a connection's own writes
/// do not change its data version, and a server revokes through others.
///
/// # Errors
/// There is no thread.
pub fn watch(catalog: Catalog, sessions: Arc<Sessions>) -> io::Result<Watch> {
    let (stop, stopped) = mpsc::channel();
    std::thread::Builder::new().name("revocations".to_owned()).spawn(move || {
        let mut seen = Seen::default();
        while stopped.recv_timeout(POLL_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            match look(&catalog, &sessions, seen) {
                Ok(now) => seen = now,
                Err(error) => tracing::error!(%error, "cannot see whether keys were revoked"),
            }
        }
    })?;
    Ok(Watch { _stop: stop })
}

fn look(catalog: &Catalog, sessions: &Sessions, seen: Seen) -> Result<Seen, Error> {
    // Both are read before the rest is: what is written in between is seen the next time.
    let data = Some(catalog.data_version()?);
    if data == seen.data {
        return Ok(seen);
    }
    let withdrawals = Some(catalog.withdrawals()?);
    if withdrawals != seen.withdrawals {
        end_those_without_right(catalog, sessions)?;
    }
    Ok(Seen { data, withdrawals })
}

fn end_those_without_right(catalog: &Catalog, sessions: &Sessions) -> Result<(), Error> {
    for key in sessions.keys() {
        if !catalog.key_is_live(key)? {
            tracing::info!(%key, "revoked: ending its sessions");
            sessions.revoke(key);
        }
    }
    for replica in sessions.open_replicas() {
        if !catalog.replica_is_open(&replica)? {
            tracing::info!(replica, "private now: ending the sessions that had it as everybody might");
            sessions.make_private(&replica);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{NewReplica, Visibility};
    use crate::sessions::{Ground, Signal};

    #[test]
    fn what_takes_no_right_away_is_not_looked_at_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        let (catalog, other) = (Catalog::open(&path).unwrap(), Catalog::open(&path).unwrap());
        other.create_namespace("team").unwrap();
        let new = NewReplica {
            id: "a",
            namespace: "team",
            path: "app.db",
            visibility: Visibility::Public,
            client_id: "",
            host: "",
            local_path: "",
        };
        other.create_replica(&new).unwrap();
        let sessions = Arc::new(Sessions::default());
        let session = sessions.enter(Ground { open_replica: Some("a".to_owned()), key: None });
        let first = look(&catalog, &sessions, Seen::default()).unwrap();
        assert_eq!(look(&catalog, &sessions, first).unwrap(), first);
        other.create_namespace("other").unwrap();
        let second = look(&catalog, &sessions, first).unwrap();
        assert_eq!((second.withdrawals, second == first), (first.withdrawals, false));
        assert_eq!(*session.signal().borrow(), Signal::Go);
        other.set_visibility("team", "app.db", Visibility::Private).unwrap();
        assert_ne!(look(&catalog, &sessions, second).unwrap().withdrawals, second.withdrawals);
        assert_eq!(*session.signal().borrow(), Signal::Private);
    }
}
