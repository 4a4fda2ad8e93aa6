//! The hashes that versions 1 and 2 compare, of every page of a snapshot: 20 bytes a page in a file
//! without a name, so that the read transaction is over when the first of them is sent.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sqlrsync_protocol::page::{Geometry, PageNumber};
use sqlrsync_protocol::sponge::{Hash20, Sponge20, hash20};

use crate::error::{Error, io_error};
use crate::fingerprint::Fingerprint;
use crate::pages::{Chunks, Own, Pages};
use crate::parallel::ordered_steps;
use crate::snapshot::Snapshot;

/// Bytes of pages that are read at once.
const CHUNK_LEN: usize = 256 * 1024;

/// Hashes read back at once.
const READ_AT_ONCE: u32 = 4096;

/// The hashes of all pages, pages as they are in the file.
#[derive(Debug)]
pub(crate) struct LegacyHashes {
    file: File,
    dir: PathBuf,
    geometry: Geometry,
    /// Of the snapshot that was hashed.
    fingerprint: Option<Fingerprint>,
}

impl LegacyHashes {
    /// Hashes every page of a snapshot.
    pub(crate) fn scan(snapshot: &mut Snapshot, temp_dir: &Path) -> Result<LegacyHashes, Error> {
        let geometry = snapshot.geometry();
        let fingerprint = Some(snapshot.fingerprint().clone());
        let file =
            tempfile::tempfile_in(temp_dir).map_err(io_error("creating a file for hashes", temp_dir))?;
        let mut out = BufWriter::new(&file);
        let page_len = geometry.page_size.bytes();
        let chunks = Chunks::new(snapshot, &Pages::All, (CHUNK_LEN / page_len) as u32)?;
        let map = |(own, numbers, data): &mut (Own, Vec<PageNumber>, Vec<u8>), chunk: u64| {
            chunks.read(chunk, own, numbers, data)?;
            Ok(data.chunks_exact(page_len).map(hash20).collect::<Vec<_>>())
        };
        let write = |hashes: Vec<Hash20>| {
            let write = hashes.iter().try_for_each(|hash| out.write_all(&hash.0));
            write.map_err(io_error("keeping hashes", temp_dir))
        };
        ordered_steps(chunks.len(), map, write)?;
        out.flush().map_err(io_error("keeping hashes", temp_dir))?;
        drop(out);
        Ok(LegacyHashes { file, dir: temp_dir.to_path_buf(), geometry, fingerprint })
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Whether that snapshot is, for certain, of what was hashed.
    pub(crate) fn is_of(&self, snapshot: &Snapshot) -> Result<bool, Error> {
        self.fingerprint.as_ref().map_or(Ok(false), |then| snapshot.is_as_of(then))
    }

    /// Whether a database of this fingerprint still is what was hashed.
    pub(crate) fn proves_unchanged(&self, now: &Fingerprint) -> bool {
        self.fingerprint.as_ref().is_some_and(|then| then.proves_unchanged(now))
    }

    /// The hashes from the page at `first` (counted from 0) on, `len` of them or as many as there are.
    pub(crate) fn read(&self, first: u32, len: usize) -> Result<Vec<Hash20>, Error> {
        let there = self.geometry.page_count.get().saturating_sub(first) as usize;
        let mut bytes = vec![0; len.min(there) * Hash20::LEN];
        self.file
            .read_exact_at(&mut bytes, u64::from(first) * Hash20::LEN as u64)
            .map_err(io_error("reading back hashes", &self.dir))?;
        let (hashes, _) = bytes.as_chunks::<{ Hash20::LEN }>();
        Ok(hashes.iter().map(|hash| Hash20(*hash)).collect())
    }

    /// What the conversation asks for: a page's hash, or the hash of a group's hashes.
    pub(crate) fn group_hash(&self, first: PageNumber, count: u32) -> Result<Hash20, Error> {
        let mut at = first.index();
        if count == 1 && self.geometry.page_count.contains(first) {
            return self.read(at, 1)?.first().copied().ok_or(Error::Invalid("no such page"));
        }
        let end = at.saturating_add(count).min(self.geometry.page_count.get());
        let mut sponge = Sponge20::new();
        while at < end {
            let hashes = self.read(at, (end - at).min(READ_AT_ONCE) as usize)?;
            hashes.iter().for_each(|hash| sponge.update(&hash.0));
            at += hashes.len() as u32;
        }
        Ok(sponge.finish())
    }

    /// A second handle of the same hashes.
    pub(crate) fn reader(&self) -> Result<LegacyHashes, Error> {
        let file = self.file.try_clone().map_err(io_error("reading back hashes", &self.dir))?;
        Ok(LegacyHashes {
            file,
            dir: self.dir.clone(),
            geometry: self.geometry,
            fingerprint: self.fingerprint.clone(),
        })
    }
}
