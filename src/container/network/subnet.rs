//! Private IPv4 networks: which one is free here, and who has which address
//! of it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

/// Prefix length of a run's network: 1022 addresses, as a bridge has at
/// most 1024 ports (`BR_MAX_PORTS`, net/bridge/br_private.h).
pub(super) const PREFIX: u8 = 22;

/// Where a run's network may be: the private ranges of RFC 1918 and the
/// shared one of RFC 6598, with the number of networks in each.
const RANGES: [(Ipv4Addr, u32); 4] = [
    (Ipv4Addr::new(10, 0, 0, 0), 1 << 14),
    (Ipv4Addr::new(172, 16, 0, 0), 1 << 10),
    (Ipv4Addr::new(192, 168, 0, 0), 1 << 6),
    (Ipv4Addr::new(100, 64, 0, 0), 1 << 12),
];

/// Networks that are tried in each range.
const TRIES: u32 = 16;

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    base: u32,
    prefix: u8,
}

impl Subnet {
    /// The network of an address; bits beyond the prefix are dropped.
    #[must_use]
    pub fn new(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Self { base: u32::from(address) & mask(prefix), prefix }
    }

    /// The number of leading bits that its addresses share.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Its n-th address, counted from 0; number 1 is the host's on the
    /// bridge.
    #[must_use]
    pub fn address(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base | n & !mask(self.prefix))
    }

    /// Its last address.
    #[must_use]
    pub fn broadcast(self) -> Ipv4Addr {
        self.address(u32::MAX)
    }

    /// Whether an address belongs to it.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.base
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let shorter = mask(self.prefix.min(other.prefix));
        self.base & shorter == other.base & shorter
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

/// The networks to try for a run, in order: some of each range, beginning
/// where the run's `number` says, so that runs at the same time seldom try
/// the same one.
pub(super) fn candidates(number: u32) -> impl Iterator<Item = Subnet> {
    RANGES.into_iter().flat_map(move |(range, count)| {
        (0..TRIES).map(move |attempt| {
            // An odd stride visits every network of a power of two.
            let nth = number.wrapping_add(attempt.wrapping_mul(number | 1)) % count;
            let base = u32::from(range) + (nth << (32 - PREFIX));
            Subnet::new(Ipv4Addr::from(base), PREFIX)
        })
    })
}

/// Whether a route or address is in the way of a network. A default route,
/// also in the two halves that some VPNs use, is not.
pub(super) fn in_the_way(used: Subnet, wanted: Subnet) -> bool {
    used.prefix > 1 && used.overlaps(wanted)
}

/// The addresses of a network that are given out.
#[derive(Debug)]
pub(super) struct Addresses {
    subnet: Subnet,
    used: BTreeSet<u32>,
    last: u32,
}

impl Addresses {
    /// Number 0 is the network, 1 the host, the last one the broadcast.
    const FIRST: u32 = 2;

    pub(super) fn new(subnet: Subnet) -> Self {
        Self { subnet, used: BTreeSet::new(), last: Self::FIRST - 1 }
    }

    /// Takes the next free address: one that was given back is used again
    /// as late as possible, since neighbours may still remember it.
    pub(super) fn take(&mut self) -> Option<(u32, Ipv4Addr)> {
        let end = !mask(self.subnet.prefix);
        let free =
            (self.last + 1..end).chain(Self::FIRST..=self.last).find(|n| !self.used.contains(n))?;
        self.used.insert(free);
        self.last = free;
        Some((free, self.subnet.address(free)))
    }

    pub(super) fn give_back(&mut self, n: u32) {
        self.used.remove(&n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Subnet {
        let (address, prefix) = text.split_once('/').expect("a slash");
        Subnet::new(address.parse().expect("an address"), prefix.parse().expect("a number"))
    }

    #[test]
    fn overlap_is_having_an_address_in_common() {
        assert!(net("10.0.0.0/8").overlaps(net("10.9.8.0/22")));
        assert!(net("10.9.8.0/22").overlaps(net("10.9.10.7/32")));
        assert!(!net("10.9.8.0/22").overlaps(net("10.9.12.0/22")));
        assert!(net("0.0.0.0/0").overlaps(net("10.9.8.0/22")));
        assert!(!in_the_way(net("0.0.0.0/0"), net("10.9.8.0/22")));
        assert!(!in_the_way(net("0.0.0.0/1"), net("10.9.8.0/22")));
        assert!(in_the_way(net("10.0.0.0/8"), net("10.9.8.0/22")));
    }

    #[test]
    fn candidates_are_private_and_differ() {
        for number in [0, 1, 4711, u32::MAX] {
            let all: Vec<Subnet> = candidates(number).collect();
            let private = |subnet: &Subnet| {
                [
                    net("10.0.0.0/8"),
                    net("172.16.0.0/12"),
                    net("192.168.0.0/16"),
                    net("100.64.0.0/10"),
                ]
                .iter()
                .any(|range| {
                    range.contains(subnet.address(0)) && range.contains(subnet.broadcast())
                })
            };
            assert!(all.iter().all(private), "{all:?}");
            let different: BTreeSet<Subnet> = all.iter().copied().collect();
            assert_eq!(different.len(), all.len(), "{number}");
        }
    }

    #[test]
    fn addresses_are_given_out_once_and_come_back() {
        let mut addresses = Addresses::new(net("192.168.4.0/29"));
        let all: Vec<_> = std::iter::from_fn(|| addresses.take()).collect();
        let expected: Vec<Ipv4Addr> = (2..7).map(|n| Ipv4Addr::new(192, 168, 4, n)).collect();
        assert_eq!(all.iter().map(|(_, address)| *address).collect::<Vec<_>>(), expected);
        addresses.give_back(3);
        assert_eq!(addresses.take(), Some((3, Ipv4Addr::new(192, 168, 4, 3))));
        assert_eq!(addresses.take(), None);
    }
}
