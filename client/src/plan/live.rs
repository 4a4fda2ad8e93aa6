//! Plans that go on until somebody stops them: a database that is pushed whenever it has changed, and a
//! replica that follows. The three intervals are checked against each other here, once.

use std::ffi::OsString;
use std::time::Duration;

use sqlrsync_protocol::duration::{DurationError, Seconds};
use sqlrsync_protocol::remote::{RemoteName, VersionSelector};

use super::{Access, Plan, Pull, Push};
use crate::cli::TransferArgs;
use crate::error::Error;

/// The shortest `--waitIdle`, and what counts where none is given: 10 s.
const WAIT_IDLE_MIN_SECONDS: u32 = 10;

/// The longest `--waitIdle`: 24 days.
const WAIT_IDLE_MAX_SECONDS: u32 = 24 * 24 * 60 * 60;

/// A push after each burst of writes.
#[derive(Debug)]
pub struct Publish {
    /// The push, made again and again.
    pub push: Push,
    /// When.
    pub timing: Timing,
}

/// A replica that follows every new version.
#[derive(Debug)]
pub struct Follow {
    /// The pull, made again and again.
    pub pull: Pull,
    /// A command to run after each new version.
    pub exec: Option<OsString>,
}

/// What a server knows of a replica and its clients.
#[derive(Debug)]
pub struct Status {
    /// Of which replica.
    pub remote: RemoteName,
    /// Where, and with which key.
    pub access: Access,
}

/// When a changed database is pushed. Neither `wait_idle` nor `min_interval` is longer than
/// `max_interval`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// How long nothing must have been written.
    pub wait_idle: Duration,
    /// The least time between two pushes; zero for none.
    pub min_interval: Duration,
    /// The most time between two pushes while writes go on; `None`: as long as it takes.
    pub max_interval: Option<Duration>,
}

impl Timing {
    /// Checks what was given for `--waitIdle`, `--minInterval` and `--maxInterval`.
    ///
    /// # Errors
    /// A usage error with the flag that contradicts another, or is out of its range.
    pub fn new(
        wait_idle: Option<Seconds>,
        min_interval: Option<Seconds>,
        max_interval: Option<Seconds>,
    ) -> Result<Timing, Error> {
        let wait = wait_idle.map_or(WAIT_IDLE_MIN_SECONDS, Seconds::get);
        if !(WAIT_IDLE_MIN_SECONDS..=WAIT_IDLE_MAX_SECONDS).contains(&wait) {
            return Err(Error::usage("--waitIdle goes from 10s to 24d", "choose one in between"));
        }
        if let Some(max) = max_interval {
            if wait > max.get() {
                // What is not given is ten seconds.
                let wait = wait_idle.map_or_else(|| "10s".to_owned(), |wait| wait.to_string());
                return Err(Error::usage(
                    format!(
                        "a push would never come: --waitIdle, {wait}, is longer than --maxInterval, {max}"
                    ),
                    "make --maxInterval longer, or --waitIdle shorter (10s where none is given)",
                ));
            }
            if let Some(min) = min_interval.filter(|min| *min > max) {
                return Err(Error::usage(
                    format!("--minInterval, {min}, is longer than --maxInterval, {max}"),
                    "make --maxInterval longer, or --minInterval shorter",
                ));
            }
        }
        let max_interval = max_interval.map(Seconds::duration);
        let half = max_interval.map_or(Duration::ZERO, |max| max / 2);
        Ok(Timing {
            wait_idle: Duration::from_secs(wait.into()),
            min_interval: min_interval.map_or(half, Seconds::duration),
            max_interval,
        })
    }
}

/// The flags of a plan that goes on, taken out of what was typed.
pub(super) struct LiveFlags {
    subscribe: bool,
    exec: Option<OsString>,
    timing: Option<Timing>,
}

impl LiveFlags {
    /// Reads them; a mistake in one of them is told whatever the others are.
    pub(super) fn take(typed: &TransferArgs) -> Result<LiveFlags, Error> {
        let wait_idle = duration("--waitIdle", typed.wait_idle.as_deref())?;
        let min_interval = duration("--minInterval", typed.min_interval.as_deref())?;
        let max_interval = duration("--maxInterval", typed.max_interval.as_deref())?;
        let timed = wait_idle.is_some() || min_interval.is_some() || max_interval.is_some();
        let timing = Timing::new(wait_idle, min_interval, max_interval)?;
        let given = |yes: bool, flag| yes.then_some(flag);
        if !typed.subscribe {
            let lone = given(timed, "--waitIdle, --minInterval and --maxInterval are")
                .or(given(typed.exec.is_some(), "--exec is"));
            if let Some(flag) = lone {
                return Err(Error::usage(format!("{flag} for --subscribe"), "add --subscribe"));
            }
        } else if typed.dry {
            return Err(Error::usage(
                "--subscribe goes on and on: there is no dry run of it",
                "leave one out",
            ));
        }
        Ok(LiveFlags {
            subscribe: typed.subscribe,
            exec: typed.exec.clone(),
            timing: timed.then_some(timing),
        })
    }

    /// Makes of a plan for one transfer the plan that goes on, where that was asked for.
    pub(super) fn apply(self, plan: Plan) -> Result<Plan, Error> {
        if !self.subscribe {
            return Ok(plan);
        }
        match plan {
            Plan::Push(push) => self.publish(push),
            Plan::Pull(pull) => self.follow(pull),
            _ => Err(Error::usage(
                "--subscribe follows a replica on a server, and this is a copy from file to file",
                "sqlrsync LOCAL NAMESPACE/PATH --subscribe, or sqlrsync NAMESPACE/PATH LOCAL --subscribe",
            )),
        }
    }

    fn publish(self, push: Push) -> Result<Plan, Error> {
        if self.exec.is_some() {
            return Err(Error::usage(
                "--exec runs after a new version was pulled, and this is a push",
                "leave it out",
            ));
        }
        let timing = match self.timing {
            Some(timing) => timing,
            None => Timing::new(None, None, None)?,
        };
        Ok(Plan::Publish(Publish { push, timing }))
    }

    fn follow(self, pull: Pull) -> Result<Plan, Error> {
        if self.timing.is_some() {
            return Err(Error::usage(
                "--waitIdle, --minInterval and --maxInterval say when to push, and this is a pull",
                "leave them out: a replica follows at once",
            ));
        }
        if pull.version != VersionSelector::Latest {
            return Err(Error::usage(
                "one version does not change: --subscribe follows the latest",
                "leave the @ out, or --subscribe",
            ));
        }
        Ok(Plan::Follow(Follow { pull, exec: self.exec }))
    }
}

fn duration(flag: &str, text: Option<&str>) -> Result<Option<Seconds>, Error> {
    text.map(str::parse).transpose().map_err(|error: DurationError| {
        Error::usage(format!("{flag}: {error}"), "a duration is written as 30s, 5m or 1h30m")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(texts: [&str; 3]) -> Result<Timing, Error> {
        let [wait, min, max] = texts.map(|text| (!text.is_empty()).then(|| text.parse().unwrap()));
        Timing::new(wait, min, max)
    }

    #[test]
    fn what_is_not_given_follows_from_what_is() {
        let seconds = Duration::from_secs;
        let nothing = timing(["", "", ""]).unwrap();
        assert_eq!(
            (nothing.wait_idle, nothing.min_interval, nothing.max_interval),
            (seconds(10), seconds(0), None)
        );
        let half = timing(["10m", "", "24h"]).unwrap();
        assert_eq!((half.wait_idle, half.min_interval), (seconds(600), seconds(12 * 3600)));
        let all = timing(["5m", "10m", "1h"]).unwrap();
        assert_eq!((all.min_interval, all.max_interval), (seconds(600), Some(seconds(3600))));
    }

    #[test]
    fn intervals_that_contradict_each_other_are_refused_with_the_reason() {
        for (texts, why) in [
            (["9s", "", ""], "from 10s to 24d"),
            (["25d", "", ""], "from 10s to 24d"),
            (["2m", "", "1m"], "--waitIdle, 2m, is longer"),
            (["", "", "9s"], "--waitIdle, 10s, is longer"),
            (["", "2h", "1h"], "--minInterval, 2h, is longer"),
        ] {
            let error = timing(texts).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(why), "{texts:?}: {error}");
        }
        assert!(timing(["24d", "", ""]).is_ok() && timing(["1h", "1h", "1h"]).is_ok());
    }
}
