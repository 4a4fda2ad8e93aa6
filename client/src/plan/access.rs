//! On which server, and with which key.
//!
//! A key goes to the server that it came from and to no other: one out of a file only where the file's
//! server is the one spoken to. The order in which a key is found: SQLRSYNC_AUTH_TOKEN, the flag, what
//! is stored with the database (the push key for a push, the `-sqlrsync` file for a pull), a push key
//! stored for the same replica, SQLRSYNC_ADMIN_KEY; after that a prompt, which is [`crate::prompt`]'s
//! affair.

use std::fmt;
use std::path::PathBuf;

use sqlrsync_protocol::key::AnyKey;
use sqlrsync_protocol::remote::RemoteName;

use super::Environment;
use crate::error::Error;
use crate::folders::Folders;
use crate::key_file::KeyFile;
use crate::secrets::{Entry, Secrets};
use crate::server_url::ServerUrl;
use crate::settings::{Settings, Source};

/// Where a key came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// SQLRSYNC_AUTH_TOKEN.
    AuthToken,
    /// The command line.
    Flag,
    /// `local-secrets.toml` or the `-sqlrsync` file.
    Stored,
    /// SQLRSYNC_ADMIN_KEY.
    AdminKey,
    /// The user was asked.
    Prompt,
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeySource::AuthToken => "SQLRSYNC_AUTH_TOKEN",
            KeySource::Flag => "the command line",
            KeySource::Stored => "the stored keys",
            KeySource::AdminKey => "SQLRSYNC_ADMIN_KEY",
            KeySource::Prompt => "the prompt",
        })
    }
}

/// A key and where it came from.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The key. It does not show itself.
    pub key: AnyKey,
    /// Who gave it.
    pub source: KeySource,
    /// Where it stands, for people: the name of a file or a variable.
    pub place: String,
}

/// Whether a transfer asks the server for keys of the database's own.
#[derive(Clone, Debug)]
pub enum KeysWanted {
    /// It has them, or could not keep them.
    No,
    /// It has none yet.
    Yes,
    /// It has this one, and uses another: only where the server does not take this one any more.
    IfRefused(AnyKey),
}

/// A server, and what opens it.
#[derive(Clone, Debug)]
pub struct Access {
    /// The server.
    pub server: ServerUrl,
    /// `None`: none was found.
    pub credential: Option<Credential>,
    /// Certificates to trust in place of the system's.
    pub ca_file: Option<std::path::PathBuf>,
    /// The highest protocol version to speak.
    pub protocol: u8,
}

/// What the search for a key has found out, from the first place to look to the last.
struct Search<'a> {
    environment: Environment<'a>,
    flag: Option<String>,
}

/// A stored key, and the file that it stands in.
type Stored = (AnyKey, PathBuf);

impl Search<'_> {
    /// The first key there is; `stored` is looked at between the flag and the admin key.
    fn find(self, stored: Option<Stored>) -> Result<Option<Credential>, Error> {
        if let Some(found) = self.variable("SQLRSYNC_AUTH_TOKEN", KeySource::AuthToken)? {
            return Ok(Some(found));
        }
        if let Some(text) = &self.flag {
            return parse_key(text, "the command line", KeySource::Flag).map(Some);
        }
        if let Some((key, file)) = stored {
            let place = file.display().to_string();
            return Ok(Some(Credential { key, source: KeySource::Stored, place }));
        }
        self.variable("SQLRSYNC_ADMIN_KEY", KeySource::AdminKey)
    }

    fn variable(&self, name: &str, source: KeySource) -> Result<Option<Credential>, Error> {
        let value = (self.environment)(name).filter(|value| !value.is_empty());
        value.map(|value| parse_key(&value.to_string_lossy(), name, source)).transpose()
    }
}

/// A text as a key; the error does not repeat it.
pub fn parse_key(text: &str, place: &str, source: KeySource) -> Result<Credential, Error> {
    let key = text.trim().parse().map_err(|_| Error::BadKey { place: place.to_owned() })?;
    Ok(Credential { key, source, place: place.to_owned() })
}

/// The server of a stored entry.
fn entry_server(entry: &Entry, folders: &Folders) -> Result<ServerUrl, Error> {
    entry.server.parse().map_err(|error| Error::BadFile {
        path: folders.secrets_file(),
        why: format!("the server of {} is {error}", entry.path.display()),
    })
}

/// The push key of an entry, where it has one.
fn entry_key(entry: &Entry, folders: &Folders) -> Result<Option<AnyKey>, Error> {
    if entry.push_key.is_empty() {
        return Ok(None);
    }
    entry.push_key.parse().map(Some).map_err(|_| Error::BadFile {
        path: folders.secrets_file(),
        why: format!("the pushKey of {} is none", entry.path.display()),
    })
}

impl Access {
    /// For a push: `entry` is what is stored for the database and the replica, `beside` its key file.
    pub(super) fn for_push(
        entry: Option<&Entry>,
        beside: Option<&KeyFile>,
        flag: Option<String>,
        settings: &Settings,
        environment: Environment<'_>,
        folders: &Folders,
    ) -> Result<Access, Error> {
        let stored = entry.map(|entry| entry_server(entry, folders)).transpose()?;
        let server = pick(settings, [stored.clone(), beside.and_then(|file| file.server.clone())]);
        let key = match entry {
            Some(entry) if stored.as_ref() == Some(&server) => entry_key(entry, folders)?,
            _ => None,
        };
        let key = key.map(|key| (key, folders.secrets_file()));
        Access::new(server, Search { environment, flag }, key, settings)
    }

    /// For a pull: `beside` is the key file beside the local file, where it is of this replica, and where it is.
    pub(super) fn for_pull(
        remote: &RemoteName,
        beside: Option<(&KeyFile, PathBuf)>,
        flag: Option<String>,
        settings: &Settings,
        environment: Environment<'_>,
        folders: &Folders,
    ) -> Result<Access, Error> {
        let stored = same_replica(remote, folders)?;
        // Only where one server alone is known for the replica, and nobody named another.
        let only = match stored.as_slice() {
            [(first, _), rest @ ..] if rest.iter().all(|(server, _)| server == first) => Some(first.clone()),
            _ => None,
        };
        let only = only.filter(|_| settings.server.source == Source::Default);
        let server = pick(settings, [beside.as_ref().and_then(|(file, _)| file.server.clone()), only]);
        let own = beside.filter(|(file, _)| file.server.as_ref().is_none_or(|its| *its == server));
        let own = own.and_then(|(file, at)| Some((file.pull_key.clone()?, at)));
        let mut others = stored.into_iter().filter(|(its, _)| *its == server);
        let key = own.or_else(|| others.next().map(|(_, key)| (key, folders.secrets_file())));
        Access::new(server, Search { environment, flag }, key, settings)
    }

    /// For settling a conflict of a replica: as for a push, with a push key that is stored for it by any
    /// local database.
    pub(super) fn for_settling(
        remote: &RemoteName,
        flag: Option<String>,
        settings: &Settings,
        environment: Environment<'_>,
        folders: &Folders,
    ) -> Result<Access, Error> {
        Access::for_pull(remote, None, flag, settings, environment, folders)
    }

    /// For what only reads: the list of versions, conflicts, differences, queries.
    pub(super) fn for_reading(
        remote: &RemoteName,
        flag: Option<String>,
        settings: &Settings,
        environment: Environment<'_>,
        folders: &Folders,
    ) -> Result<Access, Error> {
        let local = std::path::absolute(remote.path().file_name()).ok();
        let beside = local.and_then(|path| Some((KeyFile::read(&path).ok()??, KeyFile::path_for(&path))));
        let beside = beside.as_ref().filter(|(file, _)| file.remote == *remote);
        let beside = beside.map(|(file, at)| (file, at.clone()));
        Access::for_pull(remote, beside, flag, settings, environment, folders)
    }

    fn new(
        server: ServerUrl,
        search: Search<'_>,
        stored: Option<Stored>,
        settings: &Settings,
    ) -> Result<Access, Error> {
        let credential = search.find(stored)?;
        let (ca_file, protocol) = (settings.ca_file.value.clone(), settings.protocol.value);
        Ok(Access { server, credential, ca_file, protocol })
    }
}

/// What was said for this run, else the first that is stored, else the settings.
fn pick<const N: usize>(settings: &Settings, stored: [Option<ServerUrl>; N]) -> ServerUrl {
    let explicit = settings.server.source.is_explicit();
    let stored = stored.into_iter().flatten().next().filter(|_| !explicit);
    stored.unwrap_or_else(|| settings.server.value.clone())
}

/// Servers and push keys stored for a replica, by any local database. Entries that cannot be used
/// are somebody else's trouble here.
fn same_replica(remote: &RemoteName, folders: &Folders) -> Result<Vec<(ServerUrl, AnyKey)>, Error> {
    let name = remote.to_string();
    let entries = Secrets::read(&folders.secrets_file())?.all();
    let of_replica = entries.into_iter().filter(|entry| entry.remote_path == name);
    Ok(of_replica.filter_map(|e| Some((e.server.parse().ok()?, e.push_key.parse().ok()?))).collect())
}
