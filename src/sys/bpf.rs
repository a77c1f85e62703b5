//! Programs of a cgroup that decide who may use which device node: bpf(2),
//! program type `BPF_PROG_TYPE_CGROUP_DEVICE` (Linux 4.15).
//!
//! What a program says is made elsewhere; here it is loaded, attached, listed
//! and detached.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

use super::raw::{call, small};

/// One instruction, `struct bpf_insn` of the kernel's `linux/bpf.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Class, operation and source of the operand.
    pub code: u8,
    /// Destination register in the low, source register in the high half.
    pub registers: u8,
    /// Distance of a jump, or offset of a load.
    pub offset: i16,
    /// Operand that is part of the instruction.
    pub immediate: i32,
}

/// Why bpf(2) failed.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The kernel did not take the program.
    #[error("cannot load a program of {instructions} instructions{}", hint(*source))]
    Load {
        /// Its length.
        instructions: usize,
        /// The kernel's error.
        source: Errno,
    },
    /// It could not be attached, found or detached.
    #[error("cannot {operation} the program of a cgroup")]
    Attach {
        /// What was to be done.
        operation: &'static str,
        /// The kernel's error.
        source: Errno,
    },
}

fn hint(source: Errno) -> &'static str {
    match source {
        Errno::EPERM => " (it takes CAP_BPF or CAP_SYS_ADMIN in the host's user namespace)",
        Errno::EINVAL | Errno::ENOSYS => " (does this kernel have CONFIG_CGROUP_BPF?)",
        _ => "",
    }
}

/// Commands of bpf(2).
const PROG_LOAD: u32 = 5;
const PROG_ATTACH: u32 = 8;
const PROG_DETACH: u32 = 9;
const PROG_GET_FD_BY_ID: u32 = 13;
const PROG_QUERY: u32 = 16;
/// `BPF_PROG_TYPE_CGROUP_DEVICE` and `BPF_CGROUP_DEVICE`.
const TYPE_DEVICE: u32 = 15;
const ATTACH_DEVICE: u32 = 6;
/// Every attached program must agree, and those of cgroups above too.
const ALLOW_MULTI: u32 = 2;
/// `E2BIG` above this many would be a kernel limit; 64 can be attached
/// (`BPF_CGROUP_MAX_PROGS`).
const MOST: usize = 64;

/// `union bpf_attr` as `BPF_PROG_LOAD` reads it.
#[repr(C)]
#[derive(Default)]
struct LoadArguments {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// As `BPF_PROG_ATTACH` and `BPF_PROG_DETACH` read it.
#[repr(C)]
#[derive(Default)]
struct AttachArguments {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// As `BPF_PROG_QUERY` reads and fills it.
#[repr(C)]
#[derive(Default)]
struct QueryArguments {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

/// As `BPF_PROG_GET_FD_BY_ID` reads it.
#[repr(C)]
#[derive(Default)]
struct IdArguments {
    id: u32,
    next: u32,
    flags: u32,
}

/// Makes the call with arguments that the kernel reads, and for a query also
/// writes.
fn bpf<T>(command: u32, arguments: &mut T) -> Result<i32, Errno> {
    let pointer = std::ptr::from_mut(arguments) as usize;
    let registers = [command as usize, pointer, size_of::<T>(), 0, 0, 0];
    // SAFETY: the pointer is to a live `repr(C)` value of the size given,
    // borrowed exclusively; addresses inside it are of buffers that the
    // callers below keep alive over this call.
    let result = unsafe { call(libc::SYS_bpf, registers) }?;
    small(result)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    // A borrowed descriptor is never negative.
    fd.as_raw_fd().unsigned_abs()
}

/// Takes over a descriptor that the kernel has just made.
fn owned(fd: i32) -> OwnedFd {
    // SAFETY: bpf(2) returned it as a new descriptor, which nobody else has.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Loads a program that decides over device nodes.
///
/// # Errors
///
/// When the kernel does not take it, most often for lack of privileges.
pub fn load_device_program(instructions: &[Instruction]) -> Result<OwnedFd, BpfError> {
    let failed = |source| BpfError::Load { instructions: instructions.len(), source };
    // Needed by functions that the program does not call.
    let license = c"MIT";
    let mut arguments = LoadArguments {
        program_type: TYPE_DEVICE,
        count: u32::try_from(instructions.len()).map_err(|_| failed(Errno::E2BIG))?,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..LoadArguments::default()
    };
    bpf(PROG_LOAD, &mut arguments).map(owned).map_err(failed)
}

/// Makes a program the only one of its kind in a cgroup of version 2; with
/// none, removes those there are. Those of cgroups above stay in force. While
/// programs change, at least one of them is in force.
///
/// # Errors
///
/// When the kernel refuses, naming the operation.
pub fn set_device_program(
    cgroup: BorrowedFd<'_>,
    program: Option<BorrowedFd<'_>>,
) -> Result<(), BpfError> {
    let failed = |operation| move |source| BpfError::Attach { operation, source };
    let old = attached(cgroup).map_err(failed("list"))?;
    let arguments = |program: u32, flags| AttachArguments {
        target: number(cgroup),
        program,
        kind: ATTACH_DEVICE,
        flags,
    };
    if let Some(program) = program {
        let mut arguments = arguments(number(program), ALLOW_MULTI);
        bpf(PROG_ATTACH, &mut arguments).map_err(failed("attach"))?;
    }
    for id in old {
        let old = bpf(PROG_GET_FD_BY_ID, &mut IdArguments { id, ..IdArguments::default() });
        let old = old.map(owned).map_err(failed("open"))?;
        bpf(PROG_DETACH, &mut arguments(number(old.as_fd()), 0)).map_err(failed("detach"))?;
    }
    Ok(())
}

/// Ids of the device programs of one cgroup.
fn attached(cgroup: BorrowedFd<'_>) -> Result<Vec<u32>, Errno> {
    let mut ids = vec![0_u32; MOST];
    let mut arguments = QueryArguments {
        target: number(cgroup),
        kind: ATTACH_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: u32::try_from(MOST).unwrap_or(u32::MAX),
        ..QueryArguments::default()
    };
    bpf(PROG_QUERY, &mut arguments)?;
    ids.truncate(usize::try_from(arguments.count).unwrap_or(MOST));
    Ok(ids)
}
