//! `local-secrets.toml`: the push key of each local database, in the public client's form.
//!
//! A `[[sqlrsync-databases]]` table for each database, with `path`, `server`, `replicaID`,
//! `remotePath` and `pushKey`. What else stands in the file, comments too, is kept as it is. The file
//! is replaced durably and readable for its owner only.

use std::path::{Path, PathBuf};

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use crate::error::Error;
use crate::files;

/// The name of the array of tables.
const TABLES: &str = "sqlrsync-databases";

/// What is kept of a local database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The database, absolute.
    pub path: PathBuf,
    /// Address of the server that gave the key; the key goes nowhere else.
    pub server: String,
    /// The replica's id; empty where it is not known.
    pub replica_id: String,
    /// The replica's namespace and path.
    pub remote_path: String,
    /// The key that may push to it.
    pub push_key: String,
}

/// The file, read.
#[derive(Debug)]
pub struct Secrets {
    file: PathBuf,
    document: DocumentMut,
}

impl Secrets {
    /// Reads the file; one that does not exist is empty.
    ///
    /// # Errors
    /// Where it cannot be read or is no TOML.
    pub fn read(file: &Path) -> Result<Secrets, Error> {
        let text = files::read_small(file).map_err(Error::file("read", file))?.unwrap_or_default();
        let document = text.parse::<DocumentMut>().map_err(|error| Error::BadFile {
            path: file.to_owned(),
            // Only the message: the full text would quote the line, and with it a key.
            why: format!("it is no TOML: {}", error.message()),
        })?;
        let secrets = Secrets { file: file.to_owned(), document };
        match secrets.document.get(TABLES) {
            None | Some(Item::ArrayOfTables(_)) => Ok(secrets),
            Some(_) => Err(Error::BadFile {
                path: secrets.file,
                why: format!("{TABLES} is not written as [[{TABLES}]]"),
            }),
        }
    }

    /// The entries of a database, in the order of the file. One without a path is left out.
    pub fn of(&self, database: &Path) -> Vec<Entry> {
        self.tables().filter_map(entry).filter(|entry| entry.path == database).collect()
    }

    /// Every entry that names a database.
    pub fn all(&self) -> Vec<Entry> {
        self.tables().filter_map(entry).collect()
    }

    /// Adds the entry, in the place of the one of the same database, server and remote path.
    ///
    /// # Errors
    /// Where the file cannot be written; the old content then stands.
    pub fn put(&mut self, new: &Entry) -> Result<(), Error> {
        let item = self.document.entry(TABLES).or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        if let Some(tables) = item.as_array_of_tables_mut() {
            let same = |old: &Entry| {
                (&old.path, &old.server, &old.remote_path) == (&new.path, &new.server, &new.remote_path)
            };
            let place = tables.iter().position(|table| entry(table).as_ref().is_some_and(same));
            match place.and_then(|place| tables.get_mut(place)) {
                Some(table) => fill(table, new),
                None => {
                    let mut table = Table::new();
                    fill(&mut table, new);
                    tables.push(table);
                }
            }
        }
        files::replace(&self.file, self.document.to_string().as_bytes(), 0o600)
            .map_err(Error::file("write", &self.file))
    }

    fn tables(&self) -> impl Iterator<Item = &Table> {
        self.document
            .get(TABLES)
            .and_then(Item::as_array_of_tables)
            .into_iter()
            .flat_map(|tables| tables.iter())
    }
}

fn entry(table: &Table) -> Option<Entry> {
    let text = |name: &str| table.get(name).and_then(Item::as_str).unwrap_or_default().to_owned();
    let path = PathBuf::from(text("path"));
    path.is_absolute().then(|| Entry {
        path,
        server: text("server"),
        replica_id: text("replicaID"),
        remote_path: text("remotePath"),
        push_key: text("pushKey"),
    })
}

fn fill(table: &mut Table, entry: &Entry) {
    table["path"] = value(entry.path.to_string_lossy().into_owned());
    table["server"] = value(&entry.server);
    table["replicaID"] = value(&entry.replica_id);
    table["remotePath"] = value(&entry.remote_path);
    table["pushKey"] = value(&entry.push_key);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn sample(path: &str, key: &str) -> Entry {
        Entry {
            path: path.into(),
            server: "ws://127.0.0.1:8080".into(),
            replica_id: "abc".into(),
            remote_path: "team/app.db".into(),
            push_key: key.into(),
        }
    }

    #[test]
    fn what_others_wrote_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("local-secrets.toml");
        let before = "# mine\n[other]\nx = 1\n\n[[sqlrsync-databases]]\npath = \"/a.db\" # here\nserver = \"ws://h\"\nextra = true\n";
        std::fs::write(&file, before).unwrap();
        Secrets::read(&file).unwrap().put(&sample("/b.db", "k1")).unwrap();
        let after = std::fs::read_to_string(&file).unwrap();
        assert!(after.starts_with(before), "{after}");
        assert_eq!(Secrets::read(&file).unwrap().of(Path::new("/b.db")), [sample("/b.db", "k1")]);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_new_key_takes_the_place_of_the_old() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/local-secrets.toml");
        for key in ["k1", "k2"] {
            Secrets::read(&file).unwrap().put(&sample("/a.db", key)).unwrap();
        }
        assert_eq!(Secrets::read(&file).unwrap().all(), [sample("/a.db", "k2")]);
    }

    #[test]
    fn a_broken_file_is_said_to_be_without_quoting_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s.toml");
        std::fs::write(&file, "pushKey = \"secret-key").unwrap();
        let error = Secrets::read(&file).unwrap_err().to_string();
        assert!(error.contains("no TOML") && !error.contains("secret-key"), "{error}");
    }
}
