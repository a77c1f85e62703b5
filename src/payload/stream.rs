//! The harness's side of the byte protocol: from a stream to events.

use super::protocol::{
    self, ERROR, FRAME, HEADER, INIT, MAX_BODY, PONG, READY, REPLY, RESULT, WorkResult,
};
use crate::record::Workload;

/// One thing that the payload said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// First instruction.
    Init,
    /// The workload can serve, or has done its work.
    Ready,
    /// Proof of work.
    Result(WorkResult),
    /// Answer to a ping.
    Pong(u64),
    /// Answer to a request.
    Reply(Vec<u8>),
    /// The payload failed, in its own words.
    Error(String),
    /// Bytes that are not of the protocol: their first one, for a message.
    Garbage(u8),
}

/// Turns the bytes of a channel, in pieces of any size, into events.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// Takes bytes and gives the events that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.pending.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut at = 0;
        while let Some((event, used)) = next(&self.pending[at..]) {
            events.push(event);
            at += used;
        }
        self.pending.drain(..at);
        events
    }
}

/// The first event in `bytes` and the number of bytes it takes, or `None`
/// when it is not complete.
fn next(bytes: &[u8]) -> Option<(Event, usize)> {
    match *bytes.first()? {
        INIT => Some((Event::Init, 1)),
        READY => Some((Event::Ready, 1)),
        FRAME => {
            let head = bytes.get(..HEADER)?;
            let len = u32::from_le_bytes([head[2], head[3], head[4], head[5]]);
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            if len > MAX_BODY {
                return Some((Event::Garbage(FRAME), HEADER));
            }
            let body = bytes.get(HEADER..HEADER + len)?;
            Some((frame(head[1], body), HEADER + len))
        }
        other => Some((Event::Garbage(other), 1)),
    }
}

/// A whole frame as an event.
fn frame(kind: u8, body: &[u8]) -> Event {
    match kind {
        RESULT => WorkResult::decode(body).map_or(Event::Garbage(kind), Event::Result),
        PONG => match body.try_into() {
            Ok(nonce) => Event::Pong(u64::from_le_bytes(nonce)),
            Err(_) => Event::Garbage(kind),
        },
        REPLY => Event::Reply(body.to_vec()),
        ERROR => Event::Error(String::from_utf8_lossy(body).into_owned()),
        _ => Event::Garbage(kind),
    }
}

/// A request frame, ready to be written.
///
/// # Panics
/// Never for the bodies this crate sends; a body of 4 GiB has no frame.
#[must_use]
pub fn request(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = protocol::header(kind, len).to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// What the payload must answer for `workload`, computed independently of it.
#[must_use]
pub fn expected_result(workload: Workload) -> WorkResult {
    match workload {
        Workload::Touch(mib) | Workload::Churn(mib) => pages_of(mib, 1),
        Workload::Read(mib) => pages_of(mib, protocol::PAGE_WORDS),
        Workload::Pause | Workload::Exit | Workload::Http => protocol::one_unit(1, 0),
        Workload::ExitWith(code) => protocol::one_unit(1, code),
        Workload::Sleep(ms) | Workload::Spin(ms) => protocol::one_unit(ms, 0),
    }
}

/// The proof of so many MiB of pages, whose first words lie `stride` numbers
/// apart.
fn pages_of(mib: u32, stride: u64) -> WorkResult {
    let pages = u64::from(mib) * (1024 * 1024 / protocol::PAGE as u64);
    let word = |page| protocol::page_word(page * stride);
    let checksum = (0..pages).fold(0, |sum, page| protocol::fold(sum, word(page)));
    WorkResult { count: pages, checksum, code: 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stream_cut_anywhere_gives_the_same_events() {
        let result = WorkResult { count: 3, checksum: 7, code: 9 };
        let mut stream = vec![INIT, READY];
        stream.extend(request(RESULT, &result.encode()));
        stream.extend(request(PONG, &42_u64.to_le_bytes()));
        stream.extend(request(REPLY, b"HTTP/1.1 200 OK"));
        stream.extend(request(ERROR, b"no memory"));
        let whole = Decoder::default().push(&stream);
        assert_eq!(
            whole,
            [
                Event::Init,
                Event::Ready,
                Event::Result(result),
                Event::Pong(42),
                Event::Reply(b"HTTP/1.1 200 OK".to_vec()),
                Event::Error("no memory".to_owned()),
            ]
        );
        for cut in 0..stream.len() {
            let mut decoder = Decoder::default();
            let mut events = decoder.push(&stream[..cut]);
            events.extend(decoder.push(&stream[cut..]));
            assert_eq!(events, whole, "cut at {cut}");
        }
    }

    #[test]
    fn an_oversized_frame_is_garbage_and_not_a_wait() {
        let header = protocol::header(REPLY, u32::MAX);
        assert_eq!(Decoder::default().push(&header), [Event::Garbage(FRAME)]);
    }

    #[test]
    fn every_page_differs() {
        let words: std::collections::HashSet<u64> = (0..4096).map(protocol::page_word).collect();
        assert_eq!(words.len(), 4096);
        let one = expected_result(Workload::Touch(1));
        assert_eq!(one.count, 256);
        assert_ne!(one.checksum, expected_result(Workload::Touch(2)).checksum);
        let read = expected_result(Workload::Read(1));
        assert_eq!(read.count, 256);
        assert_ne!(read.checksum, one.checksum);
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_events(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let events = Decoder::default().push(&bytes);
            prop_assert!(events.len() <= bytes.len());
        }
    }
}
