//! A virtual machine of bare KVM: one processor, some memory and a program,
//! without firmware, devices or an operating system.
//!
//! Each phase of its making is stamped. What the guest writes to I/O ports is
//! handed to the caller, which says what it means.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use kvm_bindings::{kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::clock::monotonic_ns;

/// What is reached on the way, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// First instruction of the process that makes the machine.
    Born,
    /// The caller is about to open `/dev/kvm`.
    Begun,
    /// `/dev/kvm` is open.
    Opened,
    /// The machine is created.
    Created,
    /// It has memory with the program in it.
    Memory,
    /// It has a processor.
    Processor,
    /// The processor's registers are set: it can run.
    Ready,
    /// The guest came out for the first time.
    FirstExit,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Self; 8] = [
        Self::Born,
        Self::Begun,
        Self::Opened,
        Self::Created,
        Self::Memory,
        Self::Processor,
        Self::Ready,
        Self::FirstExit,
    ];
}

/// When each phase was reached, on `CLOCK_MONOTONIC` in nanoseconds: in
/// memory that a process shares with the copies that it makes of itself.
#[derive(Debug)]
pub struct Stamps(NonNull<[AtomicU64; Phase::ALL.len()]>);

impl Stamps {
    /// Without any stamp.
    ///
    /// # Errors
    /// When no memory can be mapped.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self(map(Self::LEN, MapFlags::MAP_SHARED)?.cast()))
    }

    const LEN: NonZeroUsize = match NonZeroUsize::new(size_of::<[AtomicU64; Phase::ALL.len()]>()) {
        Some(len) => len,
        None => NonZeroUsize::MIN,
    };

    /// Stamps a phase now.
    pub fn stamp(&self, phase: Phase) {
        self.all()[phase as usize].store(monotonic_ns(), Relaxed);
    }

    /// When a phase was reached, if it was.
    #[must_use]
    pub fn at(&self, phase: Phase) -> Option<u64> {
        Some(self.all()[phase as usize].load(Relaxed)).filter(|at| *at > 0)
    }

    fn all(&self) -> &[AtomicU64] {
        // SAFETY: mapped until `drop`, and nothing but atomics, all zero at
        // first, which a copy of this process may write meanwhile.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Stamps {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `new` mapped, in this process only.
        let _ = unsafe { munmap(self.0.cast(), Self::LEN.get()) };
    }
}

/// A guest: its program and its memory.
#[derive(Clone, Copy, Debug)]
pub struct Guest<'a> {
    /// Parts of the program and their addresses in the guest's memory.
    pub segments: &'a [(u64, Vec<u8>)],
    /// Address of the first instruction.
    pub entry: u64,
    /// Bytes of memory, from address 0 on.
    pub memory: NonZeroUsize,
}

/// Why a machine did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// The kernel refused.
    #[error("cannot {operation}")]
    Call {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: Errno,
    },
    /// A part of the program lies outside of the guest's memory.
    #[error("the program needs memory at {address:#x}, the guest has {memory} bytes")]
    TooSmall {
        /// Where the part belongs.
        address: u64,
        /// Size of the guest's memory.
        memory: usize,
    },
    /// The guest did something that this machine has no answer to.
    #[error("the guest stopped: {0}")]
    Stopped(String),
}

fn failed(operation: &'static str) -> impl Fn(kvm_ioctls::Error) -> KvmError {
    move |error| KvmError::Call { operation, source: Errno::from_raw(error.errno()) }
}

/// Which version of its interface the kernel's KVM speaks.
///
/// # Errors
/// When `/dev/kvm` cannot be opened.
pub fn api_version() -> Result<i32, KvmError> {
    Ok(Kvm::new().map_err(failed("open /dev/kvm"))?.get_api_version())
}

/// Makes a machine, runs the guest in it, and destroys it. Each write to an I/O port is given to `port`, which can end the run with a
/// value.
///
/// # Errors
/// When the machine cannot be made, or the guest does anything else.
pub fn run(
    guest: &Guest<'_>,
    stamps: &Stamps,
    port: &mut dyn FnMut(u16, &[u8]) -> ControlFlow<u8>,
) -> Result<u8, KvmError> {
    stamps.stamp(Phase::Begun);
    let kvm = Kvm::new().map_err(failed("open /dev/kvm"))?;
    stamps.stamp(Phase::Opened);
    let machine = kvm.create_vm().map_err(failed("create a KVM machine"))?;
    stamps.stamp(Phase::Created);
    let ram = Ram::new(guest.memory)?;
    ram.load(guest.segments)?;
    ram.give(&machine)?;
    stamps.stamp(Phase::Memory);
    let mut processor = machine.create_vcpu(0).map_err(failed("create a KVM processor"))?;
    stamps.stamp(Phase::Processor);
    enter(&processor, guest.entry)?;
    stamps.stamp(Phase::Ready);
    loop {
        let exit = processor.run().map_err(failed("run the KVM processor"))?;
        if stamps.at(Phase::FirstExit).is_none() {
            stamps.stamp(Phase::FirstExit);
        }
        match exit {
            VcpuExit::IoOut(number, bytes) => {
                if let ControlFlow::Break(value) = port(number, bytes) {
                    return Ok(value);
                }
            }
            other => return Err(KvmError::Stopped(format!("{other:?}"))),
        }
    }
}

/// Sets the processor as the PVH boot ABI asks for (xen.git,
/// docs/misc/pvh.pandoc): 32-bit protected mode, flat segments, no paging.
fn enter(processor: &VcpuFd, entry: u64) -> Result<(), KvmError> {
    let mut special = processor.get_sregs().map_err(failed("read the processor's registers"))?;
    // Types of the Intel manual, volume 3, tables 3-1 and 3-2: code that was
    // executed and may be read, data that was used and may be written.
    let flat = |type_, selector| kvm_segment {
        limit: u32::MAX,
        type_,
        selector,
        present: 1,
        s: 1,
        db: 1,
        g: 1,
        ..kvm_segment::default()
    };
    special.cs = flat(0xb, 8);
    (special.ds, special.es, special.ss) = (flat(3, 16), flat(3, 16), flat(3, 16));
    (special.fs, special.gs) = (flat(3, 16), flat(3, 16));
    // A busy task state segment, without which no processor enters a guest.
    special.tr = kvm_segment { limit: 0x67, type_: 0xb, present: 1, ..kvm_segment::default() };
    // Protection on; the bit beside it is always one.
    (special.cr0, special.cr4, special.efer) = (0x11, 0, 0);
    processor.set_sregs(&special).map_err(failed("set the processor's special registers"))?;
    // Bit 1 of the flags is always one.
    let general = kvm_regs { rip: entry, rflags: 2, ..kvm_regs::default() };
    processor.set_regs(&general).map_err(failed("set the processor's registers"))
}

/// Memory of a guest, unmapped when dropped.
struct Ram {
    base: NonNull<c_void>,
    len: NonZeroUsize,
}

impl Ram {
    fn new(len: NonZeroUsize) -> Result<Self, KvmError> {
        let base = map(len, MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE)
            .map_err(|source| KvmError::Call { operation: "map the guest's memory", source })?;
        Ok(Self { base, len })
    }

    /// Copies the program to where it belongs.
    fn load(&self, segments: &[(u64, Vec<u8>)]) -> Result<(), KvmError> {
        for (address, bytes) in segments {
            let place = usize::try_from(*address)
                .ok()
                .filter(|at| at.checked_add(bytes.len()).is_some_and(|end| end <= self.len.get()));
            let Some(place) = place else {
                return Err(KvmError::TooSmall { address: *address, memory: self.len.get() });
            };
            // SAFETY: checked to lie inside of the mapping, which nobody else
            // uses yet, so that the areas cannot overlap.
            unsafe {
                let target = self.base.as_ptr().cast::<u8>().add(place);
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
            }
        }
        Ok(())
    }

    /// Makes it the machine's memory from address 0 on.
    fn give(&self, machine: &VmFd) -> Result<(), KvmError> {
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: self.len.get() as u64,
            userspace_addr: self.base.as_ptr() as u64,
        };
        // SAFETY: the whole region is mapped, and is so until the machine is
        // gone: `run` drops its memory last.
        unsafe { machine.set_user_memory_region(region) }
            .map_err(failed("give the KVM machine its memory"))
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `new` mapped.
        let _ = unsafe { munmap(self.base, self.len.get()) };
    }
}

/// Fresh memory, all zero.
fn map(len: NonZeroUsize, flags: MapFlags) -> Result<NonNull<c_void>, Errno> {
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a fresh mapping at an address of the kernel's choice touches no
    // existing memory.
    unsafe { mmap_anonymous(None, len, access, flags) }
}
