//! How a container's process is scheduled, on processors and disks.

use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy,
    Process, Scheduler,
};

use super::PlanError;
use crate::sys::spawn::{Scheduling, Step};

/// The place of the class in the number that ioprio_set(2) takes.
const CLASS_SHIFT: u32 = 13;

/// Steps for what a spec says about scheduling and the execution domain.
/// They need privileges that go later.
pub(super) fn steps(process: &Process, linux: &Linux) -> Result<Vec<Step>, PlanError> {
    let mut steps = Vec::new();
    if let Some(personality) = linux.personality() {
        if let Some(flag) = personality.flags().as_deref().unwrap_or_default().first() {
            return Err(PlanError::Value {
                field: "linux.personality.flags".to_owned(),
                value: flag.clone(),
                reason: "the specification names none so far",
            });
        }
        steps.push(Step::Personality(match personality.domain() {
            LinuxPersonalityDomain::PerLinux => 0,
            LinuxPersonalityDomain::PerLinux32 => 8,
        }));
    }
    if let Some(priority) = process.io_priority() {
        let class = match priority.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        let level = u32::try_from(priority.priority()).ok().filter(|level| *level < 8);
        let level = level.ok_or_else(|| PlanError::Value {
            field: "process.ioPriority.priority".to_owned(),
            value: priority.priority().to_string(),
            reason: "levels are from 0, the highest, to 7",
        })?;
        steps.push(Step::IoPriority(class << CLASS_SHIFT | level));
    }
    if let Some(scheduler) = process.scheduler() {
        steps.push(Step::Scheduler(scheduling(scheduler)?));
    }
    Ok(steps)
}

/// Policies and flags under the numbers of include/uapi/linux/sched.h.
fn scheduling(scheduler: &Scheduler) -> Result<Scheduling, PlanError> {
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let mut flags = 0;
    for flag in scheduler.flags().as_deref().unwrap_or_default() {
        flags |= match flag {
            LinuxSchedulerFlag::SchedResetOnFork => 0x1,
            LinuxSchedulerFlag::SchedFlagReclaim => 0x2,
            LinuxSchedulerFlag::SchedFlagDLOverrun => 0x4,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x8,
            LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
            LinuxSchedulerFlag::SchedFlagUtilClampMin
            | LinuxSchedulerFlag::SchedFlagUtilClampMax => {
                return Err(PlanError::Value {
                    field: "process.scheduler.flags".to_owned(),
                    value: flag.to_string(),
                    reason: "the specification has no field for the value that it needs",
                });
            }
        };
    }
    let priority = scheduler.priority().unwrap_or(0);
    Ok(Scheduling {
        policy,
        flags,
        nice: scheduler.nice().unwrap_or(0),
        priority: u32::try_from(priority).map_err(|_| PlanError::Value {
            field: "process.scheduler.priority".to_owned(),
            value: priority.to_string(),
            reason: "priorities are not negative",
        })?,
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
    })
}
