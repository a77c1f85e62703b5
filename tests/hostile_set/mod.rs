//! What the hostile test set is made of: attacks, the guards that stop them,
//! and scenes in which they are tried.
#![allow(dead_code, reason = "a scene has more than every attack needs")]

pub mod rows;
pub mod scene;
pub mod table;

use std::fmt;

use nix::errno::Errno;
use oci_spec::runtime::{Capability, LinuxNamespaceType};

use scene::Scene;

/// Something that a container has so that an attack fails, and that can be
/// taken away from it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The capability is not given.
    Without(Capability),
    /// The system call filter.
    Filter,
    /// Hidden paths.
    Hidden,
    /// Read-only paths.
    Protected,
    /// `/sys` is mounted read-only.
    ReadOnlySys,
    /// A namespace of its own; without it the attack is in the victim's, or
    /// for pids and control groups in the host's.
    Own(LinuxNamespaceType),
    /// No descriptor is inherited.
    NoDescriptors,
    /// No program gains privileges.
    NoNewPrivileges,
    /// The old root is gone; without it there is only chroot(2).
    Pivot,
    /// A session keyring of its own.
    Keyring,
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Without(capability) => write!(f, "no {capability}"),
            Self::Filter => f.write_str("filter"),
            Self::Hidden => f.write_str("hidden paths"),
            Self::Protected => f.write_str("read-only paths"),
            Self::ReadOnlySys => f.write_str("read-only /sys"),
            Self::Own(kind) => write!(f, "{kind} namespace"),
            Self::NoDescriptors => f.write_str("closed descriptors"),
            Self::NoNewPrivileges => f.write_str("no_new_privs"),
            Self::Pivot => f.write_str("pivot_root"),
            Self::Keyring => f.write_str("own session keyring"),
        }
    }
}

/// How a guard stops an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The kernel refuses.
    Refused(Errno),
    /// There is nothing to be had.
    Nothing,
    /// It works, but reaches only what is the container's own.
    Contained,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(errno) => write!(f, "{errno:?}"),
            Self::Nothing => f.write_str("nothing there"),
            Self::Contained => f.write_str("only its own"),
        }
    }
}

/// What an attack has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was stopped, at a step.
    Stopped(Stop, String),
    /// It had its effect, with the proof.
    Succeeded(String),
}

impl Outcome {
    pub fn stop(&self) -> Option<Stop> {
        match self {
            Self::Stopped(stop, _) => Some(*stop),
            Self::Succeeded(_) => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped(stop @ Stop::Refused(_), step) => write!(f, "{stop} ({step})"),
            Self::Stopped(stop, _) => write!(f, "{stop}"),
            Self::Succeeded(proof) => {
                write!(f, "works: {}", proof.chars().take(44).collect::<String>())
            }
        }
    }
}

/// When an attack counts as successful.
#[derive(Clone, Copy, Debug)]
pub enum Success {
    /// It says so, and this is seen from outside.
    Seen(fn(&mut Scene, u32, &str) -> bool),
    /// The kernel went on to look at arguments that were wrong on purpose.
    Reached(Errno),
}

/// One attack.
#[derive(Debug)]
pub struct Row {
    /// What is tried.
    pub name: &'static str,
    /// Arguments of the program; words in braces stand for the scene's.
    pub attack: &'static [&'static str],
    /// What stops it, each alone.
    pub guards: Vec<(Guard, Stop)>,
    pub success: Success,
    /// What it is without any guard of the runtime, where that is not a
    /// container any more.
    pub bare: Option<&'static [&'static str]>,
    /// Whether a user namespace of an ordinary user stops it, whatever else is
    /// taken away; nothing where that cannot be asked.
    pub rootless: Option<bool>,
    /// Kernels without the feature, and how they show.
    pub lacking: Option<(Errno, &'static str)>,
}
