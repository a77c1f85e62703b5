//! The one clock of the suite: `CLOCK_MONOTONIC`, in nanoseconds.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A moment on `CLOCK_MONOTONIC` in nanoseconds since an arbitrary start
/// that all processes of this host share (clock_gettime(2)).
#[must_use]
pub fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
        // The kernel's monotonic clock starts at boot and is never negative.
        let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
        let nanoseconds = u64::try_from(now.tv_nsec()).unwrap_or(0);
        seconds * 1_000_000_000 + nanoseconds
    })
}

/// A moment by which something must have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(u64);

impl Deadline {
    /// The moment this far from now.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(monotonic_ns().saturating_add(nanoseconds))
    }

    /// Time left; zero when it has passed.
    #[must_use]
    pub fn left(self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(monotonic_ns()))
    }

    /// Whether it has passed.
    #[must_use]
    pub fn passed(self) -> bool {
        self.left().is_zero()
    }

    /// Time left in whole milliseconds, rounded up, for `poll`.
    #[must_use]
    pub fn poll_timeout(self) -> nix::poll::PollTimeout {
        let left = self.left();
        let millis = left.as_millis() + u128::from(!left.subsec_nanos().is_multiple_of(1_000_000));
        u16::try_from(millis).map_or(nix::poll::PollTimeout::MAX, nix::poll::PollTimeout::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_back_and_deadlines_pass() {
        let before = monotonic_ns();
        let deadline = Deadline::after(Duration::from_millis(1));
        while !deadline.passed() {
            std::thread::yield_now();
        }
        assert!(monotonic_ns() - before >= 1_000_000);
        assert_eq!(deadline.left(), Duration::ZERO);
    }
}
