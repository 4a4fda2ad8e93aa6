//! The open WebSocket sessions, and how they are told to end: because a key was revoked, or because
//! the server stops.

use std::collections::HashMap;
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
}

impl Signal {
    /// Whether a transfer has to end.
    pub const fn cuts(self) -> bool {
        matches!(self, Signal::Stop | Signal::Revoked)
    }
}

/// Waits for a signal that is `wanted`. A session whose place is gone is stopped.
pub async fn told(signal: &mut watch::Receiver<Signal>, wanted: impl Fn(Signal) -> bool) -> Signal {
    signal.wait_for(|signal| wanted(*signal)).await.map_or(Signal::Stop, |signal| *signal)
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
    sessions: HashMap<u64, (Option<KeyId>, watch::Sender<Signal>)>,
}

/// A session's place among the open ones; dropping it ends the membership.
#[derive(Debug)]
pub struct Session {
    id: u64,
    all: Arc<Sessions>,
    signal: watch::Receiver<Signal>,
}

impl Sessions {
    /// Enters a session that goes by `key`. The key is checked (again) after this, so that no
    /// revocation falls between.
    pub fn enter(self: &Arc<Sessions>, key: Option<KeyId>) -> Session {
        let mut open = self.lock();
        let (sender, signal) = watch::channel(open.signal.unwrap_or(Signal::Go));
        let id = open.next;
        open.next += 1;
        open.sessions.insert(id, (key, sender));
        self.count.send_replace(open.sessions.len());
        Session { id, all: self.clone(), signal }
    }

    /// The keys that open sessions go by.
    pub fn keys(&self) -> Vec<KeyId> {
        let mut keys: Vec<_> = self.lock().sessions.values().filter_map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Ends the sessions that go by `key`.
    pub fn revoke(&self, key: KeyId) {
        for (_, sender) in self.lock().sessions.values().filter(|(own, _)| *own == Some(key)) {
            sender.send_replace(Signal::Revoked);
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

    #[test]
    fn a_revoked_key_ends_its_own_sessions_and_no_others() {
        let all = Arc::new(Sessions::default());
        let [one, two, none] = [Some(KeyId(1)), Some(KeyId(2)), None].map(|key| all.enter(key));
        assert_eq!(all.keys(), [KeyId(1), KeyId(2)]);
        all.revoke(KeyId(1));
        let signals = [&one, &two, &none].map(|session| *session.signal().borrow());
        assert_eq!(signals, [Signal::Revoked, Signal::Go, Signal::Go]);
        all.signal_all(Signal::Stopping);
        let late = all.enter(None);
        let signals = [&one, &two, &late].map(|session| *session.signal().borrow());
        assert_eq!(signals, [Signal::Revoked, Signal::Stopping, Signal::Stopping]);
        drop((one, two, none, late));
        assert_eq!(all.count(), 0);
    }
}
