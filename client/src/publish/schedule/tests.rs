//! Days in microseconds: the schedule under a simulated driver, by hand and at random.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What a push comes to, and after how long.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Pushed,
    Unchanged,
    Failed(Option<Duration>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    Wrote,
    Begun,
    Ended(End),
    Announced(u32),
    Reported(u32),
}

/// Drives a schedule as the program does, with a clock of its own.
struct Driver {
    schedule: Schedule,
    now: Duration,
    log: Vec<(Duration, Seen)>,
    /// What pushes come to, one after the other; then all end `Pushed`.
    ends: std::collections::VecDeque<(Duration, End)>,
    /// When the running push ends.
    running: Option<(Duration, End)>,
    report_arrives: bool,
}

impl Driver {
    fn new(wait_idle: u64, min: u64, max: Option<u64>) -> Driver {
        let timing = Timing { wait_idle: s(wait_idle), min_interval: s(min), max_interval: max.map(s) };
        Driver {
            schedule: Schedule::new(timing, s(1000)),
            now: s(1000),
            log: Vec::new(),
            ends: Default::default(),
            running: None,
            report_arrives: true,
        }
    }

    /// After the first push.
    fn started(wait_idle: u64, min: u64, max: Option<u64>) -> Driver {
        let mut driver = Driver::new(wait_idle, min, max);
        driver.run_until(driver.now);
        driver.log.clear();
        driver
    }

    fn end_with(mut self, ends: impl IntoIterator<Item = (Duration, End)>) -> Driver {
        self.ends = ends.into_iter().collect();
        self
    }

    fn act(&mut self) {
        let mut actions = 0;
        while let Some(action) = self.schedule.poll(self.now) {
            actions += 1;
            assert!(actions < 10, "actions without end at {:?}: {action:?}", self.now);
            match action {
                Action::Push => {
                    assert!(self.running.is_none(), "a push began while one ran");
                    let (takes, end) = self.ends.pop_front().unwrap_or((Duration::ZERO, End::Pushed));
                    self.running = Some((self.now + takes, end));
                    self.log.push((self.now, Seen::Begun));
                    self.finish();
                }
                Action::Announce { seconds } => self.log.push((self.now, Seen::Announced(seconds))),
                Action::Report(trouble) => {
                    self.log.push((self.now, Seen::Reported(trouble.failures)));
                    if self.report_arrives {
                        self.schedule.handle(Event::Reported, self.now);
                    }
                }
            }
        }
    }

    fn finish(&mut self) {
        let Some((at, end)) = self.running.filter(|(at, _)| *at <= self.now) else { return };
        self.running = None;
        let event = match end {
            End::Pushed => Event::Pushed,
            End::Unchanged => Event::Unchanged,
            End::Failed(retry_after) => Event::Failed { retry_after },
        };
        self.schedule.handle(event, at);
        self.log.push((at, Seen::Ended(end)));
    }

    fn run_until(&mut self, until: Duration) {
        loop {
            self.act();
            let running = self.running.map(|(at, _)| at);
            let next = [self.schedule.deadline(), running].into_iter().flatten().min();
            match next {
                Some(next) if next <= until => {
                    assert!(next > self.now, "a deadline at {next:?} that does nothing");
                    self.now = next;
                    self.finish();
                }
                _ => break,
            }
        }
        self.now = until;
    }

    fn wait(&mut self, duration: Duration) -> &mut Driver {
        self.run_until(self.now + duration);
        self
    }

    fn write(&mut self) -> &mut Driver {
        self.log.push((self.now, Seen::Wrote));
        self.schedule.handle(Event::Wrote, self.now);
        self.act();
        self
    }

    /// The log without the writes, in seconds since the start.
    fn seen(&self) -> Vec<(u64, Seen)> {
        let since = |at: &Duration| (*at - s(1000)).as_secs();
        self.log
            .iter()
            .filter(|(_, seen)| *seen != Seen::Wrote)
            .map(|(at, seen)| (since(at), *seen))
            .collect()
    }

    fn pushes(&self) -> Vec<u64> {
        self.seen().into_iter().filter(|(_, seen)| *seen == Seen::Begun).map(|(at, _)| at).collect()
    }

    fn announced(&self) -> Vec<(u64, u32)> {
        let seen = self.seen().into_iter();
        seen.filter_map(|(at, seen)| if let Seen::Announced(n) = seen { Some((at, n)) } else { None })
            .collect()
    }
}

#[test]
fn it_begins_with_a_push_and_then_waits_for_a_write() {
    let mut driver = Driver::new(10, 0, None);
    driver.wait(HOUR * 24 * 365);
    assert_eq!(driver.pushes(), [0]);
    assert_eq!(driver.schedule.deadline(), None);
}

#[test]
fn each_write_starts_the_wait_anew() {
    let mut driver = Driver::started(600, 0, None);
    driver.wait(s(100)).write().wait(s(300)).write().wait(s(599)).write().wait(HOUR);
    assert_eq!(driver.pushes(), [100 + 300 + 599 + 600]);
}

#[test]
fn pushes_keep_their_distance() {
    let mut driver = Driver::started(300, 600, Some(3600));
    driver.wait(s(50)).write().wait(s(1000));
    assert_eq!(driver.pushes(), [600], "minInterval after the first push, not waitIdle after the write");
}

#[test]
fn writes_without_an_end_do_not_put_off_a_push_for_ever() {
    let mut driver = Driver::started(300, 600, Some(3600));
    for _ in 0..3 * 3600 {
        driver.wait(SECOND).write();
    }
    assert_eq!(driver.pushes(), [3600, 7200, 10800]);
    let mut driver = Driver::started(300, 0, None);
    for _ in 0..100_000 {
        driver.wait(SECOND).write();
    }
    assert_eq!(driver.pushes(), [0; 0], "without maxInterval nothing says when");
}

#[test]
fn where_nothing_is_written_it_checks_in() {
    let mut driver = Driver::started(10, 43_200, Some(86_400));
    driver.ends = [(Duration::ZERO, End::Unchanged); 3].into();
    driver.wait(s(3 * 86_400 + 100));
    assert_eq!(driver.pushes(), [86_400, 172_800, 259_200]);
    // The check-ins made no version: the next write need not wait for minInterval after them.
    driver.write().wait(s(10));
    assert_eq!(driver.pushes().last(), Some(&(3 * 86_400 + 110)));
}

#[test]
fn the_first_write_is_announced_and_later_ones_ten_seconds_before_the_time_is_up() {
    let mut driver = Driver::started(600, 0, None);
    driver.wait(s(5)).write().wait(s(100)).write().wait(s(200)).write().wait(HOUR);
    // 5 + 600 = 605 was announced; at 595 the last write was at 305, so the push is due at 905.
    assert_eq!(driver.announced(), [(5, 600), (595, 310)]);
    assert_eq!(driver.pushes(), [905]);
    // The session is over: the next write is a first one again.
    driver.write();
    assert_eq!(driver.announced().last(), Some(&(3905, 600)));
}

#[test]
fn without_further_writes_the_server_is_told_once() {
    let mut driver = Driver::started(10, 0, Some(86_400));
    driver.write().wait(s(10));
    assert_eq!(driver.announced(), [(0, 10)]);
    assert_eq!(driver.pushes(), [10]);
}

#[test]
fn a_storm_of_writes_under_a_short_wait_is_announced_once_a_second() {
    let mut driver = Driver::started(10, 0, Some(60));
    for _ in 0..600 {
        driver.write().wait(Duration::from_millis(100));
    }
    let announced = driver.announced();
    assert!((45..=61).contains(&announced.len()), "{announced:?}");
    assert_eq!(driver.pushes(), [60]);
}

#[test]
fn a_failed_push_is_tried_five_times_and_then_the_watch_goes_on() {
    let mut driver = Driver::started(10, 0, None).end_with([(Duration::ZERO, End::Failed(None)); 6]);
    driver.write().wait(HOUR);
    assert_eq!(driver.pushes(), [10, 15, 25, 45, 85, 165]);
    driver.write().wait(HOUR);
    assert_eq!(driver.pushes().last(), Some(&3610), "the next write starts again");
}

#[test]
fn after_giving_up_max_interval_starts_again() {
    let mut driver = Driver::started(10, 0, Some(3600)).end_with([(Duration::ZERO, End::Failed(None)); 6]);
    driver.write().wait(HOUR * 2);
    assert_eq!(driver.pushes(), [10, 15, 25, 45, 85, 165, 165 + 3600]);
}

#[test]
fn what_was_given_up_is_pushed_when_the_server_is_back() {
    let mut driver = Driver::started(10, 0, None).end_with([(Duration::ZERO, End::Failed(None)); 6]);
    driver.write().wait(s(60));
    driver.schedule.handle(Event::ServerBack, driver.now);
    driver.wait(HOUR);
    assert_eq!(driver.pushes(), [10, 15, 25, 45, 85, 165], "a try that is to come is waited for");
    driver.schedule.handle(Event::ServerBack, driver.now);
    driver.wait(HOUR);
    assert_eq!(driver.pushes().last(), Some(&3660));
    driver.schedule.handle(Event::ServerBack, driver.now);
    driver.wait(HOUR);
    assert_eq!(driver.pushes().len(), 7, "nothing is left to push");
}

#[test]
fn the_server_may_ask_for_more_time_but_not_for_a_year() {
    let later = |seconds| (Duration::ZERO, End::Failed(Some(s(seconds))));
    let mut driver = Driver::started(10, 0, None).end_with([later(30), later(3), later(1 << 40)]);
    driver.write().wait(HOUR * 2);
    assert_eq!(driver.pushes(), [10, 40, 50, 50 + 3600]);
}

#[test]
fn what_has_failed_for_five_minutes_is_reported_even_where_nothing_is_tried_any_more() {
    let mut driver = Driver::started(10, 0, None).end_with([(Duration::ZERO, End::Failed(None)); 8]);
    driver.write().wait(HOUR);
    let reports = |driver: &Driver| -> Vec<(u64, u32)> {
        let seen = driver.seen().into_iter();
        seen.filter_map(|(at, seen)| if let Seen::Reported(n) = seen { Some((at, n)) } else { None })
            .collect()
    };
    assert_eq!(reports(&driver), [(310, 6)], "once: nothing more has failed since");
    driver.write().wait(s(16)).wait(s(400));
    assert_eq!(reports(&driver), [(310, 6), (3610, 7)], "the next failure of the same trouble, at once");

    let mut driver = Driver::started(10, 0, None).end_with([(Duration::ZERO, End::Failed(None)); 6]);
    driver.report_arrives = false;
    driver.write().wait(s(1300));
    assert_eq!(reports(&driver), [(310, 6), (610, 6), (910, 6), (1210, 6)], "until it arrives");
}

#[test]
fn a_push_that_succeeds_ends_the_trouble() {
    let failed = [(Duration::ZERO, End::Failed(None)); 3];
    let mut driver = Driver::started(10, 0, None).end_with(failed);
    driver.write().wait(HOUR);
    assert!(!driver.seen().iter().any(|(_, seen)| matches!(seen, Seen::Reported(_))));
    assert_eq!(driver.schedule.deadline(), None);
}

#[test]
fn what_is_written_while_a_push_runs_is_pushed_by_the_next() {
    let mut driver = Driver::started(10, 0, None).end_with([(s(100), End::Pushed)]);
    driver.write().wait(s(50)).write().wait(s(60)).wait(HOUR);
    // The write at 50 came 40 s after the push began at 10, which ended at 110.
    assert_eq!(driver.pushes(), [10, 110]);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Write,
    /// Milliseconds.
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wait = prop_oneof![1u64..2_000, 1u64..120_000, 1u64..90_000_000].prop_map(Step::Wait);
    proptest::collection::vec(prop_oneof![Just(Step::Write), wait], 1..120)
}

fn ends() -> impl Strategy<Value = Vec<(Duration, End)>> {
    let end = prop_oneof![
        4 => Just(End::Pushed),
        1 => Just(End::Unchanged),
        3 => proptest::option::of((0u64..300).prop_map(s)).prop_map(End::Failed),
    ];
    let takes = prop_oneof![Just(0), 0u64..5_000, 0u64..1_000_000].prop_map(Duration::from_millis);
    proptest::collection::vec((takes, end), 0..60)
}

fn intervals() -> impl Strategy<Value = (u64, u64, Option<u64>)> {
    let max = proptest::option::of(10u64..100_000);
    max.prop_flat_map(|max| (10..=max.unwrap_or(5_000), 0..=max.unwrap_or(5_000), Just(max)))
}

/// What the log must show, whatever happened.
fn check(timing: Timing, log: &[(Duration, Seen)]) {
    let mut last_version: Option<Duration> = None;
    let mut last_end = s(1000);
    // The last write that no push that began later has succeeded with, or been given up for.
    let mut last_write: Option<Duration> = None;
    let mut failed = 0;
    let mut ready = s(1000);
    let mut promised: Option<Duration> = None;
    let mut first = true;
    for &(at, seen) in log {
        match seen {
            Seen::Wrote => last_write = Some(at),
            Seen::Announced(seconds) => {
                assert!(last_write.is_some(), "{at:?}: announced without a write");
                let due = at + s(seconds.into());
                assert!(promised.is_none_or(|before| due + SECOND > before), "{at:?}: promised earlier");
                promised = Some(due);
            }
            Seen::Begun if failed > 0 => {
                assert_eq!(at, ready, "a try at the wrong time");
                last_write = None;
            }
            Seen::Begun => {
                let by_max = timing.max_interval.map(|max| last_end + max);
                let by_write = last_write.map(|write| {
                    let idle = write + timing.wait_idle;
                    last_version.map_or(idle, |version| idle.max(version + timing.min_interval))
                });
                let due = [by_max, by_write].into_iter().flatten().min().map(|due| due.max(last_end));
                assert!(first || due == Some(at), "{at:?}: a push that was due at {due:?}");
                if let (false, Some(version)) = (first, last_version) {
                    assert!(at >= version + timing.min_interval, "{at:?}: two pushes within minInterval");
                }
                if let Some(promised) = promised {
                    assert!(at <= promised && promised < at + SECOND, "{at:?}: announced for {promised:?}");
                }
                first = false;
                // What it takes along.
                last_write = None;
            }
            Seen::Ended(End::Failed(later)) if failed < 5 => {
                ready = at + later.unwrap_or_default().max(RETRY_WAITS[failed]);
                failed += 1;
                // It goes with the next try.
                last_write = None;
                promised = None;
            }
            Seen::Ended(end) => {
                if end == End::Pushed {
                    last_version = Some(at);
                }
                (failed, last_end, promised) = (0, at, None);
            }
            Seen::Reported(failures) => assert!(failures > 0),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_writes_pushes_failures_and_timers(
        (wait_idle, min, max) in intervals(),
        steps in steps(),
        ends in ends(),
    ) {
        let mut driver = Driver::new(wait_idle, min, max).end_with(ends);
        for step in steps {
            match step {
                Step::Write => driver.write(),
                Step::Wait(millis) => driver.wait(Duration::from_millis(millis)),
            };
        }
        driver.ends.clear();
        driver.wait(HOUR * 24 * 4);
        check(driver.schedule.timing, &driver.log);
        // Nothing that was written stays unpushed once it is quiet, but what was given up for.
        let written = driver.log.iter().rposition(|(_, seen)| *seen == Seen::Wrote);
        let after = &driver.log[written.map_or(driver.log.len(), |last| last + 1)..];
        let failed = after.iter().any(|(_, seen)| matches!(seen, Seen::Ended(End::Failed(_))));
        let begun = after.iter().any(|(_, seen)| *seen == Seen::Begun);
        prop_assert!(written.is_none() || failed || begun, "written and never pushed");
        if let Some(max) = driver.schedule.timing.max_interval {
            let last = driver.log.iter().rfind(|(_, seen)| matches!(seen, Seen::Ended(_)));
            let quiet = last.map_or(driver.now, |(at, _)| driver.now - *at);
            prop_assert!(quiet <= max, "silent for {quiet:?}");
        }
        prop_assert!(driver.schedule.retry().is_none());
    }

    #[test]
    fn polling_at_any_other_time_changes_nothing(
        (wait_idle, min, max) in intervals(),
        steps in steps(),
        ends in ends(),
    ) {
        let mut asleep = Driver::new(wait_idle, min, max).end_with(ends.clone());
        let mut nervous = Driver::new(wait_idle, min, max).end_with(ends);
        for step in steps {
            match step {
                Step::Write => {
                    asleep.write();
                    nervous.write();
                }
                Step::Wait(millis) => {
                    asleep.wait(Duration::from_millis(millis));
                    for _ in 0..7 {
                        nervous.wait(Duration::from_millis(millis) / 7);
                    }
                    nervous.run_until(asleep.now);
                }
            }
        }
        prop_assert_eq!(asleep.log, nervous.log);
    }
}
