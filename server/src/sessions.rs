//! The open WebSocket sessions, and how they are told to end: because a key was revoked, because a
//! replica became private, or because the server stops.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::catalog::KeyId;

/// What a session is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// Go on.
    Go,
    /// The server stops: a session without a transfer ends, a transfer may finish.
    Stopping,
    /// End now, because the server stops.
    Stop,
    /// End now, because the key was revoked.
    Revoked,
    /// End now, because the replica became private.
    Private,
}

impl Signal {
    /// Whether a transfer has to end.
    pub const fn cuts(self) -> bool {
        matches!(self, Signal::Stop | Signal::Revoked | Signal::Private)
    }
}

/// Waits for a signal that is `wanted`. A session whose place is gone is stopped.
pub async fn told(signal: &mut watch::Receiver<Signal>, wanted: impl Fn(Signal) -> bool) -> Signal {
    signal.wait_for(|signal| wanted(*signal)).await.map_or(Signal::Stop, |signal| *signal)
}

/// What a session's right rests on: what, when it goes, ends the session.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ground {
    /// The key that it goes by.
    pub key: Option<KeyId>,
    /// The id of the replica, where the session may have it because everybody may, and not by its key.
    pub open_replica: Option<String>,
}

/// All open sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    open: Mutex<Open>,
    /// How many are open, for who waits until there is none.
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    /// What new sessions begin with.
    signal: Option<Signal>,
    sessions: HashMap<u64, (Ground, watch::Sender<Signal>)>,
}

/// A session's place among the open ones; dropping it ends the membership.
#[derive(Debug)]
pub struct Session {
    id: u64,
    all: Arc<Sessions>,
    signal: watch::Receiver<Signal>,
}

impl Sessions {
    /// Enters a session. Its ground is checked (again) after this, so that no revocation falls between.
    pub fn enter(self: &Arc<Sessions>, ground: Ground) -> Session {
        let mut open = self.lock();
        let (sender, signal) = watch::channel(open.signal.unwrap_or(Signal::Go));
        let id = open.next;
        open.next += 1;
        open.sessions.insert(id, (ground, sender));
        self.count.send_replace(open.sessions.len());
        Session { id, all: self.clone(), signal }
    }

    /// The keys that open sessions go by.
    pub fn keys(&self) -> Vec<KeyId> {
        let keys: HashSet<_> = self.lock().sessions.values().filter_map(|(ground, _)| ground.key).collect();
        keys.into_iter().collect()
    }

    /// The ids of the replicas that open sessions have because everybody may.
    pub fn open_replicas(&self) -> Vec<String> {
        let open = self.lock();
        let replicas: HashSet<_> =
            open.sessions.values().filter_map(|(ground, _)| ground.open_replica.as_ref()).collect();
        replicas.into_iter().cloned().collect()
    }

    /// Ends the sessions that go by `key`.
    pub fn revoke(&self, key: KeyId) {
        self.end(Signal::Revoked, |ground| ground.key == Some(key));
    }

    /// Ends the sessions that have this replica because everybody might.
    pub fn make_private(&self, replica: &str) {
        self.end(Signal::Private, |ground| ground.open_replica.as_deref() == Some(replica));
    }

    fn end(&self, signal: Signal, chosen: impl Fn(&Ground) -> bool) {
        for (_, sender) in self.lock().sessions.values().filter(|(ground, _)| chosen(ground)) {
            sender.send_replace(signal);
        }
    }

    /// Tells all sessions, and those that begin from now on.
    pub fn signal_all(&self, signal: Signal) {
        let mut open = self.lock();
        open.signal = Some(signal);
        for (_, sender) in open.sessions.values() {
            sender.send_if_modified(|now| {
                let changes = !now.cuts();
                if changes {
                    *now = signal;
                }
                changes
            });
        }
    }

    /// Returns when no session is open.
    pub async fn none_left(&self) {
        // The sender is a field of `self`, so the wait ends only with the condition.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Names the session in the logs.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What it is to do.
    pub fn signal(&self) -> watch::Receiver<Signal> {
        self.signal.clone()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut open = self.all.lock();
        open.sessions.remove(&self.id);
        self.all.count.send_replace(open.sessions.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_key(key: Option<KeyId>) -> Ground {
        Ground { key, open_replica: None }
    }

    #[test]
    fn a_private_replica_ends_the_sessions_that_had_no_other_right() {
        let all = Arc::new(Sessions::default());
        let open = |replica: &str| Ground { open_replica: Some(replica.to_owned()), ..Ground::default() };
        let sessions = [open("a"), open("b"), by_key(Some(KeyId(1)))].map(|ground| all.enter(ground));
        let mut replicas = all.open_replicas();
        replicas.sort();
        assert_eq!(replicas, ["a", "b"]);
        all.make_private("a");
        let signals = sessions.each_ref().map(|session| *session.signal().borrow());
        assert_eq!(signals, [Signal::Private, Signal::Go, Signal::Go]);
    }

    #[test]
    fn a_revoked_key_ends_its_own_sessions_and_no_others() {
        let all = Arc::new(Sessions::default());
        let [one, two, none] = [Some(KeyId(1)), Some(KeyId(2)), None].map(|key| all.enter(by_key(key)));
        let mut keys = all.keys();
        keys.sort_unstable();
        assert_eq!(keys, [KeyId(1), KeyId(2)]);
        all.revoke(KeyId(1));
        let signals = [&one, &two, &none].map(|session| *session.signal().borrow());
        assert_eq!(signals, [Signal::Revoked, Signal::Go, Signal::Go]);
        all.signal_all(Signal::Stopping);
        let late = all.enter(Ground::default());
        let signals = [&one, &two, &late].map(|session| *session.signal().borrow());
        assert_eq!(signals, [Signal::Revoked, Signal::Stopping, Signal::Stopping]);
        drop((one, two, none, late));
        assert_eq!(all.count(), 0);
    }
}
