//! A PULL subscription: a local file follows every new version, until somebody says stop.
//!
//! The connection for notices stands before the first pull, so that no version falls between. Each pull
//! is the ordinary one, over a connection of its own. What waiting does not mend (a key that is not
//! allowed, no such replica, a file that is no database) ends the run where it shows at the start;
//! later only a key that is not allowed any more does. Everything else is said once and tried again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlrsync_database::{Error as DatabaseError, Fingerprint};
use sqlrsync_protocol::exchange::{Fault, Refusal};
use sqlrsync_protocol::page::VersionNumber;
use tokio::task::JoinHandle;

use super::{Run, pull};
use crate::client_id::client_id;
use crate::error::Error;
use crate::follow::backoff::random;
use crate::follow::clock;
use crate::follow::exec::{Exec, Hook, PATIENCE};
use crate::follow::notices::{Link, Mailbox, Subscription, is_final};
use crate::follow::report::{Next, Reporter};
use crate::follow::steps::{Step, Steps};
use crate::outcome::{Kind, Outcome};
use crate::plan::{Follow, KeysWanted, Pull};
use crate::prompt::ask_for_key;
use crate::service;
use crate::wire::websocket::Socket;

/// How long the server is given to hear that we go.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

pub fn follow(run: &Run, plan: &Follow) -> Result<(), Error> {
    let mut follower = Follower::begin(run, plan)?;
    let ended = follower.go_on();
    service::stopping();
    follower.end();
    ended
}

struct Follower<'a> {
    run: &'a Run,
    pull: Pull,
    reporter: Reporter,
    mailbox: Arc<Mailbox>,
    notices: JoinHandle<()>,
    exec: Option<Exec>,
    steps: Steps,
    /// Whether a pull has succeeded in this run.
    pulled: bool,
    /// The file as it was when a pull left it alone because of changes of its own.
    kept: Option<Fingerprint>,
}

impl<'a> Follower<'a> {
    fn begin(run: &'a Run, plan: &Follow) -> Result<Follower<'a>, Error> {
        let mut pull = plan.pull.clone();
        let (subscription, first) = first_connection(run, &mut pull)?;
        let reporter = Reporter::new(run.output, &pull);
        let mailbox = Arc::new(Mailbox::default());
        let notices = run.runtime.spawn(subscription.keep(first, Arc::clone(&mailbox), run.cancel.clone()));
        let exec = plan.exec.as_ref().map(|command| {
            let hook = Hook {
                command: command.clone(),
                database: pull.local.path.clone(),
                remote: pull.remote.clone(),
                patience: PATIENCE,
            };
            let _in_runtime = run.runtime.enter();
            let output = run.output;
            Exec::start(hook, run.cancel.clone(), move |ran| crate::follow::report::ran(output, &ran))
        });
        let steps = Steps::default();
        Ok(Follower { run, pull, reporter, mailbox, notices, exec, steps, pulled: false, kept: None })
    }

    fn go_on(&mut self) -> Result<(), Error> {
        loop {
            self.take_news()?;
            let now = clock::now();
            match self.steps.next(now) {
                Step::Pull if self.is_still_kept() => self.steps.still_kept(now),
                Step::Pull => self.pull()?,
                Step::Wait(until) => self.wait(until)?,
            }
        }
    }

    fn wait(&self, until: Option<Duration>) -> Result<(), Error> {
        let until = async {
            match until {
                Some(until) => clock::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        self.run.runtime.block_on(async {
            tokio::select! {
                () = self.run.cancel.cancelled() => Err(Error::Cancelled),
                () = self.mailbox.wait() => Ok(()),
                () = until => Ok(()),
            }
        })
    }

    fn take_news(&mut self) -> Result<(), Error> {
        let news = self.mailbox.take();
        match news.link {
            Some(Link::Refused(error)) => return Err(error),
            Some(Link::Down { why, .. }) if !self.pulled && !may_pass(&why) => return Err(why),
            Some(Link::Down { why, again_in }) => {
                self.steps.lost();
                self.reporter.trouble(&why, Next::Again(again_in));
            }
            Some(Link::Up) => {
                self.steps.connected(clock::now());
                self.reporter.connected();
            }
            None => {}
        }
        if let Some(version) = news.latest {
            self.steps.told(version, clock::now());
            self.kept = None;
        }
        Ok(())
    }

    /// Whether a pull would find the very file that the last one left alone.
    fn is_still_kept(&self) -> bool {
        let now = || Fingerprint::of(&self.pull.local.path).ok();
        self.kept.as_ref().is_some_and(|kept| now().is_some_and(|now| kept.proves_unchanged(&now)))
    }

    fn pull(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        match pull::pull(self.run, self.pull.clone()) {
            Ok(mut outcome) => {
                outcome.seconds = began.elapsed().as_secs_f64();
                self.pulled(&outcome)
            }
            Err(error) => self.not_pulled(error),
        }
    }

    fn pulled(&mut self, outcome: &Outcome) -> Result<(), Error> {
        let version = outcome.version.and_then(VersionNumber::new);
        let is_new = outcome.kind == Kind::Pulled;
        self.steps.pulled(version, clock::now(), random());
        // The first pull says where we stand; after that only what is new is worth a line.
        if is_new || !self.pulled {
            self.run.print(outcome)?;
        }
        if let Some(exec) = self.exec.as_ref().filter(|_| is_new) {
            exec.announce(version);
        }
        self.reporter.in_step(version);
        (self.pulled, self.kept, self.pull.request_keys) = (true, None, KeysWanted::No);
        Ok(())
    }

    fn not_pulled(&mut self, error: Error) -> Result<(), Error> {
        let now = clock::now();
        let next = match &error {
            Error::Cancelled => return Err(error),
            error_ if is_final(error_) => return Err(error),
            // Subscribed to, so it is there: it has no version yet.
            Error::Refused { refusal: Refusal::NotFound, .. } if !self.pulled => {
                self.steps.nothing_yet();
                Next::FirstVersion
            }
            Error::Database(DatabaseError::LocallyChanged { .. }) => {
                self.kept = Fingerprint::of(&self.pull.local.path).ok();
                self.steps.kept(now, random());
                Next::FileChanged
            }
            error_ if !self.pulled && !may_pass(error_) => return Err(error),
            _ => Next::Again(self.steps.failed(&error, now, random())),
        };
        self.reporter.trouble(&error, next);
        Ok(())
    }

    /// Waits, for a bounded time, for the command and for the server to hear that we go.
    fn end(self) {
        let Follower { run, exec, notices, .. } = self;
        run.runtime.block_on(async {
            if let Some(exec) = exec {
                exec.finish().await;
            }
            if !run.cancel.is_cancelled() {
                notices.abort();
            }
            let _ = tokio::time::timeout(GOODBYE_MAX, notices).await;
        });
    }
}

/// The first connection, or why there is none yet. Without a key a public replica can be followed;
/// where the server wants one, the user is asked.
fn first_connection(run: &Run, pull: &mut Pull) -> Result<(Subscription, Result<Socket, Error>), Error> {
    let client_id = client_id(&run.folders)?;
    loop {
        run.warn_of_plain_text(&pull.access);
        let subscription = Subscription {
            remote: pull.remote.clone(),
            replica_id: pull.replica_id.clone(),
            access: pull.access.clone(),
            client_id: client_id.clone(),
            silence_max: run.silence_max,
        };
        let opened = run.runtime.block_on(async {
            tokio::select! {
                opened = subscription.open() => opened,
                () = run.cancel.cancelled() => Err(Error::Cancelled),
            }
        });
        match opened {
            Err(error) if is_final(&error) && pull.access.credential.is_none() => {
                pull.access.credential = Some(ask_for_key("pull", &pull.remote.to_string())?);
            }
            Err(error) if !may_pass(&error) => return Err(error),
            opened => return Ok((subscription, opened)),
        }
    }
}

/// Whether it makes sense to wait for this to pass by itself.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } | Error::Cut { .. } | Error::InUse { .. } => true,
        Error::Refused { refusal, .. } => matches!(refusal, Refusal::TryLater | Refusal::Failed),
        Error::Database(error) => {
            matches!(error, DatabaseError::ChangedMeanwhile { .. } | DatabaseError::DiskFull { .. })
                || error.refusal() == Refusal::TryLater
        }
        _ => false,
    }
}
