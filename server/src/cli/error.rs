//! Why a command fails, and with which exit code.

use std::io;
use std::path::PathBuf;

use sqlrsync_protocol::exchange::Fault;

use crate::{catalog, data_folder, logging, new_key, server, settings};

/// Why a command fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was typed makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Settings.
    #[error(transparent)]
    Settings(#[from] settings::Error),
    /// The data folder.
    #[error(transparent)]
    DataFolder(#[from] data_folder::Error),
    /// The catalog.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// Making a key.
    #[error(transparent)]
    Key(#[from] new_key::Error),
    /// The server does not start.
    #[error(transparent)]
    Server(#[from] server::Error),
    /// The logs cannot be set up.
    #[error(transparent)]
    Logging(#[from] logging::Error),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] sqlrsync_repository::Error),
    /// The manual pages cannot be written.
    #[error("cannot write manual pages into {}: {source}", folder.display())]
    Pages {
        /// Where to.
        folder: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Standard output, or a thread.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Error {
    /// 2 for usage, 10 for what is not there, the repository's own, and 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) | Error::Settings(_) | Error::Logging(_) => 2,
            Error::Server(
                server::Error::Address(_) | server::Error::PlainHttp(_) | server::Error::Namespace { .. },
            ) => 2,
            Error::Catalog(
                catalog::Error::NoNamespace(_) | catalog::Error::NoKey(_) | catalog::Error::NoReplica(_),
            ) => 10,
            Error::DataFolder(data_folder::Error::Missing(_)) => 10,
            Error::Repository(error) => error.refusal().exit_code(),
            _ => 1,
        }
    }
}
