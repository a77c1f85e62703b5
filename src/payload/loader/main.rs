//! `unladen-loader`: the first program of a guest whose kernel has the
//! drivers it needs as modules only.
//!
//! It loads the modules that its initial file system holds, mounts the root
//! file system if there is one, and becomes the payload. A kernel that has
//! its drivers built in starts the payload itself, and none of this runs.

#![no_std]
#![no_main]

#[path = "../program/memory.rs"]
mod memory;
#[path = "../program/start.rs"]
mod start;
#[path = "../program/syscall.rs"]
#[allow(dead_code, reason = "the loader makes a few of the payload's calls")]
mod syscall;

mod kernel;

use core::ffi::CStr;

use start::Environment;

/// Where the root file system is, in the spelling of the parameter `rootfs`.
const ENV_ROOT: &str = "UNLADEN_ROOT";

/// Loads, mounts, and becomes the payload.
pub fn run(environment: Environment) -> ! {
    load_all();
    let init = match environment.get(ENV_ROOT) {
        None => c"/payload",
        Some(root) => {
            enter(root);
            c"/init"
        }
    };
    let error = kernel::execute(init, environment);
    fail("cannot execute the payload", error)
}

/// Loads `/modules/00.ko`, `/modules/01.ko` and so on.
fn load_all() {
    for number in 0..100_u8 {
        let mut path = *b"/modules/00.ko\0";
        path[9] += number / 10;
        path[10] += number % 10;
        let Ok(path) = CStr::from_bytes_until_nul(&path) else { return };
        let Some(fd) = syscall::open_to_read(path.to_bytes_with_nul()) else { return };
        if let Err(error) = kernel::load_module(fd) {
            say("unladen-loader: ");
            say(path.to_str().unwrap_or(""));
            fail(" cannot be loaded", error);
        }
    }
}

/// Makes the root file system the root.
fn enter(root: &[u8]) {
    const TARGET: &CStr = c"/run";
    let devices = |target| kernel::mount(c"dev", target, c"devtmpfs", c"");
    let mounted = match root {
        b"virtio-blk" => {
            devices(c"/dev").and_then(|()| kernel::mount(c"/dev/vda", TARGET, c"ext4", c""))
        }
        b"9p" => kernel::mount(c"unladen", TARGET, c"9p", c"trans=virtio,version=9p2000.L"),
        b"virtiofs" => kernel::mount(c"unladen", TARGET, c"virtiofs", c""),
        _ => fail("unladen-loader: unknown kind of root file system", 0),
    };
    if let Err(error) = mounted {
        fail("unladen-loader: cannot mount the root file system", error);
    }
    let moved = devices(c"/run/dev").and_then(|()| kernel::change_root(TARGET));
    if let Err(error) = moved {
        fail("unladen-loader: cannot enter the root file system", error);
    }
}

/// Says something on the console.
fn say(text: &str) {
    syscall::write_all(2, text.as_bytes());
}

/// Says what went wrong and ends, which makes the kernel panic.
fn fail(text: &str, error: u16) -> ! {
    let mut number = *b": error 0000\n";
    let mut rest = error;
    for digit in number[8..12].iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    say(text);
    syscall::write_all(2, &number);
    syscall::exit(1)
}

#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    syscall::exit(101)
}
