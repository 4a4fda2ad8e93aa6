//! One push to a replica at a time: the others wait for their turn.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Who is pushing to what.
#[derive(Debug, Default)]
pub struct Turns {
    taken: Mutex<HashSet<String>>,
    freed: Notify,
}

/// A turn; dropping it ends it.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    name: String,
}

impl Turns {
    /// Waits until nobody else has the turn for `name`.
    pub async fn take(self: &Arc<Turns>, name: &str) -> Turn {
        loop {
            // Registered before the look, so that a turn that ends in between is not missed.
            let freed = self.freed.notified();
            if self.lock().insert(name.to_owned()) {
                return Turn { turns: self.clone(), name: name.to_owned() };
            }
            freed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.lock().remove(&self.name);
        self.turns.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_second_waits_for_the_first_and_others_do_not() {
        let turns = Arc::new(Turns::default());
        let first = turns.take("a").await;
        let _other = turns.take("b").await;
        let waiting = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take("a").await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap();
    }
}
