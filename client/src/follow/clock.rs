//! Time that goes on while the machine sleeps: after an hour with the lid closed, what was to be heard
//! within a minute is overdue and not a minute away. No wall clock: that one jumps.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Elsewhere than on Linux the monotonic clock counts sleep, or there is none that does.
#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: ClockId = ClockId::Monotonic;

/// The longest that a timer of the runtime is trusted for: those stand still while the machine sleeps.
const SLICE: Duration = Duration::from_secs(5);

/// The time now, since some moment before this process began.
pub fn now() -> Duration {
    let time = clock_gettime(CLOCK);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Sleeps until then; at most five seconds longer where the machine sleeps meanwhile.
pub async fn sleep_until(then: Duration) {
    loop {
        match then.checked_sub(now()) {
            None | Some(Duration::ZERO) => return,
            Some(left) => tokio::time::sleep(left.min(SLICE)).await,
        }
    }
}
