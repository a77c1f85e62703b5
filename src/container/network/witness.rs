//! Learning when a network namespace has been destroyed.
//!
//! The kernel destroys a network namespace in a worker of its own, some time
//! after the last process has left, and tells nobody when it is done. What it
//! does tell is that it begins: a namespace that has an id here
//! (`RTM_NEWNSID`) is announced as `RTM_DELNSID` when the worker takes it
//! (`cleanup_net` in net/core/net_namespace.c). That worker takes all that is
//! due at once and does nothing else until it is through with them. So a
//! second namespace, the *sentinel*, made beforehand and empty, is let go at
//! the announcement: its own announcement says that the worker has come back for
//! more, and thus that the first namespace is destroyed.
//!
//! Only a namespace that something still lives in can be given an id. Afterwards
//! nothing is certain: sockets hold a namespace until the end of a grace period
//! after they were closed, so it may not even be in the worker's hands.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::Pid;

use super::NetworkError;
use super::namespace::Netns;
use super::netlink::Connection;
use crate::sys::clock::Deadline;

/// `RTNLGRP_NSID` of include/uapi/linux/rtnetlink.h.
const GROUP: u32 = 28;

/// Hears of the end of network namespaces. It needs `CAP_NET_ADMIN` and
/// `CAP_SYS_ADMIN` in the calling process's network namespace.
#[derive(Debug)]
pub struct Witness {
    asking: Connection,
    hearing: Connection,
    sentinel: Option<(Netns, Id)>,
    /// What the worker has taken since it was marked and nobody has waited
    /// for yet, and ids of strangers.
    taken: BTreeSet<Id>,
}

/// The id by which the calling process's network namespace knows another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Id(i32);

/// A network namespace whose end is to be witnessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marked(Id);

impl Witness {
    /// Begins to listen and makes a sentinel.
    ///
    /// # Errors
    ///
    /// Without the privileges.
    pub fn new() -> Result<Self, NetworkError> {
        let open = || Connection::open().map_err(failed("open a netlink socket"));
        let mut witness =
            Self { asking: open()?, hearing: open()?, sentinel: None, taken: BTreeSet::new() };
        witness.hearing.join(GROUP).map_err(failed("listen to namespace ids"))?;
        witness.renew()?;
        Ok(witness)
    }

    /// Marks the network namespace of a process, in four short system calls.
    /// `None` when the process has just ended.
    ///
    /// # Errors
    ///
    /// When the kernel refuses an id.
    pub fn mark(&mut self, pid: Pid) -> Result<Option<Marked>, NetworkError> {
        let pid = NsidAttribute::Pid(pid.as_raw().cast_unsigned());
        match self.identify(&pid) {
            Ok(id) => {
                self.hear(Some(id))?;
                Ok(Some(Marked(id)))
            }
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            Err(error) => Err(failed("give a network namespace an id")(error)),
        }
    }

    /// Waits until a namespace is destroyed, which nothing may be in any
    /// more. Uses the sentinel up.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Remains`] when it is not within the limit.
    pub fn wait(&mut self, marked: Marked, limit: Duration) -> Result<(), NetworkError> {
        self.wait_all(&[marked], limit)
    }

    /// Waits until several namespaces are destroyed. One sentinel serves all of
    /// them: the worker comes back for it when it is through with the last.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Remains`] when one is not within the limit.
    pub fn wait_all(&mut self, marked: &[Marked], limit: Duration) -> Result<(), NetworkError> {
        let deadline = Deadline::after(limit);
        for one in marked {
            self.wait_for(one.0, deadline, limit)?;
        }
        if self.sentinel.is_none() {
            self.renew()?;
        }
        let Some((netns, id)) = self.sentinel.take() else { return Ok(()) };
        drop(netns);
        self.wait_for(id, deadline, limit)
    }

    /// Marks a network namespace that is at hand.
    ///
    /// # Errors
    ///
    /// When the kernel refuses an id.
    pub fn mark_namespace(&mut self, netns: &Netns) -> Result<Marked, NetworkError> {
        let fd = NsidAttribute::Fd(netns.as_fd().as_raw_fd().cast_unsigned());
        let id = self.identify(&fd).map_err(failed("give a network namespace an id"))?;
        self.hear(Some(id))?;
        Ok(Marked(id))
    }

    /// Makes a new sentinel in place of one that was used up: for a moment in
    /// which nothing is measured.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn renew(&mut self) -> Result<(), NetworkError> {
        self.listen()?;
        if self.sentinel.is_none() {
            let netns = Netns::empty()?;
            let Marked(id) = self.mark_namespace(&netns)?;
            self.sentinel = Some((netns, id));
        }
        Ok(())
    }

    /// Waits until the worker has taken a namespace. That its id is unknown
    /// says less: it is so from the moment when nothing holds the namespace.
    fn wait_for(
        &mut self,
        id: Id,
        deadline: Deadline,
        limit: Duration,
    ) -> Result<(), NetworkError> {
        self.listen()?;
        while !self.taken.remove(&id) {
            if deadline.passed() {
                let what = "the network namespace".to_owned();
                return Err(NetworkError::Remains { what, seconds: limit.as_secs_f64() });
            }
            let mut fds = [PollFd::new(self.hearing.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, deadline.poll_timeout()) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(failed("wait for namespace ids")(error.into())),
            }
            self.listen()?;
        }
        Ok(())
    }

    /// Takes in what was told since the last time. Announcements are lost
    /// only when thousands come at once; who waits for one then waits to its
    /// limit, which is an error and not a wrong time.
    fn listen(&mut self) -> Result<(), NetworkError> {
        self.hear(None)
    }

    /// As `listen`, just after a namespace was found to have the id `marked`:
    /// what was told of that id before speaks of an earlier one. What is told
    /// of it later does not matter, since the first end is the namespace's
    /// own, and the kernel may give its id to a stranger's right after that.
    fn hear(&mut self, marked: Option<Id>) -> Result<(), NetworkError> {
        if let Some(id) = marked {
            self.taken.remove(&id);
        }
        let heard = self.hearing.heard().map_err(failed("hear of namespace ids"))?;
        for message in heard {
            match (&message, id_of(&message)) {
                (RouteNetlinkMessage::NewNsId(_), Some(id)) if Some(id) == marked => {
                    self.taken.remove(&id);
                }
                (RouteNetlinkMessage::DelNsId(_), Some(id)) => {
                    self.taken.insert(id);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives a namespace an id unless it has one.
    fn identify(&mut self, namespace: &NsidAttribute) -> io::Result<Id> {
        // -1 has the kernel choose.
        let give = message(vec![NsidAttribute::Id(-1), namespace.clone()]);
        match self.asking.request(vec![(RouteNetlinkMessage::NewNsId(give), 0)]) {
            Err((_, error)) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
            _ => {}
        }
        let ask = message(vec![namespace.clone()]);
        let answer = self.asking.query(RouteNetlinkMessage::GetNsId(ask))?;
        // A process that ended in between has an id that nobody knows.
        id_of(&answer).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
    }
}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| NetworkError::Netlink { operation: operation.to_owned(), source }
}

fn message(attributes: Vec<NsidAttribute>) -> NsidMessage {
    let mut message = NsidMessage::default();
    message.attributes = attributes;
    message
}

/// The id in a message; none when it says that there is none.
fn id_of(message: &RouteNetlinkMessage) -> Option<Id> {
    let (RouteNetlinkMessage::NewNsId(message) | RouteNetlinkMessage::DelNsId(message)) = message
    else {
        return None;
    };
    message.attributes.iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(id) if *id >= 0 => Some(Id(*id)),
        _ => None,
    })
}
