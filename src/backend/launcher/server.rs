//! The launcher's own side: a loop that carries out one order at a time.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::live::{Kind, Live, REMOVAL, Wires};
use super::order::{Answer, Failure, Launched, Order, Recipe, Stopped, Until};
use super::template::Template;
use super::watch::{Goal, Watch};
use crate::backend::Timeline;
use crate::container::cgroup::{CgroupError, Controller, Group, Hierarchy, RunTree};
use crate::errors::chain;
use crate::record::Mark;
use crate::sys::clock::monotonic_ns;
use crate::sys::{fdpass, signals};

/// Why the launcher cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its standard input is not the harness's socket.
    #[error("the launcher is started by `unladen run`, not by hand")]
    NoSocket(#[source] io::Error),
    /// The cgroups of this host cannot be used at all.
    #[error("cannot look at the cgroups of this host")]
    Cgroups(#[source] CgroupError),
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
    let null = File::open("/dev/null").map_err(ServeError::NoSocket)?.into();
    let tree = Hierarchy::detect(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
        .and_then(|hierarchy| hierarchy.prepare(run_id, &Controller::STANDARD))
        .map_err(ServeError::Cgroups)?;
    let mut server =
        Server { control, null, tree, templates: HashMap::new(), live: HashMap::new() };
    server.run();
    for live in server.live.values_mut() {
        live.destroy();
    }
    drop(server.live);
    // What remains is found again by `unladen clean`.
    let _ = server.tree.remove();
    Ok(())
}

struct Server {
    control: OwnedFd,
    null: OwnedFd,
    tree: RunTree,
    templates: HashMap<u32, Template>,
    live: HashMap<String, Live>,
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
        }
    }

    /// Carries out one order; a live instance's channel goes to the harness.
    fn carry_out(&mut self, order: Order) -> (Answer, Option<OwnedFd>) {
        match order {
            Order::Prepare { template, recipe } => (self.prepare(template, recipe), None),
            Order::Launch { template, instance, until, deadline_ms } => {
                let deadline = Duration::from_millis(deadline_ms);
                match self.launch(template, instance, until, deadline) {
                    Ok((launched, channel)) => (Answer::Launched(launched), channel),
                    Err(answer) => (*answer, None),
                }
            }
            Order::Stop { instance, deadline_ms } => {
                (self.stop(&instance, Duration::from_millis(deadline_ms)), None)
            }
            Order::Kill { instance } => {
                if let Some(mut live) = self.live.remove(&instance) {
                    live.destroy();
                }
                let timeline = Timeline::default();
                (Answer::Stopped(Stopped { timeline, exit: None }), None)
            }
        }
    }

    fn prepare(&mut self, number: u32, recipe: Recipe) -> Answer {
        match Template::new(recipe, &self.tree) {
            Ok(template) => {
                let remarks = template.remarks.clone();
                self.templates.insert(number, template);
                Answer::Prepared { remarks }
            }
            Err(error) => refused(chain(&error)),
        }
    }

    fn launch(
        &mut self,
        template: u32,
        instance: String,
        until: Until,
        deadline: Duration,
    ) -> Result<(Launched, Option<OwnedFd>), Box<Answer>> {
        let Some(template) = self.templates.get_mut(&template) else {
            return Err(Box::new(refused(format!("no template {template}"))));
        };
        let failed = |failure| Box::new(Answer::Failed(failure));
        let (mut live, pid) =
            start(template, &self.tree, &instance, self.null.as_fd()).map_err(failed)?;
        let control = self.control.as_fd();
        let run = |live: &mut Live| -> Result<Option<u8>, Failure> {
            live.wait(Goal::Proved, control, deadline)?;
            if until == Until::Ready {
                return Ok(None);
            }
            let code = live.exited(control, deadline)?;
            check_code(live, code)?;
            live.gone()?;
            Ok(code)
        };
        let exit = run(&mut live).map_err(|failure| {
            live.destroy();
            failed(failure)
        })?;
        let launched = Launched {
            timeline: live.watch.timeline.clone(),
            result: live.watch.result.map_or((0, 0, 0), |r| (r.count, r.checksum, r.code)),
            pid,
            cgroups: live.group.folders().into_iter().map(Path::to_owned).collect(),
            exit,
        };
        if until == Until::Gone {
            return Ok((launched, None));
        }
        let channel = live.watch.channel().and_then(|file| file.try_clone().ok());
        self.live.insert(instance, live);
        Ok((launched, channel.map(OwnedFd::from)))
    }

    fn stop(&mut self, instance: &str, deadline: Duration) -> Answer {
        let Some(mut live) = self.live.remove(instance) else {
            return refused(format!("no instance {instance}"));
        };
        let control = self.control.as_fd();
        let run = |live: &mut Live| -> Result<Option<u8>, Failure> {
            live.ask_to_stop()?;
            let code = live.exited(control, deadline)?;
            if code != Some(0) {
                let reason = format!("it was asked to end with code 0 and ended with {code:?}");
                return Err(live.failure(Mark::Exited, reason));
            }
            live.gone()?;
            Ok(code)
        };
        match run(&mut live) {
            Ok(exit) => {
                let timeline = live.watch.timeline.clone();
                Answer::Stopped(Stopped { timeline, exit })
            }
            Err(failure) => {
                live.destroy();
                Answer::Failed(failure)
            }
        }
    }
}

fn refused(reason: String) -> Answer {
    Answer::Refused { reason }
}

/// Makes an instance: the timed window begins here.
fn start(
    template: &mut Template,
    tree: &RunTree,
    instance: &str,
    null: BorrowedFd<'_>,
) -> Result<(Live, i32), Failure> {
    let early = |reason: String| Failure {
        due: Mark::Spawned,
        reason: format!("start: {reason}"),
        timeline: Timeline::default(),
    };
    let wires = Wires::new(template.kind, null).map_err(|error| early(error.to_string()))?;
    let mut watch = Watch::new(wires.ears);
    let group = || -> Result<Group, Failure> {
        tree.create(instance, &template.limits).map_err(|error| early(chain(&error)))
    };
    // A container's cgroup is part of what makes it a container; everybody
    // else's is only there for equal placement and equal reading.
    let mut group = if template.kind == Kind::Container {
        watch.timeline.stamp(Mark::Request, monotonic_ns());
        group()?
    } else {
        let group = group()?;
        watch.timeline.stamp(Mark::Request, monotonic_ns());
        group
    };
    let fds: Vec<(BorrowedFd<'_>, i32)> =
        wires.child.iter().map(|(fd, number)| (fd.as_fd(), *number)).collect();
    let child = match template.launch(&group, &fds) {
        Ok(child) => child,
        Err(error) => {
            let _ = group.remove(REMOVAL);
            return Err(early(chain(&error)));
        }
    };
    watch.timeline.stamp(Mark::Spawned, monotonic_ns());
    let pid = child.pid.as_raw();
    Ok((Live { kind: template.kind, pidfd: child.pidfd, group, watch }, pid))
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
