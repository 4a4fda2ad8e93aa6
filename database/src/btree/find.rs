//! Which rows may differ: from the pages that changed to ranges of rowids and keys.
//!
//! # Why no row that differs is left out
//!
//! Take a table whose root page is the same on both sides, *old* and *new*, and a row that stands in old and
//! not, or not with the same content, in new. (The other direction is the same with the names exchanged.) Let
//! `p0, p1, ... pm` be the pages from the root to the one with the row's cell, in old. If `pm` or a page of the
//! row's overflow chain changed, then the walk came to that page and added the rows of `pm`: all changed
//! pages are accounted for, see below. So let none of them have changed. Then the cell has the same bytes in
//! new, and `pm` is no page of the table there, or the row would be the same.
//!
//! Let `I` be the interior pages of a side whose children were noted: those that changed, and those that were
//! expanded. Let `j` be the largest number for which `pj` is in `I` of old. (There is one. Otherwise no page
//! of the path changed, beginning with the root that both have: then new has the same path, and `pm`.) So
//! `p(j+1)` was noted as a child on the old side, it is not in `I`, and no page from it on changed.
//!
//! - It was noted as a child on the new side, too: then it is a page of the table in new, and all pages after
//!   it are as well, since they have the same bytes. So is `pm`, which cannot be.
//! - It was noted on the old side only: then it stands on one side only and has not changed, and such a page
//!   is expanded. If it is interior it comes into `I`, which it is not in. So it is a leaf, thus `pm`, and
//!   its rows were added.
//!
//! A WITHOUT ROWID table has rows in interior pages: those of each page in `I` are added, and the same holds.
//!
//! **Accounted for** means: a changed page was reached from a root, or is free, a page of the pointer map or
//! the lock page, none of which has rows. If one is not, the walk is done again: into the pages that came
//! back to life, see [`ParentMap`]; then with a map made from the content itself; and then without one,
//! through every page.
//!
//! # Why it reads little
//!
//! Subtrees that stand on one side only are expanded from the top, and one side's children are taken from the
//! other's again after each level: where a tree became one level less, all of it stands on one side for a
//! moment, under a root that is gone, until that root is expanded.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;
use sqlrsync_protocol::content::{ChangedPages, Content, ContentError};

use super::page::Trouble;
use super::pages::Pages;
use super::parents::ParentMap;
use super::rows::{Budget, Rows};
use super::touched::{Ranges, Roots, TableRoot, Touched};
use super::walk::{Marks, Root, Shape, Walk, Way};

const UNKNOWN: &str = "it is not known which pages changed";
pub(super) const NO_DATABASE: &str = "one of the two is empty or no database";
pub(super) const OTHER_MEANING: &str = "page size, text encoding or file format are not the same";
const MOVED: &str = "a table was rebuilt at another place: all its rows are read";
pub(super) const NO_MAP: &str = "the map of the pages did not fit and was made anew";
pub(super) const NO_SOUND_MAP: &str = "pages that changed were in no table: every page was read";
const BROKEN: &str = "a table's pages are damaged: all its rows are read";

/// Which rows may differ between two contents that differ in the pages `changed`.
///
/// `parents` is the map of `old`, and is that of `new` afterwards (or knows nothing, where everything may
/// differ). Where the map at hand is of another content, [`ParentMap::bring`] makes it that of `old` for the
/// price of the pages between the two. Clones are cheap, so one map of a merge base does for both sides.
///
/// # Errors
/// Where a page cannot be read. Whatever is in the pages is no error: of a table that cannot be made out any
/// row may differ.
pub fn touched(
    old: &mut dyn Content,
    new: &mut dyn Content,
    changed: &ChangedPages,
    parents: &mut ParentMap,
    (roots_old, roots_new): (&Roots, &Roots),
) -> Result<Touched, ContentError> {
    let mut map = std::mem::take(parents);
    let ChangedPages::Known(changed) = changed else { return Ok(Touched::everything(UNKNOWN)) };
    let (Some(old), Some(new)) = (Pages::open(old)?, Pages::open(new)?) else {
        return Ok(Touched::everything(NO_DATABASE));
    };
    if !old.layout.means_the_same(&new.layout) {
        return Ok(Touched::everything(OTHER_MEANING));
    }
    let page_count = new.layout.page_count;
    let mut found = Found::of(roots_old, roots_new);
    let mut old = Side::new(old, changed, roots_old, &found);
    let mut new = Side::new(new, changed, roots_new, &found);
    old.walk(&mut new, &mut map, &mut found)?;
    new.walk(&mut old, &mut map, &mut found)?;
    map.resize(page_count);
    *parents = map;
    for pair in 0..found.pairs.len() {
        match expand(&mut old, &mut new, pair, &mut found) {
            Ok(()) => {}
            Err(Trouble::Malformed) => found.broken(Some(pair)),
            Err(Trouble::Content(error)) => return Err(error),
        }
    }
    Ok(found.into_touched())
}

/// A table that stands at the same root on both sides.
struct Pair {
    name: String,
    root: Root,
    rows: Rows,
}

/// What is known so far.
struct Found {
    pairs: Vec<Pair>,
    /// Tables that cannot be compared page by page.
    whole: BTreeMap<String, Ranges>,
    budget: Budget,
    read_more: Option<&'static str>,
}

impl Found {
    fn of(old: &Roots, new: &Roots) -> Found {
        let mut found =
            Found { pairs: Vec::new(), whole: BTreeMap::new(), budget: Budget::default(), read_more: None };
        let mut others: BTreeMap<&str, &TableRoot> =
            new.tables.iter().map(|table| (table.name.as_str(), table)).collect();
        for table in &old.tables {
            let other = others.remove(table.name.as_str());
            if other == Some(table) {
                found.pairs.push(Pair {
                    name: table.name.clone(),
                    root: root_of(table),
                    rows: Rows::none(table.key_columns),
                });
            } else {
                found.whole.insert(table.name.clone(), Ranges::All);
                found.read_more = other.map(|_| MOVED).or(found.read_more);
            }
        }
        found.whole.extend(others.into_keys().map(|name| (name.to_owned(), Ranges::All)));
        found
    }

    fn broken(&mut self, pair: Option<usize>) {
        if let Some(pair) = pair {
            self.pairs[pair].rows = Rows::All;
        }
        self.read_more = Some(BROKEN);
    }

    fn into_touched(self) -> Touched {
        let mut tables = self.whole;
        for pair in self.pairs {
            if let Some(ranges) = pair.rows.into_ranges() {
                tables.insert(pair.name, ranges);
            }
        }
        Touched { tables, everything: false, read_more: self.read_more }
    }
}

fn root_of(table: &TableRoot) -> Root {
    Root { page: table.root.get(), is_index: table.key_columns.is_some() }
}

/// A tree of one side.
struct Tree {
    root: Root,
    /// The table that it is, where that is compared page by page.
    pair: Option<usize>,
}

/// One of the two contents.
struct Side<'s> {
    walk: Walk<'s>,
    changed: &'s RoaringBitmap,
    trees: Vec<Tree>,
    /// What was noted of each pair's tree.
    shapes: Vec<Shape>,
}

impl<'s> Side<'s> {
    fn new(pages: Pages<'s>, changed: &'s RoaringBitmap, roots: &Roots, found: &Found) -> Side<'s> {
        // Two tables at one root are only in a damaged file; whoever comes second there finds it walked.
        let pairs: BTreeMap<&str, usize> =
            found.pairs.iter().enumerate().map(|(index, pair)| (pair.name.as_str(), index)).collect();
        let mut trees = vec![Tree { root: Root { page: 1, is_index: false }, pair: None }];
        trees.extend(
            roots
                .tables
                .iter()
                .map(|table| Tree { root: root_of(table), pair: pairs.get(table.name.as_str()).copied() }),
        );
        let indexes = roots.indexes.iter().map(|page| Root { page: page.get(), is_index: true });
        trees.extend(indexes.map(|root| Tree { root, pair: None }));
        let shapes = vec![Shape::default(); found.pairs.len()];
        Side { walk: Walk::new(pages, changed), changed, trees, shapes }
    }

    /// Walks all trees, until every page that changed is accounted for.
    fn walk(
        &mut self,
        other: &mut Side<'_>,
        parents: &mut ParentMap,
        found: &mut Found,
    ) -> Result<(), ContentError> {
        let marks = parents.with_ancestors(self.changed);
        if self.reaches_all(&Marks::Only(marks), parents, found)? {
            return Ok(());
        }
        let revived = other.walk.free()? - self.walk.free()?;
        if !revived.is_empty() {
            let marks = parents.with_ancestors(&(self.changed | revived));
            if self.reaches_all(&Marks::Only(marks), parents, found)? {
                return Ok(());
            }
        }
        found.read_more = Some(NO_MAP);
        *parents = ParentMap::of(&mut self.walk.pages)?;
        let marks = parents.with_ancestors(self.changed);
        if self.reaches_all(&Marks::Only(marks), parents, found)? {
            return Ok(());
        }
        found.read_more = Some(NO_SOUND_MAP);
        // What is not reached now is in no tree, or below a page that is damaged.
        self.reaches_all(&Marks::All, parents, found)?;
        Ok(())
    }

    /// Walks all trees through the marked pages. Whether every page that changed is accounted for.
    fn reaches_all(
        &mut self,
        marks: &Marks,
        parents: &mut ParentMap,
        found: &mut Found,
    ) -> Result<bool, ContentError> {
        self.walk.restart();
        for tree in &self.trees {
            let mut way = Way { marks, parents };
            let rows = tree.pair.map(|pair| (&mut found.pairs[pair].rows, &mut found.budget));
            match self.walk.tree(tree.root, &mut way, rows) {
                Ok(shape) => {
                    if let Some(pair) = tree.pair {
                        self.shapes[pair] = shape;
                    }
                }
                Err(Trouble::Malformed) => found.broken(tree.pair),
                Err(Trouble::Content(error)) => return Err(error),
            }
        }
        Ok(self.walk.missed()?.is_empty())
    }
}

/// Looks into what stands in one of the two trees only, from the top.
fn expand(old: &mut Side<'_>, new: &mut Side<'_>, pair: usize, found: &mut Found) -> Result<(), Trouble> {
    if old.children(pair).is_empty() && new.children(pair).is_empty() {
        return Ok(());
    }
    let root = found.pairs[pair].root.page;
    let heights = (old.height(pair, root)?, new.height(pair, root)?);
    // By height and not by depth: a subtree has the same height on both sides, wherever it hangs.
    for height in (0..heights.0.max(heights.1)).rev() {
        old.expand(heights.0, height, new, pair, found)?;
        new.expand(heights.1, height, old, pair, found)?;
    }
    Ok(())
}

impl Side<'_> {
    /// All children that were noted of a pair.
    fn children(&self, pair: usize) -> RoaringBitmap {
        self.shapes[pair].children.iter().fold(RoaringBitmap::new(), |all, level| all | level)
    }

    /// How many levels are below the root.
    fn height(&mut self, pair: usize, root: u32) -> Result<usize, Trouble> {
        let height = match self.shapes[pair].leaves {
            Some(depth) => depth,
            None => self.walk.depth(root)?,
        };
        // All leaves have the same depth. Else it is no tree of SQLite's.
        if self.shapes[pair].children.len() > height + 1 {
            return Err(Trouble::Malformed);
        }
        Ok(height)
    }

    /// Expands what stands at this height and not on the other side.
    fn expand(
        &mut self,
        tree_height: usize,
        height: usize,
        other: &Side<'_>,
        pair: usize,
        found: &mut Found,
    ) -> Result<(), Trouble> {
        let Some(depth) = tree_height.checked_sub(height) else { return Ok(()) };
        let shape = &mut self.shapes[pair];
        let Some(level) = shape.children.get(depth) else { return Ok(()) };
        // What changed was looked into by the walk.
        for page in level - other.children(pair) - self.changed {
            let Pair { root, rows, .. } = &mut found.pairs[pair];
            self.walk.expand(page, depth, shape, root.is_index, (rows, &mut found.budget))?;
        }
        if shape.children.len() > tree_height + 1 { Err(Trouble::Malformed) } else { Ok(()) }
    }
}
