//! The object store, seen from blocking code: bounded reads, writes that are durable when they
//! return, and the one conditional write (create if absent). All else in this crate goes through here.
//!
//! Calls block on a tokio runtime, so they must not be made from its async threads.

mod upload;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use jiff::Timestamp;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use crate::error::{Damage, Error};

pub(crate) use upload::{Completing, Upload};

/// A handle on the store. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    objects: Arc<dyn ObjectStore>,
    runtime: tokio::runtime::Handle,
    /// Where a local store is, for what its API cannot reach.
    local: Option<PathBuf>,
}

/// What a conditional write found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Create {
    /// The object is ours.
    Created,
    /// One of that name was there before.
    Exists,
}

/// An object in a listing.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) path: Path,
    pub(crate) bytes: u64,
    pub(crate) modified: Timestamp,
}

impl Store {
    pub(crate) fn new(
        objects: Arc<dyn ObjectStore>,
        runtime: tokio::runtime::Handle,
        local: Option<PathBuf>,
    ) -> Self {
        Store { objects, runtime, local }
    }

    /// The folder of a local store.
    pub(crate) fn local(&self) -> Option<&std::path::Path> {
        self.local.as_deref()
    }

    /// The whole object; `None` where there is none. Longer than `bytes_max` is damage.
    pub(crate) fn get(&self, path: &Path, bytes_max: u64) -> Result<Option<Bytes>, Error> {
        self.runtime.block_on(async {
            let found = match self.objects.get(path).await {
                Ok(found) => found,
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(source) => return Err(Error::store(path.as_ref(), source)),
            };
            if found.meta.size > bytes_max {
                return Err(Error::damaged(path.as_ref(), Damage::TooLarge));
            }
            let expected = found.meta.size;
            match found.bytes().await {
                Ok(bytes) if bytes.len() as u64 == expected => Ok(Some(bytes)),
                Ok(_) => Err(Error::damaged(path.as_ref(), Damage::Truncated)),
                Err(source) => Err(Error::store(path.as_ref(), source)),
            }
        })
    }

    /// The last `len` bytes, or all where it has fewer, and its size; `None` where there is none.
    pub(crate) fn get_tail(&self, path: &Path, len: u64) -> Result<Option<(Bytes, u64)>, Error> {
        self.runtime.block_on(async {
            let options = GetOptions::new().with_range(Some(GetRange::Suffix(len)));
            let found = match self.objects.get_opts(path, options).await {
                Ok(found) => found,
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(source) => return self.tail_of_empty(path, source).await,
            };
            let size = found.meta.size;
            let bytes = found.bytes().await.map_err(|source| Error::store(path.as_ref(), source))?;
            if bytes.len() as u64 != len.min(size) {
                return Err(Error::damaged(path.as_ref(), Damage::Truncated));
            }
            Ok(Some((bytes, size)))
        })
    }

    /// A store may call any range of an empty object invalid; then it is cut short, not unreadable.
    async fn tail_of_empty(
        &self,
        path: &Path,
        source: object_store::Error,
    ) -> Result<Option<(Bytes, u64)>, Error> {
        match self.objects.head(path).await {
            Ok(meta) if meta.size == 0 => Ok(Some((Bytes::new(), 0))),
            _ => Err(Error::store(path.as_ref(), source)),
        }
    }

    /// Exactly this range. The caller knows that the object is that long; if it is not, or is not
    /// there, it is damaged.
    pub(crate) fn get_range(&self, path: &Path, range: Range<u64>) -> Result<Bytes, Error> {
        let len = range.end - range.start;
        if let Some(folder) = &self.local {
            return read_local(&folder.join(path.as_ref()), range).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Error::damaged(path.as_ref(), Damage::Missing),
                io::ErrorKind::UnexpectedEof => Error::damaged(path.as_ref(), Damage::Truncated),
                _ => Error::store(path.as_ref(), generic(error)),
            });
        }
        match self.runtime.block_on(self.objects.get_range(path, range)) {
            Ok(bytes) if bytes.len() as u64 == len => Ok(bytes),
            Ok(_) => Err(Error::damaged(path.as_ref(), Damage::Truncated)),
            Err(object_store::Error::NotFound { .. }) => Err(Error::damaged(path.as_ref(), Damage::Missing)),
            Err(source) => Err(Error::store(path.as_ref(), source)),
        }
    }

    /// Whether there is such an object.
    pub(crate) fn exists(&self, path: &Path) -> Result<bool, Error> {
        match self.runtime.block_on(self.objects.head(path)) {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(Error::store(path.as_ref(), source)),
        }
    }

    /// Writes a small object, replacing one that is there.
    pub(crate) fn put(&self, path: &Path, bytes: Bytes) -> Result<(), Error> {
        self.runtime
            .block_on(self.objects.put(path, bytes.into()))
            .map(drop)
            .map_err(|source| Error::store(path.as_ref(), source))
    }

    /// Writes a small object if none of that name is there. An error may come after the write
    /// happened: who calls reads back.
    pub(crate) fn create(&self, path: &Path, bytes: Bytes) -> Result<Create, Error> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.runtime.block_on(self.objects.put_opts(path, bytes.into(), options)) {
            Ok(_) => Ok(Create::Created),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(Create::Exists)
            }
            Err(source) => Err(Error::store(path.as_ref(), source)),
        }
    }

    /// Removes an object, if it is there.
    pub(crate) fn delete(&self, path: &Path) -> Result<(), Error> {
        match self.runtime.block_on(self.objects.delete(path)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(Error::store(path.as_ref(), source)),
        }
    }

    /// All objects under `prefix`, in no particular order.
    pub(crate) fn list(&self, prefix: &Path) -> Result<Vec<Listed>, Error> {
        self.runtime.block_on(async {
            let mut found = Vec::new();
            let mut listing = self.objects.list(Some(prefix));
            loop {
                match listing.try_next().await {
                    Ok(None) => return Ok(found),
                    Ok(Some(meta)) => found.push(Listed {
                        bytes: meta.size,
                        modified: modified(&meta),
                        path: meta.location,
                    }),
                    // An object or a folder may go while the listing runs.
                    Err(object_store::Error::NotFound { .. }) => {}
                    Err(source) => return Err(Error::store(prefix.as_ref(), source)),
                }
            }
        })
    }

    /// The names of the folders in `prefix`.
    pub(crate) fn folders(&self, prefix: &Path) -> Result<Vec<String>, Error> {
        let listing = match self.runtime.block_on(self.objects.list_with_delimiter(Some(prefix))) {
            Ok(listing) => listing,
            Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
            Err(source) => return Err(Error::store(prefix.as_ref(), source)),
        };
        let name = |path: &Path| path.filename().map(str::to_owned);
        Ok(listing.common_prefixes.iter().filter_map(name).collect())
    }
}

/// A range of a file, without the hop to another thread and the zeros that an async read begins with: small
/// reads, and many, are what a repository in a folder is used for.
fn read_local(path: &std::path::Path, range: Range<u64>) -> io::Result<Bytes> {
    let len = range.end - range.start;
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(range.start))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?)?;
    file.take(len).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == len { Ok(bytes.into()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn generic(source: io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "folder", source: source.into() }
}

/// A time that cannot be told counts as now: what is new is left alone.
fn modified(meta: &object_store::ObjectMeta) -> Timestamp {
    Timestamp::from_millisecond(meta.last_modified.timestamp_millis()).unwrap_or_else(|_| Timestamp::now())
}
