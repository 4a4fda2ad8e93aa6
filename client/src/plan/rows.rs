//! Plans about rows: conflicts and their settlement, differences, queries. They read from a server or from
//! files and change no file; a settlement makes a version on the server.

use std::ffi::OsString;
use std::path::PathBuf;

use sqlrsync_protocol::control::COMMIT_MESSAGE_MAX;
use sqlrsync_protocol::page::ConflictNumber;
use sqlrsync_protocol::remote::{Argument, RemoteName, VersionSelector};

use super::{Access, Environment, LocalFile, Plan};
use crate::cli::{ConflictsArgs, DiffArgs, Keep, QueryArgs, ResolveArgs};
use crate::error::Error;
use crate::folders::Folders;
use crate::key_file::KeyFile;
use crate::rows::selector::Selector;
use crate::settings::Settings;

/// The conflicts of a replica, or the rows of one.
#[derive(Debug)]
pub struct Conflicts {
    /// Of which replica.
    pub remote: RemoteName,
    /// The one whose rows are shown; `None`: they are listed.
    pub number: Option<ConflictNumber>,
    /// Also those that are settled.
    pub all: bool,
    /// At most so many conflicts or rows; `None`: all.
    pub limit: Option<u64>,
    /// Where, and with which key.
    pub access: Access,
}

/// The settlement of a conflict.
#[derive(Debug)]
pub struct Resolve {
    /// Of which replica.
    pub remote: RemoteName,
    /// Which conflict.
    pub number: ConflictNumber,
    /// What becomes of the rows that `rows` does not name; `None`: it names all.
    pub keep: Option<Keep>,
    /// What becomes of single rows.
    pub rows: Vec<(Selector, Keep)>,
    /// What the version is about; empty for nothing.
    pub message: String,
    /// Where, and with which key.
    pub access: Access,
}

/// A comparison.
#[derive(Debug)]
pub struct Diff {
    /// Of what.
    pub sides: DiffSides,
    /// How it is shown.
    pub form: DiffForm,
    /// Whether the exit code says that something differs.
    pub exit_code: bool,
}

/// What is compared, the older side first.
#[derive(Debug)]
pub enum DiffSides {
    /// Two versions of one replica: the server compares them.
    Versions {
        /// The replica.
        remote: RemoteName,
        /// The older.
        from: VersionSelector,
        /// The newer.
        to: VersionSelector,
        /// Where, and with which key.
        access: Access,
    },
    /// Two files.
    Files {
        /// The older.
        from: LocalFile,
        /// The newer.
        to: LocalFile,
    },
    /// A file and a version, which is pulled to be compared.
    FileAndVersion {
        /// The file.
        local: LocalFile,
        /// The replica.
        remote: RemoteName,
        /// The version.
        version: VersionSelector,
        /// Where, and with which key.
        access: Access,
        /// The file is the older side.
        file_first: bool,
    },
}

/// How differences are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiffForm {
    /// Row by row, for people or with `--json` for programs.
    Rows,
    /// Numbers by table.
    Stat,
    /// SQL.
    Sql,
    /// A changeset, into this file.
    Changeset(PathBuf),
}

/// A question in SQL.
#[derive(Debug)]
pub struct Query {
    /// About which replica.
    pub remote: RemoteName,
    /// And version.
    pub version: VersionSelector,
    /// The question.
    pub sql: String,
    /// At most so many rows; `None`: as many as the server gives.
    pub limit: Option<u64>,
    /// Where, and with which key.
    pub access: Access,
}

/// What keys and servers are found with.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    pub settings: &'a Settings,
    pub environment: Environment<'a>,
    pub folders: &'a Folders,
}

impl Around<'_> {
    fn reading(&self, remote: &RemoteName, key: Option<String>) -> Result<Access, Error> {
        Access::for_reading(remote, key, self.settings, self.environment, self.folders)
    }
}

pub(super) fn conflicts(typed: ConflictsArgs, around: Around<'_>) -> Result<Plan, Error> {
    let remote = super::only_replica(&typed.remote, "conflicts are of", "conflicts")?;
    let access = around.reading(&remote, typed.pull_key)?;
    let number = typed.number.map(conflict_number).transpose()?;
    Ok(Plan::Conflicts(Conflicts { remote, number, all: typed.all, limit: typed.limit, access }))
}

pub(super) fn resolve(typed: ResolveArgs, around: Around<'_>) -> Result<Plan, Error> {
    let remote = super::only_replica(&typed.remote, "conflicts are of", "resolve")?;
    let access =
        Access::for_settling(&remote, typed.push_key, around.settings, around.environment, around.folders)?;
    if typed.keep.is_none() && typed.rows.is_empty() {
        return Err(Error::usage(
            "which rows stay is not said",
            "--keep theirs or --keep mine is for all rows, --row TABLE:KEY=mine for one",
        ));
    }
    let message = typed.message.unwrap_or_default();
    if message.len() > COMMIT_MESSAGE_MAX {
        let what = format!("the message is {} bytes long; {COMMIT_MESSAGE_MAX} is the most", message.len());
        return Err(Error::usage(what, "shorten it"));
    }
    let rows = typed.rows.iter().map(|text| Selector::parse_with_side(text)).collect::<Result<_, _>>()?;
    let number = conflict_number(typed.number)?;
    Ok(Plan::Resolve(Resolve { remote, number, keep: typed.keep, rows, message, access }))
}

fn conflict_number(number: u64) -> Result<ConflictNumber, Error> {
    ConflictNumber::new(number)
        .ok_or_else(|| Error::usage(format!("there is no conflict {number}"), "they are counted from 1"))
}

const DIFF_USAGE: &str = "sqlrsync diff REMOTE@7 REMOTE@9, diff LOCAL REMOTE, or diff LOCAL LOCAL";

pub(super) fn diff(typed: DiffArgs, json: bool, around: Around<'_>) -> Result<Plan, Error> {
    let form = match (typed.stat, typed.sql, typed.changeset) {
        (true, _, _) => DiffForm::Stat,
        (_, true, _) => DiffForm::Sql,
        (_, _, Some(file)) => DiffForm::Changeset(file),
        _ => DiffForm::Rows,
    };
    if json && matches!(form, DiffForm::Sql | DiffForm::Changeset(_)) {
        return Err(Error::usage("--json is a form of its own", "leave it out, or --sql and --changeset"));
    }
    let sides = match (argument(&typed.from, DIFF_USAGE)?, argument(&typed.to, DIFF_USAGE)?) {
        (Argument::Remote { name, version: from }, Argument::Remote { name: other, version: to }) => {
            if name != other {
                return Err(Error::usage(
                    format!("{name} and {other} are two replicas, and have no versions in common"),
                    "pull both, and compare the files",
                ));
            }
            let access = around.reading(&name, typed.pull_key)?;
            let (from, to) = (from.unwrap_or_default(), to.unwrap_or_default());
            DiffSides::Versions { remote: name, from, to, access }
        }
        (Argument::Local(from), Argument::Local(to)) => DiffSides::Files {
            from: LocalFile::new(from, around.folders)?,
            to: LocalFile::new(to, around.folders)?,
        },
        (Argument::Local(local), Argument::Remote { name, version }) => {
            file_and_version(local, name, version, typed.pull_key, true, around)?
        }
        (Argument::Remote { name, version }, Argument::Local(local)) => {
            file_and_version(local, name, version, typed.pull_key, false, around)?
        }
        _ => {
            return Err(Error::usage("a file on another machine cannot be compared from here", DIFF_USAGE));
        }
    };
    Ok(Plan::Diff(Diff { sides, form, exit_code: typed.exit_code }))
}

fn file_and_version(
    local: PathBuf,
    remote: RemoteName,
    version: Option<VersionSelector>,
    key: Option<String>,
    file_first: bool,
    around: Around<'_>,
) -> Result<DiffSides, Error> {
    let Around { settings, environment, folders } = around;
    let local = LocalFile::new(local, folders)?;
    let beside = KeyFile::read(&local.path)?.filter(|file| file.remote == remote);
    let its_file = beside.as_ref().map(|file| (file, KeyFile::path_for(&local.path)));
    let access = Access::for_pull(&remote, its_file, key, settings, environment, folders)?;
    let version = version.unwrap_or_default();
    Ok(DiffSides::FileAndVersion { local, remote, version, access, file_first })
}

pub(super) fn query(typed: QueryArgs, around: Around<'_>) -> Result<Plan, Error> {
    const USAGE: &str = "sqlrsync query NAMESPACE/PATH@7 \"select ...\"";
    let Argument::Remote { name: remote, version } = argument(&typed.remote, USAGE)? else {
        return Err(match Argument::parse(typed.sql.as_ref()) {
            Ok(Argument::Remote { name, .. }) => Error::usage(
                "query asks a replica on a server, which stands before the question",
                format!("sqlrsync query {name} \"{}\"", typed.remote.display()),
            ),
            _ => Error::usage("query asks a replica on a server; a file is asked with sqlite3", USAGE),
        });
    };
    let access = around.reading(&remote, typed.pull_key)?;
    let version = version.unwrap_or_default();
    Ok(Plan::Query(Query { remote, version, sql: typed.sql, limit: typed.limit, access }))
}

fn argument(typed: &OsString, usage: &str) -> Result<Argument, Error> {
    Argument::parse(typed).map_err(|error| Error::usage(error.to_string(), usage))
}
