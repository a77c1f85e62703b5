//! The byte protocol between the harness and the payload.
//!
//! One byte stream per instance, in both directions. Two marks are single
//! bytes, so that the cost of saying "I am here" is one `write`; everything
//! else is a frame: [`FRAME`], a kind, a length (`u32`, little endian), and
//! that many bytes. This file is compiled into the harness and, with
//! nothing but `core`, into the payload.

/// First instruction of the payload.
pub const INIT: u8 = 0xA1;
/// The workload can serve, or has done its work.
pub const READY: u8 = 0xA2;
/// First byte of a frame.
pub const FRAME: u8 = 0xA5;

/// Payload to harness: a [`WorkResult`], the proof of the work.
pub const RESULT: u8 = 1;
/// Payload to harness: the nonce of a [`PING`] come back, 8 bytes.
pub const PONG: u8 = 2;
/// Payload to harness: bytes that answer a [`DATA`] request.
pub const REPLY: u8 = 3;
/// Payload to harness: what went wrong, as text.
pub const ERROR: u8 = 4;
/// Harness to payload: answer with a [`PONG`], 8 bytes of nonce.
pub const PING: u8 = 0x12;
/// Harness to payload: bytes for the workload (an HTTP request).
pub const DATA: u8 = 0x13;
/// Harness to payload: give back the memory of the work, and answer with an
/// empty [`REPLY`] when that is done.
pub const RELEASE: u8 = 0x15;
/// Harness to payload: end with this exit code, 1 byte.
pub const STOP: u8 = 0x14;

/// Length of a frame's header in bytes.
pub const HEADER: usize = 6;
/// No frame is longer than this; a longer one is a broken stream.
pub const MAX_BODY: usize = 8192;

/// Environment variable: where the channel is, `fd:N`, `unix:PATH` of a socket
/// to connect to, [`STREAMS`], or a device's path.
pub const ENV_CHANNEL: &str = "UNLADEN_CHANNEL";
/// A channel that is read on standard input and written on standard output.
pub const STREAMS: &[u8] = b"streams";
/// Environment variable: what to do, in the spelling of a workload.
pub const ENV_WORKLOAD: &str = "UNLADEN_WORKLOAD";
/// Environment variable: the file that the workload `read` reads.
pub const ENV_FILE: &str = "UNLADEN_FILE";
/// Environment variable: how to end, `exit`, `debug-exit` (a guest that
/// leaves through QEMU's isa-debug-exit device, or else reboots) or
/// `power-off`.
pub const ENV_END: &str = "UNLADEN_END";
/// Environment variable: the id of the run that a process belongs to.
pub const ENV_RUN: &str = "UNLADEN_RUN";

/// I/O port of QEMU's isa-debug-exit device in our machines.
pub const DEBUG_EXIT_PORT: u16 = 0x501;
/// I/O port of a PC's first serial line, the console of our machines.
pub const CONSOLE_PORT: u16 = 0x3f8;
/// I/O port of a PC's second serial line, the channel of our machines.
pub const CHANNEL_PORT: u16 = 0x2f8;

/// The body that the `http` workload serves under `/`.
pub const HTTP_BODY: &str = "unladen\n";

/// Size of the pages that `touch` writes to, in bytes.
pub const PAGE: usize = 4096;

/// Where that file is inside of a container or a guest.
pub const FILE_PATH: &str = "/unladen-data";

/// Proof of work: what the payload says that it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkResult {
    /// Units of work done (pages touched or read; 1 for a workload without units).
    pub count: u64,
    /// Checksum over the work.
    pub checksum: u64,
    /// The exit code that the payload is going to end with.
    pub code: u8,
}

impl WorkResult {
    /// Length of the encoded form in bytes.
    pub const LEN: usize = 17;

    /// The bytes on the wire.
    #[must_use]
    pub const fn encode(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let (count, rest) = bytes.split_at_mut(8);
        let (checksum, code) = rest.split_at_mut(8);
        count.copy_from_slice(&self.count.to_le_bytes());
        checksum.copy_from_slice(&self.checksum.to_le_bytes());
        code[0] = self.code;
        bytes
    }

    /// Reads the bytes on the wire; `None` when the length is wrong.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != Self::LEN {
            return None;
        }
        Some(Self {
            count: u64::from_le_bytes(bytes[..8].try_into().ok()?),
            checksum: u64::from_le_bytes(bytes[8..16].try_into().ok()?),
            code: bytes[16],
        })
    }
}

/// The proof of work that touches no memory: `count` units, and the code.
#[must_use]
pub const fn one_unit(count: u32, code: u8) -> WorkResult {
    WorkResult { count: count as u64, checksum: page_word(count as u64 - 1), code }
}

/// The header of a frame.
#[must_use]
pub const fn header(kind: u8, len: u32) -> [u8; HEADER] {
    let len = len.to_le_bytes();
    [FRAME, kind, len[0], len[1], len[2], len[3]]
}

/// What `touch` writes to the start of page `index`: never zero, different
/// for each page (the finaliser of `SplitMix64`, so that neighbouring pages
/// share no bytes and KSM finds no duplicates).
#[must_use]
pub const fn page_word(index: u64) -> u64 {
    let mut word = index.wrapping_add(0x9E37_79B9_7F4A_7C15);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (word ^ (word >> 31)) | 1
}

/// The words of eight bytes, little endian, that a page of the file for `read`
/// holds: word `n` of the file is [`page_word`] of `n`.
pub const PAGE_WORDS: u64 = (PAGE / 8) as u64;

/// Adds the word of one page to a checksum; the order of pages matters.
#[must_use]
pub fn fold(checksum: u64, word: u64) -> u64 {
    checksum.rotate_left(5).wrapping_add(word)
}
