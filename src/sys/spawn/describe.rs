//! What a step does, in the words of an error message.

use std::ffi::CString;
use std::fmt;

use super::step::{Node, Place, Step};

impl Step {
    /// As `fmt`, for steps that are about the process rather than its files.
    fn fmt_identity(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostName(name) => write!(f, "set the host name `{}`", text(name)),
            Self::DomainName(name) => write!(f, "set the domain name `{}`", text(name)),
            Self::LoopbackUp => f.write_str("bring up the loopback interface"),
            Self::ResourceLimit { resource, soft, hard } => {
                write!(
                    f,
                    "set resource limit {resource:?} to {soft} (hard {hard}; to raise that limit \
                     needs CAP_SYS_RESOURCE)"
                )
            }
            Self::LimitBoundingSet { keep, .. } => write!(f, "limit the bounding set to {keep:#x}"),
            Self::KeepCapabilities => f.write_str("keep capabilities over the change of user"),
            Self::SetGroups(groups) => write!(f, "set the supplementary groups {groups:?}"),
            Self::SetUser { uid, gid } => write!(f, "become user {uid} and group {gid}"),
            Self::SetCapabilities(sets) => write!(f, "set the capabilities {:#x}", sets.effective),
            Self::SetAmbient(set) => write!(f, "set the ambient set to {set:#x}"),
            Self::NoNewPrivileges => f.write_str("set no_new_privs"),
            Self::Personality(domain) => write!(f, "set the personality {domain:#x}"),
            Self::IoPriority(value) => write!(f, "set the I/O priority {value:#x}"),
            Self::Scheduler(how) => write!(f, "set the scheduling policy {}", how.policy),
            Self::Seccomp(filter) => {
                write!(f, "load the seccomp filter ({} instructions)", filter.instructions.len())
            }
            Self::Umask(mask) => write!(f, "set the umask {mask:04o}"),
            Self::WorkingDirectory(path) => write!(f, "change to the directory {}", text(path)),
            Self::ParentDeathSignal(signal) => write!(f, "set the parent-death signal {signal}"),
            Self::MapDescriptors => f.write_str("arrange the descriptors"),
            Self::CheckParent => f.write_str("find the launching process alive"),
            Self::Terminal { .. } => f.write_str("make a terminal in /dev/pts"),
            Self::Hide => f.write_str("hide from other processes"),
            Self::SessionKeyring(name) => write!(f, "join the session keyring {}", text(name)),
            Self::OwnSessionKeyring => f.write_str(
                "join a session keyring of its own (/proc/sys/kernel/keys has a user's quotas)",
            ),
            Self::Pause(number) => write!(f, "wait for the launching process at point {number}"),
            Self::FindProgram => f.write_str("find the program"),
            Self::AwaitStart => f.write_str("wait to be started"),
            // Every step is in one of the two functions.
            _ => Ok(()),
        }
    }
}

/// What the step does, with its object, to stand in an error message after
/// `cannot`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewSession => f.write_str("start a session"),
            Self::NewProcessGroup => f.write_str("start a process group"),
            Self::JoinCgroups => f.write_str("join the cgroups"),
            Self::WriteFile { path, data } => {
                write!(f, "write `{}` to {}", data.trim_ascii().escape_ascii(), text(path))
            }
            Self::Unshare(flags) => write!(f, "enter new namespaces ({flags:?})"),
            Self::EnterNamespace { kind, .. } => {
                write!(f, "enter an existing namespace ({kind:?})")
            }
            Self::BeBornAgain(flags) => write!(f, "make a second child ({flags:?})"),
            Self::SetMount { path, .. } => write!(f, "change the mount {}", text(path)),
            Self::OpenTree { path, .. } => write!(f, "open {} to bind it", text(path)),
            Self::SetTree { slot, .. } => write!(f, "change the attributes of bind {}", slot.0),
            Self::AttachTree { target, .. } => write!(f, "bind at {}", text(target)),
            Self::EnterTree(_) => f.write_str("enter the root filesystem"),
            Self::BorrowRoot(_) => f.write_str("make it the root for a while (chroot)"),
            Self::ReturnRoot(_) => f.write_str("return to the host's root"),
            Self::PivotRoot => f.write_str("make it the root (pivot_root)"),
            Self::DetachOldRoot => f.write_str("detach the old root"),
            Self::Mount { kind, target, data, .. } => {
                write!(f, "mount {} at {}", text(kind), text(target))?;
                if data.is_empty() { Ok(()) } else { write!(f, " with `{}`", text(data)) }
            }
            Self::Filesystem { kind, target, options, .. } => {
                write!(f, "make the {} for {}", text(kind), text(target))?;
                write_options(f, options)
            }
            Self::Attach { place, .. } => write!(f, "mount at {place}"),
            Self::Make { place, node } => write!(f, "make {node} {place}"),
            Self::OpenDevice { path, number, .. } => {
                write!(f, "find character device {}:{} at {}", number.0, number.1, text(path))
            }
            Self::Mask { place, .. } => write!(f, "mask {place}"),
            Self::ProtectPath { place } => write!(f, "make {place} read-only"),
            _ => self.fmt_identity(f),
        }
    }
}

/// A path or name for a message.
fn text(string: &CString) -> std::borrow::Cow<'_, str> {
    string.to_string_lossy()
}

/// Options of a filesystem, as fstab has them.
fn write_options(
    f: &mut fmt::Formatter<'_>,
    options: &[(CString, Option<CString>)],
) -> fmt::Result {
    for (index, (name, value)) in options.iter().enumerate() {
        f.write_str(if index == 0 { " with `" } else { "," })?;
        f.write_str(&text(name))?;
        if let Some(value) = value {
            write!(f, "={}", text(value))?;
        }
    }
    if options.is_empty() { Ok(()) } else { f.write_str("`") }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(&self.path))
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory(_) => "the directory",
            Self::File => "the file",
            Self::Symlink(_) => "the link",
            Self::Special { .. } => "the device",
        })
    }
}
