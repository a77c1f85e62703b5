//! One run of one external command: from the call that makes its process to
//! the moment when it is reaped.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::time::Duration;

use crate::arms::{Arm, FILTER};
use crate::bundle::{Bundles, Job};
use crate::floor::start::chain;
use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, killpg};
use unladen::sys::clock::monotonic_ns;
use unladen::sys::spawn::{
    Child, Command, Launch, MountAttributes, Program, Step, handle, mount_namespace,
};

/// An external command, ready to be run.
pub struct External {
    command: Command,
    null: File,
    output: File,
    /// What the command reads from descriptor [`FILTER`].
    filter: Option<File>,
}

/// How long it took, in nanoseconds, or why there is no such time.
pub type Taken = Result<u64, String>;

impl External {
    /// Prepares a command with an empty environment but for `PATH`; in a mount
    /// namespace that hides the version 2 cgroup tree, if asked for.
    pub fn new(arguments: &[String], hide_unified: bool) -> Self {
        let strings: Vec<CString> =
            arguments.iter().map(|text| CString::new(text.as_str()).expect("no NUL")).collect();
        let program = strings.first().cloned().expect("a program");
        let mut steps = vec![Step::NewSession];
        let mut handles = Vec::new();
        if hide_unified && hybrid() {
            let private = MountAttributes {
                propagation: nix::libc::MS_PRIVATE,
                ..MountAttributes::default()
            };
            let hidden = mount_namespace(&[
                Step::SetMount { path: c"/".into(), recursive: true, attributes: private },
                Step::Mount {
                    kind: c"tmpfs".into(),
                    source: c"tmpfs".into(),
                    target: UNIFIED.into(),
                    flags: 0,
                    data: c"".into(),
                },
            ]);
            handles.push(hidden.expect("a mount namespace of the bench's own"));
            let kind = CloneFlags::CLONE_NEWNS;
            steps.push(Step::EnterNamespace { namespace: handle(0), kind });
        }
        steps.push(Step::MapDescriptors);
        let environment = vec![c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin".into()];
        let program = Program::Paths(vec![program]);
        let command = Command::new(program, strings, environment, CloneFlags::empty(), steps)
            .expect("steps that can work")
            .with_handles(handles);
        Self {
            command,
            null: File::open("/dev/null").expect("/dev/null"),
            output: tempfile::tempfile().expect("a temporary file"),
            filter: None,
        }
    }

    /// The command of an arm for one container.
    pub fn of(arm: &Arm, bundles: &Bundles, job: Job, id: &str) -> Self {
        let filter = arm.filter(bundles).map(|path| File::open(path).expect("the filter"));
        let command = arm.command(bundles, job, id);
        Self { filter, ..Self::new(&command, arm.hide_unified) }
    }

    /// Starts the command without waiting for it.
    pub fn start(&mut self) -> Result<Child, String> {
        self.output.set_len(0).expect("an empty file");
        self.output.seek(SeekFrom::Start(0)).expect("its beginning");
        let (null, output) = (self.null.as_fd(), self.output.as_fd());
        let mut fds = vec![(null, 0), (output, 1), (output, 2)];
        fds.extend(self.filter.as_ref().map(|filter| (filter.as_fd(), FILTER)));
        self.command
            .spawn(&Launch { fds: &fds, ..Launch::default() })
            .map_err(|error| chain(&error))
    }

    /// Runs the command to its end. A command that does not end in time is
    /// killed with its whole session, which it may not notice in any other way.
    pub fn run(&mut self, deadline: Duration) -> Taken {
        let request = monotonic_ns();
        let child = self.start()?;
        let ended = child.pidfd.wait(Some(deadline)).map_err(|error| error.to_string())?;
        let gone = monotonic_ns();
        match ended {
            Some(ended) if ended.exit.success() => Ok(gone - request),
            Some(ended) => Err(format!("{}: {}", ended.exit, self.words())),
            None => {
                stop(&child);
                Err(format!("did not end within {deadline:?}: {}", self.words()))
            }
        }
    }

    /// What the command printed, on one line.
    pub fn words(&mut self) -> String {
        let mut text = String::new();
        let read = self
            .output
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.output.read_to_string(&mut text));
        match read {
            Ok(_) => text.split_whitespace().collect::<Vec<_>>().join(" "),
            Err(error) => format!("(its output cannot be read: {error})"),
        }
    }
}

/// Kills a command and what it started in its session.
pub fn stop(child: &Child) {
    // The session leader was made by this process and is not reaped yet, so
    // its number still means this group.
    let _ = killpg(child.pid, Signal::SIGKILL);
    let _ = child.pidfd.kill_and_wait();
}

/// Where a hybrid host mounts the version 2 tree.
const UNIFIED: &std::ffi::CStr = c"/sys/fs/cgroup/unified";

/// Whether this host has version 1 hierarchies and a version 2 tree beside them.
fn hybrid() -> bool {
    std::path::Path::new("/sys/fs/cgroup/unified/cgroup.controllers").exists()
}
