//! What can be typed.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use sqlrsync_protocol::key::Kind;
use sqlrsync_protocol::remote::{Namespace, RemoteName};

use crate::catalog::{KeyId, Rule, Visibility};
use crate::settings::{Given, with_defaults};

/// A server that keeps versions of SQLite databases and hands them out.
///
/// Settings: flag over environment over configuration file over default; `config show` says what holds.
///
/// Exit codes: 0 done, 1 error, 2 usage, 10 not found, 12 stored data is not what it should be.
#[derive(Parser, Debug)]
#[command(name = "sqlrsync-server", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub files: Files,
    #[command(subcommand)]
    pub command: Command,
}

/// Where things are; for every command.
#[derive(Args, Debug)]
pub struct Files {
    /// Data folder [default: sqlrsync-server in the XDG data folder].
    #[arg(long, global = true, value_name = "DIR", env = "SQLRSYNC_SERVER_DATA", hide_env_values = true)]
    pub data: Option<PathBuf>,
    /// Configuration file [default: sqlrsync-server/config.toml in the XDG configuration folder].
    #[arg(long, global = true, value_name = "FILE", env = "SQLRSYNC_SERVER_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Serve a data folder. The first start makes it, with a namespace and an admin key.
    Serve(Box<Given>),
    /// Make, list and revoke keys; a running server heeds it at once.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Make and list namespaces.
    #[command(subcommand)]
    Namespace(NamespaceCommand),
    /// List replicas, and say who may pull them without a key.
    #[command(subcommand)]
    Replica(ReplicaCommand),
    /// Read all that is stored and prove every version; exit code 12 where something is damaged. A server
    /// may run meanwhile.
    Check {
        /// One JSON object a line: the problems, then the outcome.
        #[arg(long)]
        json: bool,
    },
    /// Remove what nothing refers to: what cut pushes and killed processes have left. A running server does
    /// so by itself.
    Sweep {
        /// Print a JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Show the settings.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write manual pages into a folder.
    Man {
        /// The folder; it is made where it is missing.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

#[derive(Subcommand, Debug)]
pub enum KeyCommand {
    /// Make a key and print it. It is not kept: nobody can print it again.
    Create(KeyCreate),
    /// List keys, without the keys themselves.
    List {
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key, and the keys that were made with it over the wire. A server that runs ends its
    /// connections within a second.
    Revoke {
        /// As `key list` shows it.
        id: KeyId,
        /// Also what an admin key has made.
        #[arg(long)]
        derived: bool,
    },
}

#[derive(Args, Debug)]
pub struct KeyCreate {
    /// What the key allows.
    #[arg(long, value_enum)]
    pub kind: KeyWord,
    /// Its namespace [default: the only one there is].
    #[arg(long, value_name = "NS", conflicts_with = "replica")]
    pub namespace: Option<Namespace>,
    /// Its replica; it need not have been pushed yet.
    #[arg(long, value_name = "NS/PATH")]
    pub replica: Option<RemoteName>,
    /// A word for the listing and for the versions that are pushed with it.
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
    /// Print {"key": ..., "id": ...}.
    #[arg(long)]
    pub json: bool,
}

/// Kinds of keys as they are typed: with `--replica` a key is for that replica only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum KeyWord {
    /// Everything in a namespace.
    Admin,
    /// Pull: everything in a namespace, or one replica.
    Pull,
    /// Push and pull one replica.
    Push,
}

impl KeyWord {
    /// The kind of key; `None` where there is no such.
    pub const fn kind(self, of_replica: bool) -> Option<Kind> {
        match (self, of_replica) {
            (KeyWord::Admin, false) => Some(Kind::AccountAdmin),
            (KeyWord::Pull, false) => Some(Kind::AccountPull),
            (KeyWord::Pull, true) => Some(Kind::ReplicaPull),
            (KeyWord::Push, true) => Some(Kind::ReplicaPush),
            (KeyWord::Admin, true) | (KeyWord::Push, false) => None,
        }
    }
}

#[derive(Subcommand, Debug)]
pub enum NamespaceCommand {
    /// Make a namespace.
    Create {
        /// Its name.
        name: Namespace,
    },
    /// List the namespaces.
    List {
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand, Debug)]
pub enum ReplicaCommand {
    /// List the replicas.
    List {
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show one replica.
    Show {
        /// The replica.
        #[arg(value_name = "NS/PATH")]
        name: RemoteName,
        /// A JSON object, as `list` has it.
        #[arg(long)]
        json: bool,
    },
    /// Say who may pull a replica without a key. A running server heeds it at once: connections that are open
    /// because everybody might pull a replica end within a second of its becoming private.
    Visibility {
        /// The replica.
        #[arg(value_name = "NS/PATH")]
        name: RemoteName,
        /// Who may.
        #[arg(value_enum)]
        visibility: VisibilityWord,
    },
    /// Show or say what becomes of a push that was made from an older version. A running server heeds it from
    /// the next push on.
    Policy {
        /// The replica.
        #[arg(value_name = "NS/PATH")]
        name: RemoteName,
        /// What becomes of it [default: show what holds].
        #[arg(value_enum)]
        rule: Option<RuleWord>,
        /// Merge two updates of one row that touch different columns.
        #[arg(long, requires = "rule")]
        cells: bool,
        /// Give a row a new key where two rows were inserted under one that SQLite made.
        #[arg(long, requires = "rule")]
        renumber: bool,
        /// Print what holds then as a JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// What becomes of a push that was made from an older version, as it is typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum RuleWord {
    /// Merge what does not overlap, and keep what does as a conflict.
    Merge,
    /// The push fails.
    Reject,
    /// It becomes the next version as it is.
    LatestWins,
}

impl RuleWord {
    /// As the catalog has it.
    pub const fn rule(self) -> Rule {
        match self {
            RuleWord::Merge => Rule::Merge,
            RuleWord::Reject => Rule::Reject,
            RuleWord::LatestWins => Rule::LatestWins,
        }
    }
}

/// Who may pull a replica without a key, as it is typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum VisibilityWord {
    /// Nobody.
    Private,
    /// Who knows its name.
    Unlisted,
    /// Everybody.
    Public,
}

impl VisibilityWord {
    /// As the catalog has it.
    pub const fn visibility(self) -> Visibility {
        match self {
            VisibilityWord::Private => Visibility::Private,
            VisibilityWord::Unlisted => Visibility::Unlisted,
            VisibilityWord::Public => Visibility::Public,
        }
    }
}

#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Show each setting of `serve`, and where its value comes from.
    Show {
        #[command(flatten)]
        given: Box<Given>,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
}

/// The command line, with what the derived one cannot say.
pub fn command() -> clap::Command {
    Cli::command()
        .mut_subcommand("serve", with_defaults)
        .mut_subcommand("config", |config| config.mut_subcommand("show", with_defaults))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
        let help = command().find_subcommand_mut("serve").unwrap().render_long_help().to_string();
        for part in ["--idle-timeout <DURATION>", "[default: 1m]", "--queue-bytes-max <SIZE>"] {
            assert!(help.contains(part), "{help}");
        }
    }
}
