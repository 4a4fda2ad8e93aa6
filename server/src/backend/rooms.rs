//! Room for transfers: so many at once, and so many of those from one address. Who finds none waits.
//!
//! An address that has all that it may have waits for its own, and not in the way of others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::refused::{Refused, Why};

/// All the room there is.
#[derive(Debug)]
pub struct Rooms {
    all: Arc<Semaphore>,
    per_address_max: usize,
    by_address: Mutex<HashMap<IpAddr, Arc<Semaphore>>>,
}

/// Room for one transfer; dropping it makes room for another.
#[derive(Debug)]
pub struct Room {
    _own: Option<(OwnedSemaphorePermit, Place)>,
    _all: OwnedSemaphorePermit,
}

/// An address that has room or waits for it; forgotten with the last of these.
#[derive(Debug)]
struct Place {
    rooms: Arc<Rooms>,
    address: IpAddr,
    semaphore: Arc<Semaphore>,
}

impl Rooms {
    /// Room for so many.
    pub fn new(all_max: usize, per_address_max: usize) -> Arc<Rooms> {
        let bounded = |max: usize| max.min(Semaphore::MAX_PERMITS);
        Arc::new(Rooms {
            all: Arc::new(Semaphore::new(bounded(all_max))),
            per_address_max: bounded(per_address_max),
            by_address: Mutex::default(),
        })
    }

    /// Waits for room until `deadline`. Without an `address` only the number of all counts.
    ///
    /// # Errors
    /// [`Why::TooMany`] and [`Why::TryLater`], for an address or the server that has no room then.
    pub async fn take(
        self: &Arc<Rooms>,
        address: Option<IpAddr>,
        deadline: Instant,
    ) -> Result<Room, Refused> {
        let own = match address {
            Some(address) => Some(self.take_own(address, deadline).await?),
            None => None,
        };
        // The semaphores are never closed.
        match timeout_at(deadline, self.all.clone().acquire_owned()).await {
            Ok(Ok(all)) => Ok(Room { _own: own, _all: all }),
            Ok(Err(_)) | Err(_) => Err(Refused::new(
                Why::TryLater,
                "the server has as many transfers as it takes: try again later",
            )),
        }
    }

    async fn take_own(
        self: &Arc<Rooms>,
        address: IpAddr,
        deadline: Instant,
    ) -> Result<(OwnedSemaphorePermit, Place), Refused> {
        let semaphore = self
            .lock()
            .entry(address)
            .or_insert_with(|| Arc::new(Semaphore::new(self.per_address_max)))
            .clone();
        let place = Place { rooms: self.clone(), address, semaphore: semaphore.clone() };
        match timeout_at(deadline, semaphore.acquire_owned()).await {
            Ok(Ok(permit)) => Ok((permit, place)),
            Ok(Err(_)) | Err(_) => Err(Refused::new(
                Why::TooMany,
                "there are as many transfers from this address as the server takes: try again later",
            )),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Arc<Semaphore>>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = self.rooms.lock();
        // The map's and this one: under the lock nobody else can come by it.
        if Arc::strong_count(&self.semaphore) == 2 {
            by_address.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_address_takes_its_share_and_leaves_the_rest_to_others() {
        let rooms = Rooms::new(3, 2);
        let soon = || Instant::now() + Duration::from_millis(20);
        let [a, b] = ["10.0.0.1", "10.0.0.2"].map(|address| Some(address.parse().unwrap()));
        let first = rooms.take(a, soon()).await.unwrap();
        let second = rooms.take(a, soon()).await.unwrap();
        assert_eq!(rooms.take(a, soon()).await.unwrap_err().why, Why::TooMany);
        let third = rooms.take(b, soon()).await.unwrap();
        assert_eq!(rooms.take(b, soon()).await.unwrap_err().why, Why::TryLater);
        assert_eq!(rooms.take(None, soon()).await.unwrap_err().why, Why::TryLater);
        let waiting = tokio::spawn({
            let (rooms, deadline) = (rooms.clone(), Instant::now() + Duration::from_secs(10));
            async move { rooms.take(a, deadline).await }
        });
        tokio::task::yield_now().await;
        drop(first);
        drop((waiting.await.unwrap().unwrap(), second, third));
        assert!(rooms.lock().is_empty(), "an address without transfers is forgotten");
    }
}
