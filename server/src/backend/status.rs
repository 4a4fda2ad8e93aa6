//! What is known of a replica: its latest version, and its clients with what they did, announced and
//! reported.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_protocol::remote::RemoteName;
use sqlrsync_repository::Manifest;
use utoipa::ToSchema;

use super::activity::Doing;
use super::{Backend, ClientSays};
use crate::access::Caller;
use crate::catalog::{
    ClientActivity, ClientName, Done, Event, Happened, KeptReport, ReplicaRecord, Report, Standing,
};
use crate::refused::{Refused, Why};

/// How long after its time an announced push counts as on its way, and not as overdue.
pub const OVERDUE_GRACE: SignedDuration = SignedDuration::from_secs(5);

/// The furthest that a push can be announced ahead; what is further counts as this.
pub const ANNOUNCED_MAX: SignedDuration = SignedDuration::from_hours(366 * 24);

/// How many versions are looked at for who pushed them, where nothing is known of pushes any more.
const VERSIONS_LOOKED_AT: usize = 100;

/// A replica's status as it is told. Times are RFC 3339.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Status {
    /// `NAMESPACE/PATH`.
    pub replica: String,
    /// Its id.
    pub replica_id: String,
    /// The newest version; `null` before the first.
    pub latest: Option<u64>,
    /// When that was committed.
    pub latest_time: Option<Timestamp>,
    /// What the server's clock says, for who wants to know how long ago something was.
    pub now: Timestamp,
    /// Whether a push of any client is overdue.
    pub overdue: bool,
    /// Its clients, who was seen last first; none for a caller without a key for the replica.
    pub clients: Vec<ClientStatus>,
}

/// A client of a replica as it is told.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ClientStatus {
    /// Its id; empty where it has none.
    pub client_id: String,
    /// What its machine is called; empty where it does not say.
    pub host: String,
    /// The database that it pushes; empty where it has pushed none.
    pub local_path: String,
    /// When it last pushed.
    pub last_push: Option<Timestamp>,
    /// Which version it was in step with then.
    pub last_push_version: Option<u64>,
    /// When it last pulled.
    pub last_pull: Option<Timestamp>,
    /// Which version.
    pub last_pull_version: Option<u64>,
    /// By when a push is to come; `null` where none was announced since the last.
    pub push_due: Option<Timestamp>,
    /// Whether that push should have come by now.
    pub overdue: bool,
    /// Whether it is pushing right now.
    pub pushing: bool,
    /// Whether it is subscribed to notices of new versions right now.
    pub following: bool,
    /// What has kept failing since its last push, newest first.
    pub errors: Vec<ErrorStatus>,
}

/// A failure that a client reported.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorStatus {
    /// The error, in one line.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Since when it fails, by the client's clock.
    pub since: Option<Timestamp>,
    /// When it was reported last, by the server's.
    pub reported: Timestamp,
    /// On which machine.
    pub host: String,
    /// From which database.
    pub local_path: String,
}

impl Backend {
    /// The status of a replica. Who may pull it may ask; its clients are shown only to a key that is for
    /// it, because hosts and paths of others are nothing for strangers.
    ///
    /// # Errors
    /// As [`Backend::pullable`].
    pub fn status(&self, caller: &Caller, name: &RemoteName) -> Result<Status, Refused> {
        let record = self.pullable(caller, Some(name), &ClientSays::default())?;
        let latest = self.repository_replica(&record)?.latest()?;
        let clients = match caller.is_for(&record) {
            true => self.clients(&record, latest.is_some())?,
            false => Vec::new(),
        };
        Ok(Status {
            replica: record.name(),
            replica_id: record.id,
            latest: latest.as_ref().map(|latest| latest.number.get()),
            latest_time: latest.map(|latest| latest.time),
            now: Timestamp::now(),
            overdue: clients.iter().any(|client| client.overdue),
            clients,
        })
    }

    fn clients(&self, record: &ReplicaRecord, has_versions: bool) -> Result<Vec<ClientStatus>, Refused> {
        let mut known = self.activity.clients(&record.id)?;
        if has_versions && known.iter().all(|client| client.push.is_none()) {
            // The catalog was lost, or is of a release that did not take this down. The versions know.
            for version in self.repository_replica(record)?.history(None, VERSIONS_LOOKED_AT)? {
                self.activity.note(found_push(record, version));
            }
            known = self.activity.clients(&record.id)?;
        }
        Ok(told(known, self.activity.present(&record.id), Timestamp::now()))
    }

    /// A pull has ended well.
    pub fn note_pulled(
        &self,
        caller: &Caller,
        record: &ReplicaRecord,
        client: ClientName,
        version: VersionNumber,
    ) {
        let standing = if caller.is_for(record) { Standing::Puller } else { Standing::Anybody };
        self.activity.note(Event {
            replica: record.id.clone(),
            client,
            standing,
            time: Timestamp::now(),
            what: Happened::Pulled(version),
        });
    }

    /// A push has ended well, whether it made a version or not.
    pub fn note_pushed(&self, record: &ReplicaRecord, client: ClientName, version: Option<VersionNumber>) {
        self.activity.note(Event {
            replica: record.id.clone(),
            client,
            standing: Standing::Pusher,
            time: Timestamp::now(),
            what: Happened::Pushed(version),
        });
    }

    /// CHANGED: a push is to follow in so many seconds. Before its first version a replica does not exist,
    /// and nothing is noted.
    ///
    /// # Errors
    /// [`Why::Failed`].
    pub fn note_changed(&self, plan: &super::PushPlan, seconds: u32) -> Result<(), Refused> {
        let Some(record) = self.pushed_to(plan)? else { return Ok(()) };
        let time = Timestamp::now();
        let ahead = SignedDuration::from_secs(seconds.into()).min(ANNOUNCED_MAX);
        let due = time.saturating_add(ahead).unwrap_or(Timestamp::MAX);
        self.activity.note(Event {
            replica: record.id,
            client: plan.says.name(),
            standing: Standing::Pusher,
            time,
            what: Happened::Announced(due),
        });
        Ok(())
    }

    /// A client reports a push that keeps failing; its caller was asked for by [`Backend::may_report`].
    pub fn note_report(&self, record: &ReplicaRecord, client: ClientName, report: Report) {
        self.activity.note(Event {
            replica: record.id.clone(),
            client,
            standing: Standing::Pusher,
            time: Timestamp::now(),
            what: Happened::Failed(report),
        });
    }

    /// The replica of this id, for a caller who may report on pushes to it.
    ///
    /// # Errors
    /// [`Why::NoKey`]; [`Why::NotFound`] for a replica that is not there or that the key is not for;
    /// [`Why::NotAllowed`] for a PULL key.
    pub fn may_report(&self, caller: &Caller, replica: &str) -> Result<ReplicaRecord, Refused> {
        let Some(key) = caller.key() else {
            return Err(Refused::new(Why::NoKey, "a push key is needed to report: none was given"));
        };
        let found = self.catalog.replica_by_id(replica)?.filter(|found| caller.is_for(found));
        let found = found.ok_or_else(|| Refused::new(Why::NotFound, "there is no replica of this id"))?;
        if key.kind.may_push() { Ok(found) } else { Err(Caller::pull_key_pushes()) }
    }
}

fn found_push(record: &ReplicaRecord, version: Manifest) -> Event {
    let says = ClientSays {
        client_id: version.client_id,
        host: version.host,
        local_path: version.local_path,
        ..ClientSays::default()
    };
    Event {
        replica: record.id.clone(),
        client: says.name(),
        standing: Standing::Pusher,
        time: version.time,
        what: Happened::FoundPush(version.number),
    }
}

/// One entry for each machine. What it did is kept by client id, host and database, and a pull names less
/// than a push: entries of one client id are joined where their hosts agree, or one has none.
fn told(known: Vec<ClientActivity>, present: Vec<(Doing, ClientName)>, now: Timestamp) -> Vec<ClientStatus> {
    let mut machines = Machines::default();
    let (named, hostless): (Vec<_>, Vec<_>) =
        known.into_iter().partition(|client| !client.client.host.is_empty());
    for client in named.into_iter().chain(hostless) {
        let pushing =
            present.iter().any(|(doing, who)| *doing == Doing::Pushing && who.may_be(&client.client));
        machines.of(&client.client, client.seen).add(client, pushing, now);
    }
    for (doing, client) in present {
        let machine = machines.of(&client, now);
        match doing {
            Doing::Following => machine.following = true,
            Doing::Pushing => machine.pushing = true,
        }
    }
    machines.into_statuses()
}

/// Entries in the making, and where to find them: there may be thousands, with whatever names.
#[derive(Default)]
struct Machines {
    entries: Vec<(Timestamp, ClientStatus)>,
    by_host: HashMap<(String, String), usize>,
    first_of_client: HashMap<String, usize>,
}

impl Machines {
    /// The entry of the machine that goes by this name, which may be a new one.
    fn of(&mut self, name: &ClientName, seen: Timestamp) -> &mut ClientStatus {
        let at = self.find(name).unwrap_or_else(|| {
            let at = self.entries.len();
            self.first_of_client.entry(name.client_id.clone()).or_insert(at);
            self.entries.push((seen, ClientStatus::new(name)));
            at
        });
        let (last_seen, entry) = &mut self.entries[at];
        *last_seen = seen.max(*last_seen);
        if entry.host.is_empty() {
            entry.host.clone_from(&name.host);
        }
        self.by_host.insert((name.client_id.clone(), entry.host.clone()), at);
        entry
    }

    /// The entry of this client and host; without a host on either side, the first of this client.
    fn find(&self, name: &ClientName) -> Option<usize> {
        let exact = self.by_host.get(&(name.client_id.clone(), name.host.clone()));
        let first = self.first_of_client.get(&name.client_id);
        let hostless = |at: &&usize| name.host.is_empty() || self.entries[**at].1.host.is_empty();
        exact.or(first.filter(hostless)).copied()
    }

    fn into_statuses(mut self) -> Vec<ClientStatus> {
        self.entries.sort_by_key(|(seen, _)| std::cmp::Reverse(*seen));
        self.entries.into_iter().map(|(_, status)| status).collect()
    }
}

impl ClientStatus {
    fn new(name: &ClientName) -> ClientStatus {
        ClientStatus {
            client_id: name.client_id.clone(),
            host: name.host.clone(),
            local_path: String::new(),
            last_push: None,
            last_push_version: None,
            last_pull: None,
            last_pull_version: None,
            push_due: None,
            overdue: false,
            pushing: false,
            following: false,
            errors: Vec::new(),
        }
    }

    /// Adds what it did with one database; they come in the order of when they were seen last.
    fn add(&mut self, client: ClientActivity, pushing: bool, now: Timestamp) {
        let ClientActivity { client: name, push, pull, push_due, reports, .. } = client;
        if self.local_path.is_empty() {
            self.local_path.clone_from(&name.local_path);
        }
        newer(&mut self.last_push, &mut self.last_push_version, push);
        newer(&mut self.last_pull, &mut self.last_pull_version, pull);
        if let Some(due) = push_due {
            self.push_due = Some(self.push_due.map_or(due, |other| other.min(due)));
            self.overdue |= !pushing && is_overdue(due, now);
        }
        let errors = reports.into_iter().map(|kept| ErrorStatus::of(kept, &name));
        self.errors.extend(errors);
        self.errors.sort_by_key(|error| std::cmp::Reverse(error.reported));
    }
}

impl ErrorStatus {
    fn of(kept: KeptReport, client: &ClientName) -> ErrorStatus {
        let KeptReport { report: Report { error, attempts, since }, reported } = kept;
        let (host, local_path) = (client.host.clone(), client.local_path.clone());
        ErrorStatus { error, attempts, since, reported, host, local_path }
    }
}

fn newer(time: &mut Option<Timestamp>, version: &mut Option<u64>, done: Option<Done>) {
    if let Some(done) = done.filter(|done| time.is_none_or(|time| done.time > time)) {
        (*time, *version) = (Some(done.time), done.version);
    }
}

fn is_overdue(due: Timestamp, now: Timestamp) -> bool {
    now.duration_since(due) > OVERDUE_GRACE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn before(seconds: i64) -> Timestamp {
        now() - SignedDuration::from_secs(seconds)
    }

    fn activity(client: ClientName, seen: Timestamp) -> ClientActivity {
        let (push, pull, announced, push_due, reports) = (None, None, None, None, Vec::new());
        ClientActivity { client, seen, push, pull, announced, push_due, reports }
    }

    fn laptop() -> ClientName {
        ClientName::new("me", "laptop", "/srv/app.db")
    }

    #[test]
    fn a_push_is_overdue_when_its_grace_has_passed_and_it_is_not_under_way() {
        let overdue = |due: Timestamp, present: Vec<(Doing, ClientName)>| {
            let known = ClientActivity { push_due: Some(due), ..activity(laptop(), before(60)) };
            let found = told(vec![known], present, now()).remove(0);
            assert_eq!(found.push_due, Some(due));
            found.overdue
        };
        let grace = OVERDUE_GRACE.as_secs();
        assert!(!overdue(before(-10), vec![]));
        assert!(!overdue(before(grace), vec![]));
        assert!(overdue(before(grace + 1), vec![]));
        assert!(!overdue(before(600), vec![(Doing::Pushing, laptop())]));
        assert!(overdue(before(600), vec![(Doing::Following, laptop())]));
        let other = ClientName::new("me", "laptop", "/srv/other.db");
        assert!(overdue(before(600), vec![(Doing::Pushing, other)]));
    }

    #[test]
    fn a_machine_is_one_entry_with_all_that_it_did() {
        let done = |seconds, version| Some(Done { time: before(seconds), version: Some(version) });
        let pulled =
            ClientActivity { pull: done(5, 9), ..activity(ClientName::new("me", "", ""), before(5)) };
        let other = ClientName::new("me", "laptop", "/srv/other.db");
        let known = vec![
            pulled,
            ClientActivity {
                push: done(10, 8),
                push_due: Some(before(-50)),
                ..activity(laptop(), before(10))
            },
            ClientActivity { push: done(20, 7), push_due: Some(before(30)), ..activity(other, before(20)) },
            activity(ClientName::new("me", "clone", ""), before(30)),
        ];
        let found = told(known, vec![(Doing::Following, ClientName::new("me", "", ""))], now());
        let hosts: Vec<_> = found.iter().map(|client| client.host.as_str()).collect();
        assert_eq!(hosts, ["laptop", "clone"]);
        let laptop = &found[0];
        assert_eq!((laptop.last_push_version, laptop.last_pull_version), (Some(8), Some(9)));
        assert_eq!(laptop.local_path, "/srv/app.db");
        assert_eq!((laptop.push_due, laptop.overdue), (Some(before(30)), true), "the earliest counts");
        assert!(laptop.following && !found[1].following);
    }

    #[test]
    fn errors_of_all_databases_of_a_machine_come_newest_first() {
        let known = [("/a.db", 20), ("/b.db", 10), ("/c.db", 30)].map(|(path, seconds)| {
            let kept = KeptReport { report: Report::new(path, 1, None), reported: before(seconds) };
            let name = ClientName::new("me", "laptop", path);
            ClientActivity { reports: vec![kept], ..activity(name, before(seconds)) }
        });
        let found = told(known.to_vec(), vec![], now()).remove(0);
        let paths: Vec<_> = found.errors.iter().map(|error| error.local_path.as_str()).collect();
        assert_eq!(paths, ["/b.db", "/a.db", "/c.db"]);
    }
}
