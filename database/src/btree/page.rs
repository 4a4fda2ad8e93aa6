//! One page of a B-tree, decoded as far as its structure goes
//! (<https://www.sqlite.org/fileformat2.html#b_tree_pages>).
//!
//! The page may be anything: each offset is checked before it is followed, and what does not hold is
//! [`Malformed`]. What the page says of other pages is not checked here, since only a walk can.

use sqlrsync_protocol::content::ContentError;

use super::cell::Cell;
use super::layout::Layout;

/// What was read is not what its place says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Why a structure could not be followed.
pub(crate) enum Trouble {
    /// It is none.
    Malformed,
    /// A page could not be read.
    Content(ContentError),
}

impl From<Malformed> for Trouble {
    fn from(Malformed: Malformed) -> Trouble {
        Trouble::Malformed
    }
}

impl From<ContentError> for Trouble {
    fn from(error: ContentError) -> Trouble {
        Trouble::Content(error)
    }
}

/// The four kinds of pages of a B-tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Inside an index or a WITHOUT ROWID table. It has rows of its own.
    IndexInterior,
    /// Inside a table with rowids. It has rowids and no rows.
    TableInterior,
    /// The end of an index or a WITHOUT ROWID table.
    IndexLeaf,
    /// The end of a table with rowids.
    TableLeaf,
}

impl Kind {
    const fn of(byte: u8) -> Option<Kind> {
        match byte {
            0x02 => Some(Kind::IndexInterior),
            0x05 => Some(Kind::TableInterior),
            0x0a => Some(Kind::IndexLeaf),
            0x0d => Some(Kind::TableLeaf),
            _ => None,
        }
    }

    /// Whether it has children.
    pub(crate) const fn is_interior(self) -> bool {
        matches!(self, Kind::IndexInterior | Kind::TableInterior)
    }

    /// Whether it is of a tree that is ordered by keys and not by rowids.
    pub(crate) const fn is_index(self) -> bool {
        matches!(self, Kind::IndexInterior | Kind::IndexLeaf)
    }
}

/// A page of a B-tree.
pub(crate) struct Page<'p> {
    layout: Layout,
    /// Without the reserved bytes at its end.
    bytes: &'p [u8],
    kind: Kind,
    cells: usize,
    /// Where the array of cell pointers begins.
    pointers: usize,
    right: u32,
}

impl<'p> Page<'p> {
    /// The page with this number. `bytes` is one page long.
    pub(crate) fn decode(number: u32, bytes: &'p [u8], layout: Layout) -> Result<Page<'p>, Malformed> {
        let bytes = bytes.get(..layout.usable).ok_or(Malformed)?;
        let header = Layout::tree_header(number);
        let kind = Kind::of(*bytes.get(header).ok_or(Malformed)?).ok_or(Malformed)?;
        let cells = usize::from(u16_at(bytes, header + 3)?);
        let (pointers, right) =
            if kind.is_interior() { (header + 12, u32_at(bytes, header + 8)?) } else { (header + 8, 0) };
        if pointers + 2 * cells > bytes.len() {
            return Err(Malformed);
        }
        Ok(Page { layout, bytes, kind, cells, pointers, right })
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Its cells in order.
    pub(crate) fn cells(&self) -> impl Iterator<Item = Result<Cell<'p>, Malformed>> {
        let Page { layout, bytes, kind, cells, pointers, .. } = *self;
        (0..cells).map(move |index| {
            let at = usize::from(u16_at(bytes, pointers + 2 * index)?);
            // A cell cannot begin in the header or among the pointers.
            if at < pointers + 2 * cells {
                return Err(Malformed);
            }
            Cell::decode(kind, bytes.get(at..).ok_or(Malformed)?, &layout)
        })
    }

    /// The numbers of its children in order, whatever they are.
    pub(crate) fn children(&self) -> Result<Vec<u32>, Malformed> {
        if !self.kind.is_interior() {
            return Ok(Vec::new());
        }
        let left = self.cells().map(|cell| cell?.left.ok_or(Malformed));
        left.chain([Ok(self.right)]).collect()
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Malformed> {
    let bytes = bytes.get(at..at + 2).ok_or(Malformed)?;
    Ok(u16::from_be_bytes(bytes.try_into().map_err(|_| Malformed)?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Malformed> {
    let bytes = bytes.get(at..at + 4).ok_or(Malformed)?;
    Ok(u32::from_be_bytes(bytes.try_into().map_err(|_| Malformed)?))
}
