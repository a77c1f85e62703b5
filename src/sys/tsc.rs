//! The frequency of this host's time stamp counter, measured against the
//! kernel's clock.
//!
//! A guest that is told the true frequency need not find it out. It says
//! nothing about whether the counter is steady.

use std::time::Duration;

/// The counter's frequency in kHz, from three intervals of 40 ms of
/// `CLOCK_MONOTONIC_RAW`; `None` when two of them differ by more than 50 per
/// million, or the processor has no such counter.
#[must_use]
pub fn frequency_khz() -> Option<u32> {
    let mut found: Vec<u64> = (0..3).map(|_| once()).collect::<Option<_>>()?;
    found.sort_unstable();
    let (low, middle, high) = (found[0], found[1], found[2]);
    let steady = low > 0 && (high - low).saturating_mul(20_000) <= middle;
    u32::try_from(middle).ok().filter(|_| steady)
}

/// One measurement in kHz.
fn once() -> Option<u64> {
    let (ticks, time) = reading()?;
    std::thread::sleep(Duration::from_millis(40));
    let (more, later) = reading()?;
    let (ticks, time) = (more.checked_sub(ticks)?, later.checked_sub(time)?);
    (u128::from(ticks) * 1_000_000)
        .checked_div(u128::from(time))
        .and_then(|khz| khz.try_into().ok())
}

/// The counter and the clock (in nanoseconds) at one moment: the closest of
/// several pairs, since any of them may be interrupted in between.
fn reading() -> Option<(u64, u64)> {
    let pair = || {
        let before = counter()?;
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_RAW).ok()?;
        let after = counter()?;
        let nanoseconds = u64::try_from(now.tv_sec()).ok()? * 1_000_000_000
            + u64::try_from(now.tv_nsec()).ok()?;
        let width = after.saturating_sub(before);
        Some((width, before + width / 2, nanoseconds))
    };
    let best = (0..20).filter_map(|_| pair()).min_by_key(|(width, ..)| *width)?;
    Some((best.1, best.2))
}

/// The counter, ordered against the instructions around it.
#[cfg(target_arch = "x86_64")]
fn counter() -> Option<u64> {
    let mut processor = 0;
    // SAFETY: the instruction reads a counter and writes one number; a kernel
    // that forbids it (prctl PR_SET_TSC) does so only on request.
    Some(unsafe { core::arch::x86_64::__rdtscp(&raw mut processor) })
}

/// Other architectures have no such counter.
#[cfg(not(target_arch = "x86_64"))]
fn counter() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn two_measurements_agree() {
        let (Some(first), Some(second)) = (super::once(), super::once()) else {
            panic!("an x86-64 processor has a counter");
        };
        assert!(first.abs_diff(second) * 1000 < first, "{first} {second}");
    }
}
