//! Between two trials: waiting until the kernel has freed what the last one
//! left, instead of sleeping for a fixed time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::host::{LeftoverCounters, Leftovers};
use crate::sys::clock::{Deadline, monotonic_ns};

/// The longest wait. Freeing a group takes some grace periods, which are tens
/// of milliseconds each; what others leave meanwhile must not hold up a run.
const LONGEST: Duration = Duration::from_millis(250);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(2);

/// How the wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waited {
    /// Nanoseconds.
    pub(super) took: u64,
    /// Control groups that were still there in the end.
    pub(super) left: u64,
}

/// Waits until there are no more groups than `before`, or for the longest
/// time, or for a signal.
pub(super) fn wait(counters: &LeftoverCounters, before: &Leftovers, stop: &AtomicBool) -> Waited {
    let (begun, deadline) = (monotonic_ns(), Deadline::after(LONGEST));
    loop {
        let left = counters.read().beyond(before);
        let waited = Waited { took: monotonic_ns() - begun, left };
        if left == 0 || deadline.passed() || stop.load(Ordering::Relaxed) {
            return waited;
        }
        std::thread::sleep(LOOK);
    }
}
