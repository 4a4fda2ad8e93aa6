//! What a person was shown of a conflict: the version that its rows were compared with. A settlement says it
//! to the server, which settles nothing that nobody has seen.
//!
//! It is kept by server, replica and number. Where it is missing or damaged nothing is said, and the server
//! takes the version that the conflict was opened against.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sqlrsync_protocol::page::{ConflictNumber, VersionNumber};

use super::name_of;
use crate::error::Error;
use crate::files;

/// How long it is kept.
const AGE_MAX: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Which conflict.
#[derive(Debug)]
pub struct Seen {
    file: PathBuf,
}

impl Seen {
    /// Of that conflict of `remote` (any text that names server and replica).
    pub fn of(state_folder: &Path, remote: &str, number: ConflictNumber) -> Seen {
        Seen { file: state_folder.join("conflicts").join(name_of(&[remote, &number.to_string()])) }
    }

    /// The version that its rows were last shown against.
    pub fn version(&self) -> Option<VersionNumber> {
        let text = files::read_small(&self.file).ok().flatten()?;
        VersionNumber::new(text.trim().parse().ok()?)
    }

    /// Keeps it, and forgets what is old.
    ///
    /// # Errors
    /// Where the state folder cannot be written.
    pub fn note(&self, version: VersionNumber) -> Result<(), Error> {
        files::replace(&self.file, format!("{version}\n").as_bytes(), 0o600)
            .map_err(Error::file("write", &self.file))?;
        if let Some(folder) = self.file.parent() {
            forget_old(folder, SystemTime::now());
        }
        Ok(())
    }

    /// Forgets it: it is settled.
    pub fn forget(&self) {
        let _ = fs::remove_file(&self.file);
    }
}

fn forget_old(folder: &Path, now: SystemTime) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let modified = entry.metadata().and_then(|data| data.modified()).ok();
        let age = modified.and_then(|modified| now.duration_since(modified).ok());
        if age.is_some_and(|age| age > AGE_MAX) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_known_of_that_conflict_until_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let seen = |number| Seen::of(folder.path(), "ws://h team/a.db", ConflictNumber::new(number).unwrap());
        assert_eq!(seen(3).version(), None);
        seen(3).note(VersionNumber::new(9).unwrap()).unwrap();
        assert_eq!((seen(3).version(), seen(4).version()), (VersionNumber::new(9), None));
        fs::write(&seen(3).file, "nonsense").unwrap();
        assert_eq!(seen(3).version(), None);
        forget_old(&folder.path().join("conflicts"), SystemTime::now() + 2 * AGE_MAX);
        assert!(!seen(3).file.exists());
    }
}
