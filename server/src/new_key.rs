//! Makes keys: random ones, of which the catalog gets the hash.

use sqlrsync_protocol::key::{Key, Kind, SECRET_LEN};

use crate::catalog::{self, Catalog, KeyId, NewKey};

/// Why no key was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system has no random bytes to give.
    #[error("the system gave no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    /// The catalog did not take it.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
}

/// What a new key is to be.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// What it allows.
    pub kind: Kind,
    /// Its namespace, which exists.
    pub namespace: &'a str,
    /// Id of its replica, for the two kinds that are for one.
    pub replica: Option<&'a str>,
    /// A word for the listing.
    pub label: &'a str,
    /// The key that asked for it over the wire.
    pub parent: Option<KeyId>,
}

/// Makes a key. It exists nowhere but in what this returns.
///
/// # Errors
/// See [`Error`].
pub fn create(catalog: &Catalog, wish: &Wish<'_>) -> Result<(KeyId, Key), Error> {
    let mut random = [0; SECRET_LEN];
    getrandom::fill(&mut random)?;
    let key = Key::new(wish.kind, random);
    let Wish { kind, namespace, replica, label, parent } = *wish;
    let id = catalog.add_key(&NewKey { kind, namespace, replica, hash: &key.hash(), label, parent })?;
    Ok((id, key))
}
