//! The stub: a guest of a few instructions without an operating system.
//!
//! It says on its lines what the payload says for the workload `exit`, and
//! ends. Whatever runs it, QEMU or a bare KVM machine, shows what a machine
//! costs before anything is put inside.
//!
//! It is entered as Xen's PVH boot ABI says (xen.git, docs/misc/pvh.pandoc):
//! 32-bit protected mode, flat segments, no paging. It needs no stack, reads
//! nothing from its surroundings and writes to no memory.

#![no_std]
#![no_main]

#[path = "../protocol.rs"]
#[allow(dead_code, reason = "the stub says one thing")]
mod protocol;

use protocol::{FRAME, HEADER, INIT, READY, RESULT, WorkResult, header, one_unit};

/// Both marks and one result.
const LEN: usize = 2 + HEADER + WorkResult::LEN;

/// All that it says over the channel.
static MESSAGE: [u8; LEN] = {
    let mut bytes = [0; LEN];
    bytes[0] = INIT;
    bytes[1] = READY;
    let (_, frame) = bytes.split_at_mut(2);
    let (head, body) = frame.split_at_mut(HEADER);
    head.copy_from_slice(&header(RESULT, WorkResult::LEN as u32));
    body.copy_from_slice(&one_unit(1, 0).encode());
    assert!(bytes[2] == FRAME);
    bytes
};

/// A table of interrupts with no entries: a limit and an address.
static NOTHING: [u8; 6] = [0; 6];

core::arch::global_asm!(
    // Where a PVH loader finds the entry: note 18, XEN_ELFNOTE_PHYS32_ENTRY
    // (xen.git, xen/include/public/elfnote.h).
    ".pushsection .note.Xen, \"a\", @note",
    ".balign 4",
    ".long 4, 8, 18",
    ".asciz \"Xen\"",
    ".quad _start",
    ".popsection",
    ".globl _start",
    "_start:",
    ".code32",
    // A sign of life on the console.
    "mov edx, {console}",
    "mov al, 75",
    "out dx, al",
    // No line status is read: QEMU's port takes a byte with every write.
    "mov edx, {channel}",
    "mov esi, offset {message}",
    "mov ecx, {len}",
    "cld",
    "rep outsb",
    "mov edx, {end}",
    "xor eax, eax",
    "out dx, al",
    // No such device: without a table of interrupts the first one is a
    // triple fault, which resets the machine.
    "lidt [{nothing}]",
    "ud2",
    ".code64",
    console = const protocol::CONSOLE_PORT,
    channel = const protocol::CHANNEL_PORT,
    end = const protocol::DEBUG_EXIT_PORT,
    message = sym MESSAGE,
    nothing = sym NOTHING,
    len = const LEN,
);

#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here can panic; the language wants a word for it all the same.
    loop {}
}
