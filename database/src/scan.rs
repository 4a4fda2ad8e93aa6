//! A scan: the page tree of a file as one snapshot has it, in a file of hashes of its own, so that
//! hash rounds are answered after the read transaction is over.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, io_error};
use crate::fingerprint::{Fingerprint, beside};
use crate::image::{Compare, Job, Select, run};
use crate::page_hashes::{Content, PageHashes};
use crate::pages::Pages;
use crate::snapshot::Snapshot;

/// A page tree and the state of the file that it is of.
pub(crate) struct Scanned {
    pub(crate) hashes: PageHashes,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) file: WorkFile,
}

/// Scans the whole snapshot. With a base only groups of pages are hashed, where they are
/// as they were.
pub(crate) fn scan(
    snapshot: &mut Snapshot,
    base: Option<&PageHashes>,
    kept_at: Option<&Path>,
    temp_dir: &Path,
) -> Result<Scanned, Error> {
    let (geometry, fields) = (snapshot.geometry(), snapshot.fields());
    let fingerprint = snapshot.fingerprint().clone();
    tracing::debug!(path = %snapshot.path().display(), pages = geometry.page_count.get(), "scanning");
    let base = base.filter(|base| base.geometry().page_size == geometry.page_size);
    let compare = Compare::Tree(base.map(PageHashes::reader));
    let job = Job { read: Pages::All, compare, select: Select::default(), raw: false };
    let mut outcome = run(snapshot, job, None, temp_dir)?;
    let root = outcome.root.ok_or(Error::Stopped)?;
    let file = WorkFile::create(kept_at, temp_dir)?;
    let mut base = base.map(PageHashes::reader);
    if let Some(base) = &base {
        file.copy_from(&base.file())?;
    }
    let content = Content { geometry, root, fields };
    let hashes =
        PageHashes::write(file.file(), file.path(), base.as_mut(), content, &mut outcome.delta, false)?;
    Ok(Scanned { hashes, fingerprint, file })
}

/// A file of hashes in the making: beside the place where it is to be kept, under one fixed name, so
/// that a killed run leaves one at most; without a name where nothing is kept.
pub(crate) struct WorkFile {
    file: Arc<File>,
    path: PathBuf,
    named: bool,
}

impl WorkFile {
    pub(crate) fn create(kept_at: Option<&Path>, temp_dir: &Path) -> Result<WorkFile, Error> {
        let Some(kept_at) = kept_at else {
            let file =
                tempfile::tempfile_in(temp_dir).map_err(io_error("creating a file for hashes", temp_dir))?;
            return Ok(WorkFile { file: Arc::new(file), path: temp_dir.to_path_buf(), named: false });
        };
        let path = beside(kept_at, ".new");
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&path).map_err(io_error("creating the page hashes", &path))?;
        Ok(WorkFile { file: Arc::new(file), path, named: true })
    }

    pub(crate) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn copy_from(&self, source: &File) -> Result<(), Error> {
        use std::io::Seek;
        let copy = || -> std::io::Result<()> {
            let (mut source, mut target) = (source, &*self.file);
            source.rewind()?;
            std::io::copy(&mut source, &mut target)?;
            Ok(())
        };
        copy().map_err(io_error("copying the page hashes", &self.path))
    }

    /// Puts it, made durable, where it is to be kept.
    pub(crate) fn keep(mut self, kept_at: &Path) -> Result<(), Error> {
        let keep = || self.file.sync_data().and_then(|()| std::fs::rename(&self.path, kept_at));
        keep().map_err(io_error("keeping the page hashes", kept_at))?;
        self.named = false;
        Ok(())
    }
}

impl Drop for WorkFile {
    fn drop(&mut self) {
        if self.named {
            // Nothing is lost with it, and the next run overwrites what stays.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
