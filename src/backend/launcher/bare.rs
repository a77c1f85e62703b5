//! Instances of bare KVM: a copy of the launcher makes a machine and runs the
//! stub guest in it, in a process of its own so that it can be in a cgroup,
//! be waited for with a deadline, and be killed.

use std::io::Write;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use nix::errno::Errno;

use super::super::Timeline;
use crate::container::cgroup::Group;
use crate::payload::stub::ImageError;
use crate::record::Mark;
use crate::sys::spawn::Child;

/// Why a machine of bare KVM cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BareError {
    /// The launcher has another thread.
    #[error("the launcher is not single-threaded, so it cannot make a copy of itself")]
    NotAlone,
    /// The stub cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The stub is a guest for x86-64.
    #[cfg(not(target_arch = "x86_64"))]
    #[error("the stub guest is for x86-64 only")]
    Machine,
}

#[cfg(target_arch = "x86_64")]
mod machine {
    use std::fs::File;
    use std::ops::ControlFlow;

    use super::*;
    use crate::errors::chain;
    use crate::payload::protocol::{CHANNEL_PORT, DEBUG_EXIT_PORT};
    use crate::payload::stub::{Parts, parts};
    use crate::sys::clock::monotonic_ns;
    use crate::sys::fork::{Place, copy, descriptor, is_alone};
    use crate::sys::kvm::{self, Guest, Phase};

    use super::super::order::fd;

    /// What the process of an instance stamps.
    #[derive(Debug)]
    pub struct Stamps(kvm::Stamps);

    impl Stamps {
        /// Adds all that is stamped by now.
        pub(in super::super) fn add_to(&self, timeline: &mut Timeline) {
            let marks = [
                (Phase::Born, Mark::Cloned),
                (Phase::Begun, Mark::SetUp),
                (Phase::Opened, Mark::KvmOpened),
                (Phase::Created, Mark::VmCreated),
                (Phase::Memory, Mark::VmMemory),
                (Phase::Processor, Mark::VcpuCreated),
                (Phase::Ready, Mark::VmmReady),
                (Phase::FirstExit, Mark::Kernel),
            ];
            for (phase, mark) in marks {
                if let Some(at) = self.0.at(phase) {
                    timeline.stamp(mark, at);
                }
            }
        }
    }

    /// Makes the instances of one cell.
    pub struct Bare {
        parts: Parts,
        memory: NonZeroUsize,
        newest: Option<Rc<Stamps>>,
    }

    impl Bare {
        /// Takes the guest's file apart.
        pub(in super::super) fn prepare(
            image: &[u8],
            memory: NonZeroUsize,
        ) -> Result<Self, BareError> {
            if !is_alone() {
                return Err(BareError::NotAlone);
            }
            Ok(Self { parts: parts(image)?, memory, newest: None })
        }

        /// Where the newest instance stamps.
        pub(in super::super) fn stamps(&self) -> Option<Rc<Stamps>> {
            self.newest.clone()
        }

        /// Makes an instance.
        pub(in super::super) fn launch(
            &mut self,
            group: &Group,
            fds: &[(BorrowedFd<'_>, i32)],
        ) -> Result<Child, String> {
            let failed = |error: Errno| format!("cannot make a copy of the launcher: {error}");
            let stamps = Rc::new(Stamps(kvm::Stamps::new().map_err(failed)?));
            let join = group.join_fds();
            let place = Place { into_cgroup: group.into_cgroup(), join: &join, fds };
            let born = || stamps.0.stamp(Phase::Born);
            let (pid, pidfd) =
                copy(&place, born, || live(&self.parts, self.memory, &stamps.0)).map_err(failed)?;
            self.newest = Some(Rc::clone(&stamps));
            let now = monotonic_ns();
            Ok(Child { pid, pidfd, begun: now, set_up: now, trace: Vec::new() })
        }
    }

    /// The life of an instance.
    fn live(parts: &Parts, memory: NonZeroUsize, stamps: &kvm::Stamps) -> u8 {
        let open = |number| descriptor(number).map(File::from);
        let (Ok(mut channel), Ok(mut stderr)) = (open(fd::CHANNEL), open(2)) else { return 103 };
        let guest = Guest { segments: &parts.segments, entry: parts.entry, memory };
        let outcome = kvm::run(&guest, stamps, &mut |port, bytes| match port {
            // Unheard bytes are noticed by whoever waits for them.
            CHANNEL_PORT => {
                channel.write_all(bytes).map_or(ControlFlow::Break(104), ControlFlow::Continue)
            }
            DEBUG_EXIT_PORT => ControlFlow::Break(bytes.first().copied().unwrap_or(0)),
            _ => ControlFlow::Continue(()),
        });
        outcome.unwrap_or_else(|error| {
            let _ = writeln!(stderr, "{}", chain(&error));
            1
        })
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod machine {
    use super::*;

    /// Nothing stamps here.
    #[derive(Debug)]
    pub struct Stamps;

    impl Stamps {
        pub(in super::super) fn add_to(&self, _: &mut Timeline) {}
    }

    /// Cannot be made.
    pub enum Bare {}

    impl Bare {
        pub(in super::super) fn prepare(_: &[u8], _: NonZeroUsize) -> Result<Self, BareError> {
            Err(BareError::Machine)
        }

        pub(in super::super) fn stamps(&self) -> Option<Rc<Stamps>> {
            match *self {}
        }

        pub(in super::super) fn launch(
            &mut self,
            _: &Group,
            _: &[(BorrowedFd<'_>, i32)],
        ) -> Result<Child, String> {
            match *self {}
        }
    }
}

pub use machine::{Bare, Stamps};
