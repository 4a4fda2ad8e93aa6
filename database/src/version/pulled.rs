//! A version that was pulled beside a file, as a content: the pages that arrived, over those of the file.

use std::sync::Arc;

use sqlrsync_protocol::canonical::{HeaderFields, make_canonical};
use sqlrsync_protocol::content::{Content, ContentError};
use sqlrsync_protocol::page::{Geometry, PageNumber};

use super::live::LiveContent;
use crate::receive::Received;

/// A version as the difference of a file. Clones share what arrived, and the transaction in which the file is read.
#[derive(Clone)]
pub struct PulledContent {
    /// `None` where every page arrived.
    file: Option<LiveContent>,
    received: Arc<Received>,
    geometry: Geometry,
    fields: HeaderFields,
}

impl PulledContent {
    /// What arrived, of a content with that geometry, over `file`. Where it has no fields they are the file's.
    pub(crate) fn new(
        file: Option<LiveContent>,
        received: Arc<Received>,
        geometry: Geometry,
        fields: Option<HeaderFields>,
    ) -> PulledContent {
        let fields = fields.or_else(|| file.as_ref().map(Content::fields)).unwrap_or_default();
        PulledContent { file, received, geometry, fields }
    }
}

impl Content for PulledContent {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn fields(&self) -> HeaderFields {
        self.fields
    }

    fn read(&mut self, page: PageNumber, into: &mut [u8]) -> Result<(), ContentError> {
        if self.received.pages.contains(page.get()) {
            self.received.read(page, into).map_err(|error| Box::new(error) as ContentError)?;
            // The older protocol versions send it as it is in the file.
            if page == PageNumber::FIRST {
                make_canonical(into);
            }
            return Ok(());
        }
        match &mut self.file {
            Some(file) if file.geometry().page_count.contains(page) => file.read(page, into),
            // The lock page, which never travels.
            _ => {
                into.fill(0);
                Ok(())
            }
        }
    }
}
