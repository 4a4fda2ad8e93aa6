//! What is on the disk, to compare before and after: "nothing is changed or left behind".

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The files of a folder and what is in them.
pub type Trace = BTreeMap<PathBuf, Vec<u8>>;

/// Every file below `folder`, but those that `skip` names.
pub fn of_folder(folder: &Path, skip: impl Fn(&Path) -> bool + Copy) -> Trace {
    let mut trace = Trace::new();
    collect(folder, skip, &mut trace);
    trace
}

/// What a server keeps of its replicas. Not the staged parts of cut pushes: they stay for a while, for the
/// push to be continued. Not the hashes of older protocols and the maps of pages, which are computed from a
/// version. And not which versions a client was sent: that is noted before a pull has it all, since one that is cut
/// may have arrived all the same.
pub fn of_repository(data: &Path) -> Trace {
    const BESIDE: [&str; 4] = ["staged", "hashes20", "parents", "clients"];
    of_folder(&data.join("repository"), |path| BESIDE.iter().any(|name| path.ends_with(name)))
}

/// The parts of cut pushes that a server keeps.
pub fn staged(data: &Path) -> Trace {
    let mut all = of_folder(&data.join("repository"), |_| false);
    all.retain(|path, _| path.iter().any(|part| part == "staged"));
    all
}

fn collect(folder: &Path, skip: impl Fn(&Path) -> bool + Copy, trace: &mut Trace) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if skip(&path) {
            continue;
        }
        if path.is_dir() {
            collect(&path, skip, trace);
        } else if let Ok(bytes) = std::fs::read(&path) {
            trace.insert(path, bytes);
        }
    }
}
