//! A reading by all ledgers, and sums of readings.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::record::{Charge, Ledger};
use crate::sys::clock::monotonic_ns;

use super::ProbeError;
use super::smaps::Sizes;

/// Two readings agree when no ledger differs by more than this share.
pub const SETTLED_SHARE: f64 = 0.005;

/// What the kernel's files say about one instance.
pub(super) struct Sources {
    pub(super) sizes: Result<Sizes, ProbeError>,
    pub(super) usage: Result<u64, ProbeError>,
    pub(super) peak: Result<u64, ProbeError>,
    pub(super) highest: Result<u64, ProbeError>,
    pub(super) charges: Result<BTreeMap<Charge, u64>, ProbeError>,
}

/// Memory by ledger at one moment: of one instance, or of several together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Bytes, or why there are none.
    values: BTreeMap<Ledger, Result<u64, String>>,
    /// What `Ledger::Cgroup` consists of.
    charges: BTreeMap<Charge, Result<u64, String>>,
    exact: bool,
    took: Duration,
}

impl Reading {
    /// Reads by all kernel ledgers and notes how long that took.
    pub(super) fn timed(read: impl FnOnce() -> Sources) -> Self {
        let begun = monotonic_ns();
        let Sources { sizes, usage, peak, highest, charges } = read();
        let took = Duration::from_nanos(monotonic_ns().saturating_sub(begun));
        let sizes = sizes.map_err(|error| error.to_string());
        let size = |one: fn(&Sizes) -> u64| sizes.as_ref().map(one).map_err(Clone::clone);
        let values = BTreeMap::from([
            (Ledger::Pss, size(|sizes| sizes.pss)),
            (Ledger::Uss, size(|sizes| sizes.uss)),
            (Ledger::Rss, size(|sizes| sizes.rss)),
            (Ledger::Cgroup, usage.map_err(|error| error.to_string())),
            (Ledger::Peak, peak.map_err(|error| error.to_string())),
            (Ledger::Hwm, highest.map_err(|error| error.to_string())),
        ]);
        let charges = charges.map_err(|error| error.to_string());
        let charge = |kind: Charge| charges.as_ref().map(|all| all[&kind]).map_err(Clone::clone);
        let charges = Charge::ALL.into_iter().map(|kind| (kind, charge(kind))).collect();
        Self { values, charges, exact: false, took }
    }

    /// A reading that was not read: the mock backend's.
    pub(super) fn exact(values: &[(Ledger, f64)]) -> Self {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the mock's values come from whole numbers of bytes"
        )]
        let whole = |value: f64| value as u64;
        let values = values.iter().map(|(ledger, value)| (*ledger, Ok(whole(*value)))).collect();
        Self { values, charges: BTreeMap::new(), exact: true, took: Duration::ZERO }
    }

    /// The readings of several instances together. A ledger that one of them
    /// lacks is missing in the sum, for the same reason.
    #[must_use]
    pub fn sum(readings: impl Iterator<Item = Self>) -> Self {
        readings.reduce(Self::plus).unwrap_or(Self {
            values: BTreeMap::new(),
            charges: BTreeMap::new(),
            exact: false,
            took: Duration::ZERO,
        })
    }

    fn plus(self, other: Self) -> Self {
        let both = |ledger: &Ledger| {
            let sum = self.get(*ledger).and_then(|a| Ok(a + other.get(*ledger)?));
            (*ledger, sum)
        };
        let ledgers = self.values.keys().chain(other.values.keys());
        let values = ledgers.map(both).collect();
        let kinds = self.charges.keys().chain(other.charges.keys());
        let charge =
            |kind: &Charge| (*kind, self.charge(*kind).and_then(|a| Ok(a + other.charge(*kind)?)));
        let charges = kinds.map(charge).collect();
        let exact = self.exact && other.exact;
        Self { values, charges, exact, took: self.took + other.took }
    }

    /// Bytes in one ledger.
    ///
    /// # Errors
    ///
    /// The reason why they are missing.
    pub fn get(&self, ledger: Ledger) -> Result<u64, String> {
        let missing = || format!("{} was not read", ledger.as_str());
        self.values.get(&ledger).cloned().unwrap_or_else(|| Err(missing()))
    }

    /// Bytes of one kind that the memory cgroups are charged.
    ///
    /// # Errors
    ///
    /// The reason why they are missing.
    pub fn charge(&self, kind: Charge) -> Result<u64, String> {
        let missing = || format!("{} was not read", kind.as_str());
        self.charges.get(&kind).cloned().unwrap_or_else(|| Err(missing()))
    }

    /// Whether it holds the mock's values, which need no settling.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// How long the reading took: the probe's own cost.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Whether memory stood still from `before` to this reading: no ledger
    /// that both have moved by more than [`SETTLED_SHARE`]. The peak does not
    /// count, since it cannot fall back.
    #[must_use]
    pub fn agrees_with(&self, before: &Self) -> bool {
        let present = |reading: &Self, ledger| reading.get(ledger).ok();
        [Ledger::Pss, Ledger::Uss, Ledger::Rss, Ledger::Cgroup].into_iter().all(|ledger| {
            match (present(before, ledger), present(self, ledger)) {
                (Some(before), Some(now)) => {
                    now.abs_diff(before) as f64 <= SETTLED_SHARE * before as f64
                }
                (None, None) => true,
                // A ledger came or went: not yet at rest.
                _ => false,
            }
        })
    }
}
