//! A run's bridge, and the interfaces on it.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::libc;
use sha2::{Digest, Sha256};

use super::namespace::{Netns, up};
use super::netlink::Connection;
use super::subnet::{Addresses, Subnet, candidates, in_the_way};
use super::{NetworkError, sweep};
use crate::sys::clock::Deadline;

/// Name of an instance's interface inside.
const INNER: &str = "eth0";

/// A run's own bridge. Dropping it removes it, without saying so when that
/// fails; [`Bridge::remove`] does.
#[derive(Debug)]
pub struct Bridge {
    name: String,
    index: u32,
    subnet: Subnet,
    addresses: Addresses,
    connection: Connection,
    removed: bool,
}

/// An instance's place on the bridge.
#[derive(Debug)]
pub struct Attachment {
    /// Its network namespace, set up and empty. Drop it once the instance
    /// lives in it, or the namespace outlives the instance.
    pub netns: Netns,
    /// Its address and interface, to be given back to [`Bridge::release`].
    pub lease: Lease,
}

/// An address and the interface that has it.
#[derive(Debug)]
#[must_use = "an address that is not released is not used again"]
pub struct Lease {
    number: u32,
    address: Ipv4Addr,
    link: String,
}

impl Lease {
    /// The instance's address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Name of the host's end of the instance's interface.
    #[must_use]
    pub fn link(&self) -> &str {
        &self.link
    }
}

/// The start of the names of everything of a run, and a number that differs
/// between runs. Names of interfaces have at most 15 bytes (`IFNAMSIZ`, with
/// its end), so the run's id does not fit.
pub(super) fn name_of(run_id: &str) -> (String, u32) {
    let digest = Sha256::digest(run_id.as_bytes());
    let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    (format!("{}{number:08x}", sweep::PREFIX), number)
}

impl Bridge {
    /// Makes the bridge of a run, up, with a private network that no route or
    /// address of this host overlaps with. Its alias is `unladen-<run id>`.
    ///
    /// # Errors
    ///
    /// [`NetworkError::NoSubnet`], or what the kernel refuses; nothing is
    /// left then.
    pub fn create(run_id: &str) -> Result<Self, NetworkError> {
        let (name, number) = name_of(run_id);
        let connection =
            Connection::open().map_err(failed(|| "open a netlink socket".to_owned()))?;
        let subnet = Subnet::new(Ipv4Addr::UNSPECIFIED, 32);
        let addresses = Addresses::new(subnet);
        let mut bridge = Self { name, index: 0, subnet, addresses, connection, removed: true };
        let link = new_link(&bridge.name, InfoKind::Bridge);
        bridge.ask(|name| format!("make the bridge {name}"), link, NLM_F_CREATE | NLM_F_EXCL)?;
        // From here on dropping it removes it.
        bridge.removed = false;
        bridge.index = index_of(&mut bridge.connection, &bridge.name)?;
        let mut link = LinkMessage::default();
        link.header.index = bridge.index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        link.attributes.push(LinkAttribute::IfAlias(format!("unladen-{run_id}")));
        bridge.ask(|name| format!("bring up {name}"), RouteNetlinkMessage::SetLink(link), 0)?;
        bridge.subnet = bridge.settle(number)?;
        bridge.addresses = Addresses::new(bridge.subnet);
        Ok(bridge)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network.
    #[must_use]
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// The host's address on it, which is every instance's gateway.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.subnet.address(1)
    }

    /// Makes a network namespace with an interface on the bridge: `eth0` with
    /// an address and a default route, and `lo`, both up.
    ///
    /// # Errors
    ///
    /// When no address is free, or the kernel refuses; nothing is left then.
    pub fn attach(&mut self) -> Result<Attachment, NetworkError> {
        let Some((number, address)) = self.addresses.take() else {
            let (bridge, subnet) = (self.name.clone(), self.subnet);
            return Err(NetworkError::Full { bridge, subnet });
        };
        let link = format!("{}{number:x}", self.name);
        let lease = Lease { number, address, link };
        match self.connect(&lease) {
            // A pair that was made is destroyed with its namespace.
            Err(error) => {
                self.addresses.give_back(number);
                Err(error)
            }
            Ok(netns) => Ok(Attachment { netns, lease }),
        }
    }

    /// Waits until the interface of an ended instance is gone and takes its
    /// address back. The kernel removes the interface with its namespace,
    /// which takes milliseconds: keep it off a critical path.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Remains`]; the address is then not used again.
    pub fn release(&mut self, lease: Lease, limit: Duration) -> Result<(), NetworkError> {
        let deadline = Deadline::after(limit);
        while exists(&lease.link) {
            if deadline.passed() {
                let what = format!("the interface {}", lease.link);
                return Err(NetworkError::Remains { what, seconds: limit.as_secs_f64() });
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        self.addresses.give_back(lease.number);
        Ok(())
    }

    /// Removes the interface of an instance whatever it is doing, and takes
    /// its address back.
    ///
    /// # Errors
    ///
    /// What the kernel refuses. An interface that is gone is fine.
    pub fn detach(&mut self, lease: &Lease) -> Result<(), NetworkError> {
        sweep::remove_link(&mut self.connection, &lease.link)?;
        self.addresses.give_back(lease.number);
        Ok(())
    }

    /// Removes the bridge. Interfaces that are still on it stay until their
    /// namespaces end.
    ///
    /// # Errors
    ///
    /// What the kernel refuses. A bridge that is gone is fine.
    pub fn remove(mut self) -> Result<(), NetworkError> {
        self.removed = true;
        sweep::remove_link(&mut self.connection, &self.name)
    }

    /// The work of [`Bridge::attach`].
    fn connect(&mut self, lease: &Lease) -> Result<Netns, NetworkError> {
        let (gateway, prefix) = (self.gateway(), self.subnet.prefix());
        let broadcast = self.subnet.broadcast();
        let (netns, mut inside) = Netns::with_connection()?;
        let veth = veth(lease, self.index, &netns);
        let pair = |name: &str| format!("make the interface {} on {name}", lease.link);
        self.ask(pair, veth, NLM_F_CREATE | NLM_F_EXCL)?;
        // The kernel numbers the peer (a wish is heard only for both ends).
        let index = index_of(&mut inside, INNER)?;
        // The peer cannot be made up: at that moment it is not connected yet
        // (`veth_open` in drivers/net/veth.c).
        let settings = vec![
            (up(index), 0),
            (new_address(index, lease.address, prefix, broadcast), NLM_F_CREATE | NLM_F_EXCL),
            (default_route(index, gateway), NLM_F_CREATE | NLM_F_EXCL),
        ];
        inside.request(settings).map_err(|(index, source)| {
            let what = ["bring up the peer", "set the address", "set the default route"];
            let what = what.get(index).copied().unwrap_or_default();
            NetworkError::Netlink { operation: format!("{what} of {}", lease.link), source }
        })?;
        Ok(netns)
    }

    /// Gives the bridge a network that is free. Another run may take the same
    /// one at the same moment, so it is looked at again afterwards.
    fn settle(&mut self, number: u32) -> Result<Subnet, NetworkError> {
        let (mut tried, mut last) = (0, None);
        for subnet in candidates(number) {
            (tried, last) = (tried + 1, Some(subnet));
            if self.is_taken(subnet)? {
                continue;
            }
            let address = subnet.address(1);
            let message = || new_address(self.index, address, subnet.prefix(), subnet.broadcast());
            let (add, withdraw) = (message(), message());
            let set = |name: &str| format!("give {name} the address {address}");
            self.ask(set, add, NLM_F_CREATE | NLM_F_EXCL)?;
            if !self.is_taken(subnet)? {
                return Ok(subnet);
            }
            if let RouteNetlinkMessage::NewAddress(address) = withdraw {
                let message = RouteNetlinkMessage::DelAddress(address);
                self.ask(|name| format!("withdraw an address of {name}"), message, 0)?;
            }
        }
        let last = last.map_or_else(String::new, |subnet| subnet.to_string());
        Err(NetworkError::NoSubnet { tried, last })
    }

    /// Whether a route or an address of others overlaps with a network.
    fn is_taken(&mut self, wanted: Subnet) -> Result<bool, NetworkError> {
        let mut routes = RouteMessage::default();
        routes.header.address_family = AddressFamily::Inet;
        let routes = self
            .connection
            .dump(RouteNetlinkMessage::GetRoute(routes))
            .map_err(failed(|| "list the routes".to_owned()))?;
        let mut addresses = AddressMessage::default();
        addresses.header.family = AddressFamily::Inet;
        let addresses = self
            .connection
            .dump(RouteNetlinkMessage::GetAddress(addresses))
            .map_err(failed(|| "list the addresses".to_owned()))?;
        let used = |message: &RouteNetlinkMessage| match message {
            RouteNetlinkMessage::NewRoute(route) => route_of_others(route, self.index),
            RouteNetlinkMessage::NewAddress(address) => address_of_others(address, self.index),
            _ => None,
        };
        Ok(routes.iter().chain(&addresses).filter_map(used).any(|used| in_the_way(used, wanted)))
    }

    /// One request; `operation` gets the bridge's name.
    fn ask(
        &mut self,
        operation: impl Fn(&str) -> String,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetworkError> {
        let result = self.connection.request(vec![(message, flags)]);
        result.map_err(|(_, source)| NetworkError::Netlink {
            operation: operation(&self.name),
            source,
        })
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if !self.removed {
            // `unladen clean` finds it by its name.
            drop(sweep::remove_link(&mut self.connection, &self.name));
        }
    }
}

/// Whether an interface exists here. A broken `/sys` would say no.
fn exists(link: &str) -> bool {
    Path::new("/sys/class/net").join(link).exists()
}

fn failed(operation: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| NetworkError::Netlink { operation: operation(), source }
}

/// The number of an interface.
fn index_of(connection: &mut Connection, name: &str) -> Result<u32, NetworkError> {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    match connection.query(RouteNetlinkMessage::GetLink(link)) {
        Ok(RouteNetlinkMessage::NewLink(link)) => Ok(link.header.index),
        Ok(_) => Err(io::Error::from(io::ErrorKind::InvalidData)),
        Err(error) => Err(error),
    }
    .map_err(failed(|| format!("find the interface {name}")))
}

fn new_link(name: &str, kind: InfoKind) -> RouteNetlinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
    RouteNetlinkMessage::NewLink(link)
}

/// A pair of interfaces: one on the bridge and up, its peer in the
/// namespace.
fn veth(lease: &Lease, bridge: u32, netns: &Netns) -> RouteNetlinkMessage {
    let mut peer = LinkMessage::default();
    peer.attributes.push(LinkAttribute::IfName(INNER.to_owned()));
    peer.attributes.push(LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd()));
    let mut link = LinkMessage::default();
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes.push(LinkAttribute::IfName(lease.link.clone()));
    link.attributes.push(LinkAttribute::Controller(bridge));
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    RouteNetlinkMessage::NewLink(link)
}

fn new_address(
    index: u32,
    address: Ipv4Addr,
    prefix: u8,
    broadcast: Ipv4Addr,
) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(address.into()),
        AddressAttribute::Address(address.into()),
        AddressAttribute::Broadcast(broadcast),
    ];
    RouteNetlinkMessage::NewAddress(message)
}

fn default_route(index: u32, gateway: Ipv4Addr) -> RouteNetlinkMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Static;
    route.header.scope = RouteScope::Universe;
    route.header.kind = RouteType::Unicast;
    route.attributes =
        vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway)), RouteAttribute::Oif(index)];
    RouteNetlinkMessage::NewRoute(route)
}

/// The destination of a route that does not lead to this interface.
fn route_of_others(route: &RouteMessage, own: u32) -> Option<Subnet> {
    let mut destination = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) if *index == own => return None,
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                destination = Some(Subnet::new(*address, route.header.destination_prefix_length));
            }
            _ => {}
        }
    }
    destination
}

/// The network of an address of another interface.
fn address_of_others(message: &AddressMessage, own: u32) -> Option<Subnet> {
    if message.header.index == own {
        return None;
    }
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(std::net::IpAddr::V4(address)) => {
            Some(Subnet::new(*address, message.header.prefix_len))
        }
        _ => None,
    })
}

/// Whether an error says that there is no such interface.
pub(super) fn no_such_link(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
}
