//! When a publisher pushes: a state machine that has no clock, no file and no server.
//!
//! It is told what happened ([`Schedule::handle`]), asked what to do now ([`Schedule::poll`], until it
//! says nothing), and says when to ask again ([`Schedule::deadline`]). Time is a duration since any
//! fixed moment and never goes back.
//!
//! ```text
//! Due ──poll──▶ Pushing ──done──▶ Idle ──wrote──▶ Session ──its time──▶ Due
//!                  │                └──maxInterval──────────────────────▶ Due
//!                  └──failed──▶ Retrying ──5, 10, 20, 40, 80 s──▶ Due   (then Idle again)
//! ```
//!
//! - A **session** begins with the first write after a push and ends with the next push. Its one timer
//!   is `max(last write + waitIdle, last push + minInterval)`, and `last contact + maxInterval` where
//!   that is earlier.
//! - minInterval counts from the last push that made a version; maxInterval from the last time that the
//!   server was reached or given up on, so that a check-in does not make the next write wait.
//! - What could not be pushed in six tries waits for the next write or for maxInterval, or for a server that
//!   was away to come back: the last writes of the day are not to wait until somebody writes again.
//! - An announcement (CHANGED) is never later than what it announces: the timer only moves away from
//!   what was announced, and where it did, the server is told again before the time is up.

use std::time::Duration;

use crate::plan::Timing;

/// The waits between the tries of a push that failed.
pub const RETRY_WAITS: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(40),
    Duration::from_secs(80),
];

/// The longest "try again later" that is obeyed: a server that names a year has a fault of its own.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// How long before an announced time runs out the server is told of a new one.
const ANNOUNCE_BEFORE: Duration = Duration::from_secs(10);

/// At most one announcement in this time, also where the wait is as short as [`ANNOUNCE_BEFORE`].
const ANNOUNCE_EVERY: Duration = Duration::from_secs(1);

/// How long a push may fail before the server is told of it, and how often it is told.
pub const REPORT_EVERY: Duration = Duration::from_secs(300);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The database was written to.
    Wrote,
    /// The push made a version.
    Pushed,
    /// The push found that the server has this content already.
    Unchanged,
    /// The push failed.
    Failed {
        /// What the server says: not before this time has gone by.
        retry_after: Option<Duration>,
    },
    /// The server has taken the report that [`Action::Report`] asked for.
    Reported,
    /// The server was away and is there again.
    ServerBack,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Push, and say what came of it.
    Push,
    /// Tell the server that a push follows in so many seconds.
    Announce {
        /// From now, rounded up; at least one.
        seconds: u32,
    },
    /// Tell the server that pushes have failed for a while.
    Report(Trouble),
}

/// A run of failures, until a push succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// When the first of them failed.
    pub since: Duration,
    /// How many there were.
    pub failures: u32,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Schedule {
    timing: Timing,
    phase: Phase,
    /// When the last version was made.
    last_push: Option<Duration>,
    /// When the server was last reached, or given up on; what maxInterval counts from.
    last_contact: Duration,
    trouble: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Nothing was written since the last push.
    Idle,
    /// Something was.
    Session(Session),
    /// A push is to begin at once; so many tries have failed.
    Due { failed: usize },
    /// It runs.
    Pushing {
        failed: usize,
        /// The last write since it began.
        wrote: Option<Duration>,
    },
    /// The next try begins then.
    Retrying { failed: usize, at: Duration },
}

#[derive(Clone, Copy, Debug)]
struct Session {
    last_write: Duration,
    announced: Option<Announced>,
}

#[derive(Clone, Copy, Debug)]
struct Announced {
    /// When the server was told.
    at: Duration,
    /// Of a push at this time.
    due: Duration,
    /// There were writes since.
    outdated: bool,
}

/// A trouble, and what the server knows of it.
#[derive(Clone, Copy, Debug)]
struct Open {
    trouble: Trouble,
    /// How many failures the server knows of.
    reported: u32,
    /// When a report was last asked for.
    asked: Option<Duration>,
}

impl Schedule {
    /// Begins with a push.
    pub fn new(timing: Timing, now: Duration) -> Schedule {
        Schedule {
            timing,
            phase: Phase::Due { failed: 0 },
            last_push: None,
            last_contact: now,
            trouble: None,
        }
    }

    /// Takes in what happened at `now`.
    pub fn handle(&mut self, event: Event, now: Duration) {
        match event {
            Event::Wrote => self.wrote(now),
            Event::Pushed => self.reached(now, true),
            Event::Unchanged => self.reached(now, false),
            Event::Failed { retry_after } => self.failed(retry_after, now),
            Event::Reported => {
                if let Some(open) = &mut self.trouble {
                    open.reported = open.trouble.failures;
                }
            }
            Event::ServerBack => {
                if self.trouble.is_some() && matches!(self.phase, Phase::Idle) {
                    self.phase = Phase::Due { failed: 0 };
                }
            }
        }
    }

    /// What to do at `now`; `None`: nothing until [`Schedule::deadline`], or until something happens.
    pub fn poll(&mut self, now: Duration) -> Option<Action> {
        if let Some(failed) = self.begins(now) {
            self.phase = Phase::Pushing { failed, wrote: None };
            return Some(Action::Push);
        }
        self.announce(now).or_else(|| self.report(now))
    }

    /// When to poll next; `None`: after the next event.
    pub fn deadline(&self) -> Option<Duration> {
        let phase = match &self.phase {
            Phase::Idle => self.latest(),
            Phase::Session(session) => {
                let due = self.due(session);
                Some(session.announce_at(due).map_or(due, |at| at.min(due)))
            }
            Phase::Due { .. } => Some(Duration::ZERO),
            // What comes next is its end.
            Phase::Pushing { .. } => None,
            Phase::Retrying { at, .. } => Some(*at),
        };
        [phase, self.report_at()].into_iter().flatten().min()
    }

    /// When the next push begins, if nothing more happens.
    pub fn next_push(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Idle => self.latest(),
            Phase::Session(session) => Some(self.due(session)),
            Phase::Retrying { at, .. } => Some(*at),
            Phase::Due { .. } | Phase::Pushing { .. } => None,
        }
    }

    /// Which of [`RETRY_WAITS`] is waited for, counted from one, and until when.
    pub fn retry(&self) -> Option<(usize, Duration)> {
        match self.phase {
            Phase::Retrying { failed, at } => Some((failed, at)),
            _ => None,
        }
    }

    fn wrote(&mut self, now: Duration) {
        match &mut self.phase {
            Phase::Idle => self.phase = Phase::Session(Session { last_write: now, announced: None }),
            Phase::Session(session) => {
                session.last_write = now;
                if let Some(announced) = &mut session.announced {
                    announced.outdated = true;
                }
            }
            Phase::Pushing { wrote, .. } => *wrote = Some(now),
            // The push that is to come takes it along.
            Phase::Due { .. } | Phase::Retrying { .. } => {}
        }
    }

    fn reached(&mut self, now: Duration, version: bool) {
        if version {
            self.last_push = Some(now);
        }
        self.trouble = None;
        self.rest(now);
    }

    fn failed(&mut self, retry_after: Option<Duration>, now: Duration) {
        let Phase::Pushing { failed, .. } = self.phase else { return };
        let open = self.trouble.get_or_insert(Open {
            trouble: Trouble { since: now, failures: 0 },
            reported: 0,
            asked: None,
        });
        open.trouble.failures = open.trouble.failures.saturating_add(1);
        match RETRY_WAITS.get(failed) {
            Some(wait) => {
                let wait = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX).max(*wait);
                self.phase = Phase::Retrying { failed: failed + 1, at: now.saturating_add(wait) };
            }
            None => self.rest(now),
        }
    }

    /// A push is over, one way or the other. What was written while it ran begins the next session.
    fn rest(&mut self, now: Duration) {
        self.last_contact = now;
        self.phase = match self.phase {
            Phase::Pushing { wrote: Some(last_write), .. } => {
                Phase::Session(Session { last_write, announced: None })
            }
            _ => Phase::Idle,
        };
    }

    /// How many tries have failed before the one that begins now, if one does.
    fn begins(&self, now: Duration) -> Option<usize> {
        match &self.phase {
            Phase::Due { failed } => Some(*failed),
            Phase::Retrying { failed, at } if *at <= now => Some(*failed),
            Phase::Session(session) if self.due(session) <= now => Some(0),
            Phase::Idle if self.latest().is_some_and(|at| at <= now) => Some(0),
            _ => None,
        }
    }

    fn due(&self, session: &Session) -> Duration {
        let idle = session.last_write.saturating_add(self.timing.wait_idle);
        let spaced =
            self.last_push.map_or(idle, |last| idle.max(last.saturating_add(self.timing.min_interval)));
        self.latest().map_or(spaced, |latest| spaced.min(latest))
    }

    /// When the next push or check-in begins at the latest.
    fn latest(&self) -> Option<Duration> {
        self.timing.max_interval.map(|max| self.last_contact.saturating_add(max))
    }

    fn announce(&mut self, now: Duration) -> Option<Action> {
        let Phase::Session(mut session) = self.phase else { return None };
        let due = self.due(&session);
        if session.announce_at(due)? > now {
            return None;
        }
        session.announced = Some(Announced { at: now, due, outdated: false });
        self.phase = Phase::Session(session);
        Some(Action::Announce { seconds: seconds_until(due, now) })
    }

    fn report(&mut self, now: Duration) -> Option<Action> {
        if self.report_at()? > now {
            return None;
        }
        let open = self.trouble.as_mut()?;
        open.asked = Some(now);
        Some(Action::Report(open.trouble))
    }

    /// When the server is next told of the trouble; never while a push runs that may end it.
    fn report_at(&self) -> Option<Duration> {
        if matches!(self.phase, Phase::Pushing { .. }) {
            return None;
        }
        let open = self.trouble.as_ref().filter(|open| open.reported < open.trouble.failures)?;
        Some(open.asked.unwrap_or(open.trouble.since).saturating_add(REPORT_EVERY))
    }
}

impl Session {
    /// When the server is next told of a push at `due`; `None`: it knows.
    fn announce_at(&self, due: Duration) -> Option<Duration> {
        let at = match &self.announced {
            None => self.last_write,
            Some(announced) if announced.outdated => {
                let before = announced.due.saturating_sub(ANNOUNCE_BEFORE);
                before.max(announced.at.saturating_add(ANNOUNCE_EVERY))
            }
            Some(_) => return None,
        };
        // Where the push itself comes first there is nothing left to announce.
        (at < due).then_some(at)
    }
}

/// Whole seconds from `now` to `due`, rounded up.
pub fn seconds_until(due: Duration, now: Duration) -> u32 {
    let left = due.saturating_sub(now);
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
#[path = "schedule/tests.rs"]
mod tests;
