//! Pages on their way in: decoded and hashed on two threads, and put at their places in a file of
//! pages, which is the new database itself, or one after the other into a file without a name. What arrived
//! is a bitmap and a list of hashes; nothing of it is in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use roaring::RoaringBitmap;
use sqlrsync_protocol::block::Block;
use sqlrsync_protocol::canonical::make_canonical;
use sqlrsync_protocol::hash::{PageHash, Root};
use sqlrsync_protocol::page::{Geometry, PageCount, PageNumber, PageSize};
use sqlrsync_protocol::tree::{HashOnly, TreeUpdate};

use crate::delta::{Change, Delta};
use crate::error::{Error, io_error};
use crate::new_file::write_page;
use crate::page_hashes::{PageHashes, from_update};
use crate::parallel::{Feed, ordered_map};

/// Blocks that wait to be decoded.
const QUEUE: usize = 4;

/// How many bytes of pages are read back at once.
const READ_LEN: usize = 256 << 10;

/// Where pages stand in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Layout {
    /// Each at its place in the database, in whatever order they arrive.
    Database,
    /// One after the other: they arrive in ascending order.
    Row,
}

/// Pages that arrived, in a file.
pub(crate) struct Received {
    pub(crate) file: Arc<File>,
    pub(crate) pages: RoaringBitmap,
    /// What they hash to, in ascending order.
    pub(crate) delta: Delta,
    page_size: PageSize,
    layout: Layout,
    /// What messages name.
    path: PathBuf,
}

impl Received {
    /// Nothing yet. Pages go to `file`.
    pub(crate) fn new(
        file: Arc<File>,
        layout: Layout,
        page_size: PageSize,
        path: &Path,
        temp_dir: &Path,
    ) -> Received {
        let (pages, delta) = (RoaringBitmap::new(), Delta::new(temp_dir));
        Received { file, pages, delta, page_size, layout, path: path.to_path_buf() }
    }

    /// Where in the file a page stands, or is to.
    fn offset(&self, number: PageNumber) -> u64 {
        match self.layout {
            Layout::Database => number.offset(self.page_size),
            Layout::Row => self.pages.rank(number.get() - 1) * self.page_size.bytes() as u64,
        }
    }

    /// Puts a page at its place.
    pub(crate) fn put(&mut self, number: PageNumber, page: &[u8]) -> Result<(), Error> {
        if page.len() != self.page_size.bytes() || number == self.page_size.lock_page() {
            return Err(Error::Invalid("a page that cannot be"));
        }
        write_page(&self.file, self.offset(number), page, &self.path)?;
        self.pages.insert(number.get());
        Ok(())
    }

    /// Puts a decoded block's pages, a run at a time, and records their hashes.
    fn put_block(&mut self, decoded: &Decoded) -> Result<(), Error> {
        let len = self.page_size.bytes();
        let mut start = 0;
        while let Some(first) = decoded.numbers.get(start) {
            let rest = &decoded.numbers[start..];
            let run = match self.layout {
                Layout::Database => rest.iter().zip(first.get()..).take_while(|(n, i)| n.get() == *i).count(),
                Layout::Row => rest.len(),
            };
            let data = &decoded.data[start * len..(start + run) * len];
            write_page(&self.file, self.offset(*first), data, &self.path)?;
            start += run;
        }
        for (number, hash) in decoded.numbers.iter().zip(&decoded.hashes) {
            self.pages.insert(number.get());
            self.delta.record(Change::Page(*number, *hash))?;
        }
        Ok(())
    }

    /// Reads a page back.
    pub(crate) fn read(&self, number: PageNumber, page: &mut [u8]) -> Result<(), Error> {
        self.read_at(self.offset(number), page)
    }

    fn read_at(&self, offset: u64, pages: &mut [u8]) -> Result<(), Error> {
        let read = self.file.read_exact_at(pages, offset);
        read.map_err(io_error("reading back the pages for", &self.path))
    }

    /// Reads all pages back, in ascending order.
    pub(crate) fn each(
        &self,
        mut each: impl FnMut(PageNumber, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let len = self.page_size.bytes();
        let mut left = self.pages.iter().filter_map(PageNumber::new);
        let mut data = Vec::new();
        loop {
            let some: Vec<PageNumber> = left.by_ref().take(READ_LEN / len).collect();
            let Some(first) = some.first() else { return Ok(()) };
            data.resize(some.len() * len, 0);
            match self.layout {
                Layout::Row => self.read_at(self.offset(*first), &mut data)?,
                Layout::Database => {
                    let mut places = some.iter().zip(data.chunks_exact_mut(len));
                    places.try_for_each(|(number, page)| self.read(*number, page))?;
                }
            }
            let mut pages = some.iter().zip(data.chunks_exact(len));
            pages.try_for_each(|(number, page)| each(*number, page))?;
        }
    }

    /// Forgets pages past the end. An origin of version 1 or 2 that shrank as it was sent may have sent them.
    pub(crate) fn forget_past(&mut self, page_count: PageCount) {
        self.pages.remove_range(page_count.get().saturating_add(1)..=u32::MAX);
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Hashes what arrived without hashes (versions 1 and 2).
    pub(crate) fn hash_all(&mut self) -> Result<(), Error> {
        let mut delta = Delta::new(self.delta.dir());
        self.each(|number, page| {
            let hash = if number == PageNumber::FIRST {
                let mut page = page.to_vec();
                make_canonical(&mut page);
                PageHash::of(&page)
            } else {
                PageHash::of(page)
            };
            delta.record(Change::Page(number, hash))
        })?;
        self.delta = delta;
        Ok(())
    }

    /// The root of `base` with what arrived over it, and the changes with the lock page among them
    /// where the base does not reach that far.
    pub(crate) fn root(&mut self, base: Option<&mut PageHashes>, geometry: Geometry) -> Result<Root, Error> {
        let base_pages = base.as_ref().map_or(PageCount::ZERO, |base| base.geometry().page_count);
        self.add_lock_page(base_pages, geometry)?;
        let mut update = TreeUpdate::new(base, geometry);
        self.delta.replay(|change| match change {
            Change::Page(page, hash) => update.set(page, hash, &mut HashOnly).map_err(from_update),
            Change::Group(..) => Ok(()),
        })?;
        Ok(update.finish(&mut HashOnly).map_err(from_update)?.1)
    }

    /// The lock page never travels, and has its leaf in the tree: that of a page of zeros.
    fn add_lock_page(&mut self, base_pages: PageCount, geometry: Geometry) -> Result<(), Error> {
        let lock_page = geometry.page_size.lock_page();
        if base_pages.contains(lock_page) || !geometry.page_count.contains(lock_page) {
            return Ok(());
        }
        let mut lock = Some(Change::Page(lock_page, PageHash::of(&vec![0; geometry.page_size.bytes()])));
        let mut all = Delta::new(self.delta.dir());
        self.delta.replay(|change| {
            if matches!(change, Change::Page(page, _) if page > lock_page)
                && let Some(lock) = lock.take()
            {
                all.record(lock)?;
            }
            all.record(change)
        })?;
        if let Some(lock) = lock {
            all.record(lock)?;
        }
        self.delta = all;
        Ok(())
    }
}

/// A block's pages and what they hash to.
struct Decoded {
    numbers: Vec<PageNumber>,
    data: Vec<u8>,
    hashes: Vec<PageHash>,
}

fn decode(block: &Block) -> Result<Decoded, Error> {
    let mut data = Vec::new();
    block.decode(&mut data)?;
    let numbers: Vec<PageNumber> = block.pages().collect();
    if numbers.contains(&block.page_size().lock_page()) {
        return Err(Error::Invalid("the page that SQLite locks"));
    }
    let hashes = PageHash::of_each(&data, block.page_size());
    Ok(Decoded { numbers, data, hashes })
}

/// Blocks being taken in by threads of their own. Dropped, they end.
pub(crate) struct Intake {
    blocks: Option<SyncSender<Block>>,
    thread: Option<JoinHandle<Result<Received, Error>>>,
    page_size: PageSize,
    last: u32,
}

impl Intake {
    pub(crate) fn start(received: Received) -> Result<Intake, Error> {
        let (blocks, queue) = sync_channel(QUEUE);
        let (page_size, path) = (received.page_size, received.path.clone());
        let thread =
            std::thread::Builder::new().name("replica".into()).spawn(move || take_in(queue, received));
        let thread = thread.map_err(io_error("starting a thread for", &path))?;
        Ok(Intake { blocks: Some(blocks), thread: Some(thread), page_size, last: 0 })
    }

    pub(crate) fn take(&mut self, block: Block) -> Result<(), Error> {
        if block.page_size() != self.page_size || block.first().get() <= self.last {
            return Err(Error::Invalid("blocks out of order"));
        }
        self.last = block.last().get();
        let sent = self.blocks.as_ref().is_some_and(|blocks| blocks.send(block).is_ok());
        // The thread is gone, and its error says why.
        if sent { Ok(()) } else { self.end().and(Err(Error::Stopped)) }
    }

    /// Waits until all that was taken is hashed and in its place.
    pub(crate) fn end(&mut self) -> Result<Received, Error> {
        self.blocks = None;
        let thread = self.thread.take().ok_or(Error::Stopped)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn take_in(queue: Receiver<Block>, mut received: Received) -> Result<Received, Error> {
    let source = move |feed: &mut Feed<Block>| -> Result<(), Error> {
        queue.into_iter().try_for_each(|block| feed.give(block)).map_err(|_| Error::Stopped)
    };
    ordered_map(source, |block| decode(&block), |decoded| received.put_block(&decoded))?;
    Ok(received)
}
