//! Page numbers, page counts, page sizes and version numbers: different types, so that one cannot
//! be taken for another. Each is checked once, when it is made from a number that came from outside.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

/// The byte offset that SQLite locks; the page that holds it stores nothing
/// (<https://www.sqlite.org/fileformat2.html#the_lock_byte_page>).
pub const LOCK_BYTE_OFFSET: u64 = 1 << 30;

/// A database's page size in bytes: a power of two from 512 to 65,536.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageSize(u8);

impl PageSize {
    /// 512 bytes, the smallest page SQLite has.
    pub const MIN: PageSize = PageSize(9);
    /// 65,536 bytes, the largest page SQLite has.
    pub const MAX: PageSize = PageSize(16);

    /// From the base-2 logarithm of the size in bytes, as it is on the wire; `None` outside 9 to 16.
    pub const fn from_log2(log2: u8) -> Option<PageSize> {
        if log2 >= 9 && log2 <= 16 { Some(PageSize(log2)) } else { None }
    }

    /// From the size in bytes; `None` where that is no power of two from 512 to 65,536.
    pub const fn from_bytes(bytes: u32) -> Option<PageSize> {
        if bytes.is_power_of_two() { PageSize::from_log2(bytes.trailing_zeros() as u8) } else { None }
    }

    /// The base-2 logarithm of the size in bytes.
    pub const fn log2(self) -> u8 {
        self.0
    }

    /// The size in bytes.
    pub const fn bytes(self) -> usize {
        1 << self.0
    }

    /// The page that holds the byte at 2^30. It is never stored, sent or written and counts as zeros.
    pub const fn lock_page(self) -> PageNumber {
        // At most 2^21 + 1, so the sum neither overflows nor is zero.
        match PageNumber::new((LOCK_BYTE_OFFSET >> self.0) as u32 + 1) {
            Some(number) => number,
            None => unreachable!(),
        }
    }
}

impl fmt::Debug for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().fmt(f)
    }
}

/// The number of a page, counted from 1 as SQLite does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PageNumber(NonZeroU32);

impl PageNumber {
    /// Page 1, the one with the database header.
    pub const FIRST: PageNumber = PageNumber(NonZeroU32::MIN);

    /// `None` for zero, which is no page.
    pub const fn new(number: u32) -> Option<PageNumber> {
        match NonZeroU32::new(number) {
            Some(number) => Some(PageNumber(number)),
            None => None,
        }
    }

    /// The page that stands at `index`, counted from 0; `None` for `u32::MAX`.
    pub const fn from_index(index: u32) -> Option<PageNumber> {
        PageNumber::new(index.wrapping_add(1))
    }

    /// Counted from 1.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// Counted from 0.
    pub const fn index(self) -> u32 {
        self.get() - 1
    }

    /// Where the page begins in the file, in bytes.
    pub const fn offset(self, size: PageSize) -> u64 {
        (self.index() as u64) << size.log2()
    }
}

impl fmt::Display for PageNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many pages a database has. Zero is an empty file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct PageCount(pub u32);

impl PageCount {
    /// No page: an empty file, or none at all.
    pub const ZERO: PageCount = PageCount(0);

    /// The count as a number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Whether a database of this many pages has the page.
    pub const fn contains(self, page: PageNumber) -> bool {
        page.get() <= self.0
    }

    /// The last page; `None` where there is none.
    pub const fn last(self) -> Option<PageNumber> {
        PageNumber::new(self.0)
    }
}

impl fmt::Display for PageCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Page size and page count: the outside of a database.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Geometry {
    /// Size of a page.
    pub page_size: PageSize,
    /// Number of pages.
    pub page_count: PageCount,
}

impl Geometry {
    /// The database's size in bytes.
    pub const fn bytes(self) -> u64 {
        (self.page_count.0 as u64) << self.page_size.log2()
    }
}

/// The number of a version of a replica in a repository, counted from 1, without gaps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct VersionNumber(NonZeroU64);

impl VersionNumber {
    /// The first version of a replica.
    pub const FIRST: VersionNumber = VersionNumber(NonZeroU64::MIN);

    /// `None` for zero.
    pub const fn new(number: u64) -> Option<VersionNumber> {
        match NonZeroU64::new(number) {
            Some(number) => Some(VersionNumber(number)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The version after this one; `None` at the end of the numbers.
    pub const fn next(self) -> Option<VersionNumber> {
        match self.0.checked_add(1) {
            Some(number) => Some(VersionNumber(number)),
            None => None,
        }
    }

    /// The version `back` before this one; `None` where there is none.
    pub const fn back(self, back: u64) -> Option<VersionNumber> {
        match self.get().checked_sub(back) {
            Some(number) => VersionNumber::new(number),
            None => None,
        }
    }
}

impl fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a conflict of a replica, counted from 1, without gaps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ConflictNumber(NonZeroU64);

impl ConflictNumber {
    /// The first conflict of a replica.
    pub const FIRST: ConflictNumber = ConflictNumber(NonZeroU64::MIN);

    /// `None` for zero.
    pub const fn new(number: u64) -> Option<ConflictNumber> {
        match NonZeroU64::new(number) {
            Some(number) => Some(ConflictNumber(number)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The conflict after this one; `None` at the end of the numbers.
    pub const fn next(self) -> Option<ConflictNumber> {
        match self.0.checked_add(1) {
            Some(number) => Some(ConflictNumber(number)),
            None => None,
        }
    }
}

impl fmt::Display for ConflictNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_powers_of_two_from_512_to_65536() {
        assert_eq!(PageSize::from_bytes(4096).map(PageSize::log2), Some(12));
        for bytes in [0, 1, 256, 511, 513, 4095, 131_072, u32::MAX] {
            assert_eq!(PageSize::from_bytes(bytes), None, "{bytes}");
        }
    }

    #[test]
    fn the_lock_page_holds_the_byte_at_2_to_the_30() {
        for log2 in 9..=16 {
            let size = PageSize::from_log2(log2).unwrap();
            assert_eq!(size.lock_page().offset(size), LOCK_BYTE_OFFSET);
        }
    }
}
