//! Rows as people and programs are shown them: values and keys, the rows of a conflict, differences,
//! answers to a query. Nothing here speaks to a server or opens a file.
//!
//! - A row from a server is hostile: its texts pass [`cell`], which leaves nothing in them that could steer
//!   a terminal, and shortens them.
//! - Everything is printed as it comes; no list of rows is kept.

pub mod cell;
pub mod conflict;
pub mod difference;
pub mod selector;
pub mod style;
pub mod table;
pub mod width;
