//! What was written over a content: whole pages, by number, in a scratch file in the order in which they
//! were first written, with an index in memory of some 16 bytes a page.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::Trouble;
use super::scratch::{Scratch, Space};

/// How much of the pages is in memory before they go to disk: as much as most merges write.
const OVERLAY_MEMORY: usize = 4 << 20;

/// The pages that were written.
pub(super) struct Overlay {
    page_len: usize,
    pages: Scratch,
    /// Where in `pages` each is, counted in pages.
    slots: BTreeMap<u32, u32>,
    /// Slots whose page is gone.
    free: Vec<u32>,
}

impl Overlay {
    pub(super) fn new(page_len: usize, space: &Arc<Space>) -> Overlay {
        let pages = Scratch::new(space, OVERLAY_MEMORY);
        Overlay { page_len, pages, slots: BTreeMap::new(), free: Vec::new() }
    }

    fn offset(&self, slot: u32) -> u64 {
        u64::from(slot) * self.page_len as u64
    }

    pub(super) fn has(&self, number: u32) -> bool {
        self.slots.contains_key(&number)
    }

    /// The numbers of its pages, ascending.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.slots.keys().copied()
    }

    /// Reads a part of a page that it has.
    pub(super) fn read(&self, number: u32, at: usize, into: &mut [u8]) -> Result<(), Trouble> {
        match self.slots.get(&number) {
            Some(slot) => self.pages.read(self.offset(*slot) + at as u64, into).map(drop),
            None => {
                into.fill(0);
                Ok(())
            }
        }
    }

    /// Writes a whole page.
    pub(super) fn write(&mut self, number: u32, page: &[u8]) -> Result<(), Trouble> {
        if let Some(slot) = self.slots.get(&number) {
            return self.pages.write(self.offset(*slot), page);
        }
        // One more than there are: fewer than 2^32, as there are page numbers.
        let slot = self.free.last().copied().unwrap_or((self.pages.len() / self.page_len as u64) as u32);
        self.pages.write(self.offset(slot), page)?;
        self.free.pop();
        self.slots.insert(number, slot);
        Ok(())
    }

    /// Forgets the pages after this one.
    pub(super) fn truncate(&mut self, last: u32) -> Result<(), Trouble> {
        let Some(first) = last.checked_add(1) else { return Ok(()) };
        let gone = self.slots.split_off(&first);
        self.free.extend(gone.into_values());
        if self.slots.is_empty() {
            self.free.clear();
            self.pages.truncate(0)?;
        }
        Ok(())
    }

    /// What it holds in memory, in bytes, at most.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.pages.memory() + self.slots.len() * 20 + self.free.capacity() * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_is_gone_and_its_room_is_used_again() {
        let space = Space::new(16 * 512, None);
        let mut overlay = Overlay::new(512, &space);
        for round in 0..4u8 {
            for number in 1..=16 {
                overlay.write(number, &[round * 16 + number as u8; 512]).unwrap();
            }
            overlay.truncate(3).unwrap();
            assert_eq!(overlay.numbers().collect::<Vec<_>>(), [1, 2, 3]);
            let mut part = [0; 2];
            overlay.read(3, 510, &mut part).unwrap();
            assert_eq!(part, [round * 16 + 3; 2]);
        }
        overlay.truncate(0).unwrap();
        assert_eq!(overlay.pages.len(), 0);
    }

    #[test]
    fn two_hundred_megabytes_are_written_in_a_few_of_memory() {
        let space = Space::new(u64::MAX, None);
        let mut overlay = Overlay::new(4096, &space);
        let page = vec![7; 4096];
        for number in 1..=(200 << 20) / 4096 {
            overlay.write(number, &page).unwrap();
        }
        assert_eq!(overlay.pages.len(), 200 << 20);
        assert!(overlay.memory() < 6 << 20, "{}", overlay.memory());
    }
}
