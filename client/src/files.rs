//! Small files of our own, written whole or not at all.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{Access, FlockOperation, access, flock};

/// How the name of a file begins that is to take another's place, and how many letters and digits follow.
const PREFIX: &str = ".sqlrsync-";
const RANDOM_LEN: usize = 6;

/// Such files younger than this may be about to be locked by who just created them.
const LEFTOVER_AGE_MIN: Duration = Duration::from_secs(10);

/// The most that is read of a small file, in bytes: they are written by hand or by us.
pub const SMALL_FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads a small text file; `None` where it does not exist.
///
/// # Errors
/// What the system says, or that the file is too large or no UTF-8.
pub fn read_small(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(SMALL_FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SMALL_FILE_BYTES_MAX {
        return Err(io::Error::other("the file is larger than any that sqlrsync writes"));
    }
    Ok(Some(text))
}

/// Makes a folder that is the user's own, and those above it.
///
/// # Errors
/// What the system says.
pub fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Whether [`replace`] would be let into the folder of the file, or into the nearest one above it that exists.
pub fn can_be_replaced(path: &Path) -> bool {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.ancestors().skip(1).find(|folder| folder.as_os_str().is_empty() || folder.exists());
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    folder.is_dir() && access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// Replaces the file's content durably: a reader, also one after a crash, finds the old or the new.
/// A symbolic link stays one. The folder is made where it is missing.
///
/// # Errors
/// What the system says; the old content then stands.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    make_folder(folder)?;
    remove_leftovers(folder);
    // The temporary file is 0600 from its first moment, so that a key is never readable for others.
    let file = tempfile::Builder::new().prefix(PREFIX).rand_bytes(RANDOM_LEN).tempfile_in(folder);
    let mut file = file.map_err(without_its_path)?;
    // Whoever finds it locked leaves it alone. Where files cannot be locked, its age alone tells.
    let _ = flock(file.as_file(), FlockOperation::NonBlockingLockExclusive);
    file.write_all(content)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(&target).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

/// An error of a temporary file without the name that this was to have: nobody has seen it, and it is gone.
pub fn without_its_path(error: io::Error) -> io::Error {
    let text = error.to_string();
    let said = text.rsplit_once(" at path ").map_or(text.as_str(), |(said, _)| said);
    io::Error::new(error.kind(), said)
}

/// Removes what runs that were killed in [`replace`] left in a folder: there may be keys in it. It is no error where
/// that fails.
pub fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if is_leftover(&entry.file_name(), &entry.path()).unwrap_or(false) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn is_leftover(name: &OsStr, path: &Path) -> io::Result<bool> {
    let random = name.as_encoded_bytes().strip_prefix(PREFIX.as_bytes());
    if random.is_none_or(|rest| rest.len() != RANDOM_LEN || !rest.iter().all(u8::is_ascii_alphanumeric)) {
        return Ok(false);
    }
    let found = path.symlink_metadata()?;
    let age = SystemTime::now().duration_since(found.modified()?).unwrap_or_default();
    if !found.is_file() || age < LEFTOVER_AGE_MIN {
        return Ok(false);
    }
    Ok(flock(File::open(path)?, FlockOperation::NonBlockingLockExclusive).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let missing =
            tempfile::tempfile_in(folder.path().join("none")).map_err(without_its_path).unwrap_err();
        let named = tempfile::Builder::new().tempfile_in(folder.path().join("none"));
        let named = named.map_err(without_its_path).unwrap_err();
        for error in [missing, named] {
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            let text = error.to_string();
            assert!(text.contains("No such file") && !text.contains("none"), "{text}");
        }
    }

    #[test]
    fn replacing_sets_the_mode_keeps_a_link_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("deep/real"), folder.path().join("link"));
        replace(&real, b"one", 0o600).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        replace(&link, b"two", 0o700).unwrap();
        assert_eq!(read_small(&real).unwrap().as_deref(), Some("two"));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(real.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_run_left_goes_with_the_next_file_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let names = [".sqlrsync-abc123", ".sqlrsync-new-abcdef", ".sqlrsync-mine", "b", ".sqlrsync-young1"];
        for name in names {
            let file = File::create(path(name)).unwrap();
            let age = if name.ends_with("young1") { Duration::ZERO } else { 2 * LEFTOVER_AGE_MIN };
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        let locked = File::create(path(".sqlrsync-locked")).unwrap();
        locked.set_modified(SystemTime::now() - 2 * LEFTOVER_AGE_MIN).unwrap();
        flock(&locked, FlockOperation::NonBlockingLockExclusive).unwrap();
        replace(&path("a"), b"one", 0o600).unwrap();
        assert!(!path(".sqlrsync-abc123").exists());
        for name in names[1..].iter().chain(&["a", ".sqlrsync-locked"]) {
            assert!(path(name).exists(), "{name}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_is_known_before() {
        let folder = tempfile::tempdir().unwrap();
        assert!(can_be_replaced(&folder.path().join("a")));
        assert!(can_be_replaced(&folder.path().join("not/yet/there")));
        // Nobody makes a file in a file.
        File::create(folder.path().join("file")).unwrap();
        assert!(!can_be_replaced(&folder.path().join("file/a")));
    }

    #[test]
    fn a_file_of_endless_length_is_not_read() {
        assert!(read_small(Path::new("/dev/zero")).is_err());
        assert!(read_small(Path::new("/does/not/exist")).unwrap().is_none());
    }
}
