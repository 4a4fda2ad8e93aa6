//! What two sides agreed on, and keeping the page hashes of it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sqlrsync_protocol::hash::Root;
use sqlrsync_protocol::page::{Geometry, PageCount, PageSize};

use crate::delta::Delta;
use crate::error::Error;
use crate::fingerprint::Fingerprint;
use crate::page_hashes::{Content, PageHashes};
use crate::scan::{Scanned, WorkFile};

/// What to remember of a file after a successful exchange: with the page hashes, and as long as the
/// fingerprint proves that nothing changed, it stands for the content.
#[derive(Serialize, Deserialize, PartialEq, Eq, Clone, Debug)]
pub struct Agreed {
    /// What the content hashes to.
    #[serde(with = "root_text")]
    pub root: Root,
    /// Its page size and count.
    #[serde(with = "geometry_numbers")]
    pub geometry: Geometry,
    /// The state of the file that has it.
    pub fingerprint: Fingerprint,
    /// When every page of it was last read, in nanoseconds since 1970. `None` where that is not known: then
    /// the next look reads them all.
    #[serde(default)]
    pub last_scan_ns: Option<i64>,
}

/// What new hashes are made from.
pub(crate) enum Kept {
    /// From nothing: the changes are all there is.
    Nothing,
    /// From those that are kept, which change in place.
    InPlace(PageHashes),
    /// From those of a scan.
    Scanned(Scanned),
}

/// Keeps the hashes of `content`, which is `kept` with `delta` applied, at `path`.
pub(crate) fn keep(
    path: &Path,
    kept: Kept,
    content: Content,
    delta: &mut Delta,
    temp_dir: &Path,
) -> Result<(), Error> {
    let same = |hashes: &PageHashes| {
        let had = Content { geometry: hashes.geometry(), root: hashes.root(), fields: hashes.fields() };
        had == content && delta.is_empty()
    };
    match kept {
        Kept::InPlace(hashes) if same(&hashes) => Ok(()),
        Kept::InPlace(mut hashes) => {
            let (file, path) = (hashes.file(), hashes.path().to_path_buf());
            PageHashes::write(file, &path, Some(&mut hashes), content, delta, true).map(drop)
        }
        Kept::Scanned(Scanned { hashes, file, .. }) if same(&hashes) => file.keep(path),
        Kept::Scanned(Scanned { mut hashes, file, .. }) => {
            PageHashes::write(file.file(), file.path(), Some(&mut hashes), content, delta, false)?;
            file.keep(path)
        }
        Kept::Nothing => {
            let file = WorkFile::create(Some(path), temp_dir)?;
            PageHashes::write(file.file(), file.path(), None, content, delta, false)?;
            file.keep(path)
        }
    }
}

/// A root as hexadecimal digits.
mod root_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use super::Root;

    pub(super) fn serialize<S: Serializer>(root: &Root, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(root)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Root, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A geometry as its two numbers.
mod geometry_numbers {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    use super::{Geometry, PageCount, PageSize};

    #[derive(Serialize, Deserialize)]
    struct Numbers {
        page_size: u32,
        page_count: u32,
    }

    pub(super) fn serialize<S: Serializer>(geometry: &Geometry, serializer: S) -> Result<S::Ok, S::Error> {
        let (page_size, page_count) = (geometry.page_size.bytes() as u32, geometry.page_count.get());
        Numbers { page_size, page_count }.serialize(serializer)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Geometry, D::Error> {
        let Numbers { page_size, page_count } = Numbers::deserialize(deserializer)?;
        let page_size = PageSize::from_bytes(page_size).ok_or_else(|| D::Error::custom("no page size"))?;
        Ok(Geometry { page_size, page_count: PageCount(page_count) })
    }
}
