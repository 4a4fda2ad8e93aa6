//! Tells subscribers of new versions. Only the newest is kept for each: who is slow misses those in
//! between, and nothing piles up.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlrsync_protocol::page::VersionNumber;
use tokio::sync::watch;

/// The newest version of each replica that somebody listens for.
#[derive(Debug, Default)]
pub struct Notices {
    listened: Mutex<HashMap<String, watch::Sender<Option<VersionNumber>>>>,
}

/// Hears of new versions of one replica.
pub type Subscription = watch::Receiver<Option<VersionNumber>>;

impl Notices {
    /// Listens from now on.
    pub fn subscribe(&self, replica: &str) -> Subscription {
        let mut listened = self.lock();
        // Whoever comes clears away what nobody listens for any more.
        listened.retain(|_, sender| sender.receiver_count() > 0);
        listened.entry(replica.to_owned()).or_insert_with(|| watch::Sender::new(None)).subscribe()
    }

    /// A version was committed.
    pub fn announce(&self, replica: &str, version: VersionNumber) {
        if let Some(sender) = self.lock().get(replica) {
            sender.send_if_modified(|newest| {
                let newer = newest.is_none_or(|newest| version > newest);
                if newer {
                    *newest = Some(version);
                }
                newer
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Option<VersionNumber>>>> {
        self.listened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_subscriber_gets_the_newest_only() {
        let notices = Notices::default();
        let mut subscription = notices.subscribe("a");
        for number in [1, 3, 2] {
            notices.announce("a", VersionNumber::new(number).unwrap());
        }
        assert_eq!(subscription.borrow_and_update().map(VersionNumber::get), Some(3));
        assert!(!subscription.has_changed().unwrap());
        drop(subscription);
        notices.subscribe("b");
        assert_eq!(notices.lock().len(), 1);
    }
}
