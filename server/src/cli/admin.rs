//! `key`, `namespace` and `replica`: what an operator with access to the data folder may do, whether a server
//! runs or not.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::json;
use sqlrsync_protocol::remote::RemoteName;
use sqlrsync_repository::ReplicaId;

use super::args::{KeyCommand, KeyCreate, NamespaceCommand, ReplicaCommand, RuleWord};
use super::error::Error;
use crate::catalog::{
    self, Actor, Catalog, KeyId, KeyRecord, NewReplica, Policy, ReplicaRecord, Rule, Visibility, kind_word,
};
use crate::data_folder::DataFolder;
use crate::new_key::{self, Wish};

/// The namespace that is made where the first key is asked for before there is any.
const FIRST_NAMESPACE: &str = "team";

/// How many replicas are read at once for a listing.
const LIST_PAGE: u32 = 1000;

/// The widest that a column of a listing becomes.
const COLUMN_WIDTH_MAX: usize = 20;

/// Longest label of a key, in bytes.
const LABEL_BYTES_MAX: usize = 200;

/// `key ...`
pub fn key(folder: &DataFolder, command: KeyCommand) -> Result<ExitCode, Error> {
    let catalog = Catalog::open(&folder.catalog())?;
    match command {
        KeyCommand::Create(wish) => create_key(&catalog, &wish)?,
        KeyCommand::List { json } => list_keys(&catalog, json)?,
        KeyCommand::Revoke { id, derived } => revoke_key(&catalog, id, derived)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `namespace ...`
pub fn namespace(folder: &DataFolder, command: NamespaceCommand) -> Result<ExitCode, Error> {
    let catalog = Catalog::open(&folder.catalog())?;
    match command {
        NamespaceCommand::Create { name } => {
            if !catalog.create_namespace(name.as_str())? {
                eprintln!("the namespace {name} was there already");
            }
        }
        NamespaceCommand::List { json } => {
            let mut out = io::stdout().lock();
            for name in catalog.namespaces()? {
                if json {
                    writeln!(out, "{}", json!({"namespace": name}))?;
                } else {
                    writeln!(out, "{name}")?;
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `replica ...`
pub fn replica(folder: &DataFolder, command: ReplicaCommand) -> Result<ExitCode, Error> {
    let catalog = Catalog::open(&folder.catalog())?;
    match command {
        ReplicaCommand::List { json } => list_replicas(&catalog, json)?,
        ReplicaCommand::Show { name, json } => {
            let (namespace, path) = (name.namespace().as_str(), name.path().as_str());
            let found = catalog.replica(namespace, path)?;
            let replica = found.ok_or_else(|| catalog::Error::NoReplica(name.to_string()))?;
            let mut out = io::stdout().lock();
            print_replica(&mut out, &replica, json)?;
            if !json {
                writeln!(out, "policy: {}", replica.policy)?;
            }
        }
        ReplicaCommand::Visibility { name, visibility } => {
            let (namespace, path) = (name.namespace().as_str(), name.path().as_str());
            catalog.set_visibility(namespace, path, visibility.visibility())?;
        }
        ReplicaCommand::Policy { name, rule, cells, renumber, json } => {
            if let Some(rule) = rule.map(RuleWord::rule) {
                set_policy(&catalog, &name, Policy { rule, cells, renumber })?;
            }
            show_policy(&catalog, &name, json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn set_policy(catalog: &Catalog, name: &RemoteName, policy: Policy) -> Result<(), Error> {
    if policy.rule != Rule::Merge && (policy.cells || policy.renumber) {
        return Err(Error::Usage("--cells and --renumber are for the policy merge".to_owned()));
    }
    let (namespace, path) = (name.namespace().as_str(), name.path().as_str());
    Ok(catalog.set_policy(namespace, path, policy, &Actor::operator())?)
}

fn show_policy(catalog: &Catalog, name: &RemoteName, json: bool) -> Result<(), Error> {
    let found = catalog.replica(name.namespace().as_str(), name.path().as_str())?;
    let policy = found.ok_or_else(|| catalog::Error::NoReplica(name.to_string()))?.policy;
    let mut out = io::stdout().lock();
    if json {
        let Policy { rule, cells, renumber } = policy;
        let line = json!({"replica": name.to_string(), "policy": rule, "cells": cells, "renumber": renumber});
        writeln!(out, "{line}")?;
    } else {
        writeln!(out, "{policy}")?;
    }
    Ok(())
}

fn list_replicas(catalog: &Catalog, json: bool) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    for namespace in catalog.namespaces()? {
        let mut after = String::new();
        loop {
            let page = catalog.replicas(&namespace, &after, LIST_PAGE)?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.path);
            for replica in &page {
                print_replica(&mut out, replica, json)?;
            }
        }
    }
    Ok(())
}

fn print_replica(out: &mut impl Write, replica: &ReplicaRecord, json: bool) -> io::Result<()> {
    let (name, id) = (replica.name(), &replica.id);
    let (visibility, created) = (replica.visibility.as_str(), &replica.created);
    if json {
        let Policy { rule, cells, renumber } = replica.policy;
        let line = json!({
            "replica": name, "replica_id": id, "visibility": visibility, "created": created,
            "policy": rule, "cells": cells, "renumber": renumber,
        });
        writeln!(out, "{line}")
    } else {
        writeln!(out, "{id}  {visibility:<8}  {created}  {name}")
    }
}

fn create_key(catalog: &Catalog, wish: &KeyCreate) -> Result<(), Error> {
    let kind = wish.kind.kind(wish.replica.is_some()).ok_or_else(|| {
        Error::Usage(match wish.replica {
            Some(_) => "an admin key is for a namespace: use --namespace in place of --replica".to_owned(),
            None => "a push key is for one replica: name it with --replica NS/PATH".to_owned(),
        })
    })?;
    let label = wish.label.as_deref().unwrap_or(kind_word(kind));
    if label.len() > LABEL_BYTES_MAX || label.chars().any(char::is_control) {
        return Err(Error::Usage(format!("a label is one line of {LABEL_BYTES_MAX} bytes at most")));
    }
    let replica = wish.replica.as_ref().map(|name| replica_named(catalog, name)).transpose()?;
    let namespace = match (&replica, &wish.namespace) {
        (Some(replica), _) => replica.namespace.clone(),
        (None, Some(name)) => {
            if catalog.create_namespace(name.as_str())? {
                eprintln!("made the namespace {name}");
            }
            name.as_str().to_owned()
        }
        (None, None) => only_namespace(catalog)?,
    };
    let replica = replica.as_ref().map(|replica| replica.id.as_str());
    let wish_ = Wish { kind, namespace: &namespace, replica, label, parent: None };
    let (id, key) = new_key::create(catalog, &wish_)?;
    let mut out = io::stdout().lock();
    if wish.json {
        writeln!(out, "{}", json!({"key": key.secret(), "id": id.to_string(), "kind": kind_word(kind)}))?;
    } else {
        writeln!(out, "{}", key.secret())?;
    }
    Ok(())
}

/// The namespace that is meant where none is named.
fn only_namespace(catalog: &Catalog) -> Result<String, Error> {
    let mut names = catalog.namespaces()?;
    match (names.pop(), names.is_empty()) {
        (Some(name), true) => Ok(name),
        (None, _) => {
            catalog.create_namespace(FIRST_NAMESPACE)?;
            eprintln!("made the namespace {FIRST_NAMESPACE}");
            Ok(FIRST_NAMESPACE.to_owned())
        }
        _ => Err(Error::Usage("there are several namespaces: say which with --namespace".to_owned())),
    }
}

/// The replica at a path; it is registered where there is none yet, so that a key can be handed out
/// before the first push.
fn replica_named(catalog: &Catalog, name: &RemoteName) -> Result<ReplicaRecord, Error> {
    let (namespace, path) = (name.namespace().as_str(), name.path().as_str());
    if let Some(found) = catalog.replica(namespace, path)? {
        return Ok(found);
    }
    let id = ReplicaId::random().map_err(new_key::Error::Random)?.to_string();
    let new = NewReplica {
        id: &id,
        namespace,
        path,
        visibility: Visibility::Private,
        client_id: "",
        host: "",
        local_path: "",
    };
    let found = catalog.create_replica(&new)?.into_record();
    eprintln!("registered {name}, which has no version yet");
    Ok(found)
}

fn list_keys(catalog: &Catalog, json: bool) -> Result<(), Error> {
    let keys = catalog.keys()?;
    let mut out = io::stdout().lock();
    if json {
        for key in &keys {
            writeln!(out, "{}", key_json(key))?;
        }
        return Ok(());
    }
    let row = |key: &KeyRecord| {
        let revoked = key.revoked.clone().unwrap_or_else(|| "-".to_owned());
        let kind = kind_word(key.kind).to_owned();
        [key.id.to_string(), kind, key.created.clone(), revoked, key.scope.to_string(), key.label.clone()]
    };
    let head = ["ID", "KIND", "CREATED", "REVOKED", "SCOPE", "LABEL"].map(str::to_owned);
    for line in columns(std::iter::once(head).chain(keys.iter().map(row)).collect()) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// Lines of columns that stand below each other. One long text widens no column past what is left of most
/// terminals: it moves the rest of its own line.
fn columns<const N: usize>(rows: Vec<[String; N]>) -> Vec<String> {
    let mut widths = [0; N];
    for (column, width) in widths.iter_mut().enumerate().take(N - 1) {
        let widest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        *width = widest.min(COLUMN_WIDTH_MAX);
    }
    let line = |row: [String; N]| {
        let cells = row.iter().zip(widths).map(|(text, width)| format!("{text:<width$}"));
        cells.collect::<Vec<_>>().join("  ")
    };
    rows.into_iter().map(line).collect()
}

fn key_json(key: &KeyRecord) -> serde_json::Value {
    json!({
        "id": key.id.to_string(),
        "kind": kind_word(key.kind),
        "scope": key.scope.to_string(),
        "label": key.label,
        "made_with": key.parent.map(|id| id.to_string()),
        "created": key.created,
        "revoked": key.revoked,
    })
}

fn revoke_key(catalog: &Catalog, id: KeyId, derived: bool) -> Result<(), Error> {
    let revoked = catalog.revoke_key(id, derived)?;
    if revoked.is_empty() {
        eprintln!("key {id} was revoked before");
    }
    for id in revoked {
        eprintln!("revoked key {id}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_moves_its_own_line_only() {
        let rows = [["1", "team", "admin"], ["20", "team/a/very/long/path/to/app.db", "b"], ["3", "t", "c"]];
        let lines = columns(rows.map(|row| row.map(str::to_owned)).to_vec());
        assert_eq!(
            lines,
            [
                "1   team                  admin",
                "20  team/a/very/long/path/to/app.db  b",
                "3   t                     c"
            ]
        );
    }
}
