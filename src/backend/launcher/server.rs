//! The launcher's own side: a loop that carries out one order at a time.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::delay::Delay;
use super::live::{Kind, Live};
use super::order::{Answer, Failure, Launched, Monitor, Order, Recipe, Stopped, Until};
use super::peer::Peers;
use super::place::{Ground, Network};
use super::snapshot::{self, Restore};
use super::start::start;
use super::template::Template;
use super::watch::Goal;
use crate::backend::Timeline;
use crate::container::cgroup::{CgroupError, Controller, Hierarchy, sweep};
use crate::container::network::{Bridge, Witness};
use crate::errors::chain;
use crate::record::Mark;
use crate::sys::clock::Deadline;
use crate::sys::pidfd::PidFd;
use crate::sys::{fdpass, keyring, signals};

/// Why the launcher cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its standard input is not the harness's socket.
    #[error("the launcher is started by `unladen run`, not by hand")]
    NoSocket(#[source] io::Error),
    /// The cgroups of this host cannot be used at all.
    #[error("cannot look at the cgroups of this host")]
    Cgroups(#[source] CgroupError),
    /// The keys of the caller's session would be within reach of instances.
    #[error("cannot leave the session keyring (see /proc/sys/kernel/keys/maxkeys)")]
    Keyring(#[source] Errno),
}

/// Serves orders from standard input until the harness closes it, then
/// removes everything of the run.
///
/// # Errors
/// When it cannot begin.
pub fn serve(run_id: &str) -> Result<(), ServeError> {
    let control = io::stdin().as_fd().try_clone_to_owned().map_err(ServeError::NoSocket)?;
    for number in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGPIPE] {
        // Only the end of the socket ends the launcher: a signal for the
        // whole terminal or session must not orphan what it started.
        signals::ignore(number).map_err(|error| ServeError::NoSocket(error.into()))?;
    }
    // Once for all instances: nothing of it is in their time.
    keyring::leave_session().map_err(ServeError::Keyring)?;
    let null = File::open("/dev/null").map_err(ServeError::NoSocket)?.into();
    let tree = detect()
        .and_then(|hierarchy| hierarchy.prepare(run_id, &Controller::STANDARD))
        .map_err(ServeError::Cgroups)?;
    let witness = Witness::new().map_err(|error| chain(&error));
    let ground = Ground { tree, bridge: None, witness };
    let (templates, live) = (HashMap::new(), HashMap::new());
    let (run_id, delay) = (run_id.to_owned(), Delay::from_environment());
    let (snapshots, peers) = (None, Peers::new(&run_id));
    let mut server =
        Server { control, null, run_id, ground, templates, live, peers, snapshots, delay };
    server.run();
    server.peers.end(&mut server.ground, &server.null);
    for live in server.live.values_mut() {
        live.destroy();
    }
    drop(server.live);
    // With them the pools' network namespaces.
    drop(server.templates);
    // What remains is found again by `unladen clean`.
    if let Some(folder) = &server.snapshots {
        let _ = std::fs::remove_dir_all(folder);
    }
    drop(server.ground.bridge.map(Bridge::remove));
    let _ = server.ground.tree.remove();
    // Others make groups where they please, with the run's name.
    if let (true, Ok(hierarchy)) = (server.peers.used(), detect()) {
        let _ = sweep(&hierarchy, Some(&server.run_id));
    }
    Ok(())
}

fn detect() -> Result<Hierarchy, CgroupError> {
    Hierarchy::detect(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
}

struct Server {
    control: OwnedFd,
    null: OwnedFd,
    run_id: String,
    ground: Ground,
    templates: HashMap<u32, Template>,
    live: HashMap<String, Live>,
    /// Those of somebody else's systems.
    peers: Peers,
    /// The folder of the run's snapshots, once there is one.
    snapshots: Option<PathBuf>,
    /// Set by tests of the suite itself only.
    delay: Option<Delay>,
}

impl Server {
    /// Answers orders until the harness is gone.
    fn run(&mut self) {
        while let Ok(Some((bytes, _))) = fdpass::receive(&self.control) {
            let (answer, channel) = match serde_json::from_slice(&bytes) {
                Ok(order) => self.carry_out(order),
                Err(error) => (refused(format!("cannot read the order: {error}")), None),
            };
            let Ok(bytes) = serde_json::to_vec(&answer) else { return };
            let fds: Vec<BorrowedFd<'_>> = channel.iter().map(AsFd::as_fd).collect();
            if fdpass::send(&self.control, &bytes, &fds).is_err() {
                return;
            }
            // Only now, while the harness stores what it was told: nothing of
            // this is in any timed window.
            self.ground.renew_witness();
            for (number, template) in &mut self.templates {
                self.ground.refill(*number, template);
            }
        }
    }

    /// Carries out one order; a live instance's channel goes to the harness.
    fn carry_out(&mut self, order: Order) -> (Answer, Option<OwnedFd>) {
        match order {
            Order::Prepare { template, recipe } => (self.prepare(template, recipe), None),
            Order::Launch { template, instance, until, deadline_ms } => {
                let deadline = Duration::from_millis(deadline_ms);
                let launched = if self.peers.has_template(template) {
                    let around = (&mut self.ground, self.null.as_fd(), self.control.as_fd());
                    self.peers.launch(template, instance, until, deadline, around)
                } else {
                    self.launch(template, instance, until, deadline)
                };
                match launched {
                    Ok((launched, channel)) => (Answer::Launched(launched), channel),
                    Err(answer) => (*answer, None),
                }
            }
            Order::Stop { instance, deadline_ms } if self.peers.has(&instance) => {
                let around = (&mut self.ground, self.null.as_fd(), self.control.as_fd());
                let deadline = Duration::from_millis(deadline_ms);
                (self.peers.stop(&instance, deadline, false, around), None)
            }
            Order::Stop { instance, deadline_ms } => {
                (self.stop(&instance, Duration::from_millis(deadline_ms)), None)
            }
            Order::Kill { instance } if self.peers.has(&instance) => {
                let around = (&mut self.ground, self.null.as_fd(), self.control.as_fd());
                (self.peers.stop(&instance, Duration::ZERO, true, around), None)
            }
            Order::StopMany { instances, deadline_ms } => {
                let failure = self.stop_many(&instances, Duration::from_millis(deadline_ms)).err();
                (Answer::StoppedMany { failure }, None)
            }
            Order::Kill { instance } => {
                if let Some(mut live) = self.live.remove(&instance) {
                    self.destroy(&mut live);
                }
                let timeline = Timeline::default();
                (Answer::Stopped(Stopped { timeline, exit: None }), None)
            }
        }
    }

    fn prepare(&mut self, number: u32, recipe: Recipe) -> Answer {
        let recipe = match recipe {
            Recipe::Peer(recipe) => {
                return self.peers.prepare(number, *recipe, &self.ground, self.null.as_fd());
            }
            own => own,
        };
        let restore = match self.restore(number, &recipe) {
            Ok(restore) => restore,
            Err(answer) => return *answer,
        };
        match Template::new(recipe, &self.ground.tree, self.ground.witness.is_ok()) {
            Ok(mut template) => {
                template.restore = restore;
                if template.network == Network::Bridge && self.ground.bridge.is_none() {
                    match Bridge::create(&self.run_id) {
                        Ok(bridge) => self.ground.bridge = Some(bridge),
                        Err(error) => return refused(chain(&error)),
                    }
                }
                let mut remarks = template.remarks.clone();
                if let (false, Err(reason)) =
                    (template.network == Network::Host, &self.ground.witness)
                {
                    remarks.push(format!(
                        "the destruction of its network namespace is not awaited: {reason}"
                    ));
                }
                self.templates.insert(number, template);
                Answer::Prepared { remarks }
            }
            Err(error) => refused(chain(&error)),
        }
    }

    /// Makes the snapshot that a recipe's machines go on from, if they do.
    fn restore(&mut self, number: u32, recipe: &Recipe) -> Result<Option<Restore>, Box<Answer>> {
        let Recipe::Restored { source, snapshot, tells_code, .. } = recipe else { return Ok(None) };
        if self.snapshots.is_none() {
            let folder = snapshot.folder.clone();
            snapshot::empty_folder(&folder).map_err(|error| {
                let reason = format!("cannot make the folder `{}`: {error}", folder.display());
                Box::new(refused(reason))
            })?;
            self.snapshots = Some(folder);
        }
        let witnessed = self.ground.witness.is_ok();
        let program = source.clone();
        let monitor =
            Monitor { program, server: None, tells_code: *tells_code, probes: Vec::new() };
        let recipe = Recipe::Machine(monitor);
        let mut template = Template::new(recipe, &self.ground.tree, witnessed)
            .map_err(|error| Box::new(refused(chain(&error))))?;
        let (name, null, control) = (format!("source-{number}"), &self.null, &self.control);
        let ground = &mut self.ground;
        let result =
            snapshot::take(&mut template, snapshot, ground, &name, null.as_fd(), control.as_fd())
                .map_err(|failure| Box::new(Answer::Failed(failure)))?;
        Ok(Some(Restore { snapshot: snapshot.clone(), result }))
    }

    fn launch(
        &mut self,
        template: u32,
        instance: String,
        until: Until,
        deadline: Duration,
    ) -> Result<(Launched, Option<OwnedFd>), Box<Answer>> {
        let number = template;
        let Some(template) = self.templates.get_mut(&number) else {
            return Err(Box::new(refused(format!("no template {number}"))));
        };
        let delayed = template.kind == Kind::Container;
        if let (true, Some(delay)) = (delayed, &mut self.delay) {
            delay.choose(number);
        }
        let failed = |failure| Box::new(Answer::Failed(failure));
        let null = self.null.as_fd();
        let (ground, delay) = (&mut self.ground, self.delay.as_ref().filter(|_| delayed));
        let mut live = start(template, ground, &instance, null, until, delay).map_err(failed)?;
        let control = self.control.as_fd();
        let witness = &mut self.ground.witness;
        let ends = template.restore.as_ref().and_then(|restore| restore.snapshot.ends);
        let mut run = |live: &mut Live| -> Result<Option<u8>, Failure> {
            live.wait(Goal::Proved, control, deadline)?;
            if until == Until::Ready {
                return Ok(None);
            }
            if let Some(code) = ends {
                live.ask_to_end(code)?;
            }
            let code = live.exited(control, deadline)?;
            check_code(live, code)?;
            live.gone(witness)?;
            Ok(code)
        };
        let run = run(&mut live).and_then(|exit| match until {
            Until::Ready => Ok(exit),
            Until::Gone => give_back(&mut self.ground, &mut live).map(|()| exit),
        });
        let exit = run.map_err(|failure| {
            self.destroy(&mut live);
            failed(failure)
        })?;
        let launched = Launched {
            timeline: live.watch.timeline.clone(),
            result: live.watch.result.map_or((0, 0, 0), |r| (r.count, r.checksum, r.code)),
            pid: live.pid.as_raw(),
            cgroups: live.group.folders().into_iter().map(Path::to_owned).collect(),
            exit,
            refill: live.refill,
            words: Vec::new(),
        };
        if let (true, Some(delay)) = (delayed, &mut self.delay) {
            delay.learn(number, &launched);
        }
        if until == Until::Gone {
            return Ok((launched, None));
        }
        let channel = live.watch.channel().and_then(|file| file.try_clone().ok());
        // Thousands may live on: each keeps no more open than it needs.
        live.group.close_entrances();
        live.watch.step_aside();
        live.pidfd = live.pidfd.aside();
        live.server = live.server.map(PidFd::aside);
        self.live.insert(instance, live);
        Ok((launched, channel.map(OwnedFd::from)))
    }

    fn stop(&mut self, instance: &str, deadline: Duration) -> Answer {
        let Some(mut live) = self.live.remove(instance) else {
            return refused(format!("no instance {instance}"));
        };
        let control = self.control.as_fd();
        let ground = &mut self.ground;
        live.mark(&mut ground.witness);
        let mut run = |live: &mut Live| -> Result<Option<u8>, Failure> {
            live.ask_to_stop()?;
            let code = live.exited(control, deadline)?;
            if code != Some(0) {
                let reason = format!("it was asked to end with code 0 and ended with {code:?}");
                return Err(live.failure(Mark::Exited, reason));
            }
            live.gone(&mut ground.witness)?;
            give_back(ground, live)?;
            Ok(code)
        };
        match run(&mut live) {
            Ok(exit) => {
                let timeline = live.watch.timeline.clone();
                Answer::Stopped(Stopped { timeline, exit })
            }
            Err(failure) => {
                self.destroy(&mut live);
                Answer::Failed(failure)
            }
        }
    }

    /// Ends several at once within the deadline of all: each waits for the
    /// kernel together with the others. All are gone in the end, also those that
    /// fail.
    fn stop_many(&mut self, instances: &[String], deadline: Duration) -> Result<(), Failure> {
        let mut many: Vec<Live> =
            instances.iter().filter_map(|name| self.live.remove(name)).collect();
        let mut result = Ok(());
        let mut each =
            |many: &mut Vec<Live>, act: &mut dyn FnMut(&mut Live) -> Result<(), Failure>| {
                let mut failed = Vec::new();
                for index in (0..many.len()).rev() {
                    if let Err(failure) = act(&mut many[index]) {
                        result = std::mem::replace(&mut result, Ok(())).and(Err(failure));
                        failed.push(many.swap_remove(index));
                    }
                }
                failed
            };
        let (ground, control) = (&mut self.ground, self.control.as_fd());
        let until = Deadline::after(deadline);
        // All before the first ends, whose id another would be given.
        many.iter_mut().for_each(|live| live.mark(&mut ground.witness));
        let mut failed = each(&mut many, &mut Live::ask_to_stop);
        failed.extend(each(&mut many, &mut |live| match live.exited(control, until.left())? {
            Some(0) => Ok(()),
            code => Err(live.failure(Mark::Exited, format!("it ended with {code:?}"))),
        }));
        failed.extend(each(&mut many, &mut Live::remove));
        // An address is given to another only when its first owner is gone.
        let gone = Live::all_gone(&many, &mut ground.witness);
        failed.extend(each(&mut many, &mut |live| give_back(ground, live)));
        for mut live in failed {
            self.destroy(&mut live);
        }
        result.and(gone)
    }

    /// Kills an instance and removes all of it.
    fn destroy(&mut self, live: &mut Live) {
        live.destroy();
        // What this leaves is found again by `unladen clean`.
        let _ = self.ground.release(live.lease.take(), true);
    }
}

/// Takes back the address of an instance that is gone.
fn give_back(ground: &mut Ground, live: &mut Live) -> Result<(), Failure> {
    let lease = live.lease.take();
    ground.release(lease, false).map_err(|reason| live.failure(Mark::Gone, reason))
}

fn refused(reason: String) -> Answer {
    Answer::Refused { reason }
}

/// A workload that ran to completion must have ended as it said it would.
fn check_code(live: &Live, code: Option<u8>) -> Result<(), Failure> {
    let said = live.watch.result.map(|result| result.code);
    if code == said {
        return Ok(());
    }
    let reason = format!("it announced exit code {said:?} and ended with {code:?}");
    Err(live.failure(Mark::Exited, reason))
}
