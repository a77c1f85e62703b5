//! Where an instance goes: its cgroup and its network namespace, made for it
//! at its start or taken from a pool that was filled before.
//!
//! What a pool holds is fresh: nothing was ever in it, so nothing has to be
//! reset.

use super::template::Template;
use crate::container::cgroup::{Group, RunTree};
use crate::container::network::{Attachment, Bridge, Lease, Marked, Netns, NetworkError, Witness};
use crate::errors::chain;
use crate::sys::clock::monotonic_ns;

/// What a template's instances have for a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    /// The host's.
    Host,
    /// A namespace that each is born with.
    Own,
    /// A namespace that is made for each, with nothing but loopback.
    Given,
    /// The same with an interface on the run's bridge.
    Bridge,
}

/// A network namespace that was made for an instance.
pub(super) struct Net {
    pub(super) netns: Netns,
    pub(super) lease: Option<Lease>,
}

/// A cgroup and, for some, a network namespace.
pub(super) struct Place {
    pub(super) group: Group,
    pub(super) net: Option<Net>,
    pub(super) marked: Option<Marked>,
    /// Nanoseconds that it took to make, when it comes from a pool.
    pub(super) refill: Option<u64>,
}

/// The place that stands ready for a template's next instance, or why there
/// is none.
pub(super) struct Pool {
    ready: Result<Place, String>,
    filled: u32,
}

impl Pool {
    /// A pool with nothing in it.
    pub(super) fn empty() -> Self {
        Self { ready: Err("the pool was never filled".to_owned()), filled: 0 }
    }

    /// Takes the place.
    pub(super) fn take(&mut self) -> Result<Place, String> {
        std::mem::replace(&mut self.ready, Err("the pool is empty".to_owned()))
    }
}

/// What places are made from.
pub(super) struct Ground {
    pub(super) tree: RunTree,
    /// The run's bridge, once a template needs it.
    pub(super) bridge: Option<Bridge>,
    /// Sees network namespaces end, where that is allowed.
    pub(super) witness: Result<Witness, String>,
}

impl Ground {
    /// A network namespace of this kind, if one has to be made.
    pub(super) fn network(&mut self, network: Network) -> Result<Option<Net>, String> {
        let failed = |error: NetworkError| chain(&error);
        match (network, &mut self.bridge) {
            (Network::Host | Network::Own, _) => Ok(None),
            (Network::Given, _) => {
                let netns = Netns::fresh().map_err(failed)?;
                Ok(Some(Net { netns, lease: None }))
            }
            (Network::Bridge, Some(bridge)) => {
                let Attachment { netns, lease } = bridge.attach().map_err(failed)?;
                Ok(Some(Net { netns, lease: Some(lease) }))
            }
            (Network::Bridge, None) => Err("the run has no bridge".to_owned()),
        }
    }

    /// Fills a template's pool, if it has one and it is empty: in a moment in
    /// which nothing is measured.
    pub(super) fn refill(&mut self, number: u32, template: &mut Template) {
        let Some(mut pool) = template.pool.take() else { return };
        if pool.ready.is_err() {
            pool.filled += 1;
            let name = format!("pool-{number}-{}", pool.filled);
            pool.ready = self.make(&name, template);
        }
        template.pool = Some(pool);
    }

    /// Makes a place for a pool.
    fn make(&mut self, name: &str, template: &Template) -> Result<Place, String> {
        let begun = monotonic_ns();
        let group = self.tree.create(name, &template.limits).map_err(|error| chain(&error))?;
        let mut place = Place { group, net: None, marked: None, refill: None };
        match self.network(template.network) {
            Ok(net) => place.net = net,
            Err(reason) => {
                let _ = place.group.remove(super::live::REMOVAL);
                return Err(reason);
            }
        }
        place.refill = Some(monotonic_ns() - begun);
        // Not part of the cost: only the measurement needs it.
        if let (Ok(witness), Some(net)) = (&mut self.witness, &place.net) {
            place.marked = witness.mark_namespace(&net.netns).ok();
        }
        Ok(place)
    }

    /// Gets ready to see the next end.
    pub(super) fn renew_witness(&mut self) {
        if let Ok(witness) = &mut self.witness
            && let Err(error) = witness.renew()
        {
            self.witness = Err(chain(&error));
        }
    }

    /// Takes an address back after its instance was destroyed, or, with
    /// `force`, whatever has become of it.
    pub(super) fn release(&mut self, lease: Option<Lease>, force: bool) -> Result<(), String> {
        let (Some(bridge), Some(lease)) = (&mut self.bridge, lease) else { return Ok(()) };
        let result =
            if force { bridge.detach(&lease) } else { bridge.release(lease, super::live::REMOVAL) };
        result.map_err(|error| chain(&error))
    }
}
