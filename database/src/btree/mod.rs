//! The structure of a database: which pages belong to which table, and which rows a set of changed pages may
//! concern. Pages are decoded no further than that: what is in a row is asked of SQLite.
//!
//! [`touched()`] goes down from the roots that `sqlite_schema` names to the pages that changed, along the way
//! that a [`ParentMap`] hints at: for one row that is one page a level on each side, however large the table is.
//!
//! How a server uses it, that keeps the map of some version V beside it and is asked about A and B:
//!
//! ```text
//! map = ParentMap::decode(blob of V)            or ParentMap::build(A) where there is none
//! map.bring(V, A, pages changed between them)   nothing to do where V is A
//! touched(A, B, pages changed between them, map, roots of both)
//! map.encode()                                  is the map of B: worth keeping where B is the latest version
//! ```
//!
//! Where nobody has a map, of files, [`touched_without_map`] makes one; and where nobody knows which pages changed either,
//! [`touched_of_unknown`] reads both once and finds out.
//!
//! - Every page here may come from a hostile file, and the map from anywhere: neither may cause a panic, an
//!   endless walk or more memory than some bytes for each page, and the map must not cause a row to be missed.
//! - What is found may be more than what differs, never less. `find.rs` has the proof.

mod cell;
mod find;
mod layout;
mod page;
mod pages;
mod parents;
mod record;
mod rows;
#[cfg(test)]
pub(crate) mod tests;
mod touched;
mod unknown;
mod walk;

pub use find::touched;
pub use parents::ParentMap;
pub(crate) use parents::seal;
pub use touched::{Ranges, Roots, TableRoot, Touched};
pub use unknown::{touched_of_unknown, touched_without_map};
