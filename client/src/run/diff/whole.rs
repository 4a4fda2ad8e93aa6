//! A file that is written whole or not at all.
//!
//! - It is written beside its place, and appears there, or replaces what is there, once all of it is on the disk: what
//!   fails, is stopped or loses power in the middle leaves what was there before.
//! - A symbolic link stays one. What can only be written into (`/dev/stdout`, a pipe) gets all of it at the end, out of a
//!   temporary file without a name.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};
use tokio::task::AbortHandle;

use crate::error::Error;
use crate::files::without_its_path;
use crate::run::Run;

/// What a new file may be, less what the user's umask takes away.
const MODE: u32 = 0o666;

/// How many symbolic links lead to a file, at most: so many does Linux follow.
const LINKS_MAX: usize = 40;

/// A file that is not there yet.
pub struct WholeFile {
    out: BufWriter<File>,
    place: Place,
    /// For people.
    typed: PathBuf,
}

/// Where it goes.
enum Place {
    /// It takes that name.
    Named { temporary: TempPath, target: PathBuf, removed: Removed },
    /// It is copied into what is there.
    Into,
}

/// Removes a file where the process is ended before it can.
struct Removed(AbortHandle);

impl Drop for Removed {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl WholeFile {
    /// Begins one that is to appear at `path`.
    ///
    /// # Errors
    /// Where nothing can be written there.
    pub fn beside(run: &Run, path: &Path) -> Result<WholeFile, Error> {
        let there = match fs::metadata(path) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::file("write", path)(error)),
        };
        let typed = path.to_owned();
        match &there {
            Some(there) if there.is_dir() => Err(Error::usage(
                format!("{} is a folder", sqlrsync_protocol::text::printable(&path.to_string_lossy())),
                "name a file in it",
            )),
            Some(there) if !there.is_file() || is_open_already(path) => {
                let file = tempfile::tempfile_in(run.temp_folder()?).map_err(Error::file("write", path))?;
                Ok(WholeFile { out: BufWriter::new(file), place: Place::Into, typed })
            }
            _ => WholeFile::named(run, typed, there.map(|there| there.permissions())),
        }
    }

    fn named(run: &Run, typed: PathBuf, mode: Option<Permissions>) -> Result<WholeFile, Error> {
        let target = match mode.is_some() {
            true => typed.canonicalize().map_err(Error::file("write", &typed))?,
            false => typed.clone(),
        };
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".sqlrsync-").permissions(Permissions::from_mode(MODE));
        let file = builder.tempfile_in(folder).map_err(without_its_path);
        let (file, temporary) =
            file.map(NamedTempFile::into_parts).map_err(Error::file("write into", folder))?;
        if let Some(mode) = mode {
            file.set_permissions(mode).map_err(Error::file("write", &typed))?;
        }
        let removed = remove_if_hurried(run, &temporary);
        let place = Place::Named { temporary, target, removed };
        Ok(WholeFile { out: BufWriter::new(file), place, typed })
    }

    /// All of it is written: it takes its place.
    ///
    /// # Errors
    /// Where it cannot; nothing is there then that was not before.
    pub fn appear(self) -> Result<(), Error> {
        let WholeFile { out, place, typed } = self;
        let fail = || Error::file("write", &typed);
        let mut file = out.into_inner().map_err(|error| fail()(error.into_error()))?;
        match place {
            Place::Named { temporary, target, removed } => {
                file.sync_all().map_err(fail())?;
                temporary.persist(target).map_err(|error| fail()(error.error))?;
                drop(removed);
            }
            Place::Into => {
                file.rewind().map_err(fail())?;
                let mut into = File::options().append(true).open(&typed).map_err(fail())?;
                io::copy(&mut file, &mut into).map_err(fail())?;
            }
        }
        Ok(())
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Whether a path leads to something that a process has open, as `/dev/stdout` does. That may be a file, yet whoever
/// opened it has it open, and not the name: what took the name's place would not be there for them.
fn is_open_already(path: &Path) -> bool {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        if path.starts_with("/dev") || path.starts_with("/proc") {
            return true;
        }
        let Ok(target) = path.read_link() else { return false };
        path = path.parent().unwrap_or(Path::new("/")).join(target);
    }
    false
}

/// A process that does not stop by itself is ended in the middle, and then nobody else removes its file.
fn remove_if_hurried(run: &Run, temporary: &Path) -> Removed {
    let (cancel, path) = (run.cancel.clone(), temporary.to_owned());
    let task = run.runtime.spawn(async move {
        cancel.hurried().await;
        let _ = fs::remove_file(path);
    });
    Removed(task.abort_handle())
}
