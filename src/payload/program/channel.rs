//! The payload's end of the channel to the harness.

use crate::protocol::{ERROR, FRAME, HEADER, MAX_BODY, STREAMS, header};
use crate::syscall;

/// The longest body that the payload sends, in bytes.
const LONGEST: usize = 256;

/// A byte stream to the harness: an inherited socket, one that it connects to,
/// the standard streams, or a serial port.
pub struct Channel {
    fd: i32,
    /// Where it writes: of the standard streams, another one.
    out: i32,
    /// Whether what is written waits in a buffer of the kernel.
    serial: bool,
}

/// A request from the harness: its kind and the length of its body.
pub struct Request {
    pub kind: u8,
    pub len: usize,
}

impl Channel {
    /// Opens what [`crate::protocol::ENV_CHANNEL`] names.
    pub fn open(place: &[u8]) -> Option<Self> {
        if let Some(number) = place.strip_prefix(b"fd:") {
            return Some(Self::socket(i32::try_from(parse(number)?).ok()?));
        }
        if let Some(path) = place.strip_prefix(b"unix:") {
            return Some(Self::socket(syscall::connect(path)?));
        }
        if place == STREAMS {
            return Some(Self { fd: 0, out: 1, serial: false });
        }
        let mut path = [0_u8; 64];
        path.get_mut(..place.len())?.copy_from_slice(place);
        let fd = syscall::open(path.get(..=place.len())?)?;
        syscall::set_raw(fd);
        Some(Self { fd, out: fd, serial: true })
    }

    fn socket(fd: i32) -> Self {
        Self { fd, out: fd, serial: false }
    }

    /// Sends a mark.
    pub fn mark(&mut self, mark: u8) {
        syscall::write_all(self.out, &[mark]);
    }

    /// Sends a frame of at most [`LONGEST`] bytes; the rest is left out.
    pub fn send(&mut self, kind: u8, body: &[u8]) {
        let mut frame = [0_u8; HEADER + LONGEST];
        let len = body.len().min(LONGEST);
        frame[..HEADER].copy_from_slice(&header(kind, len as u32));
        frame[HEADER..HEADER + len].copy_from_slice(&body[..len]);
        // One write, so that the other side wakes up once.
        syscall::write_all(self.out, &frame[..HEADER + len]);
    }

    /// Says what went wrong.
    pub fn error(&mut self, text: &str) {
        self.send(ERROR, text.as_bytes());
    }

    /// Waits until everything that was sent has left the machine: ending it
    /// would otherwise lose what another of its processors still has to send.
    pub fn drain(&self) {
        if self.serial {
            syscall::drain(self.out);
        }
    }

    /// Waits for a request; `None` when the harness is gone.
    pub fn receive(&mut self, body: &mut [u8; MAX_BODY]) -> Option<Request> {
        let mut head = [0_u8; HEADER];
        loop {
            self.fill(&mut head[..1])?;
            // Anything before a frame is line noise of a serial port.
            if head[0] == FRAME {
                break;
            }
        }
        self.fill(&mut head[1..])?;
        let len = u32::from_le_bytes([head[2], head[3], head[4], head[5]]) as usize;
        self.fill(body.get_mut(..len)?)?;
        Some(Request { kind: head[1], len })
    }

    /// Reads exactly as many bytes as the buffer holds.
    fn fill(&mut self, mut buffer: &mut [u8]) -> Option<()> {
        while !buffer.is_empty() {
            let n = syscall::read(self.fd, buffer)?;
            buffer = &mut buffer[n..];
        }
        Some(())
    }
}

/// A decimal number.
pub fn parse(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u32, |number, &digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u32::from(digit - b'0')),
        _ => None,
    })
}
