//! Small files of our own, written whole or not at all.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

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
    // The temporary file is 0600 from its first moment, so that a key is never readable for others.
    let file = tempfile::Builder::new().prefix(".sqlrsync-").tempfile_in(folder);
    let mut file = file.map_err(without_its_path)?;
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
    fn a_file_of_endless_length_is_not_read() {
        assert!(read_small(Path::new("/dev/zero")).is_err());
        assert!(read_small(Path::new("/does/not/exist")).unwrap().is_none());
    }
}
