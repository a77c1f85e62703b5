//! One instance of somebody else's system.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::super::live::REMOVAL;
use super::super::order::{Failure, Launched, PeerChannel, PeerRecipe};
use super::super::place::Ground;
use super::super::watch::{Goal, Trouble, Watch};
use super::call::{self, Caller};
use super::trees::{self, Trees};
use super::undo::{self, Undo};
use super::wires::{Filled, Wires, wires};
use crate::backend::Timeline;
use crate::backend::peers::{PAUSE, TRIES, census, cgroups_of};
use crate::container::cgroup::{Group, Limits};
use crate::container::network::{Marked, Netns};
use crate::errors::chain;
use crate::payload::protocol::STOP;
use crate::payload::request;
use crate::record::Mark;
use crate::sys::clock::{Deadline, monotonic_ns};
use crate::sys::pidfd::{Ended, Exit, PidFd};

/// Time that the kernel may take to destroy a network namespace; others hold
/// theirs for some seconds after the last process.
const NETWORK: Duration = Duration::from_secs(30);

/// What an instance lives in.
pub(super) struct Surroundings<'a> {
    pub(super) run_id: &'a str,
    pub(super) tops: &'a [PathBuf],
    pub(super) recipe: &'a PeerRecipe,
    pub(super) caller: Caller<'a>,
    pub(super) control: BorrowedFd<'a>,
    pub(super) deadline: Duration,
    /// Never readable: in place of the end of a command that has ended.
    pub(super) idle: BorrowedFd<'a>,
}

/// A live instance.
pub(super) struct Instance {
    /// The command that started it, until it is reaped.
    client: Option<PidFd>,
    pid: Pid,
    /// The control group of that command.
    group: Group,
    /// The same in hierarchies that our own instances do not need.
    trees: Trees,
    watch: Watch,
    folder: PathBuf,
    /// Words by which its processes and control groups are known.
    words: Vec<String>,
    delete: Vec<Vec<String>>,
    /// The payload's process, for an instance that was left behind.
    payload: Option<PidFd>,
    /// Processes that lived when it was asked to end.
    processes: Vec<PidFd>,
    marked: Option<Marked>,
}

impl Instance {
    /// Starts one: the timed window begins here.
    pub(super) fn start(
        name: &str,
        around: &Surroundings<'_>,
        ground: &Ground,
    ) -> Result<Self, Failure> {
        Self::try_start(name, around, ground).map_err(|reason| Failure {
            due: Mark::Spawned,
            reason: format!("start: {reason}"),
            timeline: Timeline::default(),
        })
    }

    fn try_start(name: &str, around: &Surroundings<'_>, ground: &Ground) -> Result<Self, String> {
        let text = |error: io::Error| error.to_string();
        let recipe = around.recipe;
        let id = format!("unladen-{}-{name}", around.run_id);
        let folder = recipe.folder.join(name);
        let filled = Filled::new(&id, &folder, around.run_id);
        fs::create_dir_all(&folder).map_err(text)?;
        for (name, content) in &recipe.files {
            fs::write(folder.join(name), filled.fill(content)).map_err(text)?;
        }
        let words = filled.all(&recipe.start);
        let delete: Vec<Vec<String>> = recipe.delete.iter().map(|all| filled.all(all)).collect();
        let undo = Undo { commands: delete.clone(), env: recipe.env.clone(), ..Undo::default() };
        undo.write(&folder).map_err(text)?;
        let mut command = around.caller.command(&words)?;
        let Wires { ears, child: ends } = wires(recipe, &folder, around.caller.null)
            .map_err(|error| format!("cannot connect it: {error}"))?;
        let fds: Vec<(BorrowedFd<'_>, i32)> =
            ends.iter().map(|(fd, number)| (fd.as_fd(), *number)).collect();
        let mut watch = Watch::new(ears);
        let mut group =
            ground.tree.create(name, &Limits::default()).map_err(|error| chain(&error))?;
        let trees = Trees::make(around.tops, &group, around.run_id, name).inspect_err(|_| {
            let _ = group.remove(REMOVAL);
        });
        let trees = trees.map_err(text)?;
        watch.timeline.stamp(Mark::Request, monotonic_ns());
        let child = call::launch(&mut command, (&group, &trees), &fds).inspect_err(|_| {
            trees.folders.iter().for_each(|folder| drop(trees::remove(folder)));
            let _ = group.remove(REMOVAL);
            let _ = undo::remove_folder(&folder);
        })?;
        watch.timeline.stamp(Mark::Spawned, monotonic_ns());
        Ok(Self {
            client: Some(child.pidfd),
            pid: child.pid,
            group,
            trees,
            watch,
            folder,
            words: vec![id],
            delete,
            payload: None,
            processes: Vec::new(),
            marked: None,
        })
    }

    /// Waits until its work is proved and, where it is left behind, until the
    /// command that started it has ended.
    pub(super) fn ready(&mut self, around: &Surroundings<'_>) -> Result<(), Failure> {
        let until = Deadline::after(around.deadline);
        loop {
            let exit = self.client.as_ref().map_or(around.idle, AsFd::as_fd);
            match self.watch.until(Goal::Proved, exit, around.control, until) {
                Ok(()) => break,
                Err(Trouble::Died) if around.recipe.detached => self.left_behind()?,
                Err(trouble) => return Err(self.trouble(trouble, self.due(), around.deadline)),
            }
        }
        if !around.recipe.detached {
            self.learn_words();
            return Ok(());
        }
        if let Some(client) = &self.client {
            let ended = self.watch.until(Goal::Exited, client.as_fd(), around.control, until);
            ended.map_err(|trouble| self.trouble(trouble, Mark::Ready, around.deadline))?;
            self.left_behind()?;
        }
        self.learn_words();
        let written = fs::read_to_string(self.folder.join("pid")).ok();
        let pid = self.watch.peer.or_else(|| written?.trim().parse().ok());
        if let Some(pid) = pid {
            self.pid = Pid::from_raw(pid);
            // A payload that has ended and is reaped needs no watching.
            self.payload = PidFd::open(self.pid).ok();
        }
        Ok(())
    }

    /// Engines give a name of their own to what they made.
    fn learn_words(&mut self) {
        let own = fs::read_to_string(self.folder.join("cid")).unwrap_or_default();
        let own = own.trim();
        if !own.is_empty() && self.words.iter().all(|word| word != own) {
            self.words.push(own.to_owned());
        }
    }

    /// Reaps a command that should have left an instance behind.
    fn left_behind(&mut self) -> Result<(), Failure> {
        let ended = self.client.take().and_then(|client| {
            client.wait(Some(Duration::ZERO)).ok().flatten().map(|ended| ended.exit)
        });
        match ended {
            Some(Exit::Code(0)) => Ok(()),
            Some(exit) => Err(self.failure(self.due(), format!("its command ended with {exit}"))),
            None => Err(self.failure(self.due(), "its command ended".to_owned())),
        }
    }

    /// Sees to it that the end of its network namespace will be witnessed,
    /// for one that ends by itself: nobody has the time to look at its
    /// processes, but a connection of its payload tells. Without one it will
    /// have no `gone`.
    pub(super) fn mark(&mut self, around: &Surroundings<'_>, ground: &mut Ground) {
        let connected = around.recipe.channel == PeerChannel::Connected;
        let (Ok(witness), true, true) = (&mut ground.witness, around.recipe.network, connected)
        else {
            return;
        };
        let theirs = self.watch.channel().and_then(|file| Netns::of_socket(file.as_fd()).ok());
        if let (Some(theirs), Ok(own)) = (theirs, Netns::own())
            && !theirs.is(&own)
        {
            self.marked = witness.mark_namespace(&theirs).ok();
        }
        // It has said everything, and our end would hold the namespace.
        if self.client.is_some() {
            self.watch.hang_up();
        }
    }

    /// Gets out of the way of those who are started from now on, and keeps no
    /// more open than it needs: many may live on.
    pub(super) fn step_aside(&mut self) {
        self.group.close_entrances();
        self.trees.close_entrances();
        self.watch.step_aside();
        self.client = self.client.take().map(PidFd::aside);
        self.payload = self.payload.take().map(PidFd::aside);
    }

    /// Finds out, while nothing is timed, which processes and which network
    /// namespace there are, whose end is to be seen.
    pub(super) fn look_around(&mut self, around: &Surroundings<'_>, ground: &mut Ground) {
        let pids = self.census(around);
        if let (Ok(witness), true) = (&mut ground.witness, around.recipe.network) {
            let own = fs::read_link("/proc/self/ns/net").ok();
            let apart = |pid: &&i32| {
                let theirs = fs::read_link(format!("/proc/{pid}/ns/net")).ok();
                theirs.is_some() && theirs != own
            };
            let inside = pids.iter().find(apart).map(|pid| Pid::from_raw(*pid));
            self.marked = inside.and_then(|pid| witness.mark(pid).ok().flatten());
        }
        let open = |pid: i32| PidFd::open(Pid::from_raw(pid)).ok();
        self.processes = pids.into_iter().filter_map(open).collect();
    }

    fn census(&self, around: &Surroundings<'_>) -> Vec<i32> {
        let mut folders: Vec<PathBuf> =
            self.group.folders().into_iter().map(Path::to_owned).collect();
        folders.extend(self.trees.folders.iter().cloned());
        folders.extend(cgroups_of(around.tops, around.run_id, &self.words));
        census(&self.words, &folders)
    }

    /// Waits for the end of its work; gives the exit code where the host can
    /// see it.
    pub(super) fn ended(&mut self, around: &Surroundings<'_>) -> Result<Option<u8>, Failure> {
        let until = Deadline::after(around.deadline);
        let exit = match (&self.client, &self.payload) {
            (Some(client), _) => client.as_fd(),
            (None, Some(payload)) => payload.as_fd(),
            // It has ended, or nobody could tell its number: its channel
            // says the same.
            (None, None) => around.idle,
        };
        let goal = if self.client.is_none() && self.payload.is_none() {
            Goal::Closed
        } else {
            Goal::Exited
        };
        let ended = self.watch.until(goal, exit, around.control, until);
        ended.map_err(|trouble| self.trouble(trouble, Mark::Exited, around.deadline))?;
        self.watch.timeline.stamp(Mark::Exited, monotonic_ns());
        let Some(client) = self.client.take() else { return Ok(None) };
        match client.wait(Some(Duration::ZERO)) {
            Ok(Some(Ended { exit: Exit::Code(code), .. })) => Ok(u8::try_from(code).ok()),
            Ok(Some(Ended { exit, .. })) => {
                Err(self.failure(Mark::Exited, format!("its command was {exit}")))
            }
            _ => Err(self.failure(Mark::Exited, "its command cannot be reaped".to_owned())),
        }
    }

    /// A workload that ran to completion must have ended as it said it would.
    pub(super) fn check_code(&self, code: Option<u8>) -> Result<(), Failure> {
        let said = self.watch.result.map(|result| result.code);
        if code.is_none() || code == said {
            return Ok(());
        }
        let reason = format!("it announced exit code {said:?} and its command gave {code:?}");
        Err(self.failure(Mark::Exited, reason))
    }

    /// Removes what the ended instance has on the host, waits for what its
    /// system removes by itself, and stamps that.
    pub(super) fn removed(
        &mut self,
        around: &Surroundings<'_>,
        ground: &mut Ground,
    ) -> Result<(), Failure> {
        self.watch.hang_up();
        if around.recipe.detached {
            for command in &self.delete {
                let done = around.caller.run(command, ground, "delete");
                done.map_err(|reason| self.failure(Mark::Removed, reason))?;
            }
        }
        let until = Deadline::after(REMOVAL);
        for process in &self.processes {
            if !process.wait_ended(Some(until.left())).unwrap_or(true) {
                return Err(self.failure(Mark::Removed, "a process of it stays".to_owned()));
            }
        }
        self.remove_cgroups(around).map_err(|reason| self.failure(Mark::Removed, reason))?;
        self.watch.timeline.stamp(Mark::Removed, monotonic_ns());
        match (around.recipe.network, &mut ground.witness, self.marked) {
            (false, ..) => self.watch.timeline.stamp(Mark::Gone, monotonic_ns()),
            (true, Ok(witness), Some(marked)) => match witness.wait(marked, NETWORK) {
                Ok(()) => self.watch.timeline.stamp(Mark::Gone, monotonic_ns()),
                Err(error) => return Err(self.failure(Mark::Gone, chain(&error))),
            },
            // Nobody saw it: no `gone` rather than a wrong one.
            _ => {}
        }
        self.nothing_stays(around)?;
        undo::remove_folder(&self.folder)
            .map_err(|error| self.failure(Mark::Gone, format!("its folder stays: {error}")))
    }

    /// Removes control groups: ours, and those that its system left.
    fn remove_cgroups(&mut self, around: &Surroundings<'_>) -> Result<(), String> {
        let until = Deadline::after(REMOVAL);
        let others = cgroups_of(around.tops, around.run_id, &self.words);
        for folder in others.iter().chain(&self.trees.folders) {
            while let Err(error) = trees::remove(folder) {
                if until.passed() {
                    return Err(format!("{}: {error}", folder.display()));
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        self.group.remove(REMOVAL).map_err(|error| chain(&error))
    }

    /// Whether every process of it has ended; those that were not known when
    /// it was asked to end, too.
    fn nothing_stays(&self, around: &Surroundings<'_>) -> Result<(), Failure> {
        let until = Deadline::after(REMOVAL);
        loop {
            let left = self.census(around);
            if left.is_empty() {
                return Ok(());
            }
            if until.passed() {
                let reason = format!("processes of it stay: {left:?}");
                return Err(self.failure(Mark::Gone, reason));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Kills it and removes all of it, in whatever state it is.
    pub(super) fn destroy(&mut self, around: &Surroundings<'_>, ground: &Ground) {
        // Each of these may find nothing left to do. What remains in spite
        // of them is found again by `unladen clean`.
        self.learn_words();
        if let Some(client) = self.client.take() {
            let _ = client.kill_and_wait();
        }
        for command in &self.delete {
            for _ in 0..TRIES {
                if around.caller.run(command, ground, "delete").is_ok() {
                    break;
                }
                std::thread::sleep(PAUSE);
            }
        }
        let _ = self.group.kill_all();
        for pid in self.census(around) {
            if let Ok(process) = PidFd::open(Pid::from_raw(pid)) {
                let _ = process.kill(Signal::SIGKILL);
                let _ = process.wait_ended(Some(REMOVAL));
            }
        }
        let _ = self.remove_cgroups(around);
        let _ = undo::remove_folder(&self.folder);
    }

    /// Stamps `stop` and asks the payload to end with code 0.
    pub(super) fn ask_to_stop(&mut self) -> Result<(), Failure> {
        self.watch.timeline.stamp(Mark::Stop, monotonic_ns());
        let sent = match self.watch.channel() {
            Some(mut channel) => channel.write_all(&request(STOP, &[0])),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        sent.map_err(|error| self.failure(Mark::Exited, format!("cannot ask it to stop: {error}")))
    }

    /// What the harness is told.
    pub(super) fn launched(&self, exit: Option<u8>) -> Launched {
        Launched {
            timeline: self.watch.timeline.clone(),
            result: self.watch.result.map_or((0, 0, 0), |r| (r.count, r.checksum, r.code)),
            pid: self.pid.as_raw(),
            cgroups: self.group.folders().into_iter().map(Path::to_owned).collect(),
            exit,
            refill: None,
            words: self.words.clone(),
        }
    }

    /// Its channel, for the harness.
    pub(super) fn channel(&self) -> Option<OwnedFd> {
        self.watch.channel().and_then(|file| file.try_clone().ok()).map(OwnedFd::from)
    }

    /// Its marks.
    pub(super) fn timeline(&self) -> Timeline {
        self.watch.timeline.clone()
    }

    fn trouble(&self, trouble: Trouble, due: Mark, deadline: Duration) -> Failure {
        let reason = trouble.told(deadline, || {
            match self.client.as_ref().map(|client| client.wait(Some(Duration::ZERO))) {
                Some(Ok(Some(Ended { exit, .. }))) => format!("its command ended with {exit}"),
                _ => "its command ended".to_owned(),
            }
        });
        self.failure(due, reason)
    }

    /// A failure of this instance with everything that is known about it.
    pub(super) fn failure(&self, due: Mark, reason: String) -> Failure {
        self.watch.failure(due, &reason)
    }

    /// The mark that is due next.
    fn due(&self) -> Mark {
        let missing = |mark: &&Mark| self.watch.timeline.at(**mark).is_none();
        *[Mark::Spawned, Mark::Init].iter().find(missing).unwrap_or(&Mark::Ready)
    }
}
