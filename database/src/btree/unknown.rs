//! Which rows may differ where nobody has the map of the pages: it is made by reading the old content whole, and once.
//! Where nobody knows which pages differ either, so is the new one.

use roaring::RoaringBitmap;
use sqlrsync_protocol::content::{ChangedPages, Content, ContentError};

use super::find::touched;
use super::pages::Pages;
use super::parents::ParentMap;
use super::touched::{Roots, Touched};

/// What [`touched()`] finds, of contents of which nothing is known beforehand. Each page is read once, in order,
/// and then again those that lead to where the two differ.
///
/// # Errors
/// Where a page cannot be read.
pub fn touched_of_unknown(
    old: &mut dyn Content,
    new: &mut dyn Content,
    roots: (&Roots, &Roots),
) -> Result<Touched, ContentError> {
    let (changed, mut parents) = compare(old, new)?;
    touched(old, new, &ChangedPages::Known(changed), &mut parents, roots)
}

/// What [`touched()`] finds, of contents that differ in the pages `changed`, and of which no map is at hand. The old one
/// is read once, in order; where it is not known what changed, both are.
///
/// # Errors
/// Where a page cannot be read.
pub fn touched_without_map(
    old: &mut dyn Content,
    new: &mut dyn Content,
    changed: &ChangedPages,
    roots: (&Roots, &Roots),
) -> Result<Touched, ContentError> {
    let mut parents = match changed {
        ChangedPages::Unknown => return touched_of_unknown(old, new, roots),
        ChangedPages::Known(pages) if pages.is_empty() => ParentMap::unknown(),
        ChangedPages::Known(_) => ParentMap::build(old)?,
    };
    touched(old, new, changed, &mut parents, roots)
}

/// The pages that are not the same in both, and the map of the old content. Nothing is read, nor found, where pages
/// of the two do not mean the same: [`touched()`] says so.
fn compare(old: &mut dyn Content, new: &mut dyn Content) -> Result<(RoaringBitmap, ParentMap), ContentError> {
    let (mut changed, mut parents) = (RoaringBitmap::new(), ParentMap::unknown());
    let (Some(mut old), Some(mut new)) = (Pages::open(old)?, Pages::open(new)?) else {
        return Ok((changed, parents));
    };
    let (layout, in_new) = (old.layout, new.layout.page_count);
    if !layout.means_the_same(&new.layout) {
        return Ok((changed, parents));
    }
    let free = old.free()?;
    let (mut page, mut other) = (Vec::new(), Vec::new());
    for number in 1..=layout.page_count {
        old.read(number, &mut page)?;
        if layout.is_data(number) && !free.contains(number) {
            parents.learn(number, &page, layout);
        }
        if number <= in_new {
            new.read(number, &mut other)?;
        }
        if number > in_new || page != other {
            changed.insert(number);
        }
    }
    if let Some(first) = layout.page_count.checked_add(1).filter(|&first| first <= in_new) {
        changed.insert_range(first..=in_new);
    }
    parents.resize(layout.page_count);
    Ok((changed, parents))
}
