//! Blocks that are put together anew: compressed on a thread of their own, while the pages of the next one are
//! found, decompressed and proved on the caller's.
//!
//! They come out in the order in which they went in. Without a thread to be had they are compressed by the
//! caller.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use sqlrsync_protocol::block::{Block, BlockBuilder, Effort};

/// What pages are compressed with that are not sent in the block they are stored in.
const EFFORT: Effort = Effort::Fast;

/// How many blocks are on their way at most: one that is compressed, one before it and one behind it.
pub(crate) const ON_THEIR_WAY_MAX: usize = 3;

/// Blocks on their way. Dropping it ends the thread.
#[derive(Debug, Default)]
pub(crate) struct Rebuilt {
    thread: Option<Thread>,
}

#[derive(Debug)]
struct Thread {
    /// `None` once it is to end.
    give: Option<SyncSender<BlockBuilder>>,
    get: Option<Receiver<Option<Block>>>,
    handle: Option<JoinHandle<()>>,
}

impl Rebuilt {
    /// Gives the pages of a block away; at most [`ON_THEIR_WAY_MAX`] before one is taken. Returns the block itself
    /// where there is no thread for it.
    pub(crate) fn give(&mut self, mut pages: BlockBuilder) -> Option<Block> {
        if self.thread.is_none() {
            self.thread = Thread::start();
        }
        if let Some(give) = self.thread.as_ref().and_then(|thread| thread.give.as_ref()) {
            match give.send(pages) {
                Ok(()) => return None,
                Err(back) => pages = back.0,
            }
        }
        compress(pages)
    }

    /// The next one of those that were given, and did not come back at once. `None` where the thread is gone.
    pub(crate) fn take(&self) -> Option<Block> {
        self.thread.as_ref()?.get.as_ref()?.recv().ok().flatten()
    }
}

/// Compresses the pages of a block here and now.
pub(crate) fn compress(mut pages: BlockBuilder) -> Option<Block> {
    pages.finish(EFFORT)
}

impl Thread {
    fn start() -> Option<Thread> {
        let (give, given) = sync_channel(ON_THEIR_WAY_MAX);
        let (done, get) = sync_channel(ON_THEIR_WAY_MAX);
        let work = move || {
            for pages in given {
                if done.send(compress(pages)).is_err() {
                    return;
                }
            }
        };
        let handle = std::thread::Builder::new().name("blocks rebuilt".into()).spawn(work).ok()?;
        Some(Thread { give: Some(give), get: Some(get), handle: Some(handle) })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // Both ends: it waits at either of them.
        (self.give, self.get) = (None, None);
        if let Some(handle) = self.handle.take() {
            // A panic of the thread was seen by whoever waited for its block.
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlrsync_protocol::page::{PageNumber, PageSize};

    use super::*;

    #[test]
    fn what_a_thread_compresses_comes_out_in_order() {
        let mut rebuilt = Rebuilt::default();
        for first in 1..10 {
            for page in first..first + ON_THEIR_WAY_MAX as u32 {
                let mut pages = BlockBuilder::new(PageSize::MIN);
                pages.push(PageNumber::new(page).unwrap(), &[page as u8; 512]);
                assert!(rebuilt.give(pages).is_none(), "it is compressed beside");
            }
            for page in first..first + ON_THEIR_WAY_MAX as u32 {
                assert_eq!(rebuilt.take().unwrap().first().get(), page);
            }
        }
    }

    #[test]
    fn a_thread_that_is_gone_gives_no_block() {
        let mut rebuilt = Rebuilt::default();
        assert!(rebuilt.take().is_none());
        // No page: nothing to make a block of.
        assert!(rebuilt.give(BlockBuilder::new(PageSize::MIN)).is_none());
        assert!(rebuilt.take().is_none());
    }
}
