//! What can be typed: flags and arguments, and nothing about what they mean. [`crate::plan`] makes
//! of it what is to be done.
//!
//! A bare `log`, `status`, `diff` or another command's name is always the command, wherever it stands; a local
//! file of that name is `./log`. `-v` is the version, as in the public client; where the program is
//! started by a peer (`--origin`, `--replica`), `-v` is verbosity, as in `sqlite3_rsync`: see [`Typed`].

mod rows;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};

pub use rows::{ConflictsArgs, DiffArgs, Keep, QueryArgs, ResolveArgs};

/// What was typed.
#[derive(Debug)]
pub enum Typed {
    /// By a person or a script.
    User(Box<Cli>),
    /// By `sqlite3_rsync --exe` or another sqlrsync, over ssh: speaks on stdin and stdout.
    Peer(PeerArgs),
}

impl Typed {
    /// Parses the arguments of a process, the program's name first.
    ///
    /// # Errors
    /// What clap says; also for `--help` and `--version`.
    pub fn parse(arguments: Vec<OsString>) -> Result<Typed, clap::Error> {
        let before_dashes = arguments.iter().skip(1).take_while(|argument| *argument != "--");
        if before_dashes.into_iter().any(|argument| argument == "--origin" || argument == "--replica") {
            PeerArgs::try_parse_from(arguments).map(Typed::Peer)
        } else {
            Cli::try_parse_from(arguments).map(|cli| Typed::User(Box::new(cli)))
        }
    }

    /// Whether the exit code 1 is to say that something differs, and so no error may have it.
    pub fn tells_by_exit_code(&self) -> bool {
        let Typed::User(cli) = self else { return false };
        matches!(&cli.command, Some(Command::Diff(diff)) if diff.exit_code)
    }
}

/// Keep SQLite databases in sync through a server of your own.
///
/// `sqlrsync LOCAL [REMOTE]` pushes, `sqlrsync REMOTE [LOCAL]` pulls, `sqlrsync LOCAL LOCAL` copies.
///
/// LOCAL starts with `/`, `./`, `../` or `~/`, or has no `/` in it. REMOTE is NAMESPACE/PATH, with
/// `@7`, `@latest` or `@latest-2` behind it for a version. USER@HOST:PATH is a file on another
/// machine, over ssh.
#[derive(Debug, Parser)]
#[command(
    name = "sqlrsync",
    bin_name = "sqlrsync",
    disable_version_flag = true,
    disable_help_subcommand = true,
    version,
    max_term_width = 100,
    after_help = "The bare name of a command is the command; a file of that name is ./log.\n\
                  Exit codes: 0 done, 1 error, 2 usage, 3 conflict, 4 not allowed, 5 try again later,\n\
                  10 not found, 12 integrity, 130 cancelled."
)]
pub struct Cli {
    /// From where, and to where.
    #[arg(value_name = "LOCAL|REMOTE|USER@HOST:PATH", num_args = 0..)]
    pub operands: Vec<OsString>,

    /// What a transfer is told.
    #[command(flatten)]
    pub transfer: TransferArgs,

    /// What can be set elsewhere, too.
    #[command(flatten)]
    pub settings: SettingArgs,

    /// What is printed.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Print the version.
    #[arg(short = 'v', long = "version", short_alias = 'V', action = ArgAction::Version)]
    pub version: Option<bool>,

    /// What is to be done that is no transfer.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What a transfer is told.
#[derive(Debug, Default, Args)]
pub struct TransferArgs {
    /// A key that may pull.
    #[arg(long = "pullKey", alias = "pull-key", value_name = "KEY", help_heading = "Keys")]
    pub pull_key: Option<String>,

    /// A key that may push.
    #[arg(long = "pushKey", alias = "push-key", value_name = "KEY", help_heading = "Keys")]
    pub push_key: Option<String>,

    /// What this version is about; stands in the log.
    #[arg(short = 'm', long, value_name = "TEXT")]
    pub message: Option<String>,

    /// The replica's own id, where its path may have changed.
    #[arg(long = "replicaID", alias = "replica-id", value_name = "ID")]
    pub replica_id: Option<String>,

    /// Let anybody who knows the path pull.
    #[arg(long, conflicts_with = "public")]
    pub unlisted: bool,

    /// Let anybody pull, and list it.
    #[arg(long)]
    pub public: bool,

    /// Say what would happen and what it would move; change nothing.
    #[arg(long, visible_alias = "dry-run")]
    pub dry: bool,

    /// Overwrite a file that was changed here, or that sqlrsync knows nothing of. For a push to a server:
    /// make it the newest version as it is, and merge nothing.
    #[arg(long)]
    pub force: bool,

    /// For a push: read the whole file, whatever the WAL says. Done once a day anyway.
    #[arg(long)]
    pub scan: bool,

    /// For a push to a server: also pull what others pushed meanwhile, if nobody writes to the file.
    #[arg(long)]
    pub merge: bool,

    /// Stay: push after every burst of writes, or pull every new version.
    #[arg(long, help_heading = "Subscription")]
    pub subscribe: bool,

    /// Push when nothing was written for so long: 10s to 24d [default: 10s].
    #[arg(long = "waitIdle", alias = "wait-idle", value_name = "DURATION", help_heading = "Subscription")]
    pub wait_idle: Option<String>,

    /// Push at the latest so long after the last push, even while writes go on.
    #[arg(
        long = "maxInterval",
        alias = "max-interval",
        value_name = "DURATION",
        help_heading = "Subscription"
    )]
    pub max_interval: Option<String>,

    /// Leave at least so long between two pushes [default: half of maxInterval].
    #[arg(
        long = "minInterval",
        alias = "min-interval",
        value_name = "DURATION",
        help_heading = "Subscription"
    )]
    pub min_interval: Option<String>,

    /// Run this command after each new version that was pulled; its number is in SQLRSYNC_VERSION.
    #[arg(long, value_name = "COMMAND", help_heading = "Subscription")]
    pub exec: Option<OsString>,
}

/// What can stand in the environment and in `config.toml` as well; [`crate::settings`] settles which counts.
#[derive(Debug, Default, Args)]
pub struct SettingArgs {
    /// The server: ws://HOST:PORT, wss://HOST (http and https mean the same).
    #[arg(short = 's', long, value_name = "URL", global = true, help_heading = "Settings")]
    pub server: Option<String>,

    /// Certificates (PEM) to trust in place of the system's.
    #[arg(long = "ca-file", value_name = "FILE", global = true, help_heading = "Settings")]
    pub ca_file: Option<PathBuf>,

    /// The highest protocol version to speak: 1, 2 or 3.
    #[arg(long, value_name = "N", help_heading = "Settings")]
    pub protocol: Option<String>,

    /// The program that takes the place of ssh.
    #[arg(long, value_name = "PROGRAM", help_heading = "Settings")]
    pub ssh: Option<String>,

    /// The port of ssh on the other machine.
    #[arg(long, value_name = "N", help_heading = "Settings")]
    pub port: Option<String>,

    /// The program to start on the other machine: a sqlrsync or sqlite3_rsync.
    #[arg(long, value_name = "REMOTE_PROGRAM", help_heading = "Settings")]
    pub exe: Option<String>,

    /// Give a server or a peer that is silent so long up.
    #[arg(long = "timeout", value_name = "DURATION", global = true, help_heading = "Settings")]
    pub timeout: Option<String>,
}

/// What is printed.
#[derive(Debug, Default, Args)]
pub struct OutputArgs {
    /// Print JSON, an object a line; the last line is the outcome.
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,

    /// Print errors only.
    #[arg(long, global = true, help_heading = "Output")]
    pub quiet: bool,

    /// No progress bar, on a terminal neither.
    #[arg(long = "no-progress", global = true, help_heading = "Output")]
    pub no_progress: bool,

    /// Say each step on stderr.
    #[arg(long, global = true, help_heading = "Output")]
    pub verbose: bool,
}

/// What is not a transfer.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the versions of a replica, newest first.
    Log {
        /// The replica.
        #[arg(value_name = "NAMESPACE/PATH")]
        remote: OsString,
        /// At most so many.
        #[arg(short = 'n', long, value_name = "N")]
        limit: Option<u32>,
        /// Show the rows that each version changed, by table.
        #[arg(long)]
        stat: bool,
        /// A key that may pull.
        #[arg(long = "pullKey", alias = "pull-key", value_name = "KEY")]
        pull_key: Option<String>,
    },
    /// List the conflicts of a replica, or show the rows of one.
    Conflicts(ConflictsArgs),
    /// Settle a conflict: say which rows stay as they are and which become what was pushed.
    Resolve(ResolveArgs),
    /// Show which rows differ: of two versions, of a file and a version, or of two files.
    Diff(DiffArgs),
    /// Ask a version of a replica something in SQL.
    Query(QueryArgs),
    /// Tell which version a replica has, who follows it, and when the next push is due.
    Status {
        /// The replica.
        #[arg(value_name = "NAMESPACE/PATH")]
        remote: OsString,
        /// A key that may pull.
        #[arg(long = "pullKey", alias = "pull-key", value_name = "KEY")]
        pull_key: Option<String>,
    },
    /// The settings.
    Config {
        /// What is asked.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print the completions for a shell.
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder.
    Man {
        /// The folder; it is made where it is missing.
        folder: PathBuf,
    },
}

/// What can be asked of the settings.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show each setting, its value and where it came from. Keys are not printed.
    Show,
}

/// How a peer starts the program: `--origin FILE NAME` or `--replica NAME FILE`.
#[derive(Debug, Parser)]
#[command(name = "sqlrsync", disable_help_flag = true, disable_version_flag = true)]
pub struct PeerArgs {
    /// FILE has the content.
    #[arg(long, conflicts_with = "replica")]
    pub origin: bool,
    /// FILE becomes a copy.
    #[arg(long)]
    pub replica: bool,
    /// The highest protocol version to speak.
    #[arg(long, value_name = "N")]
    pub protocol: Option<String>,
    /// Only a database in WAL mode.
    #[arg(long = "wal-only")]
    pub wal_only: bool,
    /// Say more on stderr; may be given more than once.
    #[arg(short = 'v', long, action = ArgAction::Count)]
    pub verbose: u8,
    /// Keep in mind what was agreed on about FILE, and do not overwrite what was changed here: how
    /// one sqlrsync starts another. Without it the rules are those of sqlite3_rsync.
    #[arg(long)]
    pub remember: bool,
    /// With --remember: overwrite all the same.
    #[arg(long, requires = "remember")]
    pub force: bool,
    /// FILE NAME for an origin, NAME FILE for a replica.
    #[arg(num_args = 2, required = true)]
    pub operands: Vec<OsString>,
}

/// Whether a bare word is taken for a command.
pub fn is_command(word: &str) -> bool {
    command().get_subcommands().any(|known| known.get_name() == word)
}

/// The command as clap knows it, for completions and manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(arguments: &[&str]) -> Box<Cli> {
        let all = std::iter::once("sqlrsync").chain(arguments.iter().copied()).map(OsString::from).collect();
        match Typed::parse(all).unwrap() {
            Typed::User(cli) => cli,
            Typed::Peer(_) => panic!("a user"),
        }
    }

    #[test]
    fn the_definition_holds_together() {
        command().debug_assert();
        PeerArgs::command().debug_assert();
    }

    #[test]
    fn flags_have_the_public_clients_names() {
        let cli =
            user(&["app.db", "team/app.db", "--pushKey=k", "--replicaID", "r", "-m", "log", "-s", "ws://h"]);
        assert_eq!(cli.operands, ["app.db", "team/app.db"]);
        assert_eq!(cli.transfer.push_key.as_deref(), Some("k"));
        assert_eq!(cli.transfer.message.as_deref(), Some("log"));
        assert_eq!(cli.settings.server.as_deref(), Some("ws://h"));
        assert!(cli.command.is_none());
    }

    #[test]
    fn a_command_word_is_the_command_and_a_path_the_file() {
        assert!(matches!(user(&["--json", "log", "a/b"]).command, Some(Command::Log { .. })));
        assert!(user(&["log", "a/b", "--json"]).output.json);
        assert!(user(&["./log"]).command.is_none());
        assert!(user(&["--", "log"]).command.is_none());
    }

    #[test]
    fn v_is_the_version_for_a_user_and_verbosity_for_a_peer() {
        let arguments = |list: &[&str]| list.iter().map(OsString::from).collect();
        let version = Typed::parse(arguments(&["sqlrsync", "-v"])).unwrap_err();
        assert_eq!(version.kind(), clap::error::ErrorKind::DisplayVersion);
        let typed =
            Typed::parse(arguments(&["sqlrsync", "--origin", "-vv", "--protocol", "1", "a.db", "b.db"]));
        match typed.unwrap() {
            Typed::Peer(peer) => assert_eq!((peer.verbose, peer.protocol.as_deref()), (2, Some("1"))),
            Typed::User(_) => panic!("a peer"),
        }
    }
}
