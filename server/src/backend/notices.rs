//! Tells subscribers of new versions.
//!
//! - Only the newest is kept for each: who is slow misses those in between, and nothing piles up.
//! - What a subscriber is told is written once for all of them, whatever their number.
//! - The newest version of a replica that somebody listens for is known here, so that ten thousand that
//!   come back at once do not ask the disk ten thousand times.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_protocol::subscription::ServerMessage;
use tokio::sync::watch;

/// How many replicas are listened for before those that nobody listens for any more are looked for.
const SWEEP_LEAST: usize = 64;

/// Who pushed a version: a machine, and the file on it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pusher {
    /// `X-ClientID`; empty where nothing was said.
    pub client_id: String,
    /// `X-LocalAbsolutePath`.
    pub local_path: String,
}

impl Pusher {
    /// Whether both are the same file on the same machine. Who said nothing is nobody's same.
    pub fn is(&self, other: &Pusher) -> bool {
        !self.client_id.is_empty() && self == other
    }
}

/// A version that is the newest.
#[derive(PartialEq, Eq, Debug)]
pub struct Notice {
    /// Its number.
    pub version: VersionNumber,
    /// LATEST_VERSION, as it goes to every subscriber. UTF-8.
    pub text: Bytes,
    /// Who pushed it; `None` where it was found and not heard of.
    pub pusher: Option<Pusher>,
}

/// Hears of new versions of one replica.
pub type Subscription = watch::Receiver<Option<Arc<Notice>>>;

/// The newest version of each replica that somebody listens for, by the replica's name.
#[derive(Debug, Default)]
pub struct Notices {
    listened: Mutex<Listened>,
}

#[derive(Debug, Default)]
struct Listened {
    replicas: HashMap<String, watch::Sender<Option<Arc<Notice>>>>,
    /// How many there may be before they are swept.
    sweep_at: usize,
}

impl Notices {
    /// Listens from now on; what is known of the newest version counts as heard.
    pub fn subscribe(&self, replica: &str) -> Subscription {
        let mut listened = self.lock();
        // Each sweep allows as many again, so that it costs each subscriber a little and none a lot.
        if listened.replicas.len() >= listened.sweep_at.max(SWEEP_LEAST) {
            listened.replicas.retain(|_, sender| sender.receiver_count() > 0);
            listened.sweep_at = listened.replicas.len() * 2;
        }
        match listened.replicas.get(replica) {
            Some(sender) => sender.subscribe(),
            None => {
                let (sender, subscription) = watch::channel(None);
                listened.replicas.insert(replica.to_owned(), sender);
                subscription
            }
        }
    }

    /// A version was committed.
    pub fn announce(&self, replica: &str, version: VersionNumber, pusher: Pusher) {
        self.note(replica, version, Some(pusher));
    }

    /// A version was found to be the newest. It is news where a later one was not announced meanwhile.
    pub fn found(&self, replica: &str, version: VersionNumber) {
        self.note(replica, version, None);
    }

    fn note(&self, replica: &str, version: VersionNumber, pusher: Option<Pusher>) {
        let listened = self.lock();
        let Some(sender) = listened.replicas.get(replica) else { return };
        sender.send_if_modified(|newest| {
            let newer = newest.as_ref().is_none_or(|newest| version > newest.version);
            if newer {
                let now = jiff::Timestamp::now().to_string();
                let text = ServerMessage::LatestVersion(version).to_text(&now).into();
                *newest = Some(Arc::new(Notice { version, text, pusher }));
            }
            newer
        });
    }

    fn lock(&self) -> MutexGuard<'_, Listened> {
        self.listened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u64) -> VersionNumber {
        VersionNumber::new(number).unwrap()
    }

    #[test]
    fn a_slow_subscriber_gets_the_newest_only() {
        let notices = Notices::default();
        let mut subscription = notices.subscribe("team/a");
        for number in [1, 3, 2] {
            notices.announce("team/a", version(number), Pusher::default());
        }
        notices.found("team/a", version(2));
        let newest = subscription.borrow_and_update().clone().unwrap();
        assert_eq!(newest.version, version(3));
        let text = std::str::from_utf8(&newest.text).unwrap();
        assert_eq!(ServerMessage::parse(text), Ok(ServerMessage::LatestVersion(version(3))));
        assert!(!subscription.has_changed().unwrap());
    }

    #[test]
    fn who_comes_later_finds_what_is_known_and_need_not_ask() {
        let notices = Notices::default();
        let first = notices.subscribe("team/a");
        assert_eq!(*first.borrow(), None);
        notices.found("team/a", version(7));
        let second = notices.subscribe("team/a");
        assert_eq!(second.borrow().as_ref().unwrap().version, version(7));
        assert!(!second.has_changed().unwrap());
        assert!(Arc::ptr_eq(first.borrow().as_ref().unwrap(), second.borrow().as_ref().unwrap()));
    }

    #[test]
    fn what_nobody_listens_for_is_forgotten() {
        let notices = Notices::default();
        let kept: Vec<_> = (0..10).map(|number| notices.subscribe(&format!("kept/{number}"))).collect();
        for number in 0..10 * SWEEP_LEAST {
            notices.subscribe(&format!("gone/{number}"));
        }
        assert!(notices.lock().replicas.len() <= SWEEP_LEAST, "{}", notices.lock().replicas.len());
        assert!(kept.iter().all(|subscription| subscription.has_changed().is_ok()));
    }

    #[test]
    fn a_pusher_is_a_file_on_a_machine_that_says_so() {
        let pusher = |client_id: &str, local_path: &str| Pusher {
            client_id: client_id.to_owned(),
            local_path: local_path.to_owned(),
        };
        assert!(pusher("a", "/app.db").is(&pusher("a", "/app.db")));
        assert!(!pusher("a", "/app.db").is(&pusher("a", "/copy.db")));
        assert!(!pusher("", "/app.db").is(&pusher("", "/app.db")));
    }
}
