//! Network namespaces held by descriptor.

use std::fs::File;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::fstat;

use super::NetworkError;
use super::netlink::Connection;
use crate::sys::namespace::network_of;

/// `lo` is interface 1 in every network namespace (`LOOPBACK_IFINDEX`,
/// include/net/net_namespace.h).
pub(super) const LOOPBACK: u32 = 1;

/// A network namespace. It lives as long as this value, a copy of its
/// descriptor, or a process or socket in it does; the kernel destroys it
/// some milliseconds after the last of them.
#[derive(Debug)]
pub struct Netns(OwnedFd);

impl Netns {
    /// Makes a network namespace, with its loopback interface up, that
    /// nothing was ever in.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Namespace`], without root above all.
    pub fn fresh() -> Result<Self, NetworkError> {
        Self::with_connection().map(|(namespace, _)| namespace)
    }

    /// Makes one of which not even the loopback interface is up.
    pub(super) fn empty() -> Result<Self, NetworkError> {
        let away = Inside::anew()?;
        let namespace = Self::own();
        drop(away);
        namespace
    }

    /// Makes one, and a connection into it.
    pub(super) fn with_connection() -> Result<(Self, Connection), NetworkError> {
        let refused = |operation: &str| {
            let operation = operation.to_owned();
            move |source| NetworkError::Netlink { operation, source }
        };
        let away = Inside::anew()?;
        let namespace = Self::own()?;
        let inside = Connection::open();
        drop(away);
        let mut inside = inside.map_err(refused("open a netlink socket in a new namespace"))?;
        inside
            .request(vec![(up(LOOPBACK), 0)])
            .map_err(|(_, error)| refused("bring up the loopback interface")(error))?;
        Ok((namespace, inside))
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// When `/proc` is not mounted.
    pub fn own() -> Result<Self, NetworkError> {
        let file = File::open("/proc/thread-self/ns/net").map_err(|source| {
            NetworkError::Namespace { operation: "open this thread's network namespace", source }
        })?;
        Ok(Self(file.into()))
    }

    /// The namespace that a socket is in; an accepted one is in that of
    /// whoever connected.
    ///
    /// # Errors
    ///
    /// Without `CAP_NET_ADMIN` in it.
    pub fn of_socket(socket: BorrowedFd<'_>) -> Result<Self, NetworkError> {
        network_of(socket).map(Self).map_err(|errno| NetworkError::Namespace {
            operation: "open the network namespace of a socket",
            source: errno.into(),
        })
    }

    /// Whether both are one namespace.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let number = |file: &OwnedFd| fstat(file).map(|stat| (stat.st_dev, stat.st_ino));
        matches!((number(&self.0), number(&other.0)), (Ok(one), Ok(two)) if one == two)
    }

    /// Moves the calling thread into the namespace until the returned value
    /// is dropped. Children made meanwhile are born in it.
    ///
    /// # Errors
    ///
    /// When the caller may not (it needs `CAP_SYS_ADMIN` there and here).
    pub fn enter(&self) -> Result<Inside, NetworkError> {
        let home = Self::own()?;
        setns(self, CloneFlags::CLONE_NEWNET).map_err(|errno| NetworkError::Namespace {
            operation: "enter a network namespace",
            source: errno.into(),
        })?;
        Ok(Inside::new(Arc::new(home)))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The calling thread's stay in another network namespace.
#[derive(Debug)]
#[must_use = "dropping it is the way back"]
pub struct Inside {
    home: Arc<Netns>,
    /// Namespaces belong to threads: it must be dropped where it was made.
    here: PhantomData<*const ()>,
}

impl Inside {
    fn new(home: Arc<Netns>) -> Self {
        Self { home, here: PhantomData }
    }

    /// Moves the calling thread into a new network namespace.
    fn anew() -> Result<Self, NetworkError> {
        Self::anew_from(Arc::new(Netns::own()?))
    }

    /// The same; `home` is the thread's own namespace, opened before.
    pub(in crate::container) fn anew_from(home: Arc<Netns>) -> Result<Self, NetworkError> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| NetworkError::Namespace {
            operation: "make a network namespace",
            source: errno.into(),
        })?;
        Ok(Self::new(home))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if setns(self.home.as_ref(), CloneFlags::CLONE_NEWNET).is_err() {
            // Only when the kernel has no memory for a small structure. To
            // go on in a stranger's network would be worse than to end.
            std::process::abort();
        }
    }
}

/// The request to bring up an interface.
pub(super) fn up(index: u32) -> RouteNetlinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    RouteNetlinkMessage::SetLink(link)
}
