//! From a spec's list of system calls to one verdict per number.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use super::SeccompError;
use super::machine::{Machine, X32_BIT};

/// What a filter returns (include/uapi/linux/seccomp.h).
pub(super) const KILL_THREAD: u32 = 0;
const KILL_PROCESS: u32 = 0x8000_0000;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
pub(super) const ALLOW: u32 = 0x7fff_0000;
/// The part that says what to do; the rest is data.
const ACTION: u32 = 0xffff_0000;

/// `EPERM`: what ERRNO and TRACE return unless the spec says otherwise.
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// The kernel returns no larger number (include/linux/err.h).
const MAX_ERRNO: u32 = 4095;
/// A system call has no more arguments.
const ARGUMENTS: usize = 6;

/// How an argument is compared, all numbers unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Test {
    /// Equal to `value` where `mask` has ones.
    Equal {
        mask: u64,
        value: u64,
    },
    NotEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    Less(u64),
    LessOrEqual(u64),
}

/// A comparison of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Condition {
    pub(super) index: u32,
    pub(super) test: Test,
}

/// What to return when all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) value: u32,
}

/// What becomes of a system call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Verdict {
    Always(u32),
    /// The first rule whose conditions hold; else the default.
    ByArguments(Vec<Rule>),
}

/// Numbers from `start` to the next segment's start (or the largest there
/// is) with one verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) start: u32,
    pub(super) wide: bool,
    pub(super) verdict: Verdict,
}

/// All numbers of one audit architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) audit: u32,
    pub(super) segments: Vec<Segment>,
}

/// The verdicts of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) default: u32,
    /// Native first.
    pub(super) tables: Vec<Table>,
}

/// What the rules for one number were, in the spec's order.
#[derive(Default)]
struct Collected {
    always: Option<u32>,
    rules: Vec<Rule>,
}

impl Rules {
    /// Reads a spec.
    pub(super) fn new(seccomp: &LinuxSeccomp) -> Result<Self, SeccompError> {
        let default =
            action(seccomp.default_action(), seccomp.default_errno_ret(), "defaultAction")?;
        let machines = machines(seccomp)?;
        let entries = entries(seccomp)?;
        let beyond = beyond(seccomp, default);
        let mut tables: Vec<Table> = Vec::new();
        for machine in machines.iter().filter(|machine| **machine != Machine::X32) {
            let mut segments = machine_segments(*machine, default, &entries, beyond);
            if *machine == Machine::X86_64 {
                segments.retain(|segment| segment.start < X32_BIT);
                segments.extend(x32_segments(&machines, default, &entries, beyond));
            }
            segments.dedup_by(|next, before| {
                next.verdict == before.verdict && same_width(before, next)
            });
            tables.push(Table { audit: machine.audit(), segments });
        }
        Ok(Self { default, tables })
    }

    /// The verdict of a system call of this architecture by its name.
    pub(super) fn verdict(&self, machine: Machine, name: &str) -> Option<&Verdict> {
        let number = machine.number(name)?;
        let table = self.tables.iter().find(|table| table.audit == machine.audit())?;
        table.segments.iter().rfind(|segment| segment.start <= number).map(|found| &found.verdict)
    }
}

/// Whether two neighbours may become one: the width matters to comparisons
/// only.
fn same_width(one: &Segment, other: &Segment) -> bool {
    one.wide == other.wide || matches!(one.verdict, Verdict::Always(_))
}

/// One entry of the spec, understood.
struct Entry<'a> {
    names: &'a [String],
    value: u32,
    /// Alternatives, each with conditions that must all hold; none at all for
    /// a rule that always holds.
    alternatives: Vec<Vec<Condition>>,
}

fn entries(seccomp: &LinuxSeccomp) -> Result<Vec<Entry<'_>>, SeccompError> {
    let list = seccomp.syscalls().as_deref().unwrap_or_default();
    list.iter().enumerate().map(|(place, syscall)| entry(place, syscall)).collect()
}

fn entry(place: usize, syscall: &LinuxSyscall) -> Result<Entry<'_>, SeccompError> {
    let field = format!("syscalls[{place}].action");
    let value = action(syscall.action(), syscall.errno_ret(), &field)?;
    let mut conditions = Vec::new();
    for (number, arg) in syscall.args().as_deref().unwrap_or_default().iter().enumerate() {
        let wrong = || SeccompError::Index {
            field: format!("syscalls[{place}].args[{number}].index"),
            index: arg.index(),
        };
        let index = u32::try_from(arg.index()).ok().filter(|_| arg.index() < ARGUMENTS);
        conditions.push(Condition { index: index.ok_or_else(wrong)?, test: test(arg) });
    }
    let mut seen = [false; ARGUMENTS];
    let repeated = conditions
        .iter()
        .any(|condition| std::mem::replace(&mut seen[condition.index as usize], true));
    // Two conditions on one argument cannot be in one rule of libseccomp; runc
    // and crun then make every condition of the entry a rule of its own
    // (matchCall in runc's libcontainer/seccomp/seccomp_linux.go).
    let alternatives = match conditions {
        none if none.is_empty() => Vec::new(),
        all if repeated => all.into_iter().map(|condition| vec![condition]).collect(),
        all => vec![all],
    };
    Ok(Entry { names: syscall.names(), value, alternatives })
}

fn test(arg: &LinuxSeccompArg) -> Test {
    let value = arg.value();
    match arg.op() {
        LinuxSeccompOperator::ScmpCmpEq => Test::Equal { mask: u64::MAX, value },
        // The mask comes first, then the value.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            Test::Equal { mask: value, value: arg.value_two().unwrap_or(0) & value }
        }
        LinuxSeccompOperator::ScmpCmpNe => Test::NotEqual(value),
        LinuxSeccompOperator::ScmpCmpGt => Test::Greater(value),
        LinuxSeccompOperator::ScmpCmpGe => Test::GreaterOrEqual(value),
        LinuxSeccompOperator::ScmpCmpLt => Test::Less(value),
        LinuxSeccompOperator::ScmpCmpLe => Test::LessOrEqual(value),
    }
}

/// An action as the filter's return value.
fn action(
    action: LinuxSeccompAction,
    errno: Option<u32>,
    field: &str,
) -> Result<u32, SeccompError> {
    let takes_errno =
        matches!(action, LinuxSeccompAction::ScmpActErrno | LinuxSeccompAction::ScmpActTrace);
    // The runtime specification wants an error where the action has no use
    // for the number.
    if let Some(errno) = errno
        && (!takes_errno || errno > MAX_ERRNO)
    {
        return Err(SeccompError::Errno { field: field.to_owned(), action, errno });
    }
    let errno = errno.unwrap_or(EPERM);
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => TRAP,
        LinuxSeccompAction::ScmpActErrno => ERRNO | errno,
        LinuxSeccompAction::ScmpActTrace => TRACE | errno,
        LinuxSeccompAction::ScmpActLog => LOG,
        LinuxSeccompAction::ScmpActAllow => ALLOW,
        LinuxSeccompAction::ScmpActNotify => {
            return Err(SeccompError::Notify { field: field.to_owned() });
        }
    })
}

/// The architectures of a filter: always the native one, and first.
fn machines(seccomp: &LinuxSeccomp) -> Result<Vec<Machine>, SeccompError> {
    let mut machines = vec![Machine::native()];
    for (place, arch) in seccomp.architectures().iter().flatten().enumerate() {
        let machine = Machine::from_spec(*arch)
            .ok_or(SeccompError::Architecture { place, name: arch.to_string() })?;
        if !machines.contains(&machine) {
            machines.push(machine);
        }
    }
    Ok(machines)
}

/// What calls return whose number is larger than every number that the spec
/// names: they are newer than the spec, and programs fall back only after
/// `ENOSYS`. As runc does; the default where it says so itself or allows.
fn beyond(seccomp: &LinuxSeccomp, default: u32) -> Option<u32> {
    let lenient = matches!(default & ACTION, ALLOW | LOG | TRACE);
    (!lenient && seccomp.default_errno_ret() != Some(ENOSYS)).then_some(ERRNO | ENOSYS)
}

/// The verdicts of one architecture on all numbers.
fn machine_segments(
    machine: Machine,
    default: u32,
    entries: &[Entry<'_>],
    beyond: Option<u32>,
) -> Vec<Segment> {
    let mut last = None;
    let mut mentions: Vec<Mention<'_>> = Vec::new();
    for entry in entries {
        for name in entry.names {
            let number = machine.number(name);
            let multiplexed = machine.multiplexed(name);
            // Who names a call knows the one through which it is reached.
            last = last.max(number).max(multiplexed.map(|(number, _)| number));
            // As runc and crun do, and libseccomp demands.
            if entry.value == default {
                continue;
            }
            let direct = number.map(|number| Mention { number, entry, first: None });
            let multiplexed =
                multiplexed.map(|(number, first)| Mention { number, entry, first: Some(first) });
            mentions.extend(direct.into_iter().chain(multiplexed));
        }
    }
    // Keeps the spec's order for each number.
    mentions.sort_by_key(|mention| mention.number);
    let first = if machine == Machine::X32 { X32_BIT } else { 0 };
    let mut segments = Segments { list: Vec::new(), wide: machine.wide() };
    let mut next = first;
    for same in mentions.chunk_by(|one, other| one.number == other.number) {
        let Some(verdict) = verdict(machine, default, same) else { continue };
        let number = same[0].number;
        if next < number {
            segments.push(next, Verdict::Always(default));
        }
        segments.push(number, verdict);
        next = number + 1;
    }
    segments.push(next, Verdict::Always(default));
    if let (Some(value), Some(last)) = (beyond, last) {
        segments.push(last + 1, Verdict::Always(value));
    }
    segments.list
}

/// That an entry names a number.
#[derive(Clone, Copy)]
struct Mention<'a> {
    number: u32,
    entry: &'a Entry<'a>,
    /// What the first argument is, of a call that multiplexes.
    first: Option<u64>,
}

/// What becomes of the number that all of these name; nothing if none of them
/// says more than the default.
fn verdict(machine: Machine, default: u32, mentions: &[Mention<'_>]) -> Option<Verdict> {
    let mut collected = Collected::default();
    for Mention { entry, first, .. } in mentions {
        match first {
            None => add(&mut collected, machine, entry),
            Some(first) => add_multiplexed(&mut collected, entry, *first, default),
        }
    }
    match collected {
        Collected { always: Some(value), .. } => Some(Verdict::Always(value)),
        Collected { rules, .. } if rules.is_empty() => None,
        Collected { rules, .. } => Some(Verdict::ByArguments(rules)),
    }
}

/// Segments in the making.
struct Segments {
    list: Vec<Segment>,
    wide: bool,
}

impl Segments {
    /// From `start` on, which is not before any other, this holds.
    fn push(&mut self, start: u32, verdict: Verdict) {
        if self.list.last().is_some_and(|last| last.start == start) {
            self.list.pop();
        }
        if self.list.last().is_none_or(|last| last.verdict != verdict) {
            self.list.push(Segment { start, wide: self.wide, verdict });
        }
    }
}

/// Notes a rule. The first that always holds decides; else the first whose
/// conditions hold.
fn add(collected: &mut Collected, machine: Machine, entry: &Entry<'_>) {
    if entry.alternatives.is_empty() {
        collected.always.get_or_insert(entry.value);
    }
    for conditions in &entry.alternatives {
        let conditions = conditions.iter().map(|condition| condition.on(machine)).collect();
        collected.rules.push(Rule { conditions, value: entry.value });
    }
}

/// Notes what a rule means for the call that multiplexes. Its real arguments
/// are in memory, out of a filter's sight: of a conditional rule the stricter
/// reading counts.
fn add_multiplexed(collected: &mut Collected, entry: &Entry<'_>, first: u64, default: u32) {
    if !entry.alternatives.is_empty() && strictness(entry.value) < strictness(default) {
        return;
    }
    let test = Test::Equal { mask: u64::from(u32::MAX), value: first };
    let conditions = vec![Condition { index: 0, test }];
    collected.rules.push(Rule { conditions, value: entry.value });
}

/// Larger for actions to which the kernel gives precedence: it takes the
/// smallest value, and `KILL_PROCESS` as a negative one.
fn strictness(value: u32) -> i64 {
    -i64::from((value & ACTION).cast_signed())
}

impl Condition {
    /// The same on an architecture, whose arguments may have 32 bits only.
    fn on(self, machine: Machine) -> Self {
        if machine.wide() {
            return self;
        }
        let low = |value: u64| value & u64::from(u32::MAX);
        let test = match self.test {
            Test::Equal { mask, value } => Test::Equal { mask: low(mask), value: low(value) },
            Test::NotEqual(value) => Test::NotEqual(low(value)),
            Test::Greater(value) => Test::Greater(low(value)),
            Test::GreaterOrEqual(value) => Test::GreaterOrEqual(low(value)),
            Test::Less(value) => Test::Less(low(value)),
            Test::LessOrEqual(value) => Test::LessOrEqual(low(value)),
        };
        Self { index: self.index, test }
    }
}

/// The upper half of x86-64's numbers: x32, or what is no architecture of the
/// spec. Number -1 is what a tracer sets to skip a call (seccomp(2)).
fn x32_segments(
    machines: &[Machine],
    default: u32,
    entries: &[Entry<'_>],
    beyond: Option<u32>,
) -> Vec<Segment> {
    if machines.contains(&Machine::X32) {
        return machine_segments(Machine::X32, default, entries, beyond);
    }
    let mut segments = Segments { list: Vec::new(), wide: false };
    segments.push(X32_BIT, Verdict::Always(beyond.unwrap_or(KILL_THREAD)));
    segments.push(u32::MAX, Verdict::Always(beyond.unwrap_or(default)));
    segments.list
}
