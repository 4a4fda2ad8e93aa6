//! When a subscriber may be told the next thing, when it is asked whether it is there, and when it is
//! given up. Without a socket and without a clock: whoever drives it says what time it is.
//!
//! What is written to a socket lands in buffers of two kernels, thousands of notices deep, and a
//! subscriber that has stopped reading would read them all when it goes on. So a ping goes out with
//! each notice, and the next notice waits for its pong: there is one notice on the way at most, and the
//! newest behind it. WebSocket programs answer pings by themselves as they read. One that has never
//! answered any is not held back for that; it is then up to the socket's buffers, as it was.
//!
//! At most one ping is unanswered at any time: a peer may answer the latest only.

use std::time::Duration;

use tokio::time::Instant;

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// Nothing before this time.
    At(Instant),
    /// A ping: nothing was heard for a while.
    Ping,
    /// The peer left a ping unanswered for too long.
    GiveUp,
}

/// The pace of one subscriber.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long a silent peer is left alone.
    interval: Duration,
    /// How long a ping may be unanswered.
    patience: Duration,
    /// When something came last.
    heard: Instant,
    /// When the ping was sent that is unanswered.
    pinged: Option<Instant>,
    /// The peer has answered a ping before.
    answers: bool,
}

impl Pace {
    /// Of a connection that was opened `now`.
    pub fn new(interval: Duration, patience: Duration, now: Instant) -> Pace {
        Pace { interval, patience, heard: now, pinged: None, answers: false }
    }

    /// Whether a notice may be sent.
    pub fn is_open(&self) -> bool {
        self.pinged.is_none() || !self.answers
    }

    /// Whether a ping goes out with what is sent now; it is to be sent then.
    pub fn ping_along(&mut self, now: Instant) -> bool {
        let pings = self.pinged.is_none();
        if pings {
            self.pinged = Some(now);
        }
        pings
    }

    /// The peer sent a pong; true where there was a ping that it answers.
    pub fn pong(&mut self, now: Instant) -> bool {
        let asked = self.pinged.take().is_some();
        self.answers |= asked;
        self.heard = now;
        asked
    }

    /// The peer sent anything else.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// What is due.
    pub fn due(&self, now: Instant) -> Due {
        let (at, due) = match self.pinged {
            Some(pinged) if self.answers => (pinged + self.patience, Due::GiveUp),
            // One that answers no pings may be alive all the same.
            Some(pinged) => (pinged.max(self.heard) + self.patience, Due::GiveUp),
            None => (self.heard + self.interval, Due::Ping),
        };
        if at <= now { due } else { Due::At(at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn pace() -> (Pace, Instant) {
        let start = Instant::now();
        (Pace::new(5 * MINUTE, 2 * MINUTE, start), start)
    }

    #[test]
    fn the_next_notice_waits_for_the_answer_of_one_that_answers() {
        let (mut pace, start) = pace();
        assert!(pace.is_open() && pace.ping_along(start));
        pace.pong(start);
        assert!(pace.is_open() && pace.ping_along(start));
        assert!(!pace.is_open());
        pace.heard(start + MINUTE);
        assert!(!pace.is_open(), "only the answer opens it");
        pace.pong(start + MINUTE);
        assert!(pace.is_open());
    }

    #[test]
    fn one_that_answers_no_pings_is_not_held_back() {
        let (mut pace, start) = pace();
        assert!(pace.ping_along(start));
        assert!(pace.is_open() && !pace.ping_along(start), "one ping at a time");
        pace.pong(start);
        assert!(pace.is_open());
        // An answer that nobody asked for shows nothing.
        let (mut other, start) = self::pace();
        assert!(!other.pong(start));
        assert!(other.ping_along(start) && other.is_open());
    }

    #[test]
    fn who_answers_nothing_is_given_up_after_the_patience() {
        let (mut pace, start) = pace();
        assert_eq!(pace.due(start), Due::At(start + 5 * MINUTE));
        assert_eq!(pace.due(start + 5 * MINUTE), Due::Ping);
        assert!(pace.ping_along(start + 5 * MINUTE));
        assert_eq!(pace.due(start + 5 * MINUTE), Due::At(start + 7 * MINUTE));
        assert_eq!(pace.due(start + 7 * MINUTE), Due::GiveUp);
        // Any sign of life will do from one that answers no pings, and none from one that does.
        let mut silent = pace;
        silent.heard(start + 6 * MINUTE);
        assert_eq!(silent.due(start + 7 * MINUTE), Due::At(start + 8 * MINUTE));
        assert!(silent.pong(start + 7 * MINUTE), "late is not never");
        pace.pong(start + 6 * MINUTE);
        assert!(pace.ping_along(start + 6 * MINUTE));
        pace.heard(start + 7 * MINUTE);
        assert_eq!(pace.due(start + 8 * MINUTE), Due::GiveUp);
    }
}
