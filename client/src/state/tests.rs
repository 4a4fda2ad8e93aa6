//! What is remembered of a file between runs, and that damage to it costs a scan and nothing else.

use super::*;

/// A folder with a real database in it, old enough that its fingerprint proves something.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        fs::write(place.file(), b"what it holds does not matter here").unwrap();
        std::thread::sleep(Duration::from_millis(30));
        place
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("app.db")
    }

    /// Puts another file in its place.
    fn replace(&self, with: &str) {
        // Both exist at once, so the new one cannot get the old one's inode.
        let other = self.folder.path().join("other");
        fs::write(&other, with).unwrap();
        fs::rename(&other, self.file()).unwrap();
    }

    fn state_folder(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn open(&self, remote: &str) -> State {
        State::open(&self.state_folder(), &self.file(), remote)
    }

    fn agreed(&self) -> Agreed {
        Agreed {
            root: sqlrsync_protocol::hash::Root([7; 32]),
            geometry: sqlrsync_protocol::page::Geometry {
                page_size: sqlrsync_protocol::page::PageSize::from_bytes(4096).unwrap(),
                page_count: sqlrsync_protocol::page::PageCount(3),
            },
            fingerprint: Fingerprint::of(&self.file()).unwrap(),
            last_scan_ns: None,
        }
    }
}

#[test]
fn what_was_agreed_on_is_known_the_next_time_and_for_that_remote_only() {
    let place = Place::new();
    let agreed = place.agreed();
    place.open("one").agree(&agreed, VersionNumber::new(5)).unwrap();
    let state = place.open("one");
    assert_eq!(state.known(), Some(agreed));
    assert_eq!(state.base().unwrap().version, VersionNumber::new(5));
    assert!(place.open("two").known().is_none());
}

#[test]
fn what_was_merged_or_waits_in_a_conflict_is_a_base_without_a_version() {
    let place = Place::new();
    let agreed = place.agreed();
    let mut state = place.open("one");
    state.agree(&agreed, VersionNumber::new(5)).unwrap();
    state.agree_as_sent(&agreed, None).unwrap();
    let merged = place.open("one");
    assert_eq!(merged.base(), Some(Base { version: None, root: agreed.root }));
    assert_eq!((merged.known(), merged.conflict()), (Some(agreed.clone()), None));

    state.agree_as_sent(&agreed, ConflictNumber::new(3)).unwrap();
    assert_eq!(place.open("one").conflict(), ConflictNumber::new(3));
    assert_eq!(place.open("one").base().unwrap().version, None);
    state.agree(&agreed, VersionNumber::new(9)).unwrap();
    assert_eq!(place.open("one").conflict(), None, "a pull takes the file out of it");
}

#[test]
fn another_file_of_the_same_name_has_no_state() {
    let place = Place::new();
    place.open("one").agree(&place.agreed(), None).unwrap();
    place.replace("another");
    assert!(place.open("one").known().is_none());
}

#[test]
fn what_was_known_of_the_file_before_is_possible_until_something_new_is_agreed_on() {
    let place = Place::new();
    let agreed = place.agreed();
    let base = Base { version: VersionNumber::new(5), root: agreed.root };
    place.open("one").agree(&agreed, base.version).unwrap();
    let first = place.open("one").push_id().unwrap();
    let possible = |pushes: &[PushId]| PossibleBase { pushes: pushes.to_vec(), agreed: Some(base) };

    place.replace("another");
    let second = place.open("one").push_id().unwrap();
    let made_from = place.open("one").made_from(false);
    assert_eq!((&made_from.unanswered[..], made_from.possible), (&[][..], possible(&[first])));

    // One more file, and what is known of the one before the last is not forgotten.
    place.replace("another, and longer");
    let mut state = place.open("one");
    assert_eq!(state.made_from(false).possible, possible(&[second, first]));
    let third = state.push_id().unwrap();
    fs::write(place.file(), "the same file, written to, and longer still").unwrap();
    state.push_id().unwrap();
    let made_from = place.open("one").made_from(false);
    assert_eq!(made_from, MadeFrom { unanswered: vec![third], possible: possible(&[second, first]) });

    // Versions 1 and 2 agree on nothing that could be kept, and the push went through.
    place.open("one").end_push().unwrap();
    assert_eq!(place.open("one").made_from(false), MadeFrom::default());
    place.open("one").agree(&agreed, None).unwrap();
    place.replace("the last one");
    place.open("one").agree(&place.agreed(), None).unwrap();
    assert_eq!(place.open("one").made_from(true), MadeFrom::default());
}

#[test]
fn a_file_put_in_the_place_of_another_in_the_middle_of_a_run_does_not_pass_for_it() {
    let place = Place::new();
    let (agreed, version) = (place.agreed(), VersionNumber::new(5));
    let base = Base { version, root: agreed.root };
    let possible = PossibleBase { pushes: Vec::new(), agreed: Some(base) };
    let mut state = place.open("one");
    place.replace("another, after the state was opened");
    state.agree(&agreed, version).unwrap();
    let other = place.open("one");
    assert_eq!((other.known(), other.base()), (None, None));
    assert_eq!(other.made_from(false).possible, possible);

    let place = Place::new();
    place.open("one").agree(&place.agreed(), version).unwrap();
    let mut state = place.open("one");
    assert_eq!(state.base(), Some(base));
    place.replace("another, before the id of the push is made");
    state.push_id().unwrap();
    for state in [state, place.open("one")] {
        assert_eq!((state.known(), state.base()), (None, None));
        assert_eq!(state.made_from(false).possible, possible);
    }
}

#[test]
fn what_is_known_of_a_file_that_was_put_back_is_possible_and_no_more() {
    let place = Place::new();
    let agreed = place.agreed();
    place.open("one").agree(&agreed, None).unwrap();
    let unanswered = place.open("one").push_id().unwrap();
    fs::write(place.file(), "something that was there before").unwrap();
    place.open("one").push_id().unwrap();
    let possible =
        PossibleBase { pushes: vec![unanswered], agreed: Some(Base { version: None, root: agreed.root }) };
    let state = place.open("one");
    assert_eq!(state.made_from(false), MadeFrom { unanswered: Vec::new(), possible });
    let known = MadeFrom { unanswered: vec![unanswered], ..MadeFrom::default() };
    assert_eq!(state.made_from(true), known);
}

#[test]
fn a_damaged_state_counts_as_none() {
    let place = Place::new();
    let mut state = place.open("one");
    state.agree(&place.agreed(), None).unwrap();
    let file = state.folder.join("state.json");
    let good = fs::read(&file).unwrap();
    for bad in [&b""[..], b"{", b"\xff\xfe", b"{\"format\":99}", &good[..good.len() / 2]] {
        fs::write(&file, bad).unwrap();
        assert!(place.open("one").known().is_none());
    }
}

#[test]
fn a_push_that_is_repeated_unchanged_has_the_same_id() {
    let place = Place::new();
    let first = place.open("one").push_id().unwrap();
    assert_eq!(place.open("one").push_id().unwrap(), first);
}

#[test]
fn a_push_of_other_content_or_after_success_has_a_new_id() {
    let place = Place::new();
    let first = place.open("one").push_id().unwrap();
    fs::write(place.file(), b"more than there was before, and so another size").unwrap();
    std::thread::sleep(Duration::from_millis(30));
    let second = place.open("one").push_id().unwrap();
    assert_ne!(second, first);
    let unanswered = MadeFrom { unanswered: vec![first], ..MadeFrom::default() };
    assert_eq!(place.open("one").made_from(false), unanswered, "what became of it is not known");
    place.open("one").agree(&place.agreed(), None).unwrap();
    assert_eq!(place.open("one").made_from(true), MadeFrom::default());
    assert_ne!(place.open("one").push_id().unwrap(), second);
}

#[test]
fn one_run_at_a_time_works_on_a_file() {
    let place = Place::new();
    let (folder, file) = (place.state_folder(), place.file());
    let first = FileLock::take(&folder, &file).unwrap();
    let name = name_of(&[&file.to_string_lossy()]);
    let second = FileLock::take_within(&folder, &name, Duration::from_millis(60));
    assert!(second.unwrap().is_none());
    drop(first);
    assert!(FileLock::take_within(&folder, &name, Duration::ZERO).unwrap().is_some());
}

#[test]
fn a_file_is_published_once_and_pushed_meanwhile() {
    let place = Place::new();
    let (folder, file) = (place.state_folder(), place.file());
    let _first = FileLock::take_to_publish(&folder, &file).unwrap();
    assert_eq!(FileLock::take_to_publish(&folder, &file).unwrap_err().exit_code(), 1);
    FileLock::take(&folder, &file).unwrap();
}

#[test]
fn names_of_folders_do_not_collide() {
    assert_ne!(name_of(&["ab", "c"]), name_of(&["a", "bc"]));
}
