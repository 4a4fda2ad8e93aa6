//! A PUSH subscription: a local database is pushed after each burst of writes, until somebody says stop.
//!
//! One loop on one thread: what the watch, the connection and the pushes report goes into the schedule
//! ([`crate::publish::schedule`]), and what it says is done, one thing after the other. A push is the
//! ordinary one, over a connection of its own. What must not hold the loop up (the connection that
//! announces, reports) is a task or a thread beside it.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use sqlrsync_database::Fingerprint;
use sqlrsync_protocol::exchange::Refusal;
use sqlrsync_protocol::remote::VersionSelector;
use sqlrsync_protocol::text::KeyType;

use super::rest::Rest;
use super::{Run, follow, merge, state_name};
use crate::client_id::client_id;
use crate::error::Error;
use crate::follow::clock;
use crate::outcome::{Kind, Outcome};
use crate::plan::{Follow, KeysWanted, Publish, Pull, Push, Timing};
use crate::prompt::ask_for_key;
use crate::publish::content::Content;
use crate::publish::link::{Link, Status};
use crate::publish::report::{self, Report};
use crate::publish::schedule::{Action, Event, Schedule, Trouble};
use crate::publish::watch::{Look, SETTLE, Watch};
use crate::service;
use crate::state::{FileLock, State};

/// How long the server may take to say what the key is for before the first push is tried all the same.
const KEY_TYPE_MAX: Duration = Duration::from_secs(3);

pub fn publish(run: &Run, plan: &Publish) -> Result<(), Error> {
    let mut push = plan.push.clone();
    let lock = FileLock::take_to_publish(run.folders.state(), &push.local.path)?;
    if push.access.credential.is_none() {
        push.access.credential = Some(ask_for_key("push", &push.local.shown())?);
    }
    let push = match Publisher::start(run, push, plan.timing)?.go() {
        Ok(push) => push,
        Err(error) => {
            service::stopping();
            return Err(error);
        }
    };
    drop(lock);
    run.warn(&format!(
        "the key may pull and not push: {} follows the server instead, whatever the intervals",
        push.local.shown()
    ));
    follow::follow(run, &Follow { pull: pull_of(push)?, exec: None })
}

/// The pull that fits a push whose key can only pull.
fn pull_of(push: Push) -> Result<Pull, Error> {
    let Some(remote) = push.remote else {
        let what = "a key that may only pull follows a replica, and none is named";
        return Err(Error::usage(what, "sqlrsync NAMESPACE/PATH LOCAL --subscribe"));
    };
    Ok(Pull {
        remote,
        version: VersionSelector::Latest,
        replica_id: push.replica_id,
        local: push.local,
        access: push.access,
        request_keys: KeysWanted::No,
        dry: push.dry,
        force: push.force,
    })
}

/// Why the loop woke up.
enum Woken {
    /// The system reports something about the file.
    Hint,
    /// A time has come, or the connection has changed.
    Other,
}

struct Publisher<'r> {
    run: &'r Run,
    push: Push,
    client_id: String,
    timing: Timing,
    schedule: Schedule,
    watch: Watch,
    link: Link,
    /// The server was there at the last look.
    reachable: bool,
    /// A push has succeeded: from now on no failure ends the program.
    begun: bool,
    /// There was no file at the last look.
    missing: bool,
    /// The conflict that the last push opened or added to.
    conflict: Option<u64>,
    /// Why the last push failed.
    failure: String,
    /// Who sends a report says so here once the server has it.
    reported: (Sender<()>, Receiver<()>),
}

impl<'r> Publisher<'r> {
    fn start(run: &'r Run, push: Push, timing: Timing) -> Result<Publisher<'r>, Error> {
        let client_id = client_id(&run.folders)?;
        let _in_runtime = run.runtime.enter();
        Ok(Publisher {
            run,
            timing,
            schedule: Schedule::new(timing, clock::now()),
            watch: Watch::new(&push.local.path),
            link: Link::start(&push, client_id.clone()),
            client_id,
            push,
            reachable: false,
            begun: false,
            missing: false,
            conflict: None,
            failure: String::new(),
            reported: channel(),
        })
    }

    /// Goes on until it fails or is stopped; gives the push back where its key turns out to be one that
    /// pulls.
    fn go(mut self) -> Result<Push, Error> {
        self.learn_key_type()?;
        loop {
            let status = self.link.status();
            if status == Status::Open(KeyType::Pull) {
                return Ok(self.push);
            }
            let reachable = matches!(status, Status::Open(_));
            if reachable && !self.reachable {
                self.schedule.handle(Event::ServerBack, clock::now());
            }
            self.reachable = reachable;
            while let Some(action) = self.schedule.poll(clock::now()) {
                self.act(action)?;
            }
            if let Woken::Hint = self.wait()? {
                self.run.pause(SETTLE)?;
            }
            self.look();
            if self.reported.1.try_recv().is_ok() {
                self.schedule.handle(Event::Reported, clock::now());
            }
        }
    }

    /// Waits a little for what the server says of the key.
    fn learn_key_type(&mut self) -> Result<(), Error> {
        let link = &mut self.link;
        let cancel = &self.run.cancel;
        self.run.runtime.block_on(async {
            let known = async {
                while link.status() == Status::Opening {
                    link.changed().await;
                }
            };
            tokio::select! {
                _ = tokio::time::timeout(KEY_TYPE_MAX, known) => Ok(()),
                () = cancel.cancelled() => Err(Error::Cancelled),
            }
        })
    }

    fn act(&mut self, action: Action) -> Result<(), Error> {
        match action {
            Action::Push => self.push(),
            Action::Announce { seconds } => {
                if let Some(due) = self.schedule.next_push() {
                    self.link.announce(due);
                }
                report::Event::Wrote { seconds }.say(self.run.output)
            }
            Action::Report(trouble) => {
                self.report(&trouble);
                Ok(())
            }
        }
    }

    /// Waits for a hint, or until there is something to do or to look at.
    fn wait(&mut self) -> Result<Woken, Error> {
        let mut time = self.watch.look_every();
        if let Some(deadline) = self.schedule.deadline() {
            time = time.min(deadline.saturating_sub(clock::now()));
        }
        let (watch, link, cancel) = (&self.watch, &mut self.link, &self.run.cancel);
        self.run.runtime.block_on(async {
            tokio::select! {
                () = cancel.cancelled() => Err(Error::Cancelled),
                () = watch.hint() => Ok(Woken::Hint),
                () = link.changed() => Ok(Woken::Other),
                () = tokio::time::sleep(time) => Ok(Woken::Other),
            }
        })
    }

    /// Whether the file was written to since it was last looked at.
    fn look(&mut self) {
        let look = self.watch.look();
        self.saw(look);
    }

    fn saw(&mut self, look: Look) {
        // A file that is back as it was is news where the push failed because it was away.
        let back = self.missing && look != Look::Missing && !self.failure.is_empty();
        self.missing = look == Look::Missing;
        if look == Look::Changed || back {
            self.schedule.handle(Event::Wrote, clock::now());
        }
    }

    fn push(&mut self) -> Result<(), Error> {
        let before = self.watch.fingerprint();
        let began = Instant::now();
        let result = merge::push(self.run, self.push.clone());
        let now = clock::now();
        let known = match result {
            Ok(mut outcome) => {
                outcome.seconds = began.elapsed().as_secs_f64();
                self.say(&outcome)?;
                let made_version = matches!(outcome.kind, Kind::Pushed | Kind::Merged);
                self.schedule.handle(if made_version { Event::Pushed } else { Event::Unchanged }, now);
                self.link.withdraw();
                self.succeeded(outcome)?;
                let agreed = self.agreed();
                self.watch.expect(agreed.as_ref().and_then(|_| self.content()));
                [before, agreed]
            }
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(error) if !self.begun && !passes(&error) => return Err(error),
            Err(error) => {
                self.failed(&error, now)?;
                [before, None]
            }
        };
        // Also where the first push has to wait for its server: this has begun.
        service::ready();
        // Where it was written to meanwhile, the next push will find out what this one did not have.
        let look = self.watch.look_after(known.into_iter().flatten());
        self.saw(look);
        Ok(())
    }

    /// A conflict is said to people once: later pushes only add to it.
    fn say(&mut self, outcome: &Outcome) -> Result<(), Error> {
        let known = outcome.kind == Kind::Conflict && outcome.conflict == self.conflict;
        if outcome.kind != Kind::Unchanged {
            self.conflict = outcome.conflict;
        }
        if known && !self.run.output.json { Ok(()) } else { self.run.print(outcome) }
    }

    /// What the file was when it and the server were last known to be equal.
    fn agreed(&self) -> Option<Fingerprint> {
        let name = state_name(&self.push.access.server, self.push.remote.as_ref());
        let state = State::open(self.run.folders.state(), &self.push.local.path, &name);
        state.known().map(|known| known.fingerprint)
    }

    /// What the file held then.
    fn content(&self) -> Option<Content> {
        let name = state_name(&self.push.access.server, self.push.remote.as_ref());
        let (state_folder, path) = (self.run.folders.state().to_owned(), self.push.local.path.clone());
        // Without the folder every write counts.
        Some(Content::agreed(state_folder, path, name, self.run.temp_folder().ok()?))
    }

    fn succeeded(&mut self, outcome: Outcome) -> Result<(), Error> {
        self.failure.clear();
        self.push.replica_id = outcome.replica_id;
        if self.begun {
            return Ok(());
        }
        self.begun = true;
        // Both were for the first push: later ones would make new keys, and undo what others push.
        self.push.request_keys = KeysWanted::No;
        self.push.force = false;
        if self.push.remote.is_none() {
            self.push.remote = outcome.remote.and_then(|name| name.parse().ok());
            let _in_runtime = self.run.runtime.enter();
            self.link = Link::start(&self.push, self.client_id.clone());
        }
        let local = self.push.local.shown();
        report::Event::Watching { local: &local, timing: self.timing }.say(self.run.output)
    }

    fn failed(&mut self, error: &Error, now: Duration) -> Result<(), Error> {
        self.failure = error.to_string();
        let retry_after = match error {
            Error::Refused { retry_after, .. } => *retry_after,
            _ => None,
        };
        self.schedule.handle(Event::Failed { retry_after }, now);
        match self.schedule.retry() {
            Some((number, at)) => report::Event::Retry { error, number, wait: at.saturating_sub(now) },
            None => report::Event::GaveUp { error },
        }
        .say(self.run.output)
    }

    /// Tells the server on a thread: it may take its time.
    fn report(&self, trouble: &Trouble) {
        let Some(id) = &self.push.replica_id else { return };
        let report =
            Report::new(trouble, clock::now(), &self.failure, &self.client_id, &self.push.local.path);
        let (access, path) = (self.push.access.clone(), format!("/sapi/{id}"));
        let arrived = self.reported.0.clone();
        // Nobody waits for it, also at the end.
        std::thread::spawn(move || match Rest::new(&access).and_then(|rest| rest.post(&path, &report)) {
            Ok(()) => drop(arrived.send(())),
            Err(error) => tracing::debug!(%error, "the server cannot be told what fails"),
        });
    }
}

/// Whether waiting may help, so that a publisher may start before its network and its server.
fn passes(error: &Error) -> bool {
    error.exit_code() == Refusal::TryLater.exit_code()
}
