//! What a push was made from.
//!
//! Our own client says it. A peer that says nothing has possible bases: what was last pushed from the same file
//! of the same client, and the versions that this client has pulled since, as a pull names no file. Our own client,
//! where it does not dare to say the base, says what it last agreed on for that path, which is one more: a clone
//! of the machine has its own, and what the other of the two pushed is not taken for its base. One that
//! fits is it. Several that come to the same are as good as one. Anything else stays unknown, and a merge is
//! not done by guess:
//!
//! - several that come to different results (an old version was pulled into another file);
//! - one, but the push takes back what others did before it (a restored backup, a clone), or does again what was
//!   undone after it (a copy of a file that was pushed since): see [`undone`].

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use sqlrsync_protocol::exchange::PushId;
use sqlrsync_protocol::hash::Root;
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_repository::{ClientKey, ClientRecord, KeepOptions, Manifest, MergeBase, PULLED_MAX, Replica};

use super::push::Push;
use super::{Error, agree, undone};
use crate::backend::ClientSays;

/// The most possible bases that are looked into.
const POSSIBLE_MAX: usize = 8;

/// How many versions back a content is looked for that was pushed again.
const SEARCHED_MAX: usize = 256;

/// How many locks the notes of all clients share.
const NOTE_LOCKS: usize = 64;

/// A note is read, added to and written: one at a time for a client, or of two pulls only one would be noted,
/// and a base that is not noted is one that a push is not suspected of. Two clients that share a lock wait for
/// each other, and no more. (Two servers over one store do not wait for each other: docs/server.md.)
/// What is guarded is how many notes were changed.
static NOTES: [Mutex<u64>; NOTE_LOCKS] = [const { Mutex::new(0) }; NOTE_LOCKS];

/// What a push was made from.
pub(super) enum Ground {
    /// The latest version.
    Latest,
    /// From this content.
    Older(KeepOptions),
    /// It is what it was made from: nothing was changed.
    Unchanged,
    /// Nobody knows.
    Unknown,
}

/// What a push was made from.
pub(super) fn ground(push: &Push<'_>, latest: &Manifest) -> Result<Ground, Error> {
    // Later than what the file and the replica last agreed on, and the file has gone on from it. Its own changes
    // are not in conflict with it.
    if let Some(before) = arrived(push.received.replica(), &push.says.unanswered)? {
        return known(push, &before, latest);
    }
    match push.received.agreed() {
        Some(agreed) => known(push, agreed, latest),
        None => guessed(push, latest),
    }
}

/// What the first of these pushes sent that arrived. Their answers were lost.
fn arrived(replica: &Replica, pushes: &[PushId]) -> Result<Option<Manifest>, Error> {
    if pushes.is_empty() {
        return Ok(None);
    }
    let versions = replica.history(None, SEARCHED_MAX)?;
    for id in pushes {
        if let Some(candidate) = replica.candidate(*id)? {
            return Ok(Some(candidate.content));
        }
        if let Some(version) = versions.iter().find(|version| version.push_id == Some(*id)) {
            return Ok(Some(version.clone()));
        }
    }
    Ok(None)
}

/// It is known.
fn known(push: &Push<'_>, agreed: &Manifest, latest: &Manifest) -> Result<Ground, Error> {
    if agreed.root == latest.root {
        return Ok(Ground::Latest);
    }
    let replica = push.received.replica();
    // What waits in a conflict, or was never merged, is looked at again.
    if agreed.root == push.received.root() && !undone::waits(replica, agreed)? {
        return Ok(Ground::Unchanged);
    }
    Ok(Ground::Older(replica.keep_options(Some(agreed))?))
}

/// It was not said.
fn guessed(push: &Push<'_>, latest: &Manifest) -> Result<Ground, Error> {
    let replica = push.received.replica();
    let root = push.received.root();
    let Possible { bases, own, complete } = possible(push, replica)?;
    if let Some(same) = bases.iter().find(|base| base.root == root) {
        return known(push, same, latest);
    }
    let first = match bases.first() {
        Some(first) if complete => first,
        // Nobody knows what the file had. An old version, as it is, has nothing new to publish.
        _ => return Ok(if was_a_version(replica, root)? { Ground::Unchanged } else { Ground::Unknown }),
    };
    // What becomes again what a version was is a change like any other: who sets a value and sets it back
    // means it.
    if bases.len() > 1 && !agree::come_to_the_same(push, &bases, latest)? {
        return Ok(Ground::Unknown);
    }
    // Of several that come to the same it is the latest, where that is among them.
    let base = bases.iter().find(|base| base.root == latest.root).unwrap_or(first);
    let own = own == Some(base.root);
    if undone::takes_back(push, base, latest, own)? { Ok(Ground::Unknown) } else { known(push, base, latest) }
}

/// Contents that a push may have been made from.
struct Possible {
    bases: Vec<Manifest>,
    /// Which of them was pushed from the same file.
    own: Option<Root>,
    /// There are no others.
    complete: bool,
}

impl Possible {
    /// One more; `None` where it is not there (any more).
    fn add(&mut self, found: Option<Manifest>) {
        match found {
            Some(found) if self.bases.iter().any(|base| base.root == found.root) => {}
            Some(found) => self.bases.push(found),
            None => self.complete = false,
        }
    }
}

/// What our own client last knew the file, or the one that was there before, to be, where it says so: a content of
/// this replica, or `Some(None)` for one that it does not have. That counts as one that is not there any more.
fn said(says: &ClientSays, replica: &Replica) -> Result<Option<Option<Manifest>>, Error> {
    if let Some(later) = arrived(replica, &says.possible_base.pushes)? {
        return Ok(Some(Some(later)));
    }
    Ok(says.possible_base.agreed.map(|agreed| replica.find_base(&agreed)).transpose()?)
}

fn possible(push: &Push<'_>, replica: &Replica) -> Result<Possible, Error> {
    let mut possible = Possible { bases: Vec::new(), own: None, complete: true };
    let Some((file, client)) = keys(push.says) else { return Ok(possible) };
    let pulled = replica.client_record(&client)?.map(|record| record.pulled).unwrap_or_default();
    let record = replica.client_record(&file)?;
    let (pushed, mut seen) = record.map(|record| (record.pushed, record.pulled)).unwrap_or_default();
    if file == client {
        // Emptied by each push: all of it came since.
        seen.clear();
    }
    if let Some(pushed) = pushed {
        let found = replica.merge_base(&pushed)?;
        possible.own = found.as_ref().map(|found| found.root);
        possible.add(found);
    }
    if let Some(said) = said(push.says, replica)? {
        possible.add(said);
    }
    for number in since(&seen, &pulled) {
        possible.add(replica.manifest(*number)?);
    }
    if possible.bases.len() > POSSIBLE_MAX {
        possible.complete = false;
        possible.bases.truncate(POSSIBLE_MAX);
    }
    Ok(possible)
}

/// The pulls in `now` that are not in `then`, which was the same list earlier. Only its last entries are kept.
fn since<'a>(then: &[VersionNumber], now: &'a [VersionNumber]) -> &'a [VersionNumber] {
    let held = (0..=then.len().min(now.len())).rev();
    let same = held.into_iter().find(|len| then[then.len() - len..] == now[..*len]).unwrap_or(0);
    &now[same..]
}

/// The file's record, and the client's, whichever file: one and the same where the client names no file. A peer
/// that says nothing of itself is nobody.
fn keys(says: &ClientSays) -> Option<(ClientKey, ClientKey)> {
    if says.client_id.is_empty() {
        return None;
    }
    let file = ClientKey {
        client_id: says.client_id.clone(),
        host: says.host.clone(),
        local_path: says.local_path.clone(),
    };
    Some((file, ClientKey::any_file(&says.client_id)))
}

fn was_a_version(replica: &Replica, root: Root) -> Result<bool, Error> {
    Ok(replica.history(None, SEARCHED_MAX)?.iter().any(|version| version.root == root))
}

/// Notes what a file has now that it was pushed, for its next push. `aside`: who pushed says itself what it has and
/// the note is for when it does not know any more, so nobody waits for it.
pub(super) fn note_pushed(says: &ClientSays, replica: &Replica, content: &Manifest, aside: bool) {
    let Some(keys) = keys(says) else { return };
    let (replica, content) = (replica.clone(), content.clone());
    let note = move || write_pushed(keys, &replica, &content);
    if !aside {
        return note();
    }
    if let Err(error) = std::thread::Builder::new().name("client note".to_owned()).spawn(note) {
        tracing::warn!(%error, "no thread to note what a client has");
    }
}

fn write_pushed((file, client): (ClientKey, ClientKey), replica: &Replica, content: &Manifest) {
    let note = || {
        let _one_at_a_time = noting(replica, &client);
        let pulled = match file == client {
            true => Vec::new(),
            false => replica.client_record(&client)?.map(|record| record.pulled).unwrap_or_default(),
        };
        let record = ClientRecord { time: Timestamp::now(), pushed: Some(MergeBase::of(content)), pulled };
        replica.put_client_record(&file, &record)
    };
    // Without it the next push is a conflict, and nothing is lost.
    if let Err(error) = note() {
        let error: &sqlrsync_repository::Error = &error;
        tracing::warn!(%error, replica = %replica.id(), "what a client has is not noted");
    }
}

/// Held while a client's note is changed. Each time is counted.
fn noting(replica: &Replica, client: &ClientKey) -> MutexGuard<'static, u64> {
    let mut hasher = DefaultHasher::new();
    (replica.id().to_string(), &client.client_id).hash(&mut hasher);
    let lock = &NOTES[(hasher.finish() % NOTE_LOCKS as u64) as usize];
    // It guards nothing that a panic could have left half done.
    let mut changes = lock.lock().unwrap_or_else(PoisonError::into_inner);
    *changes += 1;
    changes
}

/// What it takes to take a note of a pull back.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::backend) struct PulledNote {
    /// How many changes there were with it.
    change: u64,
}

/// Notes that a client pulls a version, before it has any of it. The same version twice is noted twice: what
/// counts is which pulls came after a push. `None` of a client that is nobody.
pub(in crate::backend) fn note_pulled(
    replica: &Replica,
    client_id: &str,
    version: VersionNumber,
) -> Result<Option<PulledNote>, sqlrsync_repository::Error> {
    if client_id.is_empty() {
        return Ok(None);
    }
    let key = ClientKey::any_file(client_id);
    let change = noting(replica, &key);
    let record = replica.client_record(&key)?;
    let (pushed, mut pulled) = record.map(|record| (record.pushed, record.pulled)).unwrap_or_default();
    // Who follows a replica pulls each version; those before the last ones are of no use.
    if pulled.len() >= PULLED_MAX {
        pulled.drain(..=pulled.len() - PULLED_MAX);
    }
    pulled.push(version);
    replica.put_client_record(&key, &ClientRecord { time: Timestamp::now(), pushed, pulled })?;
    Ok(Some(PulledNote { change: *change }))
}

/// Takes a note back whose version nobody has got. Where notes were changed since, it stays: a push has
/// perhaps written down how long the list was, and a pull that comes later would not count as later.
pub(in crate::backend) fn take_back_pulled(
    replica: &Replica,
    client_id: &str,
    note: &PulledNote,
) -> Result<(), sqlrsync_repository::Error> {
    let key = ClientKey::any_file(client_id);
    let change = noting(replica, &key);
    if *change != note.change + 1 {
        return Ok(());
    }
    let Some(mut record) = replica.client_record(&key)? else { return Ok(()) };
    record.pulled.pop();
    replica.put_client_record(&key, &record)
}

#[cfg(test)]
mod tests {
    use super::*;

    use tokio::runtime::Runtime;

    /// A replica in a folder of its own.
    fn replica() -> (tempfile::TempDir, Runtime, Replica) {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let repository =
            sqlrsync_repository::Repository::local(folder.path(), runtime.handle().clone()).unwrap();
        let replica = repository.replica(&sqlrsync_repository::ReplicaId::random().unwrap());
        (folder, runtime, replica)
    }

    fn pulled(replica: &Replica) -> Vec<u64> {
        let record = replica.client_record(&ClientKey::any_file("a")).unwrap().unwrap();
        record.pulled.iter().map(|number| number.get()).collect()
    }

    #[test]
    fn a_note_is_taken_back_unless_notes_were_changed_since() {
        let (_folder, _runtime, replica) = replica();
        let note = |number| {
            note_pulled(&replica, "a", VersionNumber::new(number).unwrap()).unwrap().expect("somebody")
        };
        note(1);
        let unwanted = note(2);
        take_back_pulled(&replica, "a", &unwanted).unwrap();
        assert_eq!(pulled(&replica), [1]);
        take_back_pulled(&replica, "a", &unwanted).unwrap();
        assert_eq!(pulled(&replica), [1], "once is enough");
        let unwanted = note(3);
        note(4);
        take_back_pulled(&replica, "a", &unwanted).unwrap();
        assert_eq!(pulled(&replica), [1, 3, 4]);
    }

    #[test]
    fn of_pulls_at_one_time_each_is_noted() {
        let (_folder, _runtime, replica) = replica();
        std::thread::scope(|scope| {
            for number in 1..=8 {
                let replica = &replica;
                scope.spawn(move || note_pulled(replica, "a", VersionNumber::new(number).unwrap()).unwrap());
            }
        });
        let mut pulled = pulled(&replica);
        pulled.sort_unstable();
        assert_eq!(pulled, [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn what_was_pulled_since_is_what_was_added_to_the_list() {
        let list = |numbers: &[u64]| -> Vec<VersionNumber> {
            numbers.iter().map(|number| VersionNumber::new(*number).unwrap()).collect()
        };
        for (then, now, expected) in [
            (&[][..], &[1, 2][..], &[1, 2][..]),
            (&[1, 2], &[1, 2], &[]),
            (&[1, 2], &[1, 2, 2], &[2]),
            (&[1, 2, 3], &[1, 2, 3, 2, 3], &[2, 3]),
            (&[1, 2, 3], &[2, 3, 4], &[4]),
            (&[1, 2], &[7, 8], &[7, 8]),
        ] {
            assert_eq!(since(&list(then), &list(now)), list(expected), "{then:?} {now:?}");
        }
    }
}
