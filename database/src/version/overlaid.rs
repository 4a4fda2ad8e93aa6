//! A content with what was written over it, as the file that SQLite sees.
//!
//! - Page 1 is as SQLite has it in a file, but for bytes 18 and 19: they say rollback journal whatever the
//!   content says, since a WAL would need a shared-memory file beside it.
//! - SQLite reads parts of pages, and pages that are not there: both are read byte by byte of the file here.
//! - A page of the content that was once cut off does not come back when the file grows again.
//! - The lock page reads as zeros and what is written to it is dropped.

use std::sync::Arc;

use sqlrsync_protocol::canonical::HeaderFields;
use sqlrsync_protocol::content::Content;
use sqlrsync_protocol::page::{Geometry, LOCK_BYTE_OFFSET, PageNumber};

use super::error::Trouble;
use super::overlay::Overlay;
use super::scratch::Space;

/// Where on page 1 it says rollback journal (1) or WAL (2), for writing and for reading.
const JOURNAL_BYTES: std::ops::Range<usize> = 18..20;

/// The content as a file that can be written.
pub(super) struct OverlaidFile {
    content: Box<dyn Content>,
    overlay: Overlay,
    space: Arc<Space>,
    /// Of the content.
    geometry: Geometry,
    fields: HeaderFields,
    /// How long the file is, in bytes.
    len: u64,
    /// The content's pages up to this one are in the file; those after it were cut off.
    kept: u32,
    /// Page 1 as it is without the overlay: SQLite looks at parts of it all the time.
    first: Option<Vec<u8>>,
    /// For a part of a page.
    buffer: Vec<u8>,
}

impl OverlaidFile {
    pub(super) fn new(content: Box<dyn Content>, space: Arc<Space>) -> OverlaidFile {
        let (geometry, fields) = (content.geometry(), content.fields());
        let page_len = geometry.page_size.bytes();
        OverlaidFile {
            content,
            overlay: Overlay::new(page_len, &space),
            space,
            geometry,
            fields,
            len: geometry.bytes(),
            kept: geometry.page_count.get(),
            first: None,
            buffer: vec![0; page_len],
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Of the content, as it was.
    pub(super) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Of the content, as they were.
    pub(super) fn fields(&self) -> HeaderFields {
        self.fields
    }

    /// Fills `into` from `offset` on; past the end with zeros. Gives how much of it is in the file.
    pub(super) fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<usize, Trouble> {
        let there = self.len.saturating_sub(offset).min(into.len() as u64) as usize;
        let (within, past) = into.split_at_mut(there);
        past.fill(0);
        let mut offset = offset;
        let mut rest = within;
        while !rest.is_empty() {
            let Some((number, at)) = self.page_at(offset) else {
                rest.fill(0);
                break;
            };
            let len = rest.len().min(self.page_len() - at);
            let (part, after) = rest.split_at_mut(len);
            self.read_part(number, at, part)?;
            (offset, rest) = (offset + len as u64, after);
        }
        Ok(there)
    }

    /// Writes from `offset` on.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Trouble> {
        let full = Trouble::Full { max: self.space.max() };
        // A hole takes no room here, but whoever reads all that was written gets its pages.
        let room = self.geometry.bytes().saturating_add(self.space.max());
        let Some(end) = offset.checked_add(bytes.len() as u64).filter(|end| *end <= room) else {
            return Err(full);
        };
        let (mut offset, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let Some((number, at)) = self.page_at(offset) else { return Err(full) };
            let (part, after) = rest.split_at(rest.len().min(self.page_len() - at));
            self.write_part(number, at, part)?;
            (offset, rest) = (offset + part.len() as u64, after);
        }
        self.len = self.len.max(end);
        Ok(())
    }

    /// Cuts the file off, or makes it longer with zeros.
    pub(super) fn truncate(&mut self, len: u64) -> Result<(), Trouble> {
        if len < self.len {
            let last = u32::try_from(len.div_ceil(self.page_len() as u64)).unwrap_or(u32::MAX);
            self.kept = self.kept.min(last);
            self.overlay.truncate(last)?;
        }
        self.len = len;
        Ok(())
    }

    /// A whole page as it is in the file.
    pub(super) fn page(&mut self, number: PageNumber, into: &mut [u8]) -> Result<(), Trouble> {
        self.read_part(number, 0, into)
    }

    /// The pages that are not, or may not be, those of the content, ascending: what was written, and what the
    /// content does not have. SQLite leaves holes where a page was freed before it was ever written.
    pub(super) fn changed(&self, last: u32) -> impl Iterator<Item = PageNumber> {
        let lock_page = self.geometry.page_size.lock_page();
        let kept = self.kept.min(last);
        let written = self.overlay.numbers().take_while(move |number| *number <= kept);
        let grown = kept.saturating_add(1)..=last;
        written.chain(grown).filter_map(PageNumber::new).filter(move |number| *number != lock_page)
    }

    fn page_len(&self) -> usize {
        self.geometry.page_size.bytes()
    }

    /// The page at an offset, and where in it; `None` past the last number.
    fn page_at(&self, offset: u64) -> Option<(PageNumber, usize)> {
        let size = self.geometry.page_size;
        let index = u32::try_from(offset >> size.log2()).ok()?;
        Some((PageNumber::from_index(index)?, offset as usize & (size.bytes() - 1)))
    }

    fn is_lock_page(&self, number: PageNumber) -> bool {
        number.offset(self.geometry.page_size) == LOCK_BYTE_OFFSET
    }

    fn read_part(&mut self, number: PageNumber, at: usize, into: &mut [u8]) -> Result<(), Trouble> {
        if self.is_lock_page(number) {
            into.fill(0);
        } else if self.overlay.has(number.get()) {
            self.overlay.read(number.get(), at, into)?;
        } else if number.get() > self.kept {
            into.fill(0);
        } else if number == PageNumber::FIRST {
            let page = self.content_first()?;
            into.copy_from_slice(&page[at..at + into.len()]);
        } else if into.len() == self.page_len() {
            self.content.read(number, into).map_err(Trouble::Content)?;
        } else {
            self.content.read(number, &mut self.buffer).map_err(Trouble::Content)?;
            into.copy_from_slice(&self.buffer[at..at + into.len()]);
        }
        Ok(())
    }

    fn content_first(&mut self) -> Result<&[u8], Trouble> {
        if self.first.is_none() {
            let mut page = vec![0; self.page_len()];
            self.content.read(PageNumber::FIRST, &mut page).map_err(Trouble::Content)?;
            self.fields.put(&mut page);
            page[JOURNAL_BYTES].fill(1);
            self.first = Some(page);
        }
        Ok(self.first.as_deref().unwrap_or_default())
    }

    fn write_part(&mut self, number: PageNumber, at: usize, part: &[u8]) -> Result<(), Trouble> {
        if self.is_lock_page(number) {
            return Ok(());
        }
        if part.len() == self.page_len() {
            return self.overlay.write(number.get(), part);
        }
        let mut page = vec![0; self.page_len()];
        self.read_part(number, 0, &mut page)?;
        page[at..at + part.len()].copy_from_slice(part);
        self.overlay.write(number.get(), &page)
    }
}
