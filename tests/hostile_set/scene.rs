//! Where attacks are tried: a root filesystem with nothing but the program, a
//! victim that stands for the host, and what is left open for the attacker.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{OpenptyResult, openpty};
use oci_spec::runtime::{Capability, LinuxNamespaceType as Kind, Mount, Spec};
use unladen::container::cgroup::Limits;
use unladen::container::seccomp::{Machine, default_profile};
use unladen::container::{CapabilityChange, Container, Plan, StandardOptions, standard_spec};
use unladen::sys::pidfd::Exit;

use super::{Guard, Outcome, Row, Stop, Success};
use crate::common::wait_until;
use crate::lab::{self, Lab, Running};

/// The number of the terminal inside.
const TERMINAL: RawFd = 5;

/// What is shared by all scenes.
pub struct Stage {
    pub lab: Lab,
    program: PathBuf,
    number: u32,
}

/// How a container is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// All at once, as by `unladen container run`.
    Direct,
    /// From a prepared root, as the cells of a run are.
    Prepared,
    /// Without privileges.
    Rootless,
}

impl Stage {
    /// With the program already compiled, or to be.
    pub fn new(program: Option<PathBuf>) -> Self {
        let lab = Lab::new();
        let inside = lab.rootfs.join("hostile");
        match program {
            Some(path) => crate::common::copy_program(&path, &inside),
            None => lab::compile("hostile", &inside),
        }
        let other = lab.rootfs.join("hostile-root");
        crate::common::copy_program(&inside, &other);
        fs::set_permissions(&other, fs::Permissions::from_mode(0o4755)).expect("mode");
        for name in ["mnt", "tmp"] {
            fs::create_dir_all(lab.rootfs.join(name)).expect("made");
        }
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(lab.rootfs.join("tmp"), open).expect("mode");
        Self { lab, program: inside, number: 0 }
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Tries an attack with some guards switched off.
    pub fn attempt(&mut self, row: &Row, way: Way, off: &[Guard]) -> Outcome {
        self.number += 1;
        let mut scene = Scene::new(self);
        let all_off = row.guards.iter().all(|(guard, _)| off.contains(guard));
        match row.bare {
            Some(attack) if all_off => scene.bare(row, attack),
            Some(_) if row.guards.iter().any(|(guard, _)| *guard == Guard::Keyring) => {
                scene.keyed(row)
            }
            _ => scene.contained(row, way, off),
        }
    }
}

/// A process that stands for the host.
struct Victim {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    address: String,
}

/// One attempt's surroundings.
pub struct Scene<'a> {
    stage: &'a Stage,
    pub secret: String,
    file: PathBuf,
    victim: Victim,
    terminal: OpenptyResult,
    left: Vec<OwnedFd>,
    id: String,
}

impl<'a> Scene<'a> {
    fn new(stage: &'a Stage) -> Self {
        let id = format!("{}-{}", stage.lab.id, stage.number);
        let secret = format!("secret-{id}");
        let folder = stage.lab.rootfs.parent().expect("a folder").to_owned();
        let file = folder.join("secret");
        fs::write(&file, &secret).expect("written");
        let mut child = Command::new(&stage.program)
            .arg("victim")
            .env("SECRET", &secret)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the victim starts");
        let questions = child.stdin.take();
        let mut answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut address = String::new();
        answers.read_line(&mut address).expect("text");
        let address = address.trim().to_owned();
        let victim = Victim { child, questions, answers, address };
        let namespace = format!("/proc/{}/ns/mnt", victim.child.id());
        let left = vec![leave_open(&folder), leave_open(Path::new(&namespace))];
        let terminal = openpty(None, None).expect("a terminal");
        let _ = fs::remove_file(stage.lab.rootfs.join("tmp/device"));
        Self { stage, secret, file, victim, terminal, left, id }
    }

    /// Asks the victim.
    pub fn ask(&mut self, question: &str) -> String {
        let questions = self.victim.questions.as_mut().expect("open");
        writeln!(questions, "{question}").expect("it lives");
        let mut answer = String::new();
        self.victim.answers.read_line(&mut answer).expect("text");
        answer.trim().to_owned()
    }

    /// A line of the victim's status.
    pub fn victim_status(&self, name: &str) -> String {
        let path = format!("/proc/{}/status", self.victim.child.id());
        let text = fs::read_to_string(path).expect("it lives");
        text.lines().find(|line| line.starts_with(name)).expect("a line").to_owned()
    }

    pub fn victim_was_killed(&mut self) -> bool {
        let pid = self.victim.child.id();
        let dead = || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.contains(") Z ")
        };
        wait_until(Duration::from_secs(5), dead)
            && self.victim.child.wait().expect("waited").signal() == Some(9)
    }

    pub fn made_device(&self) -> bool {
        fs::metadata(self.stage.lab.rootfs.join("tmp/device"))
            .is_ok_and(|data| data.file_type().is_char_device() && data.rdev() >> 8 == 1)
    }

    /// Whether something came out of the terminal as if typed.
    pub fn terminal_has_echoed(&self) -> bool {
        let mut waiting = [PollFd::new(self.terminal.master.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waiting, PollTimeout::from(2000_u16)) != Ok(1) {
            return false;
        }
        let mut letter = [0];
        let master = self.terminal.master.try_clone().expect("copied");
        fs::File::from(master).read_exact(&mut letter).is_ok() && &letter == b"x"
    }

    /// An attack's arguments with what they stand for.
    fn arguments(&self, attack: &[&str]) -> Vec<String> {
        let texts = [
            ("{pid}", self.victim.child.id().to_string()),
            ("{address}", self.victim.address.clone()),
            ("{length}", self.secret.len().to_string()),
            ("{file}", self.file.display().to_string()),
            ("{folder}", self.left[0].as_raw_fd().to_string()),
            ("{namespace}", self.left[1].as_raw_fd().to_string()),
            ("{rootfs}", self.stage.lab.rootfs.display().to_string()),
            ("{terminal}", TERMINAL.to_string()),
            ("{id}", self.id.clone()),
        ];
        let fill = |text: &&str| {
            texts.iter().fold((*text).to_owned(), |text, (from, to)| text.replace(from, to))
        };
        let mut all: Vec<String> = attack.iter().map(fill).collect();
        for text in &mut all {
            if text == "{handle}" {
                *text = self.helper(&["handle-of", &self.file.display().to_string()]);
            }
        }
        all
    }

    /// What the program says when it runs on the host.
    fn helper(&self, arguments: &[&str]) -> String {
        let output = Command::new(&self.stage.program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let proof = text.trim().strip_prefix("done ").map(str::to_owned);
        proof.unwrap_or_else(|| panic!("{arguments:?}: {text}"))
    }

    /// In a container.
    fn contained(&mut self, row: &Row, way: Way, off: &[Guard]) -> Outcome {
        let key = row.attack.contains(&"user-key");
        if key {
            self.helper(&["add-user-key", &self.id, &self.secret]);
        }
        let plan = self.plan(row, way, off);
        let lab = &self.stage.lab;
        let name = format!("n{}", self.stage.number);
        let group = lab.tree.create(&name, plan.limits()).expect("a group");
        let mut container = match way {
            Way::Prepared => Container::prepare(&plan),
            Way::Direct | Way::Rootless => Container::prepare_direct(&plan),
        }
        .expect("prepared");
        let running = Running::with(|fds| {
            let mut fds: Vec<(BorrowedFd<'_>, RawFd)> = fds.to_vec();
            fds.push((self.terminal.slave.as_fd(), TERMINAL));
            if off.contains(&Guard::NoDescriptors) {
                fds.extend(self.left.iter().map(|fd| (fd.as_fd(), fd.as_raw_fd())));
            }
            container.launch(&group, &fds).expect("launched")
        });
        let pid = running.child.pid.as_raw().try_into().expect("a pid");
        let line = running.first_line.clone();
        let outcome = self.judge(row, pid, &line);
        running.finish(Exit::Code(0));
        if key {
            self.helper(&["remove-user-key", &self.id]);
        }
        outcome
    }

    /// The container of `unladen container run`, less what is switched off.
    fn plan(&self, row: &Row, way: Way, off: &[Guard]) -> Plan {
        let add: Vec<Capability> = off
            .iter()
            .filter_map(|guard| match guard {
                Guard::Without(capability) => Some(*capability),
                _ => None,
            })
            .collect();
        // The filter as it is without the capabilities.
        let usual = CapabilityChange::default().apply();
        let filter = default_profile(&usual, Machine::native()).expect("a profile");
        let mut arguments = vec!["/hostile".to_owned()];
        arguments.extend(self.arguments(row.attack));
        let options = StandardOptions {
            rootfs: self.stage.lab.rootfs.clone(),
            arguments,
            working_directory: "/".into(),
            hostname: "inside".to_owned(),
            capabilities: CapabilityChange { add, ..CapabilityChange::default() },
            no_new_privileges: !off.contains(&Guard::NoNewPrivileges),
            limits: Limits::default(),
            user_namespace: way == Way::Rootless,
            seccomp: (!off.contains(&Guard::Filter)).then_some(filter),
            ..StandardOptions::default()
        };
        let mut spec = standard_spec(&options);
        for guard in off {
            self.switch_off(&mut spec, *guard);
        }
        Plan::from_spec(&spec, Path::new("/")).expect("a plan")
    }

    fn switch_off(&self, spec: &mut Spec, guard: Guard) {
        match guard {
            Guard::Own(kind) => {
                if kind == Kind::Uts {
                    spec.set_hostname(None);
                }
                let linux = spec.linux_mut().as_mut().expect("linux");
                let namespaces = linux.namespaces_mut().as_mut().expect("namespaces");
                let name = match kind {
                    Kind::Uts => "uts",
                    Kind::Ipc => "ipc",
                    Kind::Network => "net",
                    // The host's.
                    _ => return namespaces.retain(|other| other.typ() != kind),
                };
                let path = format!("/proc/{}/ns/{name}", self.victim.child.id());
                let own = namespaces.iter_mut().find(|other| other.typ() == kind);
                own.expect("it has one").set_path(Some(path.into()));
            }
            Guard::Hidden => drop(spec.linux_mut().as_mut().expect("linux").set_masked_paths(None)),
            Guard::Protected => {
                spec.linux_mut().as_mut().expect("linux").set_readonly_paths(None);
            }
            Guard::ReadOnlySys => {
                let mounts = spec.mounts_mut().as_mut().expect("mounts").iter_mut();
                for mount in mounts.filter(|mount| mount.destination() == Path::new("/sys")) {
                    make_writable(mount);
                }
            }
            // Said by the options, or by the launch.
            Guard::Without(_) | Guard::Filter | Guard::NoNewPrivileges | Guard::NoDescriptors => {}
            Guard::Pivot | Guard::Keyring => unreachable!("those have an attack of their own"),
        }
    }

    /// Without a container.
    fn bare(&mut self, row: &Row, attack: &[&str]) -> Outcome {
        let mut command = Command::new(&self.stage.program);
        if row.guards.iter().any(|(guard, _)| *guard == Guard::Keyring) {
            command.args(["keyring-with", &self.secret]).arg(&self.stage.program);
        }
        command.args(self.arguments(attack));
        self.run(row, command)
    }

    /// By the command, in a session with a key.
    fn keyed(&mut self, row: &Row) -> Outcome {
        let mut command = Command::new(&self.stage.program);
        command.args(["keyring-with", &self.secret]).arg(env!("CARGO_BIN_EXE_unladen"));
        command
            .args(["container", "run", "--seccomp", "none", "--rootfs"])
            .arg(&self.stage.lab.rootfs);
        command.args(["--", "/hostile"]).args(self.arguments(row.attack));
        self.run(row, command)
    }

    fn run(&mut self, row: &Row, mut command: Command) -> Outcome {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("started");
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        output.read_line(&mut line).expect("text");
        let outcome = self.judge(row, child.id(), line.trim());
        drop(child.stdin.take());
        child.wait().expect("ended");
        outcome
    }

    /// What an attack's last words are worth.
    fn judge(&mut self, row: &Row, pid: u32, line: &str) -> Outcome {
        if let Some(proof) = line.strip_prefix("done") {
            let proof = proof.trim();
            return match row.success {
                Success::Seen(seen) if !seen(self, pid, proof) => {
                    Outcome::Stopped(Stop::Contained, proof.to_owned())
                }
                _ => Outcome::Succeeded(proof.to_owned()),
            };
        }
        let rest = line.strip_prefix("refused ").unwrap_or_else(|| panic!("{}: {line}", row.name));
        let (number, step) = rest.split_once(' ').expect("a step");
        let errno = Errno::from_raw(number.parse().expect("a number"));
        match row.success {
            Success::Reached(wrong) if wrong == errno => {
                Outcome::Succeeded(format!("{errno:?} for its arguments"))
            }
            _ if number == "0" => Outcome::Stopped(Stop::Nothing, step.to_owned()),
            _ => Outcome::Stopped(Stop::Refused(errno), step.to_owned()),
        }
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        drop(self.victim.questions.take());
        let _ = self.victim.child.wait();
    }
}

/// Opens something so that it stays open over `execve`, at a number that no
/// container uses.
fn leave_open(path: &Path) -> OwnedFd {
    let mut low = Vec::new();
    loop {
        let file = OwnedFd::from(fs::File::open(path).expect("opened"));
        if file.as_raw_fd() > TERMINAL {
            fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).expect("left open");
            return file;
        }
        low.push(file);
    }
}

fn make_writable(mount: &mut Mount) {
    let options = mount.options_mut().as_mut().expect("options");
    options.retain(|option| option != "ro");
}

/// Whether this process can give a capability.
pub fn may_give(capability: Capability) -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).expect("a line");
    let bits = u64::from_str_radix(line, 16).expect("a number");
    unladen::container::capabilities_of(bits).contains(&capability)
}
