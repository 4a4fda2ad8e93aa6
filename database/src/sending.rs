//! An image on its way out of a live file: a thread that reads it into a spool, and what came of it.

use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use sqlrsync_protocol::block::Block;
use sqlrsync_protocol::canonical::HeaderFields;
use sqlrsync_protocol::page::{Geometry, PageNumber};

use crate::error::Error;
use crate::fingerprint::Fingerprint;
use crate::image::{Compare, Job, Outcome};
use crate::live_origin::Ground;
use crate::pages::Pages;
use crate::spool::{Spool, SpoolWriter};

/// An image that is being sent.
pub(crate) struct Sending {
    pub(crate) geometry: Geometry,
    pub(crate) fields: HeaderFields,
    pub(crate) fingerprint: Fingerprint,
    /// When every page was last read; `None` where hashes were not asked for.
    pub(crate) last_scan_ns: Option<i64>,
    pub(crate) ground: Ground,
    pub(crate) raw: bool,
    pub(crate) to_send: Option<u32>,
    pub(crate) reused: Option<Receiver<Vec<u32>>>,
    /// Before the thread in this list, so that dropping it stops the thread that is then waited for.
    pub(crate) spool: Option<Spool>,
    pub(crate) thread: Option<JoinHandle<Result<Outcome, Error>>>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) pages: Unpacked,
}

/// A block's pages, given one by one.
#[derive(Default)]
pub(crate) struct Unpacked {
    pub(crate) block: Option<Block>,
    pub(crate) data: Vec<u8>,
    pub(crate) next: usize,
}

/// Runs `work` and ends the spool only then, whatever came of it.
pub(crate) fn finish_writer<T>(writer: SpoolWriter, work: impl FnOnce(&SpoolWriter) -> T) -> T {
    work(&writer)
}

/// How many pages a job sends, where that does not depend on a comparison.
pub(crate) fn to_send(geometry: Geometry, job: &Job) -> Option<u32> {
    let lock_page = geometry.page_size.lock_page();
    let lock = u32::from(geometry.page_count.contains(lock_page));
    match (&job.read, &job.compare) {
        _ if job.select.all => Some(geometry.page_count.get() - lock),
        (Pages::Only(pages), Compare::Not) => {
            u32::try_from(pages.len()).ok().map(|len| len - u32::from(pages.contains(lock_page.get())))
        }
        _ => None,
    }
}

impl Sending {
    /// Waits for the thread and takes its outcome or its error.
    pub(crate) fn join(&mut self) -> Result<(), Error> {
        if let Some(thread) = self.thread.take() {
            let outcome = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            self.outcome = Some(outcome);
        }
        if self.outcome.is_some() { Ok(()) } else { Err(Error::Stopped) }
    }

    pub(crate) fn next_block(&mut self) -> Result<Option<Block>, Error> {
        let block = match &self.spool {
            Some(spool) => spool.take()?,
            None => None,
        };
        if block.is_none() {
            self.join()?;
        }
        Ok(block)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.spool = None;
        if let Some(thread) = self.thread.take() {
            // It ends with its next block: no connection of ours outlives the exchange.
            let _ = thread.join();
        }
    }
}

impl Unpacked {
    /// Puts the next page of the block into `page`.
    pub(crate) fn next(&mut self, page: &mut [u8]) -> Option<PageNumber> {
        let number = self.block.as_ref()?.pages().nth(self.next)?;
        let start = self.next * page.len();
        page.copy_from_slice(self.data.get(start..start + page.len())?);
        self.next += 1;
        Some(number)
    }

    pub(crate) fn fill(&mut self, block: Block) -> Result<(), Error> {
        block.decode(&mut self.data)?;
        self.block = Some(block);
        self.next = 0;
        Ok(())
    }
}
