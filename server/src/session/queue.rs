//! A queue that is bounded in bytes, not in items: the pieces of a stream are from one byte to 64 KiB
//! long, and what has to be bounded is memory.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

/// What an item costs beside its bytes, so that empty ones are bounded too.
const ITEM_BYTES: usize = 64;

/// The end that things are put in at.
#[derive(Debug)]
pub struct Sender<T> {
    items: mpsc::UnboundedSender<(T, u32)>,
    room: Arc<Semaphore>,
    bytes_max: u32,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender { items: self.items.clone(), room: self.room.clone(), bytes_max: self.bytes_max }
    }
}

/// The end that things are taken out at. When it is dropped, senders wait no longer.
#[derive(Debug)]
pub struct Receiver<T> {
    items: mpsc::UnboundedReceiver<(T, u32)>,
    room: Arc<Semaphore>,
}

/// Nobody takes anything out any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other end of the queue is gone")]
pub struct Closed;

/// A queue that holds `bytes_max` bytes, or one item that is larger.
pub fn queue<T>(bytes_max: usize) -> (Sender<T>, Receiver<T>) {
    let bytes_max = bytes_max.clamp(ITEM_BYTES, Semaphore::MAX_PERMITS.min(u32::MAX as usize)) as u32;
    let room = Arc::new(Semaphore::new(bytes_max as usize));
    let (sender, items) = mpsc::unbounded_channel();
    (Sender { items: sender, room: room.clone(), bytes_max }, Receiver { items, room })
}

impl<T> Sender<T> {
    /// Puts an item in that holds `bytes` bytes; waits for room.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn send(&self, item: T, bytes: usize) -> Result<(), Closed> {
        let cost = self.cost(bytes);
        self.room.acquire_many(cost).await.map_err(|_| Closed)?.forget();
        self.items.send((item, cost)).map_err(|_| Closed)
    }

    /// Puts an item in if there is room now.
    pub fn try_send(&self, item: T, bytes: usize) -> bool {
        let cost = self.cost(bytes);
        let Ok(room) = self.room.try_acquire_many(cost) else { return false };
        room.forget();
        self.items.send((item, cost)).is_ok()
    }

    /// Waits until all that was put in was taken out, or nothing is any more.
    pub async fn drained(&self) {
        // All the room there is, given back at once.
        let _ = self.room.acquire_many(self.bytes_max).await;
    }

    fn cost(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.saturating_add(ITEM_BYTES)).unwrap_or(u32::MAX).min(self.bytes_max)
    }
}

impl<T> Receiver<T> {
    /// Takes the next item out; `None` when the senders are gone and nothing is left.
    pub async fn receive(&mut self) -> Option<T> {
        let (item, cost) = self.items.recv().await?;
        self.room.add_permits(cost as usize);
        Some(item)
    }

    /// As [`Receiver::receive`], but `None` also where nothing is there now.
    pub fn try_receive(&mut self) -> Option<T> {
        let (item, cost) = self.items.try_recv().ok()?;
        self.room.add_permits(cost as usize);
        Some(item)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.room.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_are_bounded_and_a_large_item_still_passes() {
        let (sender, mut receiver) = queue(1000);
        assert!(sender.try_send("large", 1_000_000));
        assert!(!sender.try_send("no room", 0));
        assert_eq!(receiver.receive().await, Some("large"));
        let mut sent = 0;
        while sender.try_send("small", 36) {
            sent += 1;
        }
        assert_eq!(sent, 10);
        let waiting = tokio::spawn({
            let sender = sender.clone();
            async move { sender.send("waits", 1).await }
        });
        tokio::task::yield_now().await;
        drop(receiver);
        assert_eq!(waiting.await.unwrap(), Err(Closed));
    }
}
