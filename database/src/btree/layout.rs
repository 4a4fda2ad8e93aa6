//! What page 1 says of all pages, and which pages are none of a B-tree.

use sqlrsync_protocol::canonical::DATABASE_HEADER_LEN;
use sqlrsync_protocol::page::{Geometry, PageSize};

use super::page::{Malformed, u32_at};

/// SQLite refuses a database with less usable bytes in a page.
const USABLE_MIN: usize = 480;

/// The outside of a database and the fields of its header that decide what the bytes of a page mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Size of a page in bytes.
    pub(crate) page_size: PageSize,
    /// Number of the last page.
    pub(crate) page_count: u32,
    /// Bytes of a page that SQLite uses; extensions have the rest.
    pub(crate) usable: usize,
    /// 1: UTF-8, 2: UTF-16LE, 3: UTF-16BE. 0 until something is written.
    encoding: u32,
    /// The schema format; 0 until something is written.
    format: u32,
    /// Whether there are pointer map pages.
    auto_vacuum: bool,
    /// The first page of the list of free pages; 0: none is free.
    pub(crate) first_trunk: u32,
}

impl Layout {
    /// From page 1, in its canonical form or not.
    pub(crate) fn decode(geometry: Geometry, page: &[u8]) -> Result<Layout, Malformed> {
        let page_size = geometry.page_size;
        let reserved = usize::from(*page.get(20).ok_or(Malformed)?);
        let usable = page_size.bytes() - reserved;
        if usable < USABLE_MIN {
            return Err(Malformed);
        }
        Ok(Layout {
            page_size,
            page_count: geometry.page_count.get(),
            usable,
            encoding: u32_at(page, 56)?,
            format: u32_at(page, 44)?,
            auto_vacuum: u32_at(page, 52)? != 0,
            first_trunk: u32_at(page, 32)?,
        })
    }

    /// Whether the same bytes mean the same rows in both.
    pub(crate) fn means_the_same(&self, other: &Layout) -> bool {
        (self.page_size, self.usable, self.encoding, self.format)
            == (other.page_size, other.usable, other.encoding, other.format)
    }

    /// Whether a page can stand in a tree or a chain.
    pub(crate) fn is_data(&self, page: u32) -> bool {
        (1..=self.page_count).contains(&page)
            && page != self.page_size.lock_page().get()
            && !self.is_pointer_map(page)
    }

    /// Whether it is a page of the pointer map, which auto-vacuum keeps.
    pub(crate) fn is_pointer_map(&self, page: u32) -> bool {
        if !self.auto_vacuum || page < 2 {
            return false;
        }
        // A map page is followed by the pages that it has entries of five bytes for.
        let group = u64::from(self.pages_per_map());
        let map = u64::from(page - 2) / group * group + 2;
        // Where that would be the lock page, it is the page after.
        let lock = u64::from(self.page_size.lock_page().get());
        u64::from(page) == if map == lock { map + 1 } else { map }
    }

    /// How many pages a map page and those it describes are.
    pub(crate) fn pages_per_map(&self) -> u32 {
        // At most 13,107 + 1.
        (self.usable / 5) as u32 + 1
    }

    /// How much of a record of this length stands in the cell itself.
    pub(crate) fn local_len(&self, payload_len: usize, index: bool) -> usize {
        let usable = self.usable;
        let max = if index { (usable - 12) * 64 / 255 - 23 } else { usable - 35 };
        if payload_len <= max {
            return payload_len;
        }
        let min = (usable - 12) * 32 / 255 - 23;
        let even = min + (payload_len - min) % (usable - 4);
        if even <= max { even } else { min }
    }

    /// How many overflow pages the rest of a record takes.
    pub(crate) fn chain_len(&self, rest: usize) -> usize {
        rest.div_ceil(self.usable - 4)
    }

    /// Where the B-tree header of a page begins.
    pub(crate) const fn tree_header(page: u32) -> usize {
        if page == 1 { DATABASE_HEADER_LEN } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use sqlrsync_protocol::page::PageCount;

    use super::*;

    pub(crate) fn layout(page_size: u32, auto_vacuum: bool) -> Layout {
        let page_size = PageSize::from_bytes(page_size).unwrap();
        let mut page = sqlrsync_protocol::canonical::empty_database(page_size);
        page[55] = u8::from(auto_vacuum);
        Layout::decode(Geometry { page_size, page_count: PageCount(u32::MAX) }, &page).unwrap()
    }

    #[test]
    fn pointer_map_pages_stand_where_sqlite_puts_them() {
        let layout512 = layout(512, true);
        let first: Vec<u32> = (1..500).filter(|&page| layout512.is_pointer_map(page)).collect();
        assert_eq!(first, [2, 105, 208, 311, 414]);
        assert!(!layout(512, false).is_pointer_map(2));
    }

    #[test]
    fn a_pointer_map_page_never_is_the_lock_page() {
        for size in [512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536] {
            let layout = layout(size, true);
            let lock = layout.page_size.lock_page().get();
            assert!(!layout.is_pointer_map(lock), "{size}");
            let moved = (lock - 2).is_multiple_of(layout.pages_per_map());
            assert_eq!(layout.is_pointer_map(lock + 1), moved, "{size}");
        }
    }
}
