//! The programs that the runtimes run: a few instructions each, without a C
//! library, whose start-up can take longer than a container's. The files are
//! written byte by byte, since no compiler is needed for three system calls.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// How long [`NAP`] sleeps.
pub const NAP_TIME: Duration = Duration::from_millis(20);

/// `exit_group(0)`.
#[cfg(target_arch = "x86_64")]
const TRUE: &[u8] = &[
    0x31, 0xff, // xor edi, edi
    0xb8, 231, 0, 0, 0, // mov eax, exit_group
    0x0f, 0x05, // syscall
];
/// `pause()` for ever.
#[cfg(target_arch = "x86_64")]
const PAUSE: &[u8] = &[
    0xb8, 34, 0, 0, 0, // mov eax, pause
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // jmp to the start
];
/// `nanosleep(&time, 0)`, then as [`TRUE`], which follows, and the time.
#[cfg(target_arch = "x86_64")]
const NAP: &[u8] = &[
    0x48, 0x8d, 0x3d, 18, 0, 0, 0, // lea rdi, [rip + 18]
    0x31, 0xf6, // xor esi, esi
    0xb8, 35, 0, 0, 0, // mov eax, nanosleep
    0x0f, 0x05, // syscall
];
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;

/// `exit_group(0)`: mov x0, 0; mov x8, 94; svc.
#[cfg(target_arch = "aarch64")]
const TRUE: &[u8] = &words([0xd280_0000, 0xd280_0bc8, 0xd400_0001]);
/// `ppoll(0, 0, 0, 0)` for ever: mov x0..x3, 0; mov x8, 73; svc; b to the start.
#[cfg(target_arch = "aarch64")]
const PAUSE: &[u8] = &words([
    0xd280_0000,
    0xd280_0001,
    0xd280_0002,
    0xd280_0003,
    0xd280_0928,
    0xd400_0001,
    0x17ff_fffa,
]);
/// `nanosleep(&time, 0)`, then as [`TRUE`], which follows, and the time: adr
/// x0, 28; mov x1, 0; mov x8, 101; svc.
#[cfg(target_arch = "aarch64")]
const NAP: &[u8] = &words([0x1000_00e0, 0xd280_0001, 0xd280_0ca8, 0xd400_0001]);
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// Instructions as bytes.
#[cfg(target_arch = "aarch64")]
const fn words<const N: usize, const M: usize>(words: [u32; N]) -> [u8; M] {
    let mut bytes = [0; M];
    let mut at = 0;
    while at < M {
        bytes[at] = words[at / 4].to_le_bytes()[at % 4];
        at += 1;
    }
    bytes
}

/// Writes `/true`, `/nap` and `/pause` into a root filesystem.
pub fn write_all(rootfs: &Path) -> io::Result<()> {
    let time = [0, u64::from(NAP_TIME.subsec_nanos())].map(u64::to_le_bytes).concat();
    write(&rootfs.join("true"), TRUE)?;
    write(&rootfs.join("pause"), PAUSE)?;
    write(&rootfs.join("nap"), &[NAP, TRUE, &time].concat())
}

fn write(path: &Path, code: &[u8]) -> io::Result<()> {
    fs::write(path, elf(code))?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

/// The smallest executable file around some code: a file header, one segment
/// that maps the whole file, and a header that says that the stack is data
/// (elf(5)).
fn elf(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADER: u64 = 64;
    const SEGMENT: u64 = 56;
    const STACK: u32 = 0x6474_e551;
    let start = HEADER + 2 * SEGMENT;
    let size = start + code.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // Executable, its machine, version 1.
    for half in [2, MACHINE, 1, 0] {
        file.extend(u16::to_le_bytes(half));
    }
    for word in [BASE + start, HEADER, 0] {
        file.extend(word.to_le_bytes());
    }
    // No flags; sizes and counts of headers; no sections.
    for half in [0_u16, 0, 64, 56, 2, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for (kind, flags, words) in
        [(1_u32, 5_u32, [0, BASE, BASE, size, size, 0x1000]), (STACK, 6, [0, 0, 0, 0, 0, 16])]
    {
        file.extend(kind.to_le_bytes());
        file.extend(flags.to_le_bytes());
        for word in words {
            file.extend(word.to_le_bytes());
        }
    }
    file.extend(code);
    file
}
