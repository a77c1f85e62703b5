//! Whole messages with file descriptors over a Unix `SOCK_SEQPACKET` pair.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
    UnixAddr, bind, connect, getsockname, listen, recvmsg, sendmsg, socket, socketpair,
    sockopt::SndBuf,
};

/// No message is longer; a container's whole OCI spec takes some 10 KiB.
pub const MAX_MESSAGE: usize = 256 * 1024;

/// No message carries more descriptors.
const MAX_FDS: usize = 8;

/// A connected pair of message sockets, closed on exec.
///
/// # Errors
/// When the kernel has no descriptors or memory left.
pub fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    for end in [&pair.0, &pair.1] {
        nix::sys::socket::setsockopt(end, SndBuf, &(2 * MAX_MESSAGE))?;
    }
    Ok(pair)
}

/// A connected pair of byte-stream sockets, closed on exec.
///
/// # Errors
/// When the kernel has no descriptors or memory left.
pub fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?)
}

/// A listening byte-stream socket and a connection to it that nobody has
/// accepted yet, both closed on exec. Its name is one that the kernel makes up
/// (unix(7), "autobind"), so that no file of it can be left behind; no other
/// connection finds room, since this one fills the queue until it is accepted.
///
/// # Errors
/// When the kernel has no descriptors or memory left.
pub fn listening_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let stream = || socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    let (listening, connected) = (stream()?, stream()?);
    bind(listening.as_raw_fd(), &UnixAddr::new_unnamed())?;
    // The queue holds one connection more than it is told (unix_recvq_full in
    // net/unix/af_unix.c).
    listen(&listening, Backlog::new(0)?)?;
    let name: UnixAddr = getsockname(listening.as_raw_fd())?;
    connect(connected.as_raw_fd(), &name)?;
    Ok((listening, connected))
}

/// Sends one message with descriptors.
///
/// # Errors
/// `EPIPE` when the other side is gone, `EMSGSIZE` for a message that is too long.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let socket = socket.as_fd().as_raw_fd();
    loop {
        match sendmsg::<()>(socket, &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            result => return Ok(result.map(drop)?),
        }
    }
}

/// Receives one message; `None` when the other side is gone.
///
/// # Errors
/// When the socket fails or the message was cut short.
pub fn receive(socket: impl AsFd) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
    let socket = socket.as_fd().as_raw_fd();
    let (len, flags, fds) = loop {
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        match recvmsg::<()>(socket, &mut buffers, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            Err(Errno::ECONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
            Ok(message) => break (message.bytes, message.flags, received_fds(&message)?),
        }
    };
    if flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message was cut short"));
    }
    bytes.truncate(len);
    Ok((len > 0).then_some((bytes, fds)))
}

/// Takes ownership of the descriptors that came with a message.
fn received_fds(message: &nix::sys::socket::RecvMsg<'_, '_, ()>) -> Result<Vec<OwnedFd>, Errno> {
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just installed these descriptors for
            // this process; nothing else owns them.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok(fds)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_message_arrives_whole_with_its_descriptor() {
        let (near, far) = message_pair().expect("pair");
        let (stream, passed) = stream_pair().expect("pair");
        send(&near, &vec![7; 100_000], &[passed.as_fd()]).expect("sent");
        drop(passed);
        let (bytes, mut fds) = receive(&far).expect("received").expect("a message");
        assert_eq!(bytes, vec![7; 100_000]);
        let mut other = UnixStream::from(fds.remove(0));
        other.write_all(b"hello").expect("written");
        drop(other);
        let mut text = String::new();
        UnixStream::from(stream).read_to_string(&mut text).expect("read");
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_closed_socket_is_the_end_and_not_an_error() {
        let (near, far) = message_pair().expect("pair");
        drop(near);
        assert!(receive(&far).expect("end").is_none());
    }
}
