//! Removing the state of files that are gone, so that the folder does not grow for ever.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Kept;
use crate::files;

/// How often it is looked for.
const EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the state of a file that is gone is kept: it may be on a disk that is not mounted.
const KEPT_FOR: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// The file whose age says when it was last looked for.
const MARK: &str = ".pruned";

/// Removes what is old and of no file any more; at most once a day. That it fails is no matter.
pub(super) fn prune(folder: &Path, now: SystemTime) {
    if age(&folder.join(MARK), now).is_some_and(|age| age < EVERY) {
        return;
    }
    if fs::write(folder.join(MARK), b"").is_err() {
        return;
    }
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if is_dead(&entry.path(), now).unwrap_or(false) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether the folder is a state that nothing has used for long and whose file is gone.
fn is_dead(folder: &Path, now: SystemTime) -> io::Result<bool> {
    if !fs::symlink_metadata(folder)?.is_dir() {
        return Ok(false);
    }
    let state = folder.join("state.json");
    let Some(text) = files::read_small(&state)? else {
        return Ok(age(folder, now).is_some_and(|age| age > KEPT_FOR));
    };
    let gone = serde_json::from_str::<Kept>(&text).is_ok_and(|kept| !Path::new(&kept.path).exists());
    Ok(gone && age(&state, now).is_some_and(|age| age > KEPT_FOR))
}

fn age(path: &Path, now: SystemTime) -> Option<Duration> {
    now.duration_since(fs::metadata(path).ok()?.modified().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_file_that_is_long_gone_is_removed_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there.db");
        fs::write(&there, b"").unwrap();
        for (name, path) in [("gone", Path::new("/does/not/exist")), ("there", &there)] {
            let state = folder.path().join("files").join(name);
            fs::create_dir_all(&state).unwrap();
            let kept = Kept { path: path.to_str().unwrap().to_owned(), ..Kept::default() };
            fs::write(state.join("state.json"), serde_json::to_vec(&kept).unwrap()).unwrap();
        }
        let files = folder.path().join("files");
        let names = || {
            let mut names: Vec<_> = fs::read_dir(&files)
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.retain(|name| !name.starts_with('.'));
            names.sort();
            names
        };
        prune(&files, SystemTime::now());
        assert_eq!(names(), ["gone", "there"], "it may come back");
        prune(&files, SystemTime::now() + KEPT_FOR + EVERY);
        assert_eq!(names(), ["there"]);
    }
}
