//! The payload: the static program that runs inside every instance.
//!
//! The program itself stands in `program/` and is compiled by the build
//! script without any library; this module holds its bytes, the protocol
//! that it speaks, and the harness's side of that protocol. It launches
//! nothing. `loader/` is a second program of the same kind, which comes before
//! the payload in guests whose kernel needs modules.

pub mod protocol;
mod stream;
pub mod stub;

pub use stream::{Decoder, Event, expected_result, request};

/// The payload's executable: static, without libc, the same file in every arm.
pub const EXECUTABLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/unladen-payload"));

/// The file name under which it is unpacked.
pub const FILE_NAME: &str = "unladen-payload";

/// The payload for arm64, where the compiler that made this command could
/// make it; there is one beside x86-64 only.
#[cfg(target_arch = "x86_64")]
const FOREIGN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/unladen-payload-aarch64"));
#[cfg(not(target_arch = "x86_64"))]
const FOREIGN: &[u8] = &[];

/// The same program for arm64, to be run where no arm64 processor is; `None`
/// when the compiler that made this command could not make it.
pub const EXECUTABLE_AARCH64: Option<&[u8]> = if FOREIGN.is_empty() { None } else { Some(FOREIGN) };

/// The file name under which that is unpacked.
pub const FILE_NAME_AARCH64: &str = "unladen-payload-aarch64";

/// The loader's executable.
pub const LOADER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/unladen-loader"));

/// The file name under which the loader is unpacked.
pub const LOADER_NAME: &str = "unladen-loader";
