//! Commands that make or change something.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use oci_spec::runtime::{
    Capability, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, Process, User,
};

use super::args::{CreateArgs, ExecArgs, UpdateArgs};
use super::log::Log;
use super::{OciError, exit_code};
use crate::container::lifecycle::{CreateOptions, ExecOptions, Lifecycle};
use crate::errors::chain;
use crate::sys::file::inherited;
use crate::sys::pidfd::Exit;
use crate::sys::spawn::Child;

/// Signals that somebody who waits for a program passes on to it.
const PASSED_ON: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// What a process gets open.
struct Descriptors(Vec<(OwnedFd, RawFd)>);

impl Descriptors {
    /// The caller's standard streams, unless a terminal takes their place, and
    /// as many more as were asked for.
    fn take(terminal: bool, preserved: u16) -> Result<Self, OciError> {
        let streams = if terminal { 3..3 } else { 0..3 };
        let numbers = streams.chain(3..3 + RawFd::from(preserved));
        let take = |number| {
            inherited(number)
                .map(|fd| (fd, number))
                .map_err(|source| OciError::Descriptor { number, source })
        };
        Ok(Self(numbers.map(take).collect::<Result<_, _>>()?))
    }

    fn borrow(&self) -> Vec<(BorrowedFd<'_>, RawFd)> {
        self.0.iter().map(|(fd, number)| (fd.as_fd(), *number)).collect()
    }
}

/// `create`.
pub(super) fn create(containers: &Lifecycle, args: &CreateArgs) -> Result<(), OciError> {
    make(containers, args).map(drop)
}

fn make(containers: &Lifecycle, args: &CreateArgs) -> Result<Child, OciError> {
    if args.no_pivot {
        return Err(OciError::Usage(
            "--no-pivot is not supported: without pivot_root the host's root stays in reach"
                .to_owned(),
        ));
    }
    let spec = crate::container::read_config(&args.bundle.join("config.json"))?;
    let terminal = spec.process().as_ref().and_then(Process::terminal).unwrap_or(false);
    let descriptors = Descriptors::take(terminal, args.preserve_fds)?;
    let options = CreateOptions {
        id: &args.id,
        bundle: &args.bundle,
        console_socket: args.console_socket.as_deref(),
        keep_keyring: args.no_new_keyring,
        fds: &descriptors.borrow(),
    };
    containers.create(&options, |child| write_pid(args.pid_file.as_deref(), child))
}

/// Writes the pid for who watches the process, whole or not at all.
fn write_pid(path: Option<&Path>, child: &Child) -> Result<(), OciError> {
    let Some(path) = path else { return Ok(()) };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let put = || {
        let mut draft = tempfile::Builder::new().prefix(".pid-").tempfile_in(folder)?;
        write!(draft, "{}", child.pid)?;
        draft.persist(path).map(drop).map_err(|error| error.error)
    };
    put().map_err(OciError::file("write", path))
}

/// `run`.
pub(super) fn run(
    containers: &Lifecycle,
    args: &CreateArgs,
    detach: bool,
    keep: bool,
    log: &mut Log,
) -> Result<u8, OciError> {
    let child = make(containers, args)?;
    if let Err(error) = containers.start(&args.id) {
        // The first error is the one that says why.
        let _ = containers.delete(&args.id, true);
        let _ = child.pidfd.wait(None);
        return Err(error.into());
    }
    if detach {
        return Ok(0);
    }
    let exit = wait(&child)?;
    if !keep {
        delete(containers, &args.id, true, log)?;
    }
    Ok(exit_code(exit))
}

/// Waits for the end of a child and passes on signals meanwhile. Without a
/// thread: who has entered a container's pid namespace cannot have one.
fn wait(child: &Child) -> Result<Exit, OciError> {
    let set: SigSet = PASSED_ON.into_iter().collect();
    set.thread_block().map_err(OciError::Signals)?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&set, flags).map_err(OciError::Signals)?;
    loop {
        let mut entries = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN),
        ];
        match nix::poll::poll(&mut entries, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(OciError::Wait(error)),
        }
        while let Ok(Some(info)) = signals.read_signal() {
            // One that has ended needs none.
            let _ = child.pidfd.send(i32::try_from(info.ssi_signo).unwrap_or(0));
        }
        if let Some(ended) = child.pidfd.wait(Some(Duration::ZERO)).map_err(OciError::Wait)? {
            return Ok(ended.exit);
        }
    }
}

/// `delete`.
pub(super) fn delete(
    containers: &Lifecycle,
    id: &str,
    force: bool,
    log: &mut Log,
) -> Result<u8, OciError> {
    for warning in containers.delete(id, force)? {
        log.warning(&chain(&warning));
    }
    Ok(0)
}

/// `exec`.
pub(super) fn exec(containers: &Lifecycle, args: &ExecArgs) -> Result<u8, OciError> {
    let process = match &args.process {
        Some(path) => read_json(path)?,
        None => process(containers, args)?,
    };
    let terminal = process.terminal().unwrap_or(false);
    let descriptors = Descriptors::take(terminal, args.preserve_fds)?;
    let options = ExecOptions {
        id: &args.id,
        process: &process,
        console_socket: args.console_socket.as_deref(),
        keep_keyring: args.no_new_keyring,
        fds: &descriptors.borrow(),
    };
    let child = containers.exec(&options)?;
    if let Err(error) = write_pid(args.pid_file.as_deref(), &child) {
        // Nobody would ever find it.
        let _ = child.pidfd.kill_and_wait();
        return Err(error);
    }
    if args.detach {
        return Ok(0);
    }
    drop(descriptors);
    wait(&child).map(exit_code)
}

/// The container's own process, with what the command line changes.
fn process(containers: &Lifecycle, args: &ExecArgs) -> Result<Process, OciError> {
    if args.command.is_empty() {
        return Err(OciError::Usage("give a program, or --process FILE".to_owned()));
    }
    let mut process = containers.config(&args.id)?.process().clone().unwrap_or_default();
    process.set_args(Some(args.command.clone()));
    process.set_terminal(Some(args.tty));
    process.set_console_size(None);
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.clone());
    }
    let mut environment = process.env().clone().unwrap_or_default();
    for variable in &args.env {
        let name = variable.split('=').next().unwrap_or_default();
        environment.retain(|other| other.split('=').next() != Some(name));
        environment.push(variable.clone());
    }
    process.set_env(Some(environment));
    if let Some(text) = &args.user {
        process.set_user(user(text)?);
    }
    if !args.additional_gids.is_empty() {
        process.user_mut().set_additional_gids(Some(args.additional_gids.clone()));
    }
    if args.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    add_capabilities(&mut process, &args.cap)?;
    Ok(process)
}

/// `UID[:GID]`.
fn user(text: &str) -> Result<User, OciError> {
    let wrong = || OciError::Usage(format!("`{text}` is not UID[:GID] in numbers"));
    let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
    let mut user = User::default();
    user.set_uid(uid.parse().map_err(|_| wrong())?);
    user.set_gid(gid.map_or(Ok(0), str::parse).map_err(|_| wrong())?);
    Ok(user)
}

/// Adds to all sets that a program gets at its start.
fn add_capabilities(process: &mut Process, names: &[String]) -> Result<(), OciError> {
    let mut all = process.capabilities().clone().unwrap_or_default();
    for name in names {
        let capability = Capability::from_str(name)
            .map_err(|_| OciError::Usage(format!("`{name}` is not a capability")))?;
        let with = |set: &Option<oci_spec::runtime::Capabilities>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(capability);
            Some(set)
        };
        let (bounding, effective, permitted) =
            (with(all.bounding()), with(all.effective()), with(all.permitted()));
        all.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    }
    if !names.is_empty() {
        process.set_capabilities(Some(all));
    }
    Ok(())
}

/// `update`.
pub(super) fn update(containers: &Lifecycle, args: &UpdateArgs) -> Result<u8, OciError> {
    let resources = match &args.resources {
        Some(path) if path == Path::new("-") => {
            let path = Path::new("standard input");
            serde_json::from_reader(std::io::stdin())
                .map_err(|source| OciError::Syntax { path: path.to_owned(), source })?
        }
        Some(path) => read_json(path)?,
        None => resources(args),
    };
    Ok(containers.update(&args.id, &resources).map(|()| 0)?)
}

/// Limits from the command line.
fn resources(args: &UpdateArgs) -> LinuxResources {
    let mut all = LinuxResources::default();
    all.set_devices(None);
    if args.memory.or(args.memory_swap).or(args.memory_reservation).is_some() {
        let mut memory = LinuxMemory::default();
        memory.set_limit(args.memory).set_swap(args.memory_swap);
        memory.set_reservation(args.memory_reservation);
        all.set_memory(Some(memory));
    }
    let mut cpu = LinuxCpu::default();
    cpu.set_quota(args.cpu_quota).set_period(args.cpu_period).set_shares(args.cpu_share);
    cpu.set_cpus(args.cpuset_cpus.clone()).set_mems(args.cpuset_mems.clone());
    if cpu != LinuxCpu::default() {
        all.set_cpu(Some(cpu));
    }
    if let Some(limit) = args.pids_limit {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        all.set_pids(Some(pids));
    }
    all
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, OciError> {
    let text = fs::read(path).map_err(OciError::file("read", path))?;
    serde_json::from_slice(&text)
        .map_err(|source| OciError::Syntax { path: path.to_owned(), source })
}
