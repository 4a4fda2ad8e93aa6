//! The first start of a data folder: a namespace and its admin key.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sqlrsync_protocol::key::{Key, Kind};
use sqlrsync_protocol::remote::Namespace;

use crate::catalog::Catalog;
use crate::new_key::{self, Wish};
use crate::server::Error;

/// What the first start made.
#[derive(Debug)]
pub struct FirstKey {
    /// The namespace.
    pub namespace: String,
    /// Its admin key, which is nowhere else.
    pub key: Key,
}

/// The name of the file in the data folder that the key is left in, where there is nobody to show it to.
const KEY_FILE: &str = "first-admin-key";

impl FirstKey {
    /// Leaves the key in a file of the data folder, for its owner only. Returns where.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn keep(&self, data: &Path) -> io::Result<PathBuf> {
        let path = data.join(KEY_FILE);
        // One of before opens nothing: there was no namespace.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        writeln!(file, "{}", self.key.secret())?;
        file.sync_all()?;
        Ok(path)
    }
}

/// Makes the namespace and the key where the catalog has no namespace yet.
///
/// # Errors
/// [`Error::Namespace`], [`Error::Catalog`], [`Error::Key`].
pub fn prepare(catalog: &Catalog, namespace: &str) -> Result<Option<FirstKey>, Error> {
    if !catalog.namespaces()?.is_empty() {
        return Ok(None);
    }
    let name: Namespace =
        namespace.parse().map_err(|error| Error::Namespace { name: namespace.to_owned(), error })?;
    catalog.create_namespace(name.as_str())?;
    let wish = Wish {
        kind: Kind::AccountAdmin,
        namespace: name.as_str(),
        replica: None,
        label: "admin",
        parent: None,
    };
    let (_, key) = new_key::create(catalog, &wish)?;
    Ok(Some(FirstKey { namespace: name.as_str().to_owned(), key }))
}
