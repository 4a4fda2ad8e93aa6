//! What was written to a version, once it is closed: the pages for a new version.

use sqlrsync_protocol::canonical::{DATABASE_HEADER_LEN, HeaderFields, make_canonical};
use sqlrsync_protocol::content::{Content, ContentError};
use sqlrsync_protocol::page::{Geometry, PageCount, PageNumber};

use super::error::VersionError;
use super::overlaid::OverlaidFile;

/// What was committed to a version. It is also the result as a [`Content`]: the version, with these pages over
/// it.
pub struct Written {
    /// Page size, and how many pages there are now.
    pub geometry: Geometry,
    /// What canonical page 1 leaves out, as SQLite left it. WAL or rollback journal is as the content had it,
    /// since SQLite was shown a rollback journal.
    pub fields: HeaderFields,
    file: OverlaidFile,
}

impl Written {
    pub(super) fn new(mut file: OverlaidFile) -> Result<Written, VersionError> {
        let before = file.geometry();
        let page_size = before.page_size;
        let count = u32::try_from(file.len() >> page_size.log2()).map_err(|_| VersionError::Bug)?;
        let geometry = Geometry { page_size, page_count: PageCount(count) };
        if geometry.bytes() != file.len() {
            return Err(VersionError::PageSize { stored: page_size });
        }
        let mut fields = file.fields();
        if count > 0 {
            super::check_page_size(&mut file, page_size)?;
            let mut header = [0; DATABASE_HEADER_LEN];
            file.read(0, &mut header)?;
            let mut written = HeaderFields::of(&header).to_bytes();
            if before.page_count != PageCount::ZERO {
                // Bytes 18 and 19 of page 1 come first.
                written[..2].copy_from_slice(&fields.to_bytes()[..2]);
            }
            fields = HeaderFields::from_bytes(written);
        }
        Ok(Written { geometry, fields, file })
    }

    /// The pages that may differ from the content's, ascending: those that were written, be it with what they
    /// had, and all that the content does not have.
    pub fn numbers(&self) -> impl Iterator<Item = PageNumber> {
        self.file.changed(self.geometry.page_count.get())
    }

    /// These pages in their canonical form, ascending.
    pub fn pages(&mut self) -> impl Iterator<Item = Result<(PageNumber, Vec<u8>), VersionError>> {
        let numbers: Vec<PageNumber> = self.numbers().collect();
        numbers.into_iter().map(|number| {
            let mut page = vec![0; self.geometry.page_size.bytes()];
            self.canonical(number, &mut page)?;
            Ok((number, page))
        })
    }

    fn canonical(&mut self, number: PageNumber, into: &mut [u8]) -> Result<(), VersionError> {
        self.file.page(number, into)?;
        if number == PageNumber::FIRST {
            make_canonical(into);
        }
        Ok(())
    }
}

impl Content for Written {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn fields(&self) -> HeaderFields {
        self.fields
    }

    fn read(&mut self, page: PageNumber, into: &mut [u8]) -> Result<(), ContentError> {
        self.canonical(page, into).map_err(|error| Box::new(error) as ContentError)
    }
}
