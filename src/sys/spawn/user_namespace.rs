//! Making a user namespace with ranges of ids.
//!
//! Only somebody outside a user namespace may map more than one id in it
//! (user_namespaces(7)), and who launches a child waits for it, suspended. So
//! the namespace is made beforehand, by a child that does nothing but be in it.

use std::ffi::{CString, c_void};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::libc;
use nix::sched::CloneFlags;

use super::clone::{Stack, clone_onto};
use super::{CLONE_CLEAR_SIGHAND, CLONE_PIDFD, Command, Launch, Program, SpawnError, Step, child};
use crate::sys::pidfd::{Exit, PidFd};
use crate::sys::raw::{call, signed};

/// Consecutive ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// The first one inside.
    pub inside: u32,
    /// The first one outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Why a user namespace could not be made.
#[derive(Debug, thiserror::Error)]
pub enum UserNamespaceError {
    /// The process in it.
    #[error("cannot create a process in a new user namespace")]
    Create(#[source] io::Error),
    /// Its ids.
    #[error("cannot map ids by writing {}", path.display())]
    Map {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The programs that may map the ids of an unprivileged user.
    #[error("cannot start {program} (package uidmap or shadow-utils)")]
    Start {
        /// The program.
        program: &'static str,
        /// The cause.
        source: Box<SpawnError>,
    },
    /// The same.
    #[error("{program} refused to map ids ({output}); see /etc/subuid and /etc/subgid")]
    Refused {
        /// The program.
        program: &'static str,
        /// What it said.
        output: String,
    },
    /// Its file.
    #[error("cannot open the new user namespace (is /proc mounted?)")]
    Open(#[source] io::Error),
}

/// Makes a user namespace with these ids, which lives as long as the
/// descriptor or a process in it does.
///
/// Without the privilege to map them, `newuidmap` and `newgidmap` are asked.
///
/// # Errors
///
/// See [`UserNamespaceError`]; no process is left.
pub(super) fn make(users: &[IdMap], groups: &[IdMap]) -> Result<OwnedFd, UserNamespaceError> {
    let (gate, opener) = io::pipe().map_err(UserNamespaceError::Create)?;
    let ends = [gate.as_raw_fd(), opener.as_raw_fd()];
    let (pid, pidfd) = create(&ends).map_err(|error| UserNamespaceError::Create(error.into()))?;
    let made = map(pid, "uid_map", "newuidmap", users)
        .and_then(|()| map(pid, "gid_map", "newgidmap", groups))
        .and_then(|()| {
            let namespace = std::fs::File::open(format!("/proc/{pid}/ns/user"));
            namespace.map(OwnedFd::from).map_err(UserNamespaceError::Open)
        });
    drop(opener);
    // It is the caller's own child, which has nothing else to do.
    let _ = pidfd.kill_and_wait();
    made
}

/// The process in the namespace, with memory of its own: it runs beside this
/// one.
fn create(ends: &[RawFd; 2]) -> Result<(i32, PidFd), Errno> {
    let stack = Stack::new()?;
    let namespace = CloneFlags::CLONE_NEWUSER.bits().cast_unsigned();
    let flags = u64::from(namespace) | CLONE_PIDFD | CLONE_CLEAR_SIGHAND;
    let mask = child::block_signals();
    // SAFETY: `stay` never returns and makes only raw system calls; `ends` is
    // in the copy of this memory that the child gets. All signals are blocked.
    let cloned = unsafe {
        clone_onto(&stack, flags, None, None, stay, std::ptr::from_ref(ends).cast::<c_void>())
    };
    child::restore_signals(mask);
    let cloned = cloned?;
    // SAFETY: `clone3` succeeded with CLONE_PIDFD, so this is a fresh
    // descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(cloned.pidfd) };
    Ok((cloned.pid, PidFd::from_fd(pidfd)))
}

/// Waits for the end of the parent, or of its interest.
extern "C" fn stay(ends: *const c_void) -> ! {
    // SAFETY: `create` passes two numbers.
    let [gate, opener] = unsafe { *ends.cast::<[RawFd; 2]>() };
    let mut byte = 0_u8;
    let at = std::ptr::from_mut(&mut byte) as usize;
    // SAFETY: numbers, and a byte that is valid for writing.
    let _ = unsafe { call(libc::SYS_close, [signed(opener), 0, 0, 0, 0, 0]) };
    // SAFETY: as above.
    let _ = unsafe { call(libc::SYS_read, [signed(gate), at, 1, 0, 0, 0]) };
    loop {
        // SAFETY: ends this process only.
        let _ = unsafe { call(libc::SYS_exit_group, [0; 6]) };
    }
}

fn map(
    pid: i32,
    file: &str,
    program: &'static str,
    ids: &[IdMap],
) -> Result<(), UserNamespaceError> {
    let line = |map: &IdMap| format!("{} {} {}\n", map.inside, map.outside, map.count);
    let text: String = ids.iter().map(line).collect();
    let path = PathBuf::from(format!("/proc/{pid}/{file}"));
    match std::fs::write(&path, text) {
        Ok(()) => Ok(()),
        Err(source) if source.kind() == io::ErrorKind::PermissionDenied => ask(pid, program, ids),
        Err(source) => Err(UserNamespaceError::Map { path, source }),
    }
}

/// Asks a program with the privilege.
fn ask(pid: i32, program: &'static str, ids: &[IdMap]) -> Result<(), UserNamespaceError> {
    let start = |source| UserNamespaceError::Start { program, source: Box::new(source) };
    let numbers = ids.iter().flat_map(|map| [map.inside, map.outside, map.count]);
    let texts = [program.to_owned(), pid.to_string()];
    let arguments = texts.into_iter().chain(numbers.map(|number| number.to_string()));
    // Numbers and a fixed name: no NUL.
    let arguments = arguments.filter_map(|text| CString::new(text).ok()).collect();
    let folders = ["/usr/bin", "/bin", "/usr/local/bin"];
    let paths =
        folders.iter().filter_map(|folder| CString::new(format!("{folder}/{program}")).ok());
    let program_paths = Program::Paths(paths.collect());
    let none = CloneFlags::empty();
    let mut command =
        Command::new(program_paths, arguments, Vec::new(), none, vec![Step::MapDescriptors])
            .map_err(|error| start(SpawnError::Helper(error)))?;
    let (mut reader, writer) = io::pipe().map_err(UserNamespaceError::Create)?;
    let fds = [(writer.as_fd(), 1), (writer.as_fd(), 2)];
    let child = command.spawn(&Launch { fds: &fds, ..Launch::default() }).map_err(start)?;
    drop(writer);
    let mut output = String::new();
    // What it says is for a message only.
    let _ = reader.read_to_string(&mut output);
    match child.pidfd.wait(None) {
        Ok(Some(ended)) if ended.exit == Exit::Code(0) => Ok(()),
        _ => Err(UserNamespaceError::Refused { program, output: output.trim().to_owned() }),
    }
}
