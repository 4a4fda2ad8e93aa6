//! Room for what SQLite writes while a version is open: the overlay, the journal, what is sorted.
//!
//! - A file is short or on disk: it holds a little in memory, and beyond that it is a temporary file without
//!   a name, which is gone when it is closed, however the process ends.
//! - All files of one open version share one [`Space`], so that their sum is bounded.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::Trouble;

/// What the files of one open version may take together, in memory and on disk.
pub(super) struct Space {
    max: u64,
    /// How much may be taken now: less than `max` while a query runs.
    until: AtomicU64,
    used: AtomicU64,
    /// Where temporary files go; `None`: where the system has them.
    temp_dir: Option<PathBuf>,
}

impl Space {
    pub(super) fn new(max: u64, temp_dir: Option<PathBuf>) -> Arc<Space> {
        Arc::new(Space { max, until: AtomicU64::new(max), used: AtomicU64::new(0), temp_dir })
    }

    /// How much may be taken in all.
    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// Allows so much more than there is now, and no more than in all; `None`: as much as in all.
    pub(super) fn allow(&self, more: Option<u64>) {
        let sum = more.map_or(self.max, |more| self.used.load(Ordering::Relaxed).saturating_add(more));
        self.until.store(sum.min(self.max), Ordering::Relaxed);
    }

    fn take(&self, bytes: u64) -> Result<(), Trouble> {
        let max = self.until.load(Ordering::Relaxed);
        let add = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= max);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(_) => Ok(()),
            Err(_) => Err(Trouble::Full { max }),
        }
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn file(&self) -> std::io::Result<File> {
        match &self.temp_dir {
            Some(dir) => tempfile::tempfile_in(dir),
            None => tempfile::tempfile(),
        }
    }
}

/// A file without a name. What was never written reads as zeros.
pub(super) struct Scratch {
    space: Arc<Space>,
    /// How long it may be in memory.
    memory_max: usize,
    place: Place,
    len: u64,
}

enum Place {
    Memory(Vec<u8>),
    Disk(File),
}

impl Scratch {
    pub(super) fn new(space: &Arc<Space>, memory_max: usize) -> Scratch {
        Scratch { space: Arc::clone(space), memory_max, place: Place::Memory(Vec::new()), len: 0 }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// What it holds in memory, in bytes.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        match &self.place {
            Place::Memory(bytes) => bytes.capacity(),
            Place::Disk(_) => 0,
        }
    }

    /// Fills `into` from `offset` on; past the end with zeros. Gives how much of it is in the file.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> Result<usize, Trouble> {
        let there = self.len.saturating_sub(offset).min(into.len() as u64) as usize;
        let (within, past) = into.split_at_mut(there);
        past.fill(0);
        match &self.place {
            Place::Memory(bytes) => {
                // Both are within the vector: it is as long as the file.
                let start = offset.min(self.len) as usize;
                within.copy_from_slice(&bytes[start..start + there]);
            }
            Place::Disk(file) => {
                let failed = |source| Trouble::Disk { doing: "read", source };
                file.read_exact_at(within, offset).map_err(failed)?;
            }
        }
        Ok(there)
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Trouble> {
        let max = self.space.max();
        let end = offset.checked_add(bytes.len() as u64).ok_or(Trouble::Full { max })?;
        let longer = end.saturating_sub(self.len);
        self.space.take(longer)?;
        let written = self.put(offset, end, bytes);
        match written {
            Ok(()) => self.len = self.len.max(end),
            Err(_) => self.space.give_back(longer),
        }
        written
    }

    fn put(&mut self, offset: u64, end: u64, bytes: &[u8]) -> Result<(), Trouble> {
        if end > self.memory_max as u64 {
            self.move_to_disk()?;
        }
        match &mut self.place {
            Place::Memory(held) => {
                let (start, end) = (offset as usize, end as usize);
                if held.len() < end {
                    held.resize(end, 0);
                }
                held[start..end].copy_from_slice(bytes);
                Ok(())
            }
            Place::Disk(file) => {
                file.write_all_at(bytes, offset).map_err(|source| Trouble::Disk { doing: "written", source })
            }
        }
    }

    fn move_to_disk(&mut self) -> Result<(), Trouble> {
        let Place::Memory(bytes) = &self.place else { return Ok(()) };
        let file = self.space.file().map_err(|source| Trouble::Disk { doing: "made", source })?;
        file.write_all_at(bytes, 0).map_err(|source| Trouble::Disk { doing: "written", source })?;
        self.place = Place::Disk(file);
        Ok(())
    }

    /// Cuts it off; it is not made longer.
    pub(super) fn truncate(&mut self, len: u64) -> Result<(), Trouble> {
        if len >= self.len {
            return Ok(());
        }
        match &mut self.place {
            // It is not longer than the vector, which is in memory.
            Place::Memory(bytes) => bytes.truncate(len as usize),
            Place::Disk(_) if len == 0 => self.place = Place::Memory(Vec::new()),
            Place::Disk(file) => {
                file.set_len(len).map_err(|source| Trouble::Disk { doing: "shortened", source })?;
            }
        }
        self.space.give_back(self.len - len);
        self.len = len;
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.space.give_back(self.len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_in_memory_and_on_disk() {
        let space = Space::new(1 << 20, None);
        for memory_max in [0, 100, 1 << 20] {
            let mut file = Scratch::new(&space, memory_max);
            file.write(5, b"hello").unwrap();
            file.write(200, b"far").unwrap();
            file.truncate(202).unwrap();
            let mut read = [9; 210];
            assert_eq!(file.read(0, &mut read).unwrap(), 202);
            assert_eq!(&read[..11], b"\0\0\0\0\0hello\0");
            assert_eq!(&read[198..], b"\0\0fa\0\0\0\0\0\0\0\0");
            assert_eq!(file.read(500, &mut read).unwrap(), 0);
            assert!(file.memory() <= memory_max.max(512), "{}", file.memory());
        }
        assert_eq!(space.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn all_files_together_take_what_is_allowed_and_no_more() {
        let space = Space::new(1000, None);
        let (mut one, mut other) = (Scratch::new(&space, 100), Scratch::new(&space, 100));
        one.write(0, &[1; 600]).unwrap();
        assert!(matches!(other.write(0, &[1; 500]), Err(Trouble::Full { max: 1000 })));
        assert!(matches!(other.write(u64::MAX - 1, &[1; 5]), Err(Trouble::Full { .. })));
        other.write(0, &[1; 400]).unwrap();
        drop(one);
        other.write(400, &[1; 600]).unwrap();
    }
}
