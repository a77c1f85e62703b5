//! The start of an instance, which is where the timed window begins.

use std::os::fd::{AsFd, BorrowedFd};

use super::delay::Delay;
use super::live::{Kind, Live, REMOVAL, Wires};
use super::order::{Failure, Until, fd};
use super::place::{Ground, Place};
use super::template::Template;
use super::watch::Watch;
use crate::backend::Timeline;
use crate::container::network::Netns;
use crate::errors::chain;
use crate::record::Mark;
use crate::sys::clock::monotonic_ns;
use crate::sys::pidfd::PidFd;
use crate::sys::spawn::Child;

/// Makes an instance: the timed window begins here.
pub(super) fn start(
    template: &mut Template,
    ground: &mut Ground,
    instance: &str,
    null: BorrowedFd<'_>,
    until: Until,
    delay: Option<&Delay>,
) -> Result<Live, Failure> {
    let early = |reason: String| Failure {
        due: Mark::Spawned,
        reason: format!("start: {reason}"),
        timeline: Timeline::default(),
    };
    let mut wires = Wires::new(template.kind, !template.probes.is_empty(), null)
        .map_err(|error| early(error.to_string()))?;
    let mut watch = Watch::new(std::mem::take(&mut wires.ears));
    watch.look_for(template.probes.clone());
    if let Some(restore) = &template.restore {
        wires.child.push((restore.snapshot.open().map_err(early)?, fd::STATE));
        watch.restore(restore.snapshot.conversation(), restore.result);
    }
    let mut place = settle(template, ground, instance, &mut watch.timeline).map_err(early)?;
    if let Some(delay) = delay {
        delay.spend();
    }
    let (server, child, born) = match make(template, &place, wires) {
        Ok(made) => made,
        Err(reason) => {
            let _ = place.group.kill_all();
            let _ = place.group.remove(REMOVAL);
            let _ = ground.release(place.net.and_then(|net| net.lease), true);
            return Err(early(reason));
        }
    };
    let spawned = monotonic_ns();
    // A copy of this process stamps for itself, and executes nothing.
    if template.kind != Kind::Bare {
        watch.timeline.stamp(Mark::Cloned, child.begun);
        watch.timeline.stamp(Mark::SetUp, child.set_up);
        watch.timeline.stamp(Mark::Spawned, spawned);
    }
    let (made, lease) = place.net.map(|net| (net.netns, net.lease)).unzip();
    // Whatever lives on is marked when it is to end.
    let held = until == Until::Gone && place.marked.is_none();
    Ok(Live {
        kind: template.kind,
        pidfd: child.pidfd,
        server,
        pid: child.pid,
        group: place.group,
        watch,
        network: template.network,
        marked: place.marked,
        // Else the namespace itself is the instance's alone from here on.
        netns: born.or(made).filter(|_| held),
        lease: lease.flatten(),
        refill: place.refill,
        stamps: template.stamps(),
        tells_code: template.tells_code,
    })
}

/// Makes the processes of an instance in its place: a machine's file server
/// comes before the machine.
fn make(
    template: &mut Template,
    place: &Place,
    mut wires: Wires,
) -> Result<(Option<PidFd>, Child, Option<Netns>), String> {
    let served = template.serve_files(&place.group, &wires.ordinary())?;
    let (server, connection) = served.unzip();
    wires.child.extend(connection.map(|connection| (connection, fd::FILES)));
    let fds: Vec<(BorrowedFd<'_>, i32)> =
        wires.child.iter().map(|(fd, number)| (fd.as_fd(), *number)).collect();
    match template.launch(&place.group, &fds, place.net.as_ref()) {
        Ok((child, netns)) => Ok((server, child, netns)),
        Err(reason) => {
            if let Some(server) = server {
                let _ = server.kill_and_wait();
            }
            Err(reason)
        }
    }
}

/// Finds an instance's place, stamping `request` and, where a container's
/// cgroup is made now, `cgroup`.
fn settle(
    template: &mut Template,
    ground: &mut Ground,
    instance: &str,
    timeline: &mut Timeline,
) -> Result<Place, String> {
    if let Some(pool) = &mut template.pool {
        timeline.stamp(Mark::Request, monotonic_ns());
        return pool.take();
    }
    // A container's cgroup is part of what makes it a container; everybody
    // else's is only there for equal placement and equal reading.
    let counts = template.kind == Kind::Container;
    if counts {
        timeline.stamp(Mark::Request, monotonic_ns());
    }
    let group = ground.tree.create(instance, &template.limits).map_err(|error| chain(&error))?;
    let mut place = Place { group, net: None, marked: None, refill: None };
    timeline.stamp(if counts { Mark::Cgroup } else { Mark::Request }, monotonic_ns());
    match ground.network(template.network) {
        Ok(net) => place.net = net,
        Err(reason) => {
            let _ = place.group.remove(REMOVAL);
            return Err(reason);
        }
    }
    Ok(place)
}
