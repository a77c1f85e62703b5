//! The payload: the static program that runs inside every instance.
//!
//! The program itself stands in `program/` and is compiled by the build
//! script without any library; this module holds its bytes, the protocol
//! that it speaks, and the harness's side of that protocol. It launches
//! nothing.

pub mod protocol;
mod stream;
pub mod stub;

pub use stream::{Decoder, Event, expected_result, request};

/// The payload's executable: static, without libc, the same file in every arm.
pub const EXECUTABLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/unladen-payload"));

/// The file name under which it is unpacked.
pub const FILE_NAME: &str = "unladen-payload";
