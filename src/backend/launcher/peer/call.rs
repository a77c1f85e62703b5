//! Executing somebody else's commands: each in a session and a control group
//! of its own, with a time limit, and killed with all of its children when
//! that is over.

use std::ffi::{CString, NulError};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;

use super::super::place::Ground;
use super::trees::Trees;
use crate::container::cgroup::{Group, Limits};
use crate::errors::chain;
use crate::sys::pidfd::{Ended, Exit};
use crate::sys::spawn::{
    Child, Command, Launch, MountAttributes, Program, Step, handle, mount_namespace,
};

/// Time that a command may take that removes or loads something.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How much of a command's complaints is kept, in bytes.
const TAIL: usize = 2000;

/// The version 2 tree of a hybrid host (systemd's name for it).
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// Where commands are executed.
pub(super) struct Caller<'a> {
    pub(super) null: BorrowedFd<'a>,
    /// Their whole environment.
    pub(super) env: &'a [String],
    /// A mount namespace that they enter.
    pub(super) mounts: Option<&'a OwnedFd>,
}

/// A mount namespace in which no version 2 tree is beside version 1, if there
/// is one here.
pub(super) fn without_unified() -> Result<Option<OwnedFd>, String> {
    if !std::path::Path::new(UNIFIED).join("cgroup.controllers").exists() {
        return Ok(None);
    }
    let text = |text: &str| CString::new(text).map_err(|error| error.to_string());
    let private = MountAttributes { propagation: libc::MS_PRIVATE, ..MountAttributes::default() };
    mount_namespace(&[
        Step::SetMount { path: text("/")?, recursive: true, attributes: private },
        Step::Mount {
            kind: text("tmpfs")?,
            source: text("tmpfs")?,
            target: text(UNIFIED)?,
            flags: 0,
            data: text("")?,
        },
    ])
    .map(Some)
    .map_err(|error| chain(&error))
}

impl Caller<'_> {
    /// A command, ready to be executed.
    pub(super) fn command(&self, words: &[String]) -> Result<Command, String> {
        let strings = |texts: &[String]| -> Result<Vec<CString>, NulError> {
            texts.iter().map(|text| CString::new(text.as_str())).collect()
        };
        let all = strings(words).and_then(|words| Ok((words, strings(self.env)?)));
        let (words, env) = all.map_err(|error| error.to_string())?;
        let program = words.first().cloned().ok_or("a command without a program")?;
        let mut steps = vec![Step::NewSession, Step::JoinCgroups];
        let mut handles = Vec::new();
        if let Some(mounts) = self.mounts {
            handles.push(mounts.try_clone().map_err(|error| error.to_string())?);
            let kind = CloneFlags::CLONE_NEWNS;
            steps.push(Step::EnterNamespace { namespace: handle(0), kind });
        }
        steps.push(Step::ParentDeathSignal(Signal::SIGKILL));
        steps.push(Step::MapDescriptors);
        steps.push(Step::CheckParent);
        let command =
            Command::new(Program::Paths(vec![program]), words, env, CloneFlags::empty(), steps);
        Ok(command.map_err(|error| chain(&error))?.with_handles(handles))
    }

    /// Executes a command to its end, in a control group of this name.
    pub(super) fn run(&self, words: &[String], ground: &Ground, name: &str) -> Result<(), String> {
        let mut group =
            ground.tree.create(name, &Limits::default()).map_err(|error| chain(&error))?;
        let result = self.run_in(words, &group);
        // Also what it left running: nothing of a command that removes or
        // loads outlives it.
        let _ = group.kill_all();
        let _ = group.remove(super::super::live::REMOVAL);
        result.map_err(|reason| format!("`{}`: {reason}", words.join(" ")))
    }

    fn run_in(&self, words: &[String], group: &Group) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        let mut output = tempfile::tempfile().map_err(text)?;
        let fds = [(self.null, 0), (output.as_fd(), 1), (output.as_fd(), 2)];
        let child = launch(&mut self.command(words)?, (group, &Trees::default()), &fds)?;
        let ended = child.pidfd.wait(Some(PATIENCE)).map_err(|error| error.to_string())?;
        let Some(Ended { exit, .. }) = ended else {
            let _ = child.pidfd.kill_and_wait();
            return Err(format!("not within {} s{}", PATIENCE.as_secs(), said(&mut output)));
        };
        match exit {
            Exit::Code(0) => Ok(()),
            other => Err(format!("{other}{}", said(&mut output))),
        }
    }
}

/// Makes the child of a command.
pub(super) fn launch(
    command: &mut Command,
    (group, trees): (&Group, &Trees),
    fds: &[(BorrowedFd<'_>, i32)],
) -> Result<Child, String> {
    let join: Vec<BorrowedFd<'_>> = group.join_fds().into_iter().chain(trees.join()).collect();
    let into_cgroup = group.into_cgroup().or(trees.unified());
    let launch = Launch { fds, join: &join, into_cgroup, ..Launch::default() };
    command.spawn(&launch).map_err(|error| chain(&error))
}

/// The end of what a command said.
fn said(output: &mut File) -> String {
    let mut bytes = Vec::new();
    let read = output.seek(SeekFrom::Start(0)).and_then(|_| output.read_to_end(&mut bytes));
    if read.is_err() || bytes.is_empty() {
        return String::new();
    }
    let tail = &bytes[bytes.len().saturating_sub(TAIL)..];
    format!(": {}", String::from_utf8_lossy(tail).trim().replace('\n', "; "))
}
