//! The pages of one content, by number, and which of them are free.

use roaring::RoaringBitmap;
use sqlrsync_protocol::content::{Content, ContentError};
use sqlrsync_protocol::page::PageNumber;

use super::layout::Layout;
use super::page::{Malformed, u32_at};

/// A content whose page 1 has been read.
pub(crate) struct Pages<'c> {
    content: &'c mut dyn Content,
    pub(crate) layout: Layout,
}

impl<'c> Pages<'c> {
    /// `None` where the content has no page, or its header is none.
    pub(crate) fn open(content: &'c mut dyn Content) -> Result<Option<Pages<'c>>, ContentError> {
        let geometry = content.geometry();
        if geometry.page_count.get() == 0 {
            return Ok(None);
        }
        let mut page = vec![0; geometry.page_size.bytes()];
        content.read(PageNumber::FIRST, &mut page)?;
        Ok(Layout::decode(geometry, &page).ok().map(|layout| Pages { content, layout }))
    }

    /// Reads a page that the content has into `into`, which becomes one page long.
    pub(crate) fn read(&mut self, page: u32, into: &mut Vec<u8>) -> Result<(), ContentError> {
        into.resize(self.layout.page_size.bytes(), 0);
        match PageNumber::new(page).filter(|_| page <= self.layout.page_count) {
            Some(page) => self.content.read(page, into),
            // Nobody asks for one: what a page says of others is checked before it is followed.
            None => {
                into.fill(0);
                Ok(())
            }
        }
    }

    /// Says that these pages are read next, in this order.
    pub(crate) fn expect(&mut self, pages: &RoaringBitmap) {
        self.content.expect(pages);
    }

    /// The pages that the list of free pages names: its trunks and their leaves. Where the list is broken,
    /// those up to there.
    pub(crate) fn free(&mut self) -> Result<RoaringBitmap, ContentError> {
        let mut free = RoaringBitmap::new();
        let mut trunks = RoaringBitmap::new();
        let mut page = Vec::new();
        let mut trunk = self.layout.first_trunk;
        // A trunk that comes a second time ends the list, so it is no longer than the content.
        while self.layout.is_data(trunk) && trunks.insert(trunk) {
            self.read(trunk, &mut page)?;
            let Ok((next, leaves)) = decode_trunk(&page, &self.layout) else { break };
            free.insert(trunk);
            free.extend(leaves.filter(|&leaf| self.layout.is_data(leaf)));
            trunk = next;
        }
        Ok(free)
    }
}

/// The next trunk and the leaves of one.
fn decode_trunk<'p>(
    page: &'p [u8],
    layout: &Layout,
) -> Result<(u32, impl Iterator<Item = u32> + use<'p>), Malformed> {
    let next = u32_at(page, 0)?;
    let count = u32_at(page, 4)? as usize;
    if count > layout.usable / 4 - 2 {
        return Err(Malformed);
    }
    let leaves = page.get(8..8 + 4 * count).ok_or(Malformed)?;
    Ok((next, leaves.chunks_exact(4).filter_map(|leaf| u32_at(leaf, 0).ok())))
}
