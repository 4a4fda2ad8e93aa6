//! What is to be done, worked out of what was typed, the environment, the settings and the files
//! beside a database. Nothing here acts: a plan is made, or an error that says what to type instead.

mod access;
mod live;
mod rows;
mod transfer;

use std::ffi::OsString;
use std::path::PathBuf;

use clap_complete::Shell;
use sqlrsync_protocol::duration::Seconds;
use sqlrsync_protocol::remote::{Argument, RemoteName, VersionSelector};
use sqlrsync_protocol::text::ReplicaIdText;

use crate::cli::{Cli, Command, ConfigCommand, PeerArgs, Typed};
use crate::error::Error;
use crate::folders::Folders;
use crate::settings::{self, Problem, Settings};

pub use access::{Access, Credential, KeySource, KeysWanted, parse_key};
pub use live::{Follow, Publish, Status, Timing};
pub use rows::{Conflicts, Diff, DiffForm, DiffSides, Query, Resolve};

/// A look into the environment of the process.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What a run does.
#[derive(Debug)]
pub enum Plan {
    /// A local database to a server.
    Push(Push),
    /// A version from a server into a local file.
    Pull(Pull),
    /// One local file to another.
    Copy(Copy),
    /// A local file to or from another machine, over ssh.
    Ssh(Ssh),
    /// What a peer started us for, on stdin and stdout.
    Peer(Peer),
    /// A local database to a server, whenever it has changed.
    Publish(Publish),
    /// Every new version into a local file.
    Follow(Follow),
    /// The versions of a replica.
    Log(Log),
    /// What the server knows of a replica and its clients.
    Status(Status),
    /// The conflicts of a replica.
    Conflicts(Conflicts),
    /// The settlement of a conflict.
    Resolve(Resolve),
    /// A comparison.
    Diff(Diff),
    /// A question to a version.
    Query(Query),
    /// The settings.
    ShowConfig(Box<Settings>, Vec<Problem>),
    /// Completions for a shell.
    Completions(Shell),
    /// Manual pages into a folder.
    Man(PathBuf),
}

/// A local file: as it was typed, and as the system knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalFile {
    /// For people.
    pub typed: PathBuf,
    /// Absolute, without symbolic links; the file may not exist.
    pub path: PathBuf,
}

/// Who may see a new replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// Who knows its name.
    Unlisted,
    /// Everybody.
    Public,
}

/// A push.
#[derive(Clone, Debug)]
pub struct Push {
    /// The database.
    pub local: LocalFile,
    /// To which replica; `None`: the server names it.
    pub remote: Option<RemoteName>,
    /// The replica's id, where it is known.
    pub replica_id: Option<ReplicaIdText>,
    /// Where, and with which key.
    pub access: Access,
    /// What the version is about; empty for nothing.
    pub message: String,
    /// For a replica that the push makes.
    pub visibility: Option<Visibility>,
    /// Ask the server for keys of the database's own.
    pub request_keys: KeysWanted,
    /// Change nothing.
    pub dry: bool,
    /// Make it the newest version as it is: push also what the server has for a past version, and have
    /// nothing merged.
    pub force: bool,
    /// Pull the merge afterwards, and whatever else is newer.
    pub merge: bool,
    /// Read the whole file, whatever the WAL says.
    pub scan: bool,
}

/// A pull.
#[derive(Clone, Debug)]
pub struct Pull {
    /// From which replica.
    pub remote: RemoteName,
    /// Which version.
    pub version: VersionSelector,
    /// The replica's id, where it is known.
    pub replica_id: Option<ReplicaIdText>,
    /// Into which file.
    pub local: LocalFile,
    /// Where, and with which key.
    pub access: Access,
    /// Ask the server for a key of the file's own.
    pub request_keys: KeysWanted,
    /// Change nothing.
    pub dry: bool,
    /// Overwrite what was changed here.
    pub force: bool,
}

/// A local copy.
#[derive(Debug)]
pub struct Copy {
    /// From which file.
    pub origin: LocalFile,
    /// Into which.
    pub replica: LocalFile,
    /// Change nothing.
    pub dry: bool,
    /// Overwrite what was changed there.
    pub force: bool,
    /// The highest protocol version to speak.
    pub protocol: u8,
}

/// Which way pages go, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From here to there.
    Out,
    /// From there to here.
    In,
}

/// A transfer over ssh.
#[derive(Debug)]
pub struct Ssh {
    /// Which way.
    pub way: Way,
    /// The file here.
    pub local: LocalFile,
    /// `HOST` or `USER@HOST`.
    pub destination: String,
    /// The file there.
    pub path: String,
    /// The program that takes the place of ssh.
    pub ssh: String,
    /// ssh's port there.
    pub port: Option<u16>,
    /// The program to start there; `None`: whichever there is.
    pub exe: Option<String>,
    /// The highest protocol version to speak.
    pub protocol: u8,
    /// Change nothing.
    pub dry: bool,
    /// Overwrite what was changed.
    pub force: bool,
}

/// What a peer asks for.
#[derive(Debug)]
pub struct Peer {
    /// Which way: [`Way::Out`] for `--origin`.
    pub way: Way,
    /// The file here.
    pub local: LocalFile,
    /// What the peer calls its own.
    pub name: String,
    /// The highest protocol version to speak.
    pub protocol: u8,
    /// Only in WAL mode.
    pub wal_only: bool,
    /// Keep state.
    pub remember: bool,
    /// Overwrite what was changed here: always where no state is kept, as sqlite3_rsync does.
    pub force: bool,
}

/// The versions of a replica.
#[derive(Debug)]
pub struct Log {
    /// Of which replica.
    pub remote: RemoteName,
    /// Where, and with which key.
    pub access: Access,
    /// At most so many; `None`: all.
    pub limit: Option<u32>,
    /// With the rows that each version changed.
    pub stat: bool,
}

/// The plan, and what every run needs besides.
#[derive(Debug)]
pub struct Resolved {
    /// What to do.
    pub plan: Plan,
    /// How to speak.
    pub output: Output,
    /// Where things are kept.
    pub folders: Folders,
    /// How long a silent peer is waited for.
    pub timeout: Seconds,
}

/// How a run speaks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Output {
    /// JSON on stdout.
    pub json: bool,
    /// Errors only.
    pub quiet: bool,
    /// A progress bar, where there is a terminal.
    pub progress: bool,
}

/// Works the plan out.
///
/// # Errors
/// Usage, a setting or file that cannot be used, a capability that is not there yet.
pub fn resolve(typed: Typed, environment: Environment<'_>, folders: Folders) -> Result<Resolved, Error> {
    match typed {
        Typed::User(cli) => user(*cli, environment, folders),
        Typed::Peer(arguments) => {
            let output = Output { json: false, quiet: arguments.verbose == 0, progress: false };
            let timeout = settings::DEFAULT_TIMEOUT.parse().map_err(|_| Error::usage("no time-out", ""))?;
            Ok(Resolved { plan: Plan::Peer(peer(arguments, &folders)?), output, folders, timeout })
        }
    }
}

fn user(cli: Cli, environment: Environment<'_>, folders: Folders) -> Result<Resolved, Error> {
    let (settings, mut problems) = Settings::survey(&cli.settings, &cli.output, environment, &folders)?;
    let shows = matches!(cli.command, Some(Command::Config { command: ConfigCommand::Show }));
    if !shows && !problems.is_empty() {
        return Err(problems.swap_remove(0).into_error());
    }
    let output = Output {
        json: cli.output.json,
        quiet: settings.quiet.value,
        progress: !(settings.no_progress.value || settings.quiet.value || cli.output.json),
    };
    let timeout = settings.timeout.value;
    let around = rows::Around { settings: &settings, environment, folders: &folders };
    let key = |own: Option<String>| own.or(cli.transfer.pull_key.clone()).or(cli.transfer.push_key.clone());
    let plan = match cli.command {
        Some(_) if !cli.operands.is_empty() => {
            return Err(Error::usage(
                "that is a command with a file or a replica in front of it; a command stands first",
                "write ./ in front of a file that has the name of a command",
            ));
        }
        Some(Command::Completions { shell }) => Plan::Completions(shell),
        Some(Command::Man { folder }) => Plan::Man(folder),
        Some(Command::Config { command: ConfigCommand::Show }) => {
            Plan::ShowConfig(Box::new(settings), problems)
        }
        Some(Command::Log { remote, limit, stat, pull_key }) => {
            let remote = only_replica(&remote, "log lists the versions of", "log")?;
            let access = Access::for_reading(&remote, key(pull_key), &settings, environment, &folders)?;
            Plan::Log(Log { remote, access, limit, stat })
        }
        Some(Command::Conflicts(mut typed)) => {
            typed.pull_key = key(typed.pull_key);
            rows::conflicts(typed, around)?
        }
        Some(Command::Resolve(mut typed)) => {
            typed.push_key = typed.push_key.or(cli.transfer.push_key.clone());
            rows::resolve(typed, around)?
        }
        Some(Command::Diff(mut typed)) => {
            typed.pull_key = key(typed.pull_key);
            rows::diff(typed, output.json, around)?
        }
        Some(Command::Query(mut typed)) => {
            typed.pull_key = key(typed.pull_key);
            rows::query(typed, around)?
        }
        Some(Command::Status { remote, pull_key }) => {
            let remote = only_replica(&remote, "status tells of", "status")?;
            let access = Access::for_reading(&remote, key(pull_key), &settings, environment, &folders)?;
            Plan::Status(Status { remote, access })
        }
        None => transfer::plan(&cli.operands, cli.transfer, &settings, environment, &folders)?,
    };
    Ok(Resolved { plan, output, folders, timeout })
}

fn only_replica(typed: &OsString, tells: &str, command: &str) -> Result<RemoteName, Error> {
    let usage = format!("sqlrsync {command} NAMESPACE/PATH");
    let no_replica = |what: String| {
        Error::usage(
            format!("{tells} a replica on a server, and {} is {what}", typed.display()),
            usage.clone(),
        )
    };
    match Argument::parse(typed) {
        Ok(Argument::Remote { name, version: None }) => Ok(name),
        Ok(Argument::Remote { name, .. }) => {
            let hint = format!("sqlrsync {command} {name}");
            Err(Error::usage(format!("{tells} a replica as a whole: leave the version out"), hint))
        }
        Ok(Argument::Local(_)) => Err(no_replica("a file here".to_owned())),
        Ok(Argument::Ssh { destination, .. }) => Err(no_replica(format!("a file on {destination}"))),
        Err(error) => Err(Error::usage(error.to_string(), usage)),
    }
}

fn peer(arguments: PeerArgs, folders: &Folders) -> Result<Peer, Error> {
    let protocol = match arguments.protocol.as_deref() {
        Some(text) => {
            settings::protocol(text).map_err(|why| Error::usage(format!("--protocol: {why}"), ""))?
        }
        None => settings::PROTOCOL_MAX,
    };
    let [first, second] = <[OsString; 2]>::try_from(arguments.operands)
        .map_err(|_| Error::usage("two files are needed", "--origin FILE NAME, or --replica NAME FILE"))?;
    let (way, file, name) =
        if arguments.origin { (Way::Out, first, second) } else { (Way::In, second, first) };
    Ok(Peer {
        way,
        local: LocalFile::new(file.into(), folders)?,
        name: name.to_string_lossy().into_owned(),
        protocol,
        wal_only: arguments.wal_only,
        remember: arguments.remember,
        force: arguments.force || !arguments.remember,
    })
}

impl LocalFile {
    /// From what was typed.
    ///
    /// # Errors
    /// Where the working folder is gone, or the path ends in nothing that could be a file.
    pub fn new(typed: PathBuf, folders: &Folders) -> Result<LocalFile, Error> {
        let expanded = folders.expand_home(&typed);
        if let Ok(path) = expanded.canonicalize() {
            return Ok(LocalFile { typed, path });
        }
        let absolute = std::path::absolute(&expanded).map_err(Error::file("find", &expanded))?;
        // The file is not there yet; its folder is, or whoever opens it will say so.
        let path = match (absolute.parent().map(|folder| folder.canonicalize()), absolute.file_name()) {
            (Some(Ok(folder)), Some(name)) => folder.join(name),
            _ => absolute,
        };
        Ok(LocalFile { typed, path })
    }

    /// For people: what was typed.
    pub fn shown(&self) -> String {
        sqlrsync_protocol::text::printable(&self.typed.to_string_lossy())
    }
}

#[cfg(test)]
#[path = "plan/tests.rs"]
mod tests;
