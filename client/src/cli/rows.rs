//! What can be typed about rows: conflicts and their settlement, differences, queries.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `sqlrsync conflicts REMOTE [N]`.
#[derive(Debug, Args)]
pub struct ConflictsArgs {
    /// The replica.
    #[arg(value_name = "NAMESPACE/PATH")]
    pub remote: OsString,
    /// Show this conflict row by row.
    #[arg(value_name = "N", value_parser = conflict_number)]
    pub number: Option<u64>,
    /// List those that are settled, too.
    #[arg(long, conflicts_with = "number")]
    pub all: bool,
    /// Show at most so many rows, or conflicts.
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<u64>,
    /// A key that may pull.
    #[arg(long = "pullKey", alias = "pull-key", value_name = "KEY")]
    pub pull_key: Option<String>,
}

/// `sqlrsync resolve REMOTE N`.
#[derive(Debug, Args)]
#[command(
    after_help = "In --row the key is one value, or several with commas between: customers:17, orders:9,3, \
                  users:ada. A text with a comma, an equals sign or a colon in it stands in single quotes: \
                  \"users:'a, b'=mine\". sqlrsync conflicts shows each row as it is named here."
)]
pub struct ResolveArgs {
    /// The replica.
    #[arg(value_name = "NAMESPACE/PATH")]
    pub remote: OsString,
    /// The conflict.
    #[arg(value_name = "N", value_parser = conflict_number)]
    pub number: u64,
    /// What becomes of all rows that no --row names: theirs is what the replica has, mine what was pushed.
    #[arg(long, value_name = "SIDE")]
    pub keep: Option<Keep>,
    /// What becomes of one row; may be given again and again.
    #[arg(long = "row", value_name = "TABLE:KEY=SIDE")]
    pub rows: Vec<String>,
    /// What the version that settles it is about; stands in the log.
    #[arg(short = 'm', long, value_name = "TEXT")]
    pub message: Option<String>,
    /// A key that may push.
    #[arg(long = "pushKey", alias = "push-key", value_name = "KEY")]
    pub push_key: Option<String>,
}

fn conflict_number(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| "a conflict is a number, and stands behind its replica: NAMESPACE/PATH N".to_owned())
}

/// A side of a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Keep {
    /// What the replica has.
    Theirs,
    /// What was pushed.
    Mine,
}

impl Keep {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Keep::Theirs => "theirs",
            Keep::Mine => "mine",
        }
    }
}

/// `sqlrsync diff A B`.
#[derive(Debug, Args)]
#[command(
    after_help = "With --json an object a changed row. The exit code is 0, whether there are differences or not; with \
                  --exit-code it is 0 where nothing differs, 1 where something does, and more where that could \
                  not be found out."
)]
pub struct DiffArgs {
    /// The older side.
    #[arg(value_name = "LOCAL|REMOTE[@VERSION]")]
    pub from: OsString,
    /// The newer side.
    #[arg(value_name = "LOCAL|REMOTE[@VERSION]")]
    pub to: OsString,
    /// Count the rows of each table and show none.
    #[arg(long, group = "form")]
    pub stat: bool,
    /// Print SQL that makes the newer side of the older.
    #[arg(long, group = "form")]
    pub sql: bool,
    /// Write a changeset of SQLite's session extension.
    #[arg(long, value_name = "FILE", group = "form")]
    pub changeset: Option<PathBuf>,
    /// Exit with 1 where something differs, and with 0 only where nothing does.
    #[arg(long)]
    pub exit_code: bool,
    /// A key that may pull.
    #[arg(long = "pullKey", alias = "pull-key", value_name = "KEY")]
    pub pull_key: Option<String>,
}

/// `sqlrsync query REMOTE[@VERSION] SQL`.
#[derive(Debug, Args)]
#[command(after_help = "With --json an object a row. The server bounds the time, the rows and the memory.")]
pub struct QueryArgs {
    /// The replica, and which version.
    #[arg(value_name = "NAMESPACE/PATH[@VERSION]")]
    pub remote: OsString,
    /// One statement that reads.
    #[arg(value_name = "SQL")]
    pub sql: String,
    /// Print at most so many rows.
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<u64>,
    /// A key that may pull.
    #[arg(long = "pullKey", alias = "pull-key", value_name = "KEY")]
    pub pull_key: Option<String>,
}
