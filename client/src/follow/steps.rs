//! When to pull: what the connection and the pulls report goes in, the next step comes out. No clock:
//! the time is handed in, as a duration since any fixed moment.

use std::time::Duration;

use sqlrsync_protocol::page::VersionNumber;

use super::backoff::{Backoff, obeying};
use crate::error::Error;

/// A server names its newest version right after it has subscribed us; ours within milliseconds. One
/// that does not is asked by pulling.
pub const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// How often a file that was changed locally is looked at, without reading it.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Pull the newest version.
    Pull,
    /// Wait for a report, but no longer than until then.
    Wait(Option<Duration>),
}

/// A follower's progress.
#[derive(Debug, Default)]
pub struct Steps {
    /// The version that the file is, as far as we know.
    have: Option<VersionNumber>,
    /// The newest that the server spoke of.
    told: Option<VersionNumber>,
    /// When to pull.
    due: Option<Duration>,
    /// Whether a pull can succeed at all.
    connected: bool,
    retry: Backoff,
}

impl Steps {
    /// What to do at this time.
    pub fn next(&self, now: Duration) -> Step {
        match self.due.filter(|_| self.connected) {
            Some(due) if due <= now => Step::Pull,
            due => Step::Wait(due),
        }
    }

    /// The server will tell of new versions from now on.
    pub fn connected(&mut self, now: Duration) {
        self.connected = true;
        let asked = now + TOLD_WITHIN;
        self.due = Some(self.due.map_or(asked, |due| due.min(asked)));
    }

    /// The connection is gone: what was due waits for the next one.
    pub fn lost(&mut self) {
        self.connected = false;
    }

    /// The server spoke of a version.
    pub fn told(&mut self, version: VersionNumber, now: Duration) {
        self.told = Some(version);
        self.due = (self.have != Some(version)).then_some(now);
    }

    /// A pull is done; the file is that version, where the server keeps any.
    pub fn pulled(&mut self, version: Option<VersionNumber>, now: Duration, random: u32) {
        self.have = version;
        // Two servers of one store: the one that was asked may be behind the one that spoke.
        let behind = version.is_some() && version < self.told;
        if behind {
            self.due = Some(now + self.retry.failed(Duration::ZERO, random));
        } else {
            self.retry.reset();
            self.due = None;
        }
    }

    /// A pull failed, for a reason that may pass. How long it waits before it tries again.
    pub fn failed(&mut self, error: &Error, now: Duration, random: u32) -> Duration {
        let wait = obeying(error, self.retry.failed(Duration::ZERO, random));
        self.due = Some(now + wait);
        wait
    }

    /// The file was changed locally and is kept as it is.
    pub fn kept(&mut self, now: Duration, random: u32) {
        let wait = self.retry.failed(Duration::ZERO, random);
        self.due = Some(now + wait.max(LOOK_EVERY));
    }

    /// The file is still what it was when a pull left it alone.
    pub fn still_kept(&mut self, now: Duration) {
        self.due = Some(now + LOOK_EVERY);
    }

    /// There is nothing to pull yet; a notice will come when there is.
    pub fn nothing_yet(&mut self) {
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u64) -> VersionNumber {
        VersionNumber::new(number).unwrap()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A follower that has that version and is connected, at second 0.
    fn follower(have: u64) -> Steps {
        let mut steps = Steps::default();
        steps.connected(at(0));
        steps.told(version(have), at(0));
        assert_eq!(steps.next(at(0)), Step::Pull);
        steps.pulled(Some(version(have)), at(0), 0);
        assert_eq!(steps.next(at(0)), Step::Wait(None));
        steps
    }

    #[test]
    fn nothing_is_pulled_before_the_connection_stands() {
        let mut steps = Steps::default();
        assert_eq!(steps.next(at(0)), Step::Wait(None));
        steps.connected(at(1));
        assert_eq!(steps.next(at(1)), Step::Wait(Some(at(1) + TOLD_WITHIN)));
        steps.told(version(3), at(1));
        assert_eq!(steps.next(at(1)), Step::Pull);
    }

    #[test]
    fn a_server_that_names_no_version_is_asked_by_pulling() {
        let mut steps = Steps::default();
        steps.connected(at(0));
        assert_eq!(steps.next(TOLD_WITHIN), Step::Pull);
        steps.nothing_yet();
        assert_eq!(steps.next(at(1_000_000)), Step::Wait(None));
        steps.told(version(1), at(1_000_000));
        assert_eq!(steps.next(at(1_000_000)), Step::Pull);
    }

    #[test]
    fn a_doubled_notice_pulls_nothing() {
        let mut steps = follower(3);
        steps.told(version(3), at(9));
        assert_eq!(steps.next(at(9)), Step::Wait(None));
        steps.connected(at(10));
        steps.told(version(3), at(10));
        assert_eq!(steps.next(at(1_000)), Step::Wait(None));
    }

    #[test]
    fn a_lost_notice_is_made_up_for_by_the_next_connection() {
        let mut steps = follower(3);
        steps.lost();
        steps.connected(at(50));
        steps.told(version(103), at(50));
        assert_eq!(steps.next(at(50)), Step::Pull);
        steps.pulled(Some(version(103)), at(51), 0);
        assert_eq!(steps.next(at(51)), Step::Wait(None));
    }

    #[test]
    fn a_late_notice_costs_one_pull_and_no_loop() {
        let mut steps = follower(5);
        steps.told(version(4), at(1));
        assert_eq!(steps.next(at(1)), Step::Pull);
        steps.pulled(Some(version(5)), at(1), 0);
        assert_eq!(steps.next(at(1_000)), Step::Wait(None));
    }

    #[test]
    fn what_came_during_a_pull_is_pulled_next() {
        let mut steps = follower(5);
        steps.told(version(6), at(1));
        assert_eq!(steps.next(at(1)), Step::Pull);
        steps.pulled(Some(version(6)), at(2), 0);
        steps.told(version(8), at(2));
        assert_eq!(steps.next(at(2)), Step::Pull);
    }

    #[test]
    fn a_server_that_is_behind_its_own_notice_is_asked_again_later() {
        let mut steps = follower(5);
        steps.told(version(7), at(0));
        steps.pulled(Some(version(6)), at(0), u32::MAX);
        assert_eq!(steps.next(at(0)), Step::Wait(Some(at(1))));
        assert_eq!(steps.next(at(1)), Step::Pull);
        steps.pulled(Some(version(7)), at(1), 0);
        assert_eq!(steps.next(at(9)), Step::Wait(None));
    }

    #[test]
    fn a_failed_pull_waits_longer_each_time_and_not_after_a_success() {
        let mut steps = follower(1);
        steps.told(version(2), at(0));
        for expected in [1, 2, 4, 8] {
            assert_eq!(steps.failed(&Error::Cancelled, at(0), u32::MAX), at(expected));
            assert_eq!(steps.next(at(expected - 1)), Step::Wait(Some(at(expected))));
            assert_eq!(steps.next(at(expected)), Step::Pull);
        }
        steps.pulled(Some(version(2)), at(20), 0);
        steps.told(version(3), at(20));
        assert_eq!(steps.failed(&Error::Cancelled, at(20), u32::MAX), at(1));
    }

    #[test]
    fn while_the_connection_is_down_nothing_is_tried() {
        let mut steps = follower(1);
        steps.told(version(2), at(0));
        steps.failed(&Error::Cancelled, at(0), 0);
        steps.lost();
        assert!(matches!(steps.next(at(1_000)), Step::Wait(_)));
        steps.connected(at(2_000));
        assert_eq!(steps.next(at(2_000)), Step::Pull, "it was due");
    }

    #[test]
    fn a_file_that_is_kept_is_looked_at_and_a_notice_tries_again() {
        let mut steps = follower(1);
        steps.told(version(2), at(0));
        steps.kept(at(0), u32::MAX);
        assert_eq!(steps.next(at(0)), Step::Wait(Some(LOOK_EVERY)));
        steps.still_kept(at(2));
        assert_eq!(steps.next(at(2)), Step::Wait(Some(at(2) + LOOK_EVERY)));
        steps.told(version(3), at(3));
        assert_eq!(steps.next(at(3)), Step::Pull);
    }

    /// A number from a generator that is good enough to mix events with.
    fn draw(state: &mut u64, end: u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % end
    }

    #[test]
    fn whatever_happened_before_a_connection_that_names_a_version_ends_in_step_with_it() {
        for seed in 0..2_000_u64 {
            let (mut steps, mut state, mut now) = (Steps::default(), seed, Duration::ZERO);
            for _ in 0..draw(&mut state, 40) {
                now += Duration::from_millis(draw(&mut state, 20_000));
                let (some, random) = (version(1 + draw(&mut state, 9)), state as u32);
                match draw(&mut state, 8) {
                    0 => steps.connected(now),
                    1 => steps.lost(),
                    2 => steps.told(some, now),
                    3 => steps.pulled(Some(some), now, random),
                    4 => drop(steps.failed(&Error::Cancelled, now, random)),
                    5 => steps.kept(now, random),
                    6 => steps.still_kept(now),
                    _ => steps.nothing_yet(),
                }
            }
            steps.connected(now);
            steps.told(version(10), now);
            let mut pulls = 0;
            while let Step::Pull = steps.next(now) {
                pulls += 1;
                steps.pulled(Some(version(10)), now, 0);
            }
            assert_eq!((pulls, steps.next(now)), (1, Step::Wait(None)), "seed {seed}");
        }
    }
}
