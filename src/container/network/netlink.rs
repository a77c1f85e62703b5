//! A conversation with the kernel's routing part, one batch of requests at a
//! time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::libc;

/// The largest datagram that the kernel sends in answer to a dump
/// (`NLMSG_GOODSIZE` to 32 KiB, net/netlink/af_netlink.c), with room.
const BUFFER: usize = 64 * 1024;

/// A socket in the network namespace in which it was opened, wherever the
/// thread goes afterwards.
pub(super) struct Connection {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Connection {
    /// Opens a conversation in the calling thread's network namespace.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        // Without a number of its own a socket hears no broadcasts.
        socket.bind_auto()?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Hears what the kernel tells a multicast group from now on.
    pub(super) fn join(&mut self, group: u32) -> io::Result<()> {
        self.socket.add_membership(group)
    }

    /// Carries out requests in their order; `flags` are added to those of an
    /// acknowledged request. The first error is returned, with the index of
    /// its request; the kernel tries the later ones nevertheless.
    pub(super) fn request(
        &mut self,
        requests: Vec<(RouteNetlinkMessage, u16)>,
    ) -> Result<(), (usize, io::Error)> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        let mut due = requests.len();
        for (message, flags) in requests {
            self.append(&mut bytes, message, NLM_F_REQUEST | NLM_F_ACK | flags);
        }
        self.socket.send(&bytes, 0).map_err(|error| (0, error))?;
        let mut failure = None;
        while due > 0 {
            for message in self.receive(0).map_err(|error| (0, error))? {
                let NetlinkPayload::Error(answer) = message.payload else { continue };
                let index = message.header.sequence_number.wrapping_sub(first);
                due -= 1;
                if answer.code.is_some() && failure.is_none() {
                    failure = Some((usize::try_from(index).unwrap_or(0), answer.to_io()));
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Asks for one thing.
    pub(super) fn query(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> io::Result<RouteNetlinkMessage> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, message, NLM_F_REQUEST);
        let asked = self.sequence;
        self.socket.send(&bytes, 0)?;
        loop {
            for message in self.receive(0)? {
                if message.header.sequence_number != asked {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => return Ok(answer),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }

    /// Asks for everything of a kind. What the decoder does not understand
    /// (attributes that are younger than it) is left out.
    pub(super) fn dump(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, message, NLM_F_REQUEST | NLM_F_DUMP);
        let asked = self.sequence;
        self.socket.send(&bytes, 0)?;
        let mut all = Vec::new();
        loop {
            for message in self.receive(0)? {
                if message.header.sequence_number != asked {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => all.push(answer),
                    NetlinkPayload::Done(_) => return Ok(all),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }

    /// The messages that were broadcast since the last call, without waiting
    /// for any, but for those that were lost because they were too many.
    pub(super) fn heard(&mut self) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut all = Vec::new();
        loop {
            match self.receive(libc::MSG_DONTWAIT) {
                Ok(messages) => {
                    all.extend(messages.into_iter().filter_map(|message| match message.payload {
                        NetlinkPayload::InnerMessage(message) => Some(message),
                        _ => None,
                    }))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(all),
                // Said once; what was not lost follows.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Adds a message with the next sequence number.
    fn append(&mut self, bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let start = bytes.len();
        // Messages begin at multiples of four bytes (netlink(7)).
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[start..]);
    }

    /// One datagram's messages.
    fn receive(&mut self, flags: i32) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
        self.buffer.clear();
        while let Err(error) = self.socket.recv(&mut self.buffer, flags) {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        let mut messages = Vec::new();
        let mut rest = self.buffer.as_slice();
        while let Some(length) = rest.first_chunk::<4>() {
            let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX);
            let Some(bytes) = rest.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
            messages.extend(NetlinkMessage::deserialize(bytes).ok());
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(messages)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
