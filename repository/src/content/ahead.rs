//! Blocks decoded ahead, on threads of their own: who reads many pages in order need not wait for each block
//! to be read and decompressed.
//!
//! - It is a help and no more. A thread says nothing of what goes wrong: it ends, and whoever reads the page
//!   finds out.
//! - Each thread has every so many pages of the content for itself, so that none does what another did.
//! - Threads are a few blocks ahead at most, and end when this is dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use roaring::RoaringBitmap;
use sqlrsync_protocol::page::PageNumber;

use super::{BlockKey, Blocks, Decoded};

/// How many threads there are at most; no more than the machine has cores.
const THREADS_MAX: usize = 4;

/// How many pages in a row belong to one thread: several times what is read from a segment at once.
const RUN_PAGES: u32 = 1024;

/// How many decoded blocks of a thread wait to be read: about as many as a run has.
const WAITING_MAX: usize = 16;

/// How many blocks a thread knows it has handed on: pages next to each other may lie in blocks of many versions.
const HANDED_ON_MAX: usize = 64;

/// Fewer pages than this are read without help.
const PAGES_MIN: u64 = 256;

/// Blocks that are decoded ahead.
#[derive(Debug)]
pub(super) struct Ahead {
    lanes: Vec<Lane>,
}

/// What one thread hands on.
#[derive(Debug)]
struct Lane {
    /// `None` once the thread is to end.
    blocks: Option<Receiver<Next>>,
    /// A block that is for a page further on.
    next: Option<Next>,
    thread: Option<JoinHandle<()>>,
}

/// A block, and the page for which it was decoded.
#[derive(Debug)]
struct Next {
    page: PageNumber,
    key: BlockKey,
    block: Arc<Decoded>,
}

impl Ahead {
    /// Begins to decode the blocks with these pages; `None` where that is not worth a thread, or there is none.
    pub(super) fn new(pages: &RoaringBitmap, blocks: impl Fn() -> Blocks) -> Option<Ahead> {
        if pages.len() < PAGES_MIN {
            return None;
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = cores.min(THREADS_MAX);
        let pages = Arc::new(pages.clone());
        let lanes: Option<Vec<Lane>> =
            (0..count).map(|lane| Lane::new((lane, count), pages.clone(), blocks())).collect();
        Some(Ahead { lanes: lanes? })
    }

    /// The block with this page, if it is, or comes to be, what was decoded for it. Pages are asked for in
    /// order.
    pub(super) fn block(&mut self, page: PageNumber, key: BlockKey) -> Option<Arc<Decoded>> {
        let lane = lane_of(page, self.lanes.len());
        self.lanes.get_mut(lane)?.block(page, key)
    }
}

fn lane_of(page: PageNumber, lanes: usize) -> usize {
    (page.index() / RUN_PAGES) as usize % lanes
}

impl Lane {
    fn new((lane, lanes): (usize, usize), pages: Arc<RoaringBitmap>, blocks: Blocks) -> Option<Lane> {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let decode = move || {
            let pages = pages.iter().filter_map(PageNumber::new);
            decode(pages.filter(|&page| lane_of(page, lanes) == lane), blocks, &sender);
        };
        let thread = std::thread::Builder::new().name("blocks ahead".into()).spawn(decode).ok()?;
        Some(Lane { blocks: Some(receiver), next: None, thread: Some(thread) })
    }

    fn block(&mut self, page: PageNumber, key: BlockKey) -> Option<Arc<Decoded>> {
        loop {
            if self.next.is_none() {
                self.next = self.blocks.as_ref()?.recv().ok();
            }
            if self.next.as_ref()?.page > page {
                return None;
            }
            let next = self.next.take()?;
            if next.key == key {
                return Some(next.block);
            }
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // The thread is at a block, or waits to hand one on, which fails now.
        self.blocks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn decode(pages: impl Iterator<Item = PageNumber>, mut blocks: Blocks, sender: &SyncSender<Next>) {
    let mut handed_on: VecDeque<BlockKey> = VecDeque::new();
    for page in pages {
        let Ok(found) = blocks.find(page) else { return };
        let Some((entry, place)) = found else { continue };
        let key = (entry.segment, place.first);
        if handed_on.contains(&key) || blocks.is_decoded(&key) {
            continue;
        }
        let Ok(block) = blocks.decode(&entry, &place) else { return };
        if sender.send(Next { page, key, block }).is_err() {
            return;
        }
        if handed_on.len() >= HANDED_ON_MAX {
            handed_on.pop_front();
        }
        handed_on.push_back(key);
    }
}
