//! Until when an answer is wanted: for so long, and for as long as whoever asked is there. SQLite stops by itself when
//! that is over; what reads pages without it, to find out which rows may differ, asks here before each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use roaring::RoaringBitmap;
use sqlrsync_database::version::VersionError;
use sqlrsync_protocol::canonical::HeaderFields;
use sqlrsync_protocol::content::{Content, ContentError};
use sqlrsync_protocol::page::{Geometry, PageNumber};

use super::Error;

/// A deadline, and a flag that says stop.
#[derive(Clone, Debug)]
pub(super) struct Until {
    /// `None`: none.
    pub deadline: Option<Instant>,
    pub cancel: Option<Arc<AtomicBool>>,
}

impl Until {
    /// For so long.
    pub fn after(time: Duration) -> Until {
        Until { deadline: Instant::now().checked_add(time), cancel: None }
    }

    /// For as long as it takes.
    pub fn done() -> Until {
        Until { deadline: None, cancel: None }
    }

    /// What is left of it; `None` where it takes as long as it takes.
    pub fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Why it is over.
    fn over(&self) -> Option<VersionError> {
        if self.cancel.as_ref().is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
            return Some(VersionError::Cancelled);
        }
        self.left().filter(Duration::is_zero).map(|_| VersionError::Deadline)
    }

    /// A content that can be read until then.
    pub fn read<'c>(&'c self, content: &'c mut dyn Content) -> impl Content + use<'c> {
        Reading { content, until: self }
    }

    /// Why a page of one could not be read.
    pub fn explain(&self, error: ContentError) -> Error {
        self.over().map_or(Error::Pages(error), Error::Version)
    }
}

struct Reading<'c> {
    content: &'c mut dyn Content,
    until: &'c Until,
}

impl Content for Reading<'_> {
    fn geometry(&self) -> Geometry {
        self.content.geometry()
    }

    fn fields(&self) -> HeaderFields {
        self.content.fields()
    }

    fn read(&mut self, page: PageNumber, into: &mut [u8]) -> Result<(), ContentError> {
        match self.until.over() {
            Some(over) => Err(Box::new(over)),
            None => self.content.read(page, into),
        }
    }

    fn expect(&mut self, pages: &RoaringBitmap) {
        self.content.expect(pages);
    }
}

#[cfg(test)]
mod tests {
    use sqlrsync_protocol::page::{PageCount, PageSize};

    use super::*;

    /// Keeps which pages it was told to expect.
    #[derive(Default)]
    struct Told(RoaringBitmap);

    impl Content for Told {
        fn geometry(&self) -> Geometry {
            Geometry { page_size: PageSize::MIN, page_count: PageCount(9) }
        }

        fn fields(&self) -> HeaderFields {
            HeaderFields::default()
        }

        fn read(&mut self, _: PageNumber, into: &mut [u8]) -> Result<(), ContentError> {
            into.fill(0);
            Ok(())
        }

        fn expect(&mut self, pages: &RoaringBitmap) {
            self.0 = pages.clone();
        }
    }

    #[test]
    fn the_content_hears_which_pages_come_next() {
        let (mut told, pages) = (Told::default(), (2..7).collect());
        Until::done().read(&mut told).expect(&pages);
        assert_eq!(told.0, pages);
    }
}
