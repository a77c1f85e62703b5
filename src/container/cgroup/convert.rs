//! From the units of version 1, which the OCI runtime specification uses, to
//! those of version 2.

/// Least and most shares of version 1.
const SHARES: (u64, u64) = (2, 262_144);
/// Least and most weight of version 2.
const WEIGHTS: (u64, u64) = (1, 10_000);

/// Version 2 weight for version 1 shares: the curve through least (2, 1),
/// default (1024, 100) and most (262144, 10000),
/// `10^((log2(s)^2 + 125 log2(s)) / 612 - 7 / 34)`, rounded up, as runc
/// converts since 1.3.2
/// (<https://github.com/opencontainers/cgroups/blob/main/utils.go>). The
/// straight line that older runtimes draw makes 39 of the default.
#[must_use]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the result is between 1 and 10000"
)]
pub(in crate::container) fn shares_to_weight(shares: u64) -> u64 {
    let shares = shares.clamp(SHARES.0, SHARES.1);
    let log = (shares as f64).log2();
    let weight = 10_f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0);
    // What is a whole number but for rounding must not be rounded up.
    ((weight - 1e-9).ceil() as u64).clamp(WEIGHTS.0, WEIGHTS.1)
}

/// Version 1 shares for a version 2 weight: the most that
/// [`shares_to_weight`] takes back to it.
#[must_use]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the result is between 2 and 262144"
)]
pub(in crate::container) fn weight_to_shares(weight: u64) -> u64 {
    let weight = weight.clamp(WEIGHTS.0, WEIGHTS.1) as f64;
    // The positive root of log^2 + 125 log - 612 (log10(w) + 7 / 34) = 0.
    let log =
        ((125.0_f64.powi(2) + 4.0 * 612.0 * (weight.log10() + 7.0 / 34.0)).sqrt() - 125.0) / 2.0;
    ((log.exp2() + 1e-6).floor() as u64).clamp(SHARES.0, SHARES.1)
}

/// `io.weight` (1 to 10000) for a block weight of version 1 (10 to 1000), as
/// crun documents it: `1 + (w - 10) * 9999 / 990`
/// (<https://github.com/containers/crun/blob/main/crun.1.md#cgroup-v2>).
#[must_use]
pub(super) fn block_to_io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).clamp(10, 1000) - 10) * 9_999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_defaults_meet() {
        for (shares, weight) in [(2, 1), (1024, 100), (262_144, 10_000)] {
            assert_eq!((shares_to_weight(shares), weight_to_shares(weight)), (weight, shares));
        }
        assert_eq!((shares_to_weight(0), shares_to_weight(u64::MAX)), (1, 10_000));
        assert_eq!([10, 500, 1000].map(block_to_io_weight), [1, 4950, 10_000]);
    }

    #[test]
    fn every_weight_survives_the_way_to_shares_and_back() {
        for weight in WEIGHTS.0..=WEIGHTS.1 {
            assert_eq!(shares_to_weight(weight_to_shares(weight)), weight);
        }
    }

    #[test]
    fn more_shares_are_never_less_weight() {
        let weights: Vec<u64> = (SHARES.0..=SHARES.1).step_by(7).map(shares_to_weight).collect();
        assert!(weights.is_sorted());
    }
}
