//! `unladen-payload`: the static program inside every instance.
//!
//! It is the child in the process arm, the entry of the container, and
//! process 1 in the guest. It uses no library, not even libc, since a C
//! library's start-up would be measured along with it; it needs no file, no
//! shell and no mount. It does what its environment says (see
//! `protocol.rs`) and proves it over its channel.

#![no_std]
#![no_main]

#[path = "../protocol.rs"]
#[allow(dead_code, reason = "the payload speaks one side of the protocol")]
mod protocol;

mod channel;
mod http;
mod memory;
mod start;
mod syscall;
mod workload;

use channel::Channel;
use start::Environment;
use syscall::Down;

/// How the payload ends.
#[derive(Clone, Copy)]
pub enum End {
    /// By `exit_group`: a process or a container.
    Exit,
    /// Through QEMU's isa-debug-exit device, or else by a reboot: a guest.
    DebugExit,
    /// By switching itself off: a guest of a monitor that would start it
    /// again after a reset.
    PowerOff,
}

impl End {
    /// Ends, with the lowest seven bits of `code` for a guest (the device
    /// has no more) and all eight for a process.
    pub fn now(self, code: u8) -> ! {
        if matches!(self, Self::PowerOff) {
            syscall::reboot(Down::PowerOff);
        }
        if matches!(self, Self::DebugExit) {
            syscall::debug_exit(protocol::DEBUG_EXIT_PORT, code);
            // The device is missing. Process 1 must not return, so the
            // machine is reset, which QEMU's -no-reboot turns into its end.
            syscall::reboot(Down::Restart);
        }
        syscall::exit(code)
    }
}

/// Runs the payload in this environment.
pub fn run(environment: Environment) -> ! {
    let end = match environment.get(protocol::ENV_END) {
        Some(b"debug-exit") => End::DebugExit,
        Some(b"power-off") => End::PowerOff,
        _ => End::Exit,
    };
    let Some(mut channel) = environment.get(protocol::ENV_CHANNEL).and_then(Channel::open) else {
        // Nobody can be told; the exit code is all there is.
        end.now(120)
    };
    channel.mark(protocol::INIT);
    let workload = environment.get(protocol::ENV_WORKLOAD).unwrap_or(b"");
    let file = environment.get(protocol::ENV_FILE);
    workload::run(workload, file, &mut channel, end)
}

#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    syscall::exit(101)
}
