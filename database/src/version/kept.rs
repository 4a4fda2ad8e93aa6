//! A content that is read twice: where two are compared, their pages first say which rows may differ, and then
//! SQLite reads those rows.
//!
//! To get at a page of a stored version, a block of many is read, decompressed and proved. So what the first
//! reading comes to is kept, in memory where it is little and beyond that in a temporary file without a name.
//! It is a cache: what does not fit, or cannot be written, is read again from the content.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roaring::RoaringBitmap;
use sqlrsync_protocol::canonical::HeaderFields;
use sqlrsync_protocol::content::{Content, ContentError};
use sqlrsync_protocol::page::{Geometry, PageNumber};

use super::scratch::{Scratch, Space};

/// How many bytes of pages are kept.
const KEPT_MAX: u64 = 512 << 20;

/// And how many pages: each has an entry in memory, and they may be small.
const KEPT_PAGES_MAX: usize = 1 << 17;

/// How much of them is kept in memory.
const KEPT_MEMORY: usize = 1 << 20;

/// A handle of a content. All handles have what the first one read.
pub struct KeptContent {
    kept: Arc<Mutex<Kept>>,
    keeps: bool,
}

struct Kept {
    content: Box<dyn Content>,
    pages: Scratch,
    /// Where in `pages` each is, counted in pages.
    slots: HashMap<PageNumber, u32>,
}

impl KeptContent {
    /// What this handle reads is kept; `temp_dir` is the folder for it, `None` the system's.
    pub fn new(content: Box<dyn Content>, temp_dir: Option<PathBuf>) -> KeptContent {
        let pages = Scratch::new(&Space::new(KEPT_MAX, temp_dir), KEPT_MEMORY);
        let kept = Kept { content, pages, slots: HashMap::new() };
        KeptContent { kept: Arc::new(Mutex::new(kept)), keeps: true }
    }

    /// Another handle, which keeps nothing by itself.
    pub fn reader(&self) -> KeptContent {
        KeptContent { kept: Arc::clone(&self.kept), keeps: false }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Whatever a panic left, an entry is made only when its page is written.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn has(&self, page: u32) -> bool {
        PageNumber::new(page).is_some_and(|page| self.slots.contains_key(&page))
    }

    fn read_kept(&self, page: PageNumber, into: &mut [u8]) -> bool {
        let Some(slot) = self.slots.get(&page) else { return false };
        self.pages.read(offset(*slot, into.len()), into).is_ok_and(|read| read == into.len())
    }

    fn keep(&mut self, page: PageNumber, bytes: &[u8]) {
        let slot = self.slots.len();
        if slot >= KEPT_PAGES_MAX || self.slots.contains_key(&page) {
            return;
        }
        let slot = slot as u32;
        if self.pages.write(offset(slot, bytes.len()), bytes).is_ok() {
            self.slots.insert(page, slot);
        }
    }
}

fn offset(slot: u32, page_len: usize) -> u64 {
    u64::from(slot) * page_len as u64
}

impl Content for KeptContent {
    fn geometry(&self) -> Geometry {
        self.kept().content.geometry()
    }

    fn fields(&self) -> HeaderFields {
        self.kept().content.fields()
    }

    fn read(&mut self, page: PageNumber, into: &mut [u8]) -> Result<(), ContentError> {
        let kept = &mut *self.kept();
        if kept.read_kept(page, into) {
            return Ok(());
        }
        kept.content.read(page, into)?;
        if self.keeps {
            kept.keep(page, into);
        }
        Ok(())
    }

    fn expect(&mut self, pages: &RoaringBitmap) {
        let kept = &mut *self.kept();
        // The same pages may be walked twice.
        let missing: RoaringBitmap = pages.iter().filter(|&page| !kept.has(page)).collect();
        kept.content.expect(&missing);
    }
}

#[cfg(test)]
mod tests {
    use sqlrsync_protocol::page::{PageCount, PageSize};

    use super::*;

    /// Every page is full of the low byte of its number; `reads` counts.
    struct Numbered {
        pages: u32,
        reads: Arc<Mutex<u32>>,
        expected: Arc<Mutex<RoaringBitmap>>,
    }

    impl Numbered {
        fn new(pages: u32, reads: &Arc<Mutex<u32>>) -> Box<Numbered> {
            Box::new(Numbered { pages, reads: reads.clone(), expected: Arc::default() })
        }
    }

    impl Content for Numbered {
        fn geometry(&self) -> Geometry {
            Geometry { page_size: PageSize::MIN, page_count: PageCount(self.pages) }
        }

        fn fields(&self) -> HeaderFields {
            HeaderFields::default()
        }

        fn read(&mut self, page: PageNumber, into: &mut [u8]) -> Result<(), ContentError> {
            *self.reads.lock().unwrap() += 1;
            into.fill(page.get() as u8);
            Ok(())
        }

        fn expect(&mut self, pages: &RoaringBitmap) {
            *self.expected.lock().unwrap() = pages.clone();
        }
    }

    fn read_all(content: &mut KeptContent, pages: u32) {
        let mut page = [0; 512];
        for number in 1..=pages {
            content.read(PageNumber::new(number).unwrap(), &mut page).unwrap();
            assert!(page.iter().all(|&byte| byte == number as u8), "{number}");
        }
    }

    #[test]
    fn what_one_handle_read_the_others_need_not_read_again() {
        let reads = Arc::new(Mutex::new(0));
        let mut first = KeptContent::new(Numbered::new(5000, &reads), None);
        let mut second = first.reader();
        read_all(&mut second, 10);
        read_all(&mut first, 5000);
        assert_eq!(*reads.lock().unwrap(), 5010, "what a reader reads is not kept");
        read_all(&mut second, 5000);
        read_all(&mut first, 5000);
        assert_eq!(*reads.lock().unwrap(), 5010);
    }

    #[test]
    fn the_content_is_told_which_pages_come_next_that_are_not_kept() {
        let content = Numbered::new(50, &Arc::default());
        let expected = content.expected.clone();
        let mut first = KeptContent::new(content, None);
        read_all(&mut first, 20);
        for mut handle in [first.reader(), first] {
            expected.lock().unwrap().clear();
            handle.expect(&(10..=30).collect());
            assert_eq!(*expected.lock().unwrap(), (21..=30).collect());
        }
    }

    #[test]
    fn what_cannot_be_kept_is_read_from_the_content() {
        let reads = Arc::new(Mutex::new(0));
        let content = Numbered::new(3000, &reads);
        let mut first = KeptContent::new(content, Some("/nowhere/at/all".into()));
        read_all(&mut first, 3000);
        read_all(&mut first.reader(), 3000);
        // A megabyte is kept in memory, and there is no folder for more.
        assert_eq!(*reads.lock().unwrap(), 3000 + 3000 - 2048);
    }
}
