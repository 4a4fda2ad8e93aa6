//! One push to a replica at a time: the others wait for their turn, and who has it hears that they do.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

/// Who is pushing to what.
#[derive(Debug, Default)]
pub struct Turns {
    taken: Mutex<HashMap<String, Held>>,
    freed: Notify,
}

/// A turn that somebody has.
#[derive(Debug)]
struct Held {
    /// Whose it is, for people.
    by: String,
    since: Instant,
    /// How many wait for it.
    waiting: watch::Sender<usize>,
}

/// A turn; dropping it ends it.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    name: String,
    waiting: watch::Receiver<usize>,
}

/// Somebody who waits; dropping it ends that, too.
struct Waiting(watch::Sender<usize>);

impl Turns {
    /// Waits until nobody else has the turn for `name`; it is `by`'s then.
    pub async fn take(self: &Arc<Turns>, name: &str, by: &str) -> Turn {
        loop {
            // Registered before the look, so that a turn that ends in between is not missed.
            let freed = self.freed.notified();
            let _waiting = match self.lock().entry(name.to_owned()) {
                Entry::Occupied(held) => Waiting::of(held.get()),
                Entry::Vacant(free) => {
                    let (waiting, heard) = watch::channel(0);
                    free.insert(Held { by: by.to_owned(), since: Instant::now(), waiting });
                    return Turn { turns: self.clone(), name: name.to_owned(), waiting: heard };
                }
            };
            freed.await;
        }
    }

    /// Who has the turn for `name`, and for how long already.
    pub fn holder(&self, name: &str) -> Option<(String, Duration)> {
        self.lock().get(name).map(|held| (held.by.clone(), held.since.elapsed()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn of(held: &Held) -> Waiting {
        held.waiting.send_modify(|waiting| *waiting += 1);
        Waiting(held.waiting.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

impl Turn {
    /// How many wait for it, now and later.
    pub fn waiting(&self) -> watch::Receiver<usize> {
        self.waiting.clone()
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

    #[tokio::test]
    async fn a_second_waits_for_the_first_who_hears_of_it_and_others_do_not() {
        let turns = Arc::new(Turns::default());
        let first = turns.take("a", "one").await;
        let _other = turns.take("b", "two").await;
        let waits = || {
            let turns = turns.clone();
            tokio::spawn(async move { turns.take("a", "three").await })
        };
        let mut heard = first.waiting();
        let (waiting, gives_up) = (waits(), waits());
        heard.wait_for(|waiting| *waiting == 2).await.unwrap();
        gives_up.abort();
        heard.wait_for(|waiting| *waiting == 1).await.unwrap();
        assert!(!waiting.is_finished());
        assert_eq!(turns.holder("a").unwrap().0, "one");
        drop(first);
        let third = waiting.await.unwrap();
        assert_eq!(turns.holder("a").unwrap().0, "three");
        assert_eq!(*third.waiting().borrow(), 0);
        drop(third);
        assert_eq!(turns.holder("a"), None);
    }
}
