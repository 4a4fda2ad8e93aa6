//! Keeping the keys that a server made: the push key in `local-secrets.toml`, the pull key in the
//! `-sqlrsync` file beside the database. A key that cannot be kept is a warning: the transfer is done.

use std::str::FromStr;

use serde_json::Value;
use sqlrsync_protocol::exchange::Refusal;
use sqlrsync_protocol::key::{AnyKey, Key, Kind};
use sqlrsync_protocol::remote::RemoteName;
use sqlrsync_protocol::text::Config;

use super::Run;
use super::rest::Rest;
use crate::error::Error;
use crate::files;
use crate::key_file::KeyFile;
use crate::plan::{Access, Credential, KeySource, KeysWanted, LocalFile, Push};
use crate::secrets::{Entry, Secrets};
use crate::server_url::ServerUrl;
use crate::state::FileLock;

/// After a push: where it went and with which key, so that `sqlrsync LOCAL` alone finds it again.
pub fn keep_after_push(run: &Run, plan: &Push, remote: &RemoteName, said: &Config) {
    remove_leftovers(run, &plan.local);
    let kept = keep_push_key(run, plan, remote, said);
    let kept = kept.and_then(|()| keep_pull_key(&plan.local, remote, &plan.access.server, said));
    if let Err(error) = kept {
        run.warn(&format!("a key could not be kept: {error}"));
    }
}

/// Keys that a run was about to keep when it was killed.
fn remove_leftovers(run: &Run, local: &LocalFile) {
    for file in [&local.path, &run.folders.secrets_file()] {
        if let Some(folder) = file.parent() {
            files::remove_leftovers(folder);
        }
    }
}

/// After a pull.
pub fn keep_after_pull(run: &Run, local: &LocalFile, remote: &RemoteName, server: &ServerUrl, said: &Config) {
    remove_leftovers(run, local);
    if let Err(error) = keep_pull_key(local, remote, server, said) {
        run.warn(&format!("a key could not be kept: {error}"));
    }
}

/// Whether to ask for keys: as planned, where the server does not take the stored one any more.
pub fn are_wanted(plan: &KeysWanted, access: &Access, remote: Option<&RemoteName>) -> bool {
    let (key, remote) = match (plan, remote) {
        (KeysWanted::IfRefused(key), Some(remote)) => (key.clone(), remote),
        (plan, _) => return matches!(plan, KeysWanted::Yes),
    };
    let stored = Credential { key, source: KeySource::Stored, place: String::new() };
    let access = Access { credential: Some(stored), ..access.clone() };
    let asked = Rest::new(&access).and_then(|mut rest| rest.get::<Value>(remote, "status", &[]));
    matches!(asked, Err(Error::Refused { refusal: Refusal::NotAllowed, .. }))
}

fn keep_push_key(run: &Run, plan: &Push, remote: &RemoteName, said: &Config) -> Result<(), Error> {
    let file = run.folders.secrets_file();
    // Two runs that each add an entry must not lose one.
    let _lock = FileLock::take(run.folders.state(), &file)?;
    let mut secrets = Secrets::read(&file)?;
    let server = plan.access.server.to_string();
    let name = remote.to_string();
    let stored = secrets.of(&plan.local.path).into_iter().find(|old| {
        old.remote_path == name && old.server.parse().is_ok_and(|its: ServerUrl| its == plan.access.server)
    });
    let key = said.new_push_key.clone().or_else(|| typed_push_key(plan));
    if stored.is_some() && key.is_none() {
        return Ok(());
    }
    if plan.local.path.to_str().is_none() {
        let why = "the database's path is no UTF-8, which the file's format needs".to_owned();
        return Err(Error::BadFile { path: file, why });
    }
    let id = said.replica_id.as_ref().or(plan.replica_id.as_ref());
    secrets.put(&Entry {
        path: plan.local.path.clone(),
        server: stored.map_or(server, |stored| stored.server),
        replica_id: id.map(ToString::to_string).unwrap_or_default(),
        remote_path: name,
        push_key: key.map(|key| key.secret().to_owned()).unwrap_or_default(),
    })
}

/// A key from the command line that is for one replica may be kept; one that opens more may not.
fn typed_push_key(plan: &Push) -> Option<AnyKey> {
    let typed = plan.access.credential.as_ref().filter(|found| found.source == KeySource::Flag)?;
    let kind = Key::from_str(typed.key.secret()).ok()?.kind();
    (kind == Kind::ReplicaPush).then(|| typed.key.clone())
}

fn keep_pull_key(
    local: &LocalFile,
    remote: &RemoteName,
    server: &ServerUrl,
    said: &Config,
) -> Result<(), Error> {
    let Some(key) = said.new_pull_key.clone() else { return Ok(()) };
    let of_another =
        |beside: KeyFile| beside.remote != *remote || beside.server.is_some_and(|its| its != *server);
    if KeyFile::read(&local.path)?.is_some_and(of_another) {
        // It is of another replica, and not ours to replace.
        return Ok(());
    }
    let file = KeyFile {
        remote: remote.clone(),
        replica_id: said.replica_id.clone(),
        pull_key: Some(key),
        server: Some(server.clone()),
    };
    file.write(&local.path)
}
