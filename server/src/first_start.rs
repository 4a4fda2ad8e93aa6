//! The first start of a data folder: a namespace and its admin key.

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
