//! Blocks on their way from one thread to another: in memory while few wait, in a file without a name
//! when the taker is slow, so that the giver never waits and can end its read transaction.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use sqlrsync_protocol::block::{BLOCK_ENCODED_MAX, Block};
use sqlrsync_protocol::page::PageSize;

use crate::error::{Error, io_error};

/// How many bytes of blocks wait in memory.
pub(crate) const SPOOL_MEMORY_MAX: usize = 32 << 20;

/// Blocks that are taken slower than this, in bytes a second, are taken by a network: a gigabit link
/// moves 120 MB/s.
const SLOW_RATE_MAX: f64 = 150e6;

/// Fewer bytes waiting than this say that whoever takes them is kept waiting by us.
const SLOW_WAITING_MIN: u64 = 4 << 20;

/// Blocks in the order in which they were put.
pub(crate) struct Spool {
    shared: Arc<Shared>,
    dir: PathBuf,
    page_size: PageSize,
}

/// The giving end.
pub(crate) struct SpoolWriter {
    shared: Arc<Shared>,
    dir: PathBuf,
    memory_max: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The oldest blocks. While the file has any, new ones go there.
    memory: VecDeque<Block>,
    memory_bytes: usize,
    file: Option<File>,
    /// The file's part that is still to be taken.
    read_at: u64,
    write_at: u64,
    ended: bool,
    abandoned: bool,
    /// When the first block was taken, and how many bytes were since.
    taking_since: Option<Instant>,
    taken: u64,
}

/// A spool for blocks of pages of `page_size`, which spills into a file in `dir`.
pub(crate) fn spool(dir: &Path, page_size: PageSize, memory_max: usize) -> (SpoolWriter, Spool) {
    let shared = Arc::new(Shared::default());
    let writer = SpoolWriter { shared: Arc::clone(&shared), dir: dir.to_path_buf(), memory_max };
    (writer, Spool { shared, dir: dir.to_path_buf(), page_size })
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SpoolWriter {
    /// [`Error::Stopped`] where nobody takes any more.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.shared.lock().abandoned { Err(Error::Stopped) } else { Ok(()) }
    }

    /// Whether it pays to compress harder: blocks wait, and are taken no faster than a network would.
    pub(crate) fn is_slow(&self) -> bool {
        let state = self.shared.lock();
        let waiting = state.memory_bytes as u64 + (state.write_at - state.read_at);
        let Some(since) = state.taking_since.filter(|_| waiting > SLOW_WAITING_MIN) else { return false };
        (state.taken as f64) < since.elapsed().as_secs_f64() * SLOW_RATE_MAX
    }

    /// Puts a block at the end. [`Error::Stopped`] where nobody takes any more.
    pub(crate) fn put(&self, block: Block) -> Result<(), Error> {
        let mut state = self.shared.lock();
        if state.abandoned {
            return Err(Error::Stopped);
        }
        let len = block.as_bytes().len();
        if state.read_at == state.write_at && state.memory_bytes + len <= self.memory_max {
            state.memory_bytes += len;
            state.memory.push_back(block);
        } else {
            state.spill(block.as_bytes(), &self.dir)?;
        }
        self.shared.changed.notify_one();
        Ok(())
    }
}

impl Drop for SpoolWriter {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_one();
    }
}

impl State {
    fn spill(&mut self, bytes: &Bytes, dir: &Path) -> Result<(), Error> {
        if self.file.is_none() {
            self.file = Some(tempfile::tempfile_in(dir).map_err(io_error("creating a spool file", dir))?);
        }
        let Some(file) = &self.file else { return Err(Error::Stopped) };
        if self.read_at == self.write_at {
            (self.read_at, self.write_at) = (0, 0);
        }
        let mut record = Vec::with_capacity(4 + bytes.len());
        record.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        record.extend_from_slice(bytes);
        file.write_all_at(&record, self.write_at).map_err(io_error("writing to the spool file", dir))?;
        self.write_at += record.len() as u64;
        Ok(())
    }

    fn unspill(&mut self, dir: &Path) -> Result<Option<Bytes>, Error> {
        let Some(file) = self.file.as_ref().filter(|_| self.read_at < self.write_at) else { return Ok(None) };
        let io = |error| Error::io("reading the spool file", dir, error);
        let mut len = [0; 4];
        file.read_exact_at(&mut len, self.read_at).map_err(io)?;
        let len = (u32::from_be_bytes(len) as usize).min(BLOCK_ENCODED_MAX);
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, self.read_at + 4).map_err(io)?;
        self.read_at += 4 + len as u64;
        Ok(Some(bytes.into()))
    }
}

impl Spool {
    /// The next block, once it is there; `None` after the last.
    pub(crate) fn take(&self) -> Result<Option<Block>, Error> {
        let mut state = self.shared.lock();
        state.taking_since.get_or_insert_with(Instant::now);
        loop {
            if let Some(block) = state.memory.pop_front() {
                state.memory_bytes -= block.as_bytes().len();
                state.taken += block.as_bytes().len() as u64;
                return Ok(Some(block));
            }
            if let Some(bytes) = state.unspill(&self.dir)? {
                state.taken += bytes.len() as u64;
                drop(state);
                return Ok(Some(Block::parse(bytes, self.page_size)?));
            }
            if state.ended {
                return Ok(None);
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.shared.lock().abandoned = true;
    }
}

#[cfg(test)]
mod tests {
    use sqlrsync_protocol::block::{BlockBuilder, Effort};
    use sqlrsync_protocol::page::PageNumber;

    use super::*;

    fn block(number: u32) -> Block {
        let mut builder = BlockBuilder::new(PageSize::MIN);
        builder.push(PageNumber::new(number).unwrap(), &[number as u8; 512]);
        builder.finish(Effort::None).unwrap()
    }

    #[test]
    fn blocks_come_in_order_through_memory_and_file_and_memory_again() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, spool) = spool(dir.path(), PageSize::MIN, 2000);
        let mut taken = 0;
        let mut take = |n: u32| {
            for _ in 0..n {
                taken += 1;
                assert_eq!(spool.take().unwrap().unwrap().first().get(), taken);
            }
        };
        let put = |numbers: std::ops::RangeInclusive<u32>| {
            numbers.for_each(|n| writer.put(block(n)).unwrap());
        };
        put(1..=10);
        take(5);
        put(11..=12);
        take(7);
        put(13..=20);
        assert!(writer.shared.lock().memory_bytes <= 2000, "memory is bounded");
        take(8);
        drop(writer);
        assert!(spool.take().unwrap().is_none());
    }

    #[test]
    fn who_gives_is_stopped_when_nobody_takes() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, spool) = spool(dir.path(), PageSize::MIN, 2000);
        drop(spool);
        assert!(matches!(writer.put(block(1)), Err(Error::Stopped)));
    }
}
