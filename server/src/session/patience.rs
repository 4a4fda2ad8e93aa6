//! How slow a peer may be. A peer that sends a byte a minute is never idle, and yet holds its place
//! among the transfers, and a push its replica's turn, for as long as it likes.
//!
//! A transfer has a stock of patience, the window. Waiting for the peer uses it up, what the peer moves
//! in either direction fills it again: a second for every `rate_min` bytes, up to the window. So a peer
//! that is faster than the least rate never runs out of it, one that is slower is cut off sooner or
//! later, and time that this side spends on its own work costs nothing.
//!
//! A second stock is smaller, and is kept in the same way. It counts only while others wait for what the peer
//! has: who trickles is then no better off than who stands still.

use std::time::Duration;

/// What is left of the patience with a peer.
#[derive(Debug)]
pub struct Patience {
    usual: Stock,
    hurried: Stock,
    rate_min: u64,
}

/// So much is left, of so much.
#[derive(Debug)]
struct Stock {
    left: Duration,
    window: Duration,
}

impl Stock {
    fn full(window: Duration) -> Stock {
        Stock { left: window, window }
    }

    fn change(&mut self, earned: Duration, used: Duration) {
        self.left = self.left.saturating_add(earned).saturating_sub(used).min(self.window);
    }
}

impl Patience {
    /// Full stocks, `hurried` for while others wait. `rate_min` is in bytes a second.
    pub fn new(rate_min: u64, window: Duration, hurried: Duration) -> Patience {
        let (usual, hurried) = (Stock::full(window), Stock::full(hurried.min(window)));
        Patience { usual, hurried, rate_min: rate_min.max(1) }
    }

    /// How long the peer may still be waited for.
    pub fn left(&self) -> Duration {
        self.usual.left
    }

    /// How long it may be while others wait.
    pub fn left_hurried(&self) -> Duration {
        self.hurried.left
    }

    /// The peer was waited for, and then moved so many bytes.
    pub fn waited(&mut self, time: Duration, bytes: usize) {
        let earned = Duration::try_from_secs_f64(bytes as f64 / self.rate_min as f64);
        let earned = earned.unwrap_or(Duration::MAX);
        self.usual.change(earned, time);
        self.hurried.change(earned, time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_peer_below_the_rate_runs_out_of_it_and_one_above_never_does() {
        let mut slow = Patience::new(1000, 60 * SECOND, 10 * SECOND);
        let mut seconds = 0;
        while slow.left() > Duration::ZERO && seconds < 1000 {
            slow.waited(SECOND, 500);
            seconds += 1;
            assert_eq!(slow.left_hurried() == Duration::ZERO, seconds >= 20, "a sixth of it");
        }
        assert_eq!(seconds, 120, "half the rate: half a second lost with every one");
        let mut honest = Patience::new(1000, 60 * SECOND, 10 * SECOND);
        for _ in 0..10_000 {
            honest.waited(SECOND, 1001);
            assert!(honest.left() > 59 * SECOND && honest.left_hurried() > 9 * SECOND);
        }
    }

    #[test]
    fn a_fast_beginning_buys_no_more_than_the_window() {
        let mut peer = Patience::new(1000, 60 * SECOND, 10 * SECOND);
        peer.waited(Duration::ZERO, usize::MAX);
        assert_eq!(peer.left(), 60 * SECOND);
        peer.waited(61 * SECOND, 0);
        assert_eq!(peer.left(), Duration::ZERO);
    }
}
