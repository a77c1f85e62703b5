//! Creating a container: everything but its program.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::Mode;
use oci_spec::runtime::{Process, Spec};

use super::cgroup_mounts::with_own_cgroups;
use super::console::Console;
use super::enter::Entrance;
use super::error::LifecycleError;
use super::hooks::{self, Moment};
use super::state::{self, ProcessRecord, Record, Status};
use super::store::Entry;
use super::{Lifecycle, START_FIFO, STARTED_FIFO};
use crate::container::cgroup::{Group, Hierarchy};
use crate::container::plan::{BEFORE_PIVOT, SET_UP, limits_of};
use crate::container::{Bundle, Container, Plan};
use crate::sys::pidfd::PidFd;
use crate::sys::spawn::{Child, Hold, Launch, SpawnError, Step};

/// Cgroups of a configuration that names none. Not `unladen-`, whose cgroups
/// `unladen clean` removes.
const DEFAULT_CGROUP: &str = "unladen.oci";
/// How long the cgroups of a container that could not be created may stay
/// occupied by what was just killed.
const CLEAN_UP: Duration = Duration::from_secs(10);

/// What a container is created from.
#[derive(Clone, Debug)]
pub struct CreateOptions<'a> {
    /// Its name.
    pub id: &'a str,
    /// The folder of its configuration.
    pub bundle: &'a Path,
    /// Where the terminal is sent, if the configuration wants one.
    pub console_socket: Option<&'a Path>,
    /// Whether it keeps the caller's session keyring (keyrings(7)) instead of
    /// a new one.
    pub keep_keyring: bool,
    /// What it gets open: standard streams, unless it has a terminal, and what
    /// the caller has to hand on.
    pub fds: &'a [(BorrowedFd<'a>, RawFd)],
}

impl Lifecycle {
    /// Creates a container: its first process has done everything but to
    /// execute its program, and waits, whatever becomes of the caller.
    /// `created` is called with it when nothing can fail any more but the
    /// call itself; it may be waited for only by this process.
    ///
    /// # Errors
    ///
    /// See [`LifecycleError`]. Nothing is left of the container then.
    pub fn create<E: From<LifecycleError>>(
        &self,
        options: &CreateOptions<'_>,
        created: impl FnOnce(&Child) -> Result<(), E>,
    ) -> Result<Child, E> {
        let bundle = Bundle::load(options.bundle).map_err(LifecycleError::Bundle)?;
        let spec = bundle.spec();
        let process = spec.process().clone().unwrap_or_default();
        let console = Console::connect(&process, options.console_socket)?;
        let entry = self.store.create(options.id)?;
        let mut record = new_record(options.id, &bundle);
        let making = Making { entry: &entry, bundle: &bundle, process: &process, options };
        let result = making
            .make(&mut record, console.as_ref())
            .map_err(E::from)
            .and_then(|child| created(&child).map(|()| child));
        match result {
            Ok(child) => {
                record.complete = true;
                entry.write(&record)?;
                Ok(child)
            }
            Err(error) => {
                // The first error is the one that says why.
                let _ = undo(entry, &record);
                Err(error)
            }
        }
    }
}

/// What is known from the start.
fn new_record(id: &str, bundle: &Bundle) -> Record {
    let spec = bundle.spec();
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
    let path = path.filter(|path| !path.as_os_str().is_empty());
    Record {
        version: Record::VERSION,
        id: id.to_owned(),
        bundle: bundle.folder().to_owned(),
        created: state::now(),
        owner: user_name(),
        boot: state::boot_id(),
        cgroups_path: path.unwrap_or_else(|| PathBuf::from(DEFAULT_CGROUP).join(id)),
        cgroups: None,
        process: None,
        complete: false,
        config: spec.clone(),
    }
}

/// The caller's name, or its number where it has none.
fn user_name() -> String {
    let uid = nix::unistd::geteuid();
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

/// A container that is being made.
struct Making<'a> {
    entry: &'a Entry,
    bundle: &'a Bundle,
    process: &'a Process,
    options: &'a CreateOptions<'a>,
}

impl Making<'_> {
    fn make(
        &self,
        record: &mut Record,
        console: Option<&Console>,
    ) -> Result<Child, LifecycleError> {
        // Before anything exists that would have to be found again.
        self.entry.write(record)?;
        let hierarchy = Hierarchy::detect(Path::new("/proc"), Path::new("/sys/fs/cgroup"))?;
        let linux = self.bundle.spec().linux().clone().unwrap_or_default();
        let group = hierarchy.group_at(&record.cgroups_path, &limits_of(&linux)?)?;
        record.cgroups = Some(group.record());
        self.entry.write(record)?;
        let spec = with_own_cgroups(self.bundle.spec(), &group);
        let plan = Plan::from_spec(&spec, self.bundle.folder())?;
        let [start, started] = fifos(self.entry.folder())?;
        let hold = Hold { start: start.as_fd(), started: started.as_fd() };
        let mut command = Container::prepare_held(&plan, self.keyring())?;
        let join = group.join_fds();
        let launch = Launch {
            fds: self.options.fds,
            join: &join,
            into_cgroup: group.into_cgroup(),
            terminal: console.map(Console::terminal),
            hold: Some(hold),
        };
        let launched = command.spawn_apart(&launch, |point, child| match point {
            BEFORE_PIVOT => {
                self.know(record, child)?;
                before_pivot(record, child)
            }
            SET_UP => self.know(record, child),
            _ => Ok(()),
        });
        launched.map_err(|error| self.explain(error, command.steps()))
    }

    /// A session keyring of its own has the container's name.
    fn keyring(&self) -> Option<CString> {
        (!self.options.keep_keyring).then(|| super::keyring(self.options.id))
    }

    /// Writes down the process, so that it is found whatever happens.
    fn know(&self, record: &mut Record, child: &Child) -> Result<(), LifecycleError> {
        let pid = child.pid.as_raw();
        let started = state::start_time(pid).ok_or(LifecycleError::Process {
            action: "look at",
            pid,
            source: nix::errno::Errno::ESRCH,
        })?;
        record.process = Some(ProcessRecord { pid, started });
        self.entry.write(record)
    }

    /// A program that was not found, in the words that engines know.
    fn explain(&self, error: LifecycleError, steps: &[Step]) -> LifecycleError {
        match error {
            LifecycleError::Spawn(SpawnError::Step { index, source, .. })
                if steps.get(index) == Some(&Step::FindProgram) =>
            {
                let arguments = self.process.args().as_deref().unwrap_or_default();
                let program = arguments.first().cloned().unwrap_or_default();
                LifecycleError::Program { program, source }
            }
            other => other,
        }
    }
}

/// The hooks that have their place before the root changes.
fn before_pivot(record: &Record, child: &Child) -> Result<(), LifecycleError> {
    let spec: &Spec = &record.config;
    let state = record.state(Status::Creating);
    hooks::run(Moment::Prestart, spec, &state, None)?;
    hooks::run(Moment::CreateRuntime, spec, &state, None)?;
    if Moment::CreateContainer.hooks(spec).is_empty() {
        return Ok(());
    }
    let pid = child.pid.as_raw();
    let entrance = Entrance::new(pid, &child.pidfd, Vec::new())
        .map_err(|source| LifecycleError::Process { action: "enter", pid, source })?;
    hooks::run(Moment::CreateContainer, spec, &state, Some(&entrance))
}

/// Two FIFOs at which the first process waits, open for both directions.
fn fifos(folder: &Path) -> Result<[OwnedFd; 2], LifecycleError> {
    let make = |name: &str| {
        let path = folder.join(name);
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|error| LifecycleError::state("make the FIFO", &path)(error.into()))?;
        File::options()
            .read(true)
            .write(true)
            .open(&path)
            .map(OwnedFd::from)
            .map_err(LifecycleError::state("open", path))
    };
    Ok([make(START_FIFO)?, make(STARTED_FIFO)?])
}

/// Removes what was made of a container that could not be created.
fn undo(entry: Entry, record: &Record) -> Result<(), LifecycleError> {
    if let Some(pidfd) = record.live_process() {
        kill(&pidfd);
    }
    if let Some(cgroups) = &record.cgroups {
        let mut group = Group::reopen(cgroups)?;
        group.kill_all()?;
        group.remove(CLEAN_UP)?;
    }
    let state = record.state(Status::Stopped);
    // A warning at most, and there is an error already.
    let _ = hooks::run_all(Moment::Poststop, &record.config, &state);
    entry.remove()
}

/// Kills a process that is a child of this one; if it ended meanwhile, good.
fn kill(pidfd: &PidFd) {
    let _ = pidfd.kill_and_wait();
}
