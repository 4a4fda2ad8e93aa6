//! What can end a run: whose fault it is, what to do about it, and the exit code that follows.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlrsync_database::Error as DatabaseError;
use sqlrsync_protocol::exchange::{Fault, Refusal};

use sqlrsync_protocol::text::printable as shown;

/// Exit codes that no [`Refusal`] stands for.
const USAGE: u8 = 2;
const CANCELLED: u8 = 130;

/// What is done with the folders of our own, in [`Error::File`].
pub const MAKE: &str = "make";

/// What ended a run. The text is one line that says what is wrong and whose fault it is;
/// [`Error::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What was typed makes no sense; `hint` says what would.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
        /// What to type instead.
        hint: String,
    },
    /// The process has no home folder.
    #[error("there is no home folder to keep keys and state in: HOME is not set")]
    NoHome,
    /// A file of our own cannot be read or written.
    #[error("cannot {doing} {}: {source}", shown(&path.to_string_lossy()))]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file of settings or keys has something in it that cannot be.
    #[error("{} cannot be used: {why}", shown(&path.to_string_lossy()))]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The local database: missing, no database, changed, busy, a full disk.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The rows of a local database cannot be compared.
    #[error("the rows cannot be compared: {0}")]
    Rows(#[from] sqlrsync_database::rows::Error),
    /// A database cannot be opened to be compared.
    #[error("{} cannot be compared: {source}", shown(what))]
    Version {
        /// As it was typed.
        what: String,
        /// Why not.
        source: sqlrsync_database::version::VersionError,
    },
    /// SQLite cannot read a database that is compared.
    #[error("{} is damaged: {why}", shown(what))]
    Damaged {
        /// As it was typed; both, where it is not known which.
        what: String,
        /// What SQLite says.
        why: String,
    },
    /// A database that was written to while it was compared: again and again, or past SQLite.
    #[error("{} was written to while it was compared", shown(&path.to_string_lossy()))]
    NeverStill {
        /// The database.
        path: PathBuf,
    },
    /// A page of a local database cannot be read.
    #[error("a page cannot be read: {why}")]
    Unreadable {
        /// What SQLite says.
        why: String,
    },
    /// A database that is not in WAL mode, where only one that is was wanted.
    #[error("{} is not in WAL mode", shown(&path.to_string_lossy()))]
    NotWal {
        /// The database.
        path: PathBuf,
    },
    /// Both sides of a copy are one file.
    #[error("{} and {} are the same file", shown(&origin.to_string_lossy()), shown(&replica.to_string_lossy()))]
    SameFile {
        /// One name.
        origin: PathBuf,
        /// The other.
        replica: PathBuf,
    },
    /// Another sqlrsync is at work on the same file.
    #[error("another sqlrsync is at work on {}", shown(&path.to_string_lossy()))]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Another sqlrsync pushes the same file whenever it changes.
    #[error("another sqlrsync --subscribe publishes {} already", shown(&path.to_string_lossy()))]
    Published {
        /// The file.
        path: PathBuf,
    },
    /// There is no key, and nobody to ask for one.
    #[error("there is no key to {verb} {what} with")]
    NoKey {
        /// `push` or `pull`.
        verb: &'static str,
        /// What was to be pushed or pulled.
        what: String,
    },
    /// Something that was given as a key cannot be one.
    #[error("what {place} gives is no key")]
    BadKey {
        /// Who gave it.
        place: String,
    },
    /// Nobody answers there.
    #[error("the server {server} cannot be reached: {why}")]
    Unreachable {
        /// Its address.
        server: String,
        /// What the system says.
        why: String,
    },
    /// ssh did not get there.
    #[error("{destination} cannot be reached: {why}")]
    NoWay {
        /// Where to.
        destination: String,
        /// How that shows.
        why: String,
    },
    /// Somebody answers there who is no sqlrsync server.
    #[error("what answers at {server} is no sqlrsync server: {why}")]
    NotThisServer {
        /// Its address.
        server: String,
        /// How that shows.
        why: String,
    },
    /// TLS failed: a certificate that is not trusted, above all.
    #[error("no secure connection to {server}: {why}")]
    Tls {
        /// Its address.
        server: String,
        /// What is wrong.
        why: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The program on the other machine said no.
    #[error("{who} refuses: {}", shown(text))]
    RefusedThere {
        /// Which machine.
        who: String,
        /// Of what kind.
        refusal: Refusal,
        /// Its words.
        text: String,
    },
    /// The server said no.
    #[error("{who} refuses: {}", shown(text))]
    Refused {
        /// Who.
        who: String,
        /// Of what kind.
        refusal: Refusal,
        /// Its words.
        text: String,
        /// How long it wants to be left alone, where it says so.
        retry_after: Option<Duration>,
    },
    /// The peer sent what it may not send.
    #[error("{who} broke the protocol: {why}")]
    Protocol {
        /// Who.
        who: String,
        /// How.
        why: String,
    },
    /// The connection ended in the middle.
    #[error("the connection to {who} was cut: {why}")]
    Cut {
        /// Who was there.
        who: String,
        /// How it ended.
        why: String,
    },
    /// ssh, or the program it starts, failed.
    #[error("{program} failed: {why}")]
    Program {
        /// Which.
        program: String,
        /// How.
        why: String,
    },
    /// On the other machine there is no program to speak with.
    #[error("there is no {program} on {destination}")]
    NoSuchProgram {
        /// Where.
        destination: String,
        /// What was looked for.
        program: String,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
    /// Cannot write to stdout or a similar thing.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
    /// The user, or the system, said stop.
    #[error("stopped; nothing was changed that was not finished")]
    Cancelled,
}

impl Error {
    /// For a file of our own.
    pub fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File { doing, path, source }
    }

    /// Usage, with what to do instead.
    pub fn usage(what: impl Into<String>, hint: impl Into<String>) -> Error {
        Error::Usage { what: what.into(), hint: hint.into() }
    }

    /// The exit code (`docs/reference.md` lists them).
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage { .. } | Error::SameFile { .. } | Error::BadFile { .. } => USAGE,
            Error::NoKey { .. } | Error::BadKey { .. } => Refusal::NotAllowed.exit_code(),
            Error::Unreachable { .. }
            | Error::NoWay { .. }
            | Error::InUse { .. }
            | Error::NeverStill { .. }
            | Error::Cut { .. } => Refusal::TryLater.exit_code(),
            Error::Database(error) => error.refusal().exit_code(),
            Error::Refused { refusal, .. } | Error::RefusedThere { refusal, .. } => refusal.exit_code(),
            Error::Cancelled => CANCELLED,
            _ => Refusal::Failed.exit_code(),
        }
    }

    /// What to do about it; `None` where the text says all there is.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::Usage { hint, .. } => hint.clone(),
            Error::NoHome => "set HOME".into(),
            Error::BadFile { .. } => "correct it, or move it away".into(),
            Error::File { doing: MAKE, .. } => {
                "sqlrsync keeps there what it agreed on with servers; XDG_STATE_HOME names another folder".into()
            }
            Error::Database(error) => return database_hint(error),
            Error::Damaged { .. } => {
                "PRAGMA integrity_check in sqlite3 says what is; what was pushed before can be pulled again".into()
            }
            Error::NeverStill { .. } => {
                "run this again when less is written, or compare a copy (sqlrsync LOCAL COPY); a file in WAL mode is \
                 compared as it is when this begins"
                    .into()
            }
            Error::NotWal { .. } => "leave --wal-only out, or run PRAGMA journal_mode=WAL".into(),
            Error::SameFile { .. } => "name another file".into(),
            Error::BadKey { .. } => "a key has letters, digits and . _ - + / = only, and no spaces".into(),
            Error::InUse { .. } => "wait for it to end, then run this again".into(),
            Error::Published { .. } => "one is enough: stop it first, or let it go on".into(),
            Error::NoKey { verb, .. } => format!(
                "set SQLRSYNC_AUTH_TOKEN or SQLRSYNC_ADMIN_KEY, or give --{verb}Key; \
                 sqlrsync-server key create makes one"
            ),
            Error::Unreachable { .. } => {
                "see that it runs (sqlrsync-server serve), and that --server or SQLRSYNC_SERVER names it"
                    .into()
            }
            Error::NoWay { destination, .. } => format!("see that `ssh {destination}` gets there"),
            Error::NotThisServer { .. } => {
                "give the address that sqlrsync-server printed with --server".into()
            }
            Error::Tls { hint, .. } => (*hint).into(),
            Error::Refused { refusal, .. } => return refusal_hint(*refusal),
            Error::RefusedThere { refusal: Refusal::TryLater, .. } => "run this again in a moment".into(),
            Error::NoSuchProgram { .. } => {
                "install sqlrsync there, or say with --exe where it or sqlite3_rsync is".into()
            }
            Error::Cut { .. } => "run this again; what has arrived is used where it can be".into(),
            _ => return None,
        })
    }
}

/// What is not in the text of the database's errors: how a file is told from a replica is the command line's.
fn database_hint(error: &DatabaseError) -> Option<String> {
    Some(match error {
        DatabaseError::Missing { .. } => {
            "what begins with / or ./, or has no / in it, is a file here; a replica on a server is NAMESPACE/PATH"
                .into()
        }
        DatabaseError::NotAFile { path } if path.is_dir() => {
            "that is a folder: name the database file in it, as ./FOLDER/NAME".into()
        }
        _ => return None,
    })
}

fn refusal_hint(refusal: Refusal) -> Option<String> {
    Some(match refusal {
        Refusal::NotAllowed => {
            "ask who runs the server for a key that may do this, and set SQLRSYNC_AUTH_TOKEN to it".into()
        }
        Refusal::TryLater => "run this again in a moment".into(),
        Refusal::Conflict => {
            "sqlrsync REMOTE LOCAL --force takes the latest version, sqlrsync LOCAL REMOTE --force \
                              makes this file the latest as it is"
                .into()
        }
        Refusal::NotFound => "is the name spelled right? sqlrsync log NAMESPACE/PATH lists the versions of a replica, \
                              sqlrsync conflicts NAMESPACE/PATH --all its conflicts; a private one is there only for \
                              a key that may pull"
            .into(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_never_still_is_for_later_and_it_is_said_what_else_can_be_done() {
        let error = Error::NeverStill { path: "a.db".into() };
        assert_eq!(error.exit_code(), Refusal::TryLater.exit_code());
        assert_eq!(error.to_string(), "a.db was written to while it was compared");
        assert!(error.hint().unwrap().contains("compare a copy"));
    }

    #[test]
    fn a_folder_for_a_file_and_a_file_that_is_not_there_say_what_was_meant() {
        let hint = |error: DatabaseError| Error::from(error).hint().unwrap_or_default();
        assert!(hint(DatabaseError::NotAFile { path: "/".into() }).contains("a folder"));
        assert_eq!(hint(DatabaseError::NotAFile { path: "/dev/null".into() }), "");
        assert!(hint(DatabaseError::Missing { path: "a.db".into() }).contains("NAMESPACE/PATH"));
    }
}
