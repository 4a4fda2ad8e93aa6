//! The canonical form of a page: what two databases are compared by.
//!
//! SQLite rewrites some fields of page 1 whenever it commits, so a correct replica's page 1 never
//! has the origin's bytes. The canonical form has zeros there, and the fields travel beside it as
//! [`HeaderFields`]. Offsets are those of the database header
//! (<https://www.sqlite.org/fileformat2.html#the_database_header>).

use std::ops::Range;

use crate::page::PageSize;

/// Length of the database header at the start of page 1, in bytes.
pub const DATABASE_HEADER_LEN: usize = 100;

/// The fields of page 1 that are zeros in the canonical form: file format (write, read version),
/// change counter, schema cookie, version-valid-for with the library version.
const FIELDS: [Range<usize>; 4] = [18..20, 24..28, 40..44, 92..100];

/// The fields of page 1 that are not part of the canonical form, as they stood in the origin.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct HeaderFields([u8; HeaderFields::LEN]);

/// How many changes of the schema a file is believed to have seen between two pushes. A pull into a file that is
/// there takes the cookie further, to a number of seconds of which a new file has none.
const COOKIE_WAY_MAX: i32 = 1 << 20;

impl HeaderFields {
    /// Length of the encoded fields, in bytes.
    pub const LEN: usize = 18;

    /// From their encoded form: the bytes in the order in which they stand on page 1.
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        HeaderFields(bytes)
    }

    /// The bytes in the order in which they stand on page 1.
    pub const fn to_bytes(self) -> [u8; Self::LEN] {
        self.0
    }

    /// Copies the fields out of a page 1. `page` is at least [`DATABASE_HEADER_LEN`] long, as every page is.
    pub fn of(page: &[u8]) -> HeaderFields {
        let mut fields = [0; Self::LEN];
        let mut at = 0;
        for range in FIELDS {
            let len = range.len();
            fields[at..at + len].copy_from_slice(&page[range]);
            at += len;
        }
        HeaderFields(fields)
    }

    /// Copies the fields into a page 1, the reverse of [`make_canonical`].
    pub fn put(self, page: &mut [u8]) {
        let mut at = 0;
        for range in FIELDS {
            let len = range.len();
            page[range].copy_from_slice(&self.0[at..at + len]);
            at += len;
        }
    }

    /// Whether the header says WAL (file format write version 2).
    pub const fn is_wal(self) -> bool {
        self.0[0] == 2
    }

    /// The change counter (offset 24).
    pub const fn change_counter(self) -> u32 {
        u32::from_be_bytes([self.0[2], self.0[3], self.0[4], self.0[5]])
    }

    /// The schema cookie (offset 40).
    pub const fn schema_cookie(self) -> u32 {
        u32::from_be_bytes([self.0[6], self.0[7], self.0[8], self.0[9]])
    }

    /// Whether a file with these fields did not come of one with those by being written to, as a backup that was
    /// copied over it did not.
    ///
    /// Neither number of a file ever goes back. The change counter goes on with every commit with a rollback
    /// journal, and in WAL mode with every one that writes page 1; the schema cookie with every change of the
    /// schema and, far, with every pull, so that a backup of before the pull stays older than it
    /// however often it is written to. A cookie that went as far on as only a pull takes it ([`COOKIE_WAY_MAX`]) is
    /// that of a file that was there before this one was pulled anew. Both numbers start again after four billion: the
    /// counter then looks like going back, which costs a conflict at worst, and the cookie is compared the short way
    /// round.
    pub const fn is_put_back(self, then: HeaderFields) -> bool {
        let cookie = self.schema_cookie().wrapping_sub(then.schema_cookie()).cast_signed();
        self.change_counter() < then.change_counter() || cookie < 0 || cookie > COOKIE_WAY_MAX
    }
}

/// Turns a page 1 into its canonical form and returns what was taken out.
pub fn make_canonical(page: &mut [u8]) -> HeaderFields {
    let fields = HeaderFields::of(page);
    HeaderFields::default().put(page);
    fields
}

/// Page 1 of a database that was just made and never written to, as SQLite has it in memory: a
/// header and an empty `sqlite_schema` leaf. It is what a replica that does not exist counts as.
pub fn empty_database(size: PageSize) -> Vec<u8> {
    let mut page = vec![0; size.bytes()];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    // Offset 16: the page size, 65,536 written as 1.
    let bytes = if size == PageSize::MAX { 1 } else { size.bytes() as u16 };
    page[16..18].copy_from_slice(&bytes.to_be_bytes());
    // Rollback journal (1, 1), no reserved bytes, payload fractions 64, 32, 32.
    page[18..24].copy_from_slice(&[1, 1, 0, 64, 32, 32]);
    // Offset 28: the page count, offset 44 (schema format) and 56 (encoding) are set by the first write.
    page[28..32].copy_from_slice(&1u32.to_be_bytes());
    // The B-tree header at 100: leaf table, no cells, content begins at the page's end (65,536 written as 0).
    page[DATABASE_HEADER_LEN] = 0x0d;
    let content = (size.bytes() % 65_536) as u16;
    page[DATABASE_HEADER_LEN + 5..DATABASE_HEADER_LEN + 7].copy_from_slice(&content.to_be_bytes());
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn put_back_is_what_has_a_lower_counter_or_cookie_or_one_that_only_a_pull_gives() {
        let fields = |counter: u32, cookie: u32| {
            let mut page = [0; 100];
            page[24..28].copy_from_slice(&counter.to_be_bytes());
            page[40..44].copy_from_slice(&cookie.to_be_bytes());
            HeaderFields::of(&page)
        };
        let then = fields(7, 1030);
        let cases = [
            ((7, 1030), false),
            ((8, 1031), false),
            ((90, 500_000), false),
            ((6, 1030), true),
            ((90, 1029), true),
            ((90, 28_000_000), true),
        ];
        for (now, put_back) in cases {
            assert_eq!(fields(now.0, now.1).is_put_back(then), put_back, "{now:?}");
        }
        assert!(!fields(7, 5).is_put_back(fields(7, u32::MAX - 5)), "the cookie went once around");
    }

    #[test]
    fn canonical_and_back() {
        let original: Vec<u8> = (0..512u32).map(|i| (i % 251) as u8 + 1).collect();
        let mut page = original.clone();
        let fields = make_canonical(&mut page);
        let zeros: Vec<usize> = (0..512).filter(|&i| page[i] == 0).collect();
        assert_eq!(zeros, [18, 19, 24, 25, 26, 27, 40, 41, 42, 43, 92, 93, 94, 95, 96, 97, 98, 99]);
        fields.put(&mut page);
        assert_eq!(page, original);
    }
}
