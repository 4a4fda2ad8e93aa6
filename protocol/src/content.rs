//! A content as something to look into: a database whose pages are read where they are asked for, whether
//! they are in a repository, in a file or in memory.
//!
//! [`crate::exchange`] moves a content from one place to another; this reads one where it is. It joins what
//! has versions with what understands databases, without either knowing the other.

use roaring::RoaringBitmap;

use crate::canonical::HeaderFields;
use crate::exchange::Fault;
use crate::page::{Geometry, PageNumber};

/// Why a page could not be read.
pub type ContentError = Box<dyn Fault>;

/// A database that does not change, page by page.
pub trait Content: Send {
    /// Page size and page count.
    fn geometry(&self) -> Geometry;

    /// What canonical page 1 leaves out.
    fn fields(&self) -> HeaderFields;

    /// Puts the canonical form of a page into `into`, which is one page long. The content has the page. The
    /// page at 2^30 reads as zeros.
    ///
    /// # Errors
    /// Where it cannot be read, or is not what it was.
    fn read(&mut self, page: PageNumber, into: &mut [u8]) -> Result<(), ContentError>;

    /// Says that these pages are read next, in ascending order. It is a hint: what can fetch pages ahead may,
    /// and what is read after all is for the reader to say.
    fn expect(&mut self, pages: &RoaringBitmap) {
        let _ = pages;
    }
}

impl<C: Content + ?Sized> Content for Box<C> {
    fn geometry(&self) -> Geometry {
        (**self).geometry()
    }

    fn fields(&self) -> HeaderFields {
        (**self).fields()
    }

    fn read(&mut self, page: PageNumber, into: &mut [u8]) -> Result<(), ContentError> {
        (**self).read(page, into)
    }

    fn expect(&mut self, pages: &RoaringBitmap) {
        (**self).expect(pages);
    }
}

/// Which pages two contents do not have in common.
#[derive(Clone, Debug)]
pub enum ChangedPages {
    /// These, by number, and no others: pages that differ, and those that one of the two does not have.
    Known(RoaringBitmap),
    /// Nobody knows, or the page sizes differ: any page may.
    Unknown,
}
