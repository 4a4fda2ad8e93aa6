//! A live file as a content: what one read transaction sees.

use std::path::Path;

use sqlrsync_protocol::canonical::{HeaderFields, make_canonical};
use sqlrsync_protocol::content::{Content, ContentError};
use sqlrsync_protocol::page::{Geometry, PageNumber};

use crate::error::Error;
use crate::pages::PageReader;
use crate::snapshot::Snapshot;

/// A live database file, as it was when this was made, while others write to it.
///
/// It holds a read transaction for as long as it is there: in WAL mode a checkpoint cannot go past it and the
/// WAL grows, in rollback mode nobody can commit. So it is for as long as a comparison takes.
pub struct LiveContent {
    reader: PageReader<Snapshot>,
    geometry: Geometry,
    fields: HeaderFields,
    page: Vec<u8>,
}

impl LiveContent {
    /// Begins the transaction.
    ///
    /// # Errors
    /// As [`crate::LiveOrigin`] has them for a file that cannot be read, or that is empty.
    pub fn open(path: &Path) -> Result<LiveContent, Error> {
        let snapshot = Snapshot::open(path)?;
        let (geometry, fields) = (snapshot.geometry(), snapshot.fields());
        Ok(LiveContent { reader: PageReader::new(snapshot)?, geometry, fields, page: Vec::new() })
    }
}

impl Content for LiveContent {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn fields(&self) -> HeaderFields {
        self.fields
    }

    fn read(&mut self, page: PageNumber, into: &mut [u8]) -> Result<(), ContentError> {
        let boxed = |error: Error| Box::new(error) as ContentError;
        self.reader.read(&[page], &mut self.page).map_err(boxed)?;
        into.copy_from_slice(&self.page);
        if page == PageNumber::FIRST {
            make_canonical(into);
        }
        Ok(())
    }
}
