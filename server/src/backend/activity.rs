//! Takes down what clients do and say, beside their transfers and never in their way.
//!
//! - Noting something is a push onto a list in memory. It is written a moment later ([`WRITE_INTERVAL`]), all
//!   that has come meanwhile in one transaction: a killed server forgets a second, a stopped one nothing.
//! - Whoever asks what is known has the list written first, so that an answer never lags.
//! - The list is bounded. What does not fit is forgotten: pulls first, since they are the most and say the
//!   least.
//! - Who follows, and who is pushing, is known by the open connections and stored nowhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::catalog::{self, ActivityTable, ClientActivity, ClientName, Event, Happened};

/// How long what was noted waits for more, before it is written.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// The most that waits to be written: with the longest names, some 8 MB.
const WAITING_MAX: usize = 4096;

/// The most that waits when a pull comes, for it to be noted too.
const WAITING_MAX_FOR_PULLS: usize = WAITING_MAX / 4 * 3;

/// When so many wait they are written at once.
const WAITING_ENOUGH: usize = WAITING_MAX / 2;

/// What a client is doing right now.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Doing {
    /// It is subscribed to notices of new versions.
    Following,
    /// It is in the middle of a push.
    Pushing,
}

/// Notes what clients do.
#[derive(Debug)]
pub struct Activity {
    table: ActivityTable,
    waiting: Mutex<Waiting>,
    /// Held from taking what waits until it is written, so that batches are written in order.
    writing: Mutex<()>,
    some: Notify,
    enough: Notify,
    present: Mutex<HashMap<String, HashMap<(Doing, ClientName), usize>>>,
}

#[derive(Debug, Default)]
struct Waiting {
    events: Vec<Event>,
    forgotten: u64,
}

/// Says that a client is doing something; dropping it, that it has ended.
#[derive(Debug)]
pub struct Present {
    activity: Arc<Activity>,
    replica: String,
    who: (Doing, ClientName),
}

impl Activity {
    /// Notes into `table`.
    pub fn new(table: ActivityTable) -> Arc<Activity> {
        Arc::new(Activity {
            table,
            waiting: Mutex::default(),
            writing: Mutex::default(),
            some: Notify::new(),
            enough: Notify::new(),
            present: Mutex::default(),
        })
    }

    /// Notes that something happened. Returns at once.
    pub fn note(&self, event: Event) {
        let mut waiting = lock(&self.waiting);
        let pulled = matches!(event.what, Happened::Pulled(_));
        let room = if pulled { WAITING_MAX_FOR_PULLS } else { WAITING_MAX };
        if waiting.events.len() >= room {
            waiting.forgotten += 1;
            return;
        }
        waiting.events.push(event);
        let len = waiting.events.len();
        drop(waiting);
        self.some.notify_one();
        if len >= WAITING_ENOUGH {
            self.enough.notify_one();
        }
    }

    /// Writes what waits. Blocks.
    ///
    /// # Errors
    /// [`catalog::Error::Database`]; what waited is forgotten then, for it would only grow.
    pub fn write(&self) -> Result<(), catalog::Error> {
        let _writing = lock(&self.writing);
        let Waiting { events, forgotten } = std::mem::take(&mut *lock(&self.waiting));
        if forgotten > 0 {
            tracing::warn!(forgotten, "more happened than could be noted for `status`");
        }
        if events.is_empty() { Ok(()) } else { self.table.write(&events) }
    }

    /// What is known of the clients of a replica, up to now. Blocks.
    ///
    /// # Errors
    /// [`catalog::Error::Database`], [`catalog::Error::Damaged`].
    pub fn clients(&self, replica: &str) -> Result<Vec<ClientActivity>, catalog::Error> {
        self.write()?;
        self.table.clients(replica)
    }

    /// Writes what is noted, until the task is aborted.
    pub fn start(self: &Arc<Activity>) -> JoinHandle<()> {
        let activity = self.clone();
        tokio::spawn(async move {
            loop {
                activity.some.notified().await;
                // Not for long, where much is waiting already.
                let _ = timeout(WRITE_INTERVAL, activity.enough.notified()).await;
                activity.clone().write_off_the_async_threads().await;
            }
        })
    }

    /// As [`Activity::write`]; a failure is logged.
    pub async fn write_off_the_async_threads(self: Arc<Activity>) {
        match spawn_blocking(move || self.write()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "what clients did cannot be noted for `status`"),
            Err(error) => tracing::error!(%error, "noting what clients did panicked"),
        }
    }

    /// A client does something from now on, until what is returned is dropped.
    pub fn enter(self: &Arc<Activity>, replica: &str, client: ClientName, doing: Doing) -> Present {
        let who = (doing, client);
        let mut present = lock(&self.present);
        *present.entry(replica.to_owned()).or_default().entry(who.clone()).or_default() += 1;
        drop(present);
        Present { activity: self.clone(), replica: replica.to_owned(), who }
    }

    /// Who is doing something with a replica, once each.
    pub fn present(&self, replica: &str) -> Vec<(Doing, ClientName)> {
        lock(&self.present).get(replica).map(|who| who.keys().cloned().collect()).unwrap_or_default()
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut present = lock(&self.activity.present);
        let Some(here) = present.get_mut(&self.replica) else { return };
        if let Some(count) = here.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                here.remove(&self.who);
            }
        }
        if here.is_empty() {
            present.remove(&self.replica);
        }
    }
}

/// What a panic may have left behind under these locks is a list or a count: both go on to be used.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use sqlrsync_protocol::page::VersionNumber;

    use super::*;
    use crate::catalog::{CLIENTS_MAX, Catalog, NewReplica, Standing, Visibility};

    fn activity() -> (tempfile::TempDir, Arc<Activity>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        let catalog = Catalog::open(&path).unwrap();
        catalog.create_namespace("team").unwrap();
        let new = NewReplica {
            id: "r",
            namespace: "team",
            path: "app.db",
            visibility: Visibility::Private,
            client_id: "",
            host: "",
            local_path: "",
        };
        catalog.create_replica(&new).unwrap();
        (folder, Activity::new(ActivityTable::open(&path).unwrap()))
    }

    fn event(client_id: &str, what: Happened) -> Event {
        let client = ClientName { client_id: client_id.to_owned(), ..ClientName::default() };
        let (replica, standing, time) = ("r".to_owned(), Standing::Puller, Timestamp::now());
        Event { replica, client, standing, time, what }
    }

    fn pulled() -> Happened {
        Happened::Pulled(VersionNumber::new(1).unwrap())
    }

    #[test]
    fn who_asks_sees_what_was_noted_a_moment_ago() {
        let (_folder, activity) = activity();
        activity.note(event("me", pulled()));
        assert_eq!(activity.clients("r").unwrap().len(), 1);
    }

    #[test]
    fn a_flood_takes_bounded_memory_and_leaves_room_for_what_matters() {
        let (_folder, activity) = activity();
        for number in 0..10_000 {
            activity.note(event(&number.to_string(), pulled()));
        }
        activity.note(event("publisher", Happened::Announced(Timestamp::now())));
        let waiting = lock(&activity.waiting);
        assert_eq!(waiting.events.len(), WAITING_MAX_FOR_PULLS + 1);
        assert_eq!(waiting.forgotten as usize, 10_000 - WAITING_MAX_FOR_PULLS);
        drop(waiting);
        let found = activity.clients("r").unwrap();
        assert!(found.iter().any(|one| one.client.client_id == "publisher"));
        assert!(found.len() <= CLIENTS_MAX as usize);
    }

    #[tokio::test]
    async fn what_is_noted_is_written_without_being_asked_for() {
        let (folder, activity) = activity();
        let task = activity.start();
        for number in 0..WAITING_ENOUGH {
            activity.note(event(&number.to_string(), pulled()));
        }
        let table = ActivityTable::open(&folder.path().join("catalog.db")).unwrap();
        let written = async {
            while table.clients("r").unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), written).await.expect("it is written");
        task.abort();
    }

    #[test]
    fn who_is_here_is_known_until_it_leaves() {
        let (_folder, activity) = activity();
        let client = || ClientName { client_id: "me".to_owned(), ..ClientName::default() };
        let following = activity.enter("r", client(), Doing::Following);
        let again = activity.enter("r", client(), Doing::Following);
        let pushing = activity.enter("r", client(), Doing::Pushing);
        assert_eq!(activity.present("r").len(), 2);
        drop((pushing, again));
        assert_eq!(activity.present("r"), [(Doing::Following, client())]);
        assert_eq!(activity.present("other"), []);
        drop(following);
        assert!(lock(&activity.present).is_empty());
    }
}
