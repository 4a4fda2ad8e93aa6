//! How long to wait before the next try: a second, doubling to five minutes, and from the beginning
//! again after a minute without trouble. No clock and no randomness of its own.

use std::time::Duration;

use crate::error::Error;

/// The wait after the first failure.
pub const FIRST: Duration = Duration::from_secs(1);

/// The longest wait.
pub const LONGEST: Duration = Duration::from_secs(5 * 60);

/// What worked for so long before it failed fails for the first time.
pub const QUIET: Duration = Duration::from_secs(60);

/// Counts failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Something failed that had worked for `worked`. How long to wait: between half of the step and
    /// all of it, as `random` (any number) has it, so that those whom one failure hit do not all come
    /// back at the same moment.
    pub fn failed(&mut self, worked: Duration, random: u32) -> Duration {
        if worked >= QUIET {
            self.failures = 0;
        }
        let step = FIRST.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        step / 2 + (step / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// It works.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The wait after `error`: what a server asks for counts where it is longer, but no server puts us off
/// for longer than [`LONGEST`].
pub fn obeying(error: &Error, wait: Duration) -> Duration {
    match error {
        Error::Refused { retry_after: Some(asked), .. } => wait.max((*asked).min(LONGEST)),
        _ => wait,
    }
}

/// A number for [`Backoff::failed`]. Without random bytes the middle will do.
pub fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(backoff: &mut Backoff, random: u32, count: usize) -> Vec<u64> {
        (0..count).map(|_| backoff.failed(Duration::ZERO, random).as_secs()).collect()
    }

    #[test]
    fn a_second_doubles_to_five_minutes_and_stays_there() {
        let mut backoff = Backoff::default();
        assert_eq!(steps(&mut backoff, u32::MAX, 11), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        // Years later, too.
        backoff.failures = u32::MAX;
        assert_eq!(steps(&mut backoff, u32::MAX, 2), [300, 300]);
    }

    #[test]
    fn jitter_takes_up_to_half_away_and_adds_nothing() {
        assert_eq!(steps(&mut Backoff::default(), 0, 10), [0, 1, 2, 4, 8, 16, 32, 64, 128, 150]);
        for random in [0, 1, u32::MAX / 3, u32::MAX - 1, u32::MAX] {
            let mut backoff = Backoff { failures: 4 };
            let wait = backoff.failed(Duration::ZERO, random);
            assert!((8..=16).contains(&wait.as_secs()), "{random}: {wait:?}");
        }
        assert_eq!(Backoff::default().failed(Duration::ZERO, 0), FIRST / 2);
    }

    #[test]
    fn a_server_may_ask_for_more_time_and_not_for_ever() {
        let wait = Duration::from_secs(2);
        for (asked, expected) in [(None, 2), (Some(1), 2), (Some(30), 30), (Some(1_000_000), 300)] {
            let error = Error::Refused {
                who: "the server".to_owned(),
                refusal: sqlrsync_protocol::exchange::Refusal::TryLater,
                text: "busy".to_owned(),
                retry_after: asked.map(Duration::from_secs),
            };
            assert_eq!(obeying(&error, wait).as_secs(), expected, "{asked:?}");
        }
    }

    #[test]
    fn a_minute_of_quiet_starts_over_and_less_does_not() {
        let mut backoff = Backoff { failures: 5 };
        assert_eq!(backoff.failed(QUIET - Duration::from_millis(1), u32::MAX).as_secs(), 32);
        assert_eq!(backoff.failed(QUIET, u32::MAX), FIRST);
        assert_eq!(backoff.failed(Duration::ZERO, u32::MAX), FIRST * 2);
        backoff.reset();
        assert_eq!(backoff.failed(Duration::ZERO, u32::MAX), FIRST);
    }
}
