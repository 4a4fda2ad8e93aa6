//! The plan of a transfer: which way, between what, and with what of the files beside a database.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use sqlrsync_protocol::control::COMMIT_MESSAGE_MAX;
use sqlrsync_protocol::key::AnyKey;
use sqlrsync_protocol::remote::{Argument, RemoteName, VersionSelector};
use sqlrsync_protocol::text::ReplicaIdText;

use super::live::LiveFlags;
use super::{
    Access, Copy, Environment, KeySource, KeysWanted, LocalFile, Plan, Pull, Push, Ssh, Visibility, Way,
};
use crate::cli::TransferArgs;
use crate::error::Error;
use crate::files;
use crate::folders::Folders;
use crate::key_file::KeyFile;
use crate::secrets::{Entry, Secrets};
use crate::server_url::ServerUrl;
use crate::settings::Settings;

/// What every kind of transfer is worked out from.
struct Given<'a> {
    typed: TransferArgs,
    settings: &'a Settings,
    environment: Environment<'a>,
    folders: &'a Folders,
}

pub(super) fn plan(
    operands: &[OsString],
    typed: TransferArgs,
    settings: &Settings,
    environment: Environment<'_>,
    folders: &Folders,
) -> Result<Plan, Error> {
    let live = LiveFlags::take(&typed)?;
    let given = Given { typed, settings, environment, folders };
    live.apply(given.plan(operands)?)
}

const USAGE: &str = "sqlrsync LOCAL [REMOTE] pushes, sqlrsync REMOTE [LOCAL] pulls, sqlrsync LOCAL LOCAL copies; \
                     LOCAL starts with /, ./, ../ or ~/, or has no / in it";

/// The id in the file beside a database, where it is of the server that is spoken to.
fn id_beside(beside: Option<&KeyFile>, access: &Access) -> Option<ReplicaIdText> {
    let its = beside.filter(|file| file.server.as_ref().is_none_or(|its| *its == access.server));
    its.and_then(|file| file.replica_id.clone())
}

/// Where none of what was typed is a file here. Some of it may have been meant as one.
fn neither_local(operands: &[OsString]) -> Error {
    let meant = operands.iter().find(|operand| Path::new(operand).exists());
    match meant.map(|operand| operand.display()) {
        Some(file) => Error::usage(
            format!(
                "{file} is read as a replica on the server, and one side has to be a file on this machine"
            ),
            format!("write ./{file} for the file"),
        ),
        None => Error::usage("one side has to be a file on this machine", USAGE),
    }
}

/// What other programs have as a command in front, and this one has not.
const NO_COMMANDS: [&str; 5] = ["push", "pull", "copy", "clone", "sync"];

/// What is wrong with how many there are, or with a word in front of them.
fn miscounted(operands: &[OsString]) -> Option<Error> {
    let first = operands.first().filter(|_| operands.len() > 1)?;
    let verb = first.to_str().filter(|word| NO_COMMANDS.contains(word) && !Path::new(word).exists());
    match verb {
        Some(verb) => Some(Error::usage(
            format!(
                "there is no command {verb}: what is done follows from what is named, and in which order"
            ),
            USAGE,
        )),
        None if operands.len() > 2 => Some(Error::usage("more than two databases are named", USAGE)),
        None => None,
    }
}

impl Given<'_> {
    fn plan(self, operands: &[OsString]) -> Result<Plan, Error> {
        if let Some(error) = miscounted(operands) {
            return Err(error);
        }
        let mut arguments = Vec::new();
        for operand in operands {
            let argument = Argument::parse(operand);
            arguments.push(argument.map_err(|error| Error::usage(error.to_string(), USAGE))?);
        }
        let mut arguments = arguments.into_iter();
        match (arguments.next(), arguments.next()) {
            (Some(Argument::Local(local)), None) => self.push(local, None),
            (Some(Argument::Local(local)), Some(Argument::Remote { name, version })) => {
                if version.is_some_and(|version| version != VersionSelector::Latest) {
                    return Err(Error::usage(
                        "a push makes a new version; none can be chosen",
                        "leave the @ out",
                    ));
                }
                self.push(local, Some(name))
            }
            (Some(Argument::Remote { name, version }), local) => match local {
                None => self.pull(name, version, None),
                Some(Argument::Local(local)) => self.pull(name, version, Some(local)),
                Some(_) => Err(neither_local(operands)),
            },
            (Some(Argument::Local(origin)), Some(Argument::Local(replica))) => self.copy(origin, replica),
            (Some(Argument::Local(local)), Some(Argument::Ssh { destination, path })) => {
                self.ssh(Way::Out, local, destination, path)
            }
            (Some(Argument::Ssh { destination, path }), local) => match local {
                None => {
                    let name = Path::new(&path).file_name().map(PathBuf::from);
                    let name = name.ok_or_else(|| Error::usage(format!("{path:?} names no file"), USAGE))?;
                    self.ssh(Way::In, name, destination, path)
                }
                Some(Argument::Local(local)) => self.ssh(Way::In, local, destination, path),
                Some(_) => Err(neither_local(operands)),
            },
            (None, _) => Err(Error::usage("nothing to do: no database was named", USAGE)),
        }
    }

    fn push(self, local: PathBuf, named: Option<RemoteName>) -> Result<Plan, Error> {
        let local = LocalFile::new(local, self.folders)?;
        let beside = KeyFile::read(&local.path)?;
        let file_is_there = beside.is_some();
        let entry = self.entry(&local, named.as_ref())?;
        let remote = named.or_else(|| entry.as_ref().and_then(|entry| entry.remote_path.parse().ok()));
        let beside = match &remote {
            Some(remote) => beside.filter(|file| file.remote == *remote),
            None => beside,
        };
        let remote = remote.or_else(|| beside.as_ref().map(|file| file.remote.clone()));
        let flag = self.typed.push_key.clone().or(self.typed.pull_key.clone());
        let access = Access::for_push(
            entry.as_ref(),
            beside.as_ref(),
            flag,
            self.settings,
            self.environment,
            self.folders,
        )?;
        // An id is one server's, as a key is, and means nothing to another.
        let its = entry
            .as_ref()
            .filter(|entry| entry.server.parse().is_ok_and(|its: ServerUrl| its == access.server));
        let stored_id = its.and_then(|entry| entry.replica_id.parse().ok());
        let replica_id = self.replica_id(stored_id.or(id_beside(beside.as_ref(), &access)))?;
        // Whatever key is used now: one that is stored already is not asked for again, nor one that there would be
        // no place for. It would be made anew by every run, and a replica has so many keys at most.
        let stored_key = its.and_then(|entry| entry.push_key.parse().ok());
        let push_key = its.is_none_or(|entry| entry.push_key.is_empty()) && self.keeps_push_key(&local);
        let pull_key = !file_is_there && KeyFile::can_be_written(&local.path);
        if self.typed.merge && (self.typed.force || self.typed.dry) {
            return Err(Error::usage(
                "--merge takes over what others pushed; with --force nothing is merged, and with --dry nothing \
                 is pushed",
                "leave one out",
            ));
        }
        let message = self.typed.message.clone().unwrap_or_default();
        if message.len() > COMMIT_MESSAGE_MAX {
            let what =
                format!("the message is {} bytes long; {COMMIT_MESSAGE_MAX} is the most", message.len());
            return Err(Error::usage(what, "shorten it"));
        }
        let request_keys = self.keys_wanted(push_key || pull_key, stored_key, &access);
        Ok(Plan::Push(Push {
            request_keys,
            local,
            remote,
            replica_id,
            access,
            message,
            visibility: self.visibility(),
            dry: self.typed.dry,
            force: self.typed.force,
            merge: self.typed.merge,
            scan: self.typed.scan,
        }))
    }

    fn pull(
        self,
        remote: RemoteName,
        version: Option<VersionSelector>,
        local: Option<PathBuf>,
    ) -> Result<Plan, Error> {
        self.only_for_a_push()?;
        let local = local.unwrap_or_else(|| remote.path().file_name().into());
        let local = LocalFile::new(local, self.folders)?;
        let beside = KeyFile::read(&local.path)?;
        // As for a push: a key that cannot be kept is not asked for.
        let pull_key = beside.is_none() && KeyFile::can_be_written(&local.path);
        let beside = beside.filter(|file| file.remote == remote);
        let its_file = beside.as_ref().map(|file| (file, KeyFile::path_for(&local.path)));
        let flag = self.typed.pull_key.clone().or(self.typed.push_key.clone());
        let access =
            Access::for_pull(&remote, its_file, flag, self.settings, self.environment, self.folders)?;
        let replica_id = self.replica_id(id_beside(beside.as_ref(), &access))?;
        let stored_key =
            beside.as_ref().filter(|file| file.server.as_ref().is_none_or(|its| *its == access.server));
        let stored_key = stored_key.and_then(|file| file.pull_key.clone());
        // A single old version is not what a later `sqlrsync app.db-sqlrsync` should stand for.
        let newest = version.is_none_or(|version| version == VersionSelector::Latest);
        let request_keys = self.keys_wanted(newest && pull_key, stored_key.filter(|_| newest), &access);
        Ok(Plan::Pull(Pull {
            request_keys,
            version: version.unwrap_or_default(),
            remote,
            replica_id,
            local,
            access,
            dry: self.typed.dry,
            force: self.typed.force,
        }))
    }

    fn copy(self, origin: PathBuf, replica: PathBuf) -> Result<Plan, Error> {
        self.only_for_a_push()?;
        Ok(Plan::Copy(Copy {
            origin: LocalFile::new(origin, self.folders)?,
            replica: LocalFile::new(replica, self.folders)?,
            dry: self.typed.dry,
            force: self.typed.force,
            protocol: self.settings.protocol.value,
        }))
    }

    fn ssh(self, way: Way, local: PathBuf, destination: String, path: String) -> Result<Plan, Error> {
        self.only_for_a_push()?;
        Ok(Plan::Ssh(Ssh {
            way,
            local: LocalFile::new(local, self.folders)?,
            destination,
            path,
            ssh: self.settings.ssh.value.clone(),
            port: self.settings.port.value,
            exe: self.settings.exe.value.clone(),
            protocol: self.settings.protocol.value,
            dry: self.typed.dry,
            force: self.typed.force,
        }))
    }

    /// What is stored for the database, towards that replica and that server where they are named.
    fn entry(&self, local: &LocalFile, named: Option<&RemoteName>) -> Result<Option<Entry>, Error> {
        let mut entries = Secrets::read(&self.folders.secrets_file())?.of(&local.path);
        if let Some(named) = named {
            let named = named.to_string();
            entries.retain(|entry| entry.remote_path == named);
        }
        if self.settings.server.source.is_explicit() {
            let server = &self.settings.server.value;
            entries.retain(|entry| entry.server.parse().is_ok_and(|its: ServerUrl| its == *server));
        }
        if entries.len() > 1 {
            let places: Vec<_> =
                entries.iter().map(|entry| format!("{} on {}", entry.remote_path, entry.server)).collect();
            return Err(Error::usage(
                format!("{} has been pushed to more than one place: {}", local.shown(), places.join(", ")),
                "say which: sqlrsync LOCAL REMOTE, with --server",
            ));
        }
        Ok(entries.pop())
    }

    /// Which keys to ask the server for. One that was given for this run may be there because the stored one does not
    /// open anything any more.
    fn keys_wanted(&self, missing: bool, stored: Option<AnyKey>, access: &Access) -> KeysWanted {
        let source = access.credential.as_ref().map(|found| found.source);
        match stored {
            _ if self.typed.dry => KeysWanted::No,
            _ if missing => KeysWanted::Yes,
            Some(key) if matches!(source, Some(KeySource::AuthToken | KeySource::Flag)) => {
                KeysWanted::IfRefused(key)
            }
            _ => KeysWanted::No,
        }
    }

    /// Whether a push key could be kept; where not, the end of the push says why.
    fn keeps_push_key(&self, local: &LocalFile) -> bool {
        local.path.to_str().is_some() && files::can_be_replaced(&self.folders.secrets_file())
    }

    fn replica_id(&self, stored: Option<ReplicaIdText>) -> Result<Option<ReplicaIdText>, Error> {
        // A script of the public client may have nothing after the flag: then it says nothing.
        match self.typed.replica_id.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => text.parse().map(Some).map_err(|_| {
                Error::usage("--replicaID is no id of a replica", "it has letters, digits, - and _ only")
            }),
            None => Ok(stored),
        }
    }

    fn visibility(&self) -> Option<Visibility> {
        match (self.typed.public, self.typed.unlisted) {
            (true, _) => Some(Visibility::Public),
            (_, true) => Some(Visibility::Unlisted),
            _ => None,
        }
    }

    fn only_for_a_push(&self) -> Result<(), Error> {
        let flags = [
            ("--message", self.typed.message.is_some()),
            ("--public", self.typed.public),
            ("--unlisted", self.typed.unlisted),
            ("--scan", self.typed.scan),
            ("--merge", self.typed.merge),
        ];
        match flags.iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(Error::usage(format!("{flag} is for a push to a server"), "leave it out")),
            None => Ok(()),
        }
    }
}
