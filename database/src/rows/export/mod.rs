//! Row differences written out: JSON lines, SQL, a SQLite changeset. Each takes the changes of a diff as they
//! come and keeps none of them.

mod changeset;
mod ddl;
mod json;
mod literal;
mod sql;

pub use changeset::Changeset;
pub use json::{JsonLines, row_json, value_json};
pub use sql::SqlScript;
