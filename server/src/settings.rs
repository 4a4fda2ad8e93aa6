//! Settings of `serve`: flag over environment over file over default.
//!
//! One table below has them all: name, type, environment variable, default and what it is for. The
//! flags, the file's keys, `config show` and the defaults come from it.

use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use sqlrsync_protocol::control::BINARY_MESSAGE_MAX;
use sqlrsync_protocol::duration::Seconds;

use crate::size::ByteSize;

/// Largest configuration file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The least that a message may be limited to, in bytes: clients send 4,101 of the stream before they have agreed on
/// more, and a commit message has 4,099.
const MESSAGE_BYTES_LEAST: usize = 8 * 1024;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A setting with a value that nothing could be served with, or that would not be kept to.
    #[error("{name} cannot be {value}: it is {allowed}")]
    Range {
        /// The setting, as its flag is called.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// The configuration file is not what it should be.
    #[error("the configuration file {} is wrong: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// Where a setting came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The command line.
    Flag,
    /// The environment.
    Environment,
    /// The configuration file.
    File,
    /// Nobody said anything.
    Default,
}

impl Source {
    /// As `config show` says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Source::Flag => "flag",
            Source::Environment => "environment",
            Source::File => "file",
            Source::Default => "default",
        }
    }
}

/// A line of `config show`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// The setting's name in the file.
    pub name: &'static str,
    /// Its value; `None` where it is not set and has no default.
    pub value: Option<String>,
    /// Where it came from.
    pub source: Source,
}

/// How the format of the logs is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<LogFormat, String> {
        <LogFormat as clap::ValueEnum>::from_str(text, false)
    }
}

impl std::fmt::Display for LogFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}

fn seconds(seconds: u32) -> Seconds {
    Seconds::new(seconds).unwrap_or_else(|| unreachable!("a default of the table below is not zero"))
}

macro_rules! settings {
    (
        defaulted { $(
            $(#[doc = $doc:literal])* $(#[arg($($arg:tt)*)])?
            $name:ident: $type:ty, $env:literal, $default:expr;
        )* }
        optional { $(
            $(#[doc = $optional_doc:literal])* $(#[arg($($optional_arg:tt)*)])?
            $optional:ident: $optional_type:ty, $optional_env:literal;
        )* }
    ) => {
        /// What flags, environment or file said; `None` where they did not.
        #[derive(clap::Args, Clone, Debug, Default)]
        pub struct Given {
            $(
                $(#[doc = $doc])*
                #[arg(long, env = $env, hide_env_values = true $(, $($arg)*)?)]
                pub $name: Option<$type>,
            )*
            $(
                $(#[doc = $optional_doc])*
                #[arg(long, env = $optional_env, hide_env_values = true $(, $($optional_arg)*)?)]
                pub $optional: Option<$optional_type>,
            )*
        }

        /// The settings as they hold.
        #[derive(Clone, Debug)]
        pub struct Settings {
            $( $(#[doc = $doc])* pub $name: $type, )*
            $( $(#[doc = $optional_doc])* pub $optional: Option<$optional_type>, )*
        }

        impl Default for Settings {
            fn default() -> Settings {
                Given::default().over(Given::default())
            }
        }

        /// Each setting that has a default, and that.
        fn defaults() -> Vec<(&'static str, String)> {
            let settings = Settings::default();
            vec![ $( (stringify!($name), settings.$name.to_string()), )* ]
        }

        impl Given {
            /// Reads one setting of the file.
            fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
                match name {
                    $( stringify!($name) => {
                        self.$name = Some(text.parse().map_err(|error| format!("{error}"))?);
                    } )*
                    $( stringify!($optional) => {
                        self.$optional = Some(text.parse().map_err(|error| format!("{error}"))?);
                    } )*
                    _ => return Err("there is no such setting".to_owned()),
                }
                Ok(())
            }

            /// These settings, then those of the file, then the defaults.
            pub fn over(self, file: Given) -> Settings {
                Settings {
                    $( $name: self.$name.or(file.$name).unwrap_or_else(|| $default), )*
                    $( $optional: self.$optional.or(file.$optional), )*
                }
            }

            /// What holds, and why. `matches` are those that `self` was made from.
            pub fn show(&self, file: &Given, matches: &ArgMatches) -> Vec<Shown> {
                let settings = self.clone().over(file.clone());
                let source = |name: &str, in_file: bool| match matches.value_source(name) {
                    Some(ValueSource::CommandLine) => Source::Flag,
                    Some(ValueSource::EnvVariable) => Source::Environment,
                    _ if in_file => Source::File,
                    _ => Source::Default,
                };
                vec![
                    $( Shown {
                        name: stringify!($name),
                        value: Some(settings.$name.to_string()),
                        source: source(stringify!($name), file.$name.is_some()),
                    }, )*
                    $( Shown {
                        name: stringify!($optional),
                        value: settings.$optional.map(|value| value.display().to_string()),
                        source: source(stringify!($optional), file.$optional.is_some()),
                    }, )*
                ]
            }
        }
    };
}

settings! {
    defaulted {
        /// Address and port to listen on; port 0 picks a free one.
        #[arg(value_name = "HOST:PORT")]
        listen: String, "SQLRSYNC_SERVER_LISTEN", "127.0.0.1:7777".to_owned();
        /// Namespace that the first start makes.
        #[arg(value_name = "NS")]
        namespace: String, "SQLRSYNC_SERVER_NAMESPACE", "team".to_owned();
        /// A proxy in front of this server does TLS: plain HTTP on any address, and the client's
        /// address is the last of X-Forwarded-For.
        #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
        behind_proxy: bool, "SQLRSYNC_SERVER_BEHIND_PROXY", false;
        /// Connections in all.
        connections_max: usize, "SQLRSYNC_SERVER_CONNECTIONS_MAX", 16384;
        /// Connections from one address.
        connections_per_address_max: usize, "SQLRSYNC_SERVER_CONNECTIONS_PER_ADDRESS_MAX", 128;
        /// Pushes and pulls at the same time.
        transfers_max: usize, "SQLRSYNC_SERVER_TRANSFERS_MAX", 32;
        /// Pushes and pulls from one address at the same time.
        transfers_per_address_max: usize, "SQLRSYNC_SERVER_TRANSFERS_PER_ADDRESS_MAX", 8;
        /// How long a TLS handshake may take.
        handshake_timeout: Seconds, "SQLRSYNC_SERVER_HANDSHAKE_TIMEOUT", seconds(10);
        /// How long a request's head may take, also on a connection that is kept open.
        header_timeout: Seconds, "SQLRSYNC_SERVER_HEADER_TIMEOUT", seconds(10);
        /// How long a transfer may stand still because of the peer.
        idle_timeout: Seconds, "SQLRSYNC_SERVER_IDLE_TIMEOUT", seconds(60);
        /// Least that the peer of a transfer has to move in a second while the server waits for it.
        rate_min: ByteSize, "SQLRSYNC_SERVER_RATE_MIN", ByteSize(1 << 10);
        /// For how long a transfer may be slower than that.
        rate_window: Seconds, "SQLRSYNC_SERVER_RATE_WINDOW", seconds(300);
        /// How often a WebSocket is pinged that is no subscriber; one without a transfer is dropped when it
        /// leaves three pings in a row unanswered.
        ping_interval: Seconds, "SQLRSYNC_SERVER_PING_INTERVAL", seconds(20);
        /// How long a subscriber may be silent before it is pinged.
        subscriber_ping_interval: Seconds, "SQLRSYNC_SERVER_SUBSCRIBER_PING_INTERVAL", seconds(300);
        /// How long a subscriber may take to read what it was sent, before it is cut off.
        subscriber_timeout: Seconds, "SQLRSYNC_SERVER_SUBSCRIBER_TIMEOUT", seconds(120);
        /// How long a push waits for another push to the same replica, or for its turn.
        busy_wait: Seconds, "SQLRSYNC_SERVER_BUSY_WAIT", seconds(10);
        /// How long a query of a version may take.
        query_timeout: Seconds, "SQLRSYNC_SERVER_QUERY_TIMEOUT", seconds(10);
        /// How long two versions may be compared, the reading of the answer included.
        diff_timeout: Seconds, "SQLRSYNC_SERVER_DIFF_TIMEOUT", seconds(600);
        /// Longest WebSocket message that is taken (from 8KiB to 64KiB).
        message_bytes_max: ByteSize, "SQLRSYNC_SERVER_MESSAGE_BYTES_MAX", ByteSize(64 << 10);
        /// Bytes that wait in memory for one peer, in each direction.
        queue_bytes_max: ByteSize, "SQLRSYNC_SERVER_QUEUE_BYTES_MAX", ByteSize(1 << 20);
        /// Largest database that may be pushed.
        database_bytes_max: ByteSize, "SQLRSYNC_SERVER_DATABASE_BYTES_MAX", ByteSize(256 << 30);
        /// Most that a cut push may leave behind, to be continued later.
        stage_bytes_max: ByteSize, "SQLRSYNC_SERVER_STAGE_BYTES_MAX", ByteSize(16 << 30);
        /// How often what nothing needs any more is removed from the repository.
        sweep_interval: Seconds, "SQLRSYNC_SERVER_SWEEP_INTERVAL", seconds(6 * 3600);
        /// Format of the logs on standard error.
        log_format: LogFormat, "SQLRSYNC_SERVER_LOG_FORMAT", LogFormat::Text;
        /// What is logged: a level, or directives as in `info,sqlrsync_server=debug`.
        #[arg(value_name = "FILTER")]
        log: String, "SQLRSYNC_SERVER_LOG", "info".to_owned();
    }
    optional {
        /// Certificate chain (PEM) for TLS; read again on SIGHUP.
        #[arg(value_name = "FILE", requires = "tls_key")]
        tls_cert: PathBuf, "SQLRSYNC_SERVER_TLS_CERT";
        /// Private key (PEM) for TLS; read again on SIGHUP.
        #[arg(value_name = "FILE", requires = "tls_cert")]
        tls_key: PathBuf, "SQLRSYNC_SERVER_TLS_KEY";
    }
}

/// Adds to the help of a command that takes the settings what their defaults are. They are no defaults
/// of the command line itself, where the file would never count.
pub fn with_defaults(mut command: Command) -> Command {
    for (name, default) in defaults() {
        let unit = match default.as_str() {
            number if number.parse::<u64>().is_ok() => Some("NUMBER"),
            duration if duration.parse::<Seconds>().is_ok() => Some("DURATION"),
            size if size.parse::<ByteSize>().is_ok() => Some("SIZE"),
            _ => None,
        };
        command = command.mut_arg(name, |arg| {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let arg = arg.help(format!("{help} [default: {default}]"));
            if let Some(unit) = unit { arg.value_name(unit) } else { arg }
        });
    }
    command
}

/// What the configuration file says.
#[derive(Debug, Default)]
pub struct File {
    /// The data folder.
    pub data: Option<PathBuf>,
    /// All the rest.
    pub given: Given,
    /// What in it cannot be used, and counts as not said.
    pub problems: Vec<Problem>,
}

/// Something in the configuration file that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The setting; `None` where it is all of the file.
    pub name: Option<String>,
    /// What is wrong.
    pub why: String,
}

impl Problem {
    fn of(name: &str, why: impl Into<String>) -> Problem {
        Problem { name: Some(name.to_owned()), why: why.into() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name}: {}", self.why),
            None => f.write_str(&self.why),
        }
    }
}

impl File {
    /// Reads the file; an absent one says nothing, unless it was `named` by the user. What is wrong in it
    /// is among its problems.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn read(path: &Path, named: bool) -> Result<File, Error> {
        match read_bounded(path) {
            Ok(text) => Ok(File::parse(&text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => Ok(File::default()),
            Err(source) => Err(Error::Read { path: path.to_owned(), source }),
        }
    }

    /// The file at `path`, if there is nothing wrong with it.
    ///
    /// # Errors
    /// [`Error::File`] with the first problem.
    pub fn checked(self, path: &Path) -> Result<File, Error> {
        match self.problems.first() {
            None => Ok(self),
            Some(problem) => Err(Error::File { path: path.to_owned(), problem: problem.to_string() }),
        }
    }

    fn parse(text: &str) -> File {
        let mut file = File::default();
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                let error: toml::de::Error = error;
                file.problems.push(Problem { name: None, why: error.to_string() });
                return file;
            }
        };
        for (name, value) in table {
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(value) => value.to_string(),
                _ => {
                    let why = "a text, a whole number, true or false is expected";
                    file.problems.push(Problem::of(&name, why));
                    continue;
                }
            };
            match name.as_str() {
                "data" => file.data = Some(text.into()),
                name => {
                    let set = file.given.set(name, &text);
                    file.problems.extend(set.err().map(|why| Problem::of(name, why)));
                }
            }
        }
        file
    }
}

impl Settings {
    /// Refuses what nobody can mean: a server that takes no connection, and a message that is not taken although
    /// every client may send one of that length.
    ///
    /// # Errors
    /// [`Error::Range`].
    pub fn check(&self) -> Result<(), Error> {
        let counts = [
            ("--connections-max", self.connections_max),
            ("--connections-per-address-max", self.connections_per_address_max),
            ("--transfers-max", self.transfers_max),
            ("--transfers-per-address-max", self.transfers_per_address_max),
        ];
        if let Some((name, value)) = counts.into_iter().find(|(_, value)| *value == 0) {
            return Err(Error::Range { name, value: value.to_string(), allowed: "1 or more" });
        }
        if !(MESSAGE_BYTES_LEAST..=BINARY_MESSAGE_MAX).contains(&self.message_bytes_max.as_usize()) {
            let value = self.message_bytes_max.to_string();
            return Err(Error::Range { name: "--message-bytes-max", value, allowed: "8KiB to 64KiB" });
        }
        Ok(())
    }
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_goes_over_the_file_and_the_file_over_the_default() {
        let file =
            File::parse("data = \"/srv\"\nlisten = \"[::1]:1\"\nconnections_max = 7\nbehind_proxy = true");
        assert_eq!(file.data.as_deref(), Some(Path::new("/srv")));
        let flags = Given { connections_max: Some(9), ..Given::default() };
        let settings = flags.over(file.given);
        assert_eq!(settings.connections_max, 9);
        assert_eq!(settings.listen, "[::1]:1");
        assert!(settings.behind_proxy);
        assert_eq!(settings.transfers_max, 32);
    }

    #[test]
    fn a_limit_that_lets_nothing_through_is_refused() {
        Settings::default().check().unwrap();
        for (setting, ok) in [
            ("connections_max = 0", false),
            ("connections_per_address_max = 0", false),
            ("transfers_max = 0", false),
            ("transfers_per_address_max = 0", false),
            ("transfers_max = 1", true),
            ("message_bytes_max = \"8191\"", false),
            ("message_bytes_max = \"8KiB\"", true),
            ("message_bytes_max = \"64KiB\"", true),
            ("message_bytes_max = \"65537\"", false),
        ] {
            let checked = Given::default().over(File::parse(setting).given).check();
            assert_eq!(checked.is_ok(), ok, "{setting}: {checked:?}");
        }
    }

    #[test]
    fn a_wrong_file_names_the_setting() {
        for (text, part) in [
            ("connection_max = 1", "connection_max"),
            ("idle_timeout = \"10\"", "idle_timeout"),
            ("queue_bytes_max = \"1 GB\"", "queue_bytes_max"),
            ("log_format = \"xml\"", "log_format"),
            ("listen = []", "listen"),
            ("listen", "expected"),
        ] {
            // What is right in it still counts.
            let file = File::parse(&format!("transfers_max = 3\n{text}"));
            assert_eq!(file.given.transfers_max.is_some(), text != "listen");
            let error = file.checked(Path::new("config.toml")).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
