//! The compiled programs, run by an interpreter of classic BPF and compared
//! with the profile's rules read directly.

use std::collections::{BTreeSet, HashMap};

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg,
    LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::sys::spawn::Instruction;

/// `struct seccomp_data`.
#[derive(Clone, Copy, Debug)]
struct Call {
    number: u32,
    audit: u32,
    arguments: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        let mut bytes = [0; 64];
        bytes[..4].copy_from_slice(&self.number.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.audit.to_ne_bytes());
        for (index, argument) in self.arguments.iter().enumerate() {
            let at = 16 + 8 * index;
            bytes[at..at + 8].copy_from_slice(&argument.to_ne_bytes());
        }
        assert!(offset.is_multiple_of(4), "the kernel refuses this offset");
        let at = offset as usize;
        u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("in range"))
    }
}

/// Runs a program; returns its verdict and how many instructions it took.
fn run(program: &[Instruction], call: &Call) -> (u32, usize) {
    let (mut at, mut accumulator, mut steps) = (0, 0_u32, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        steps += 1;
        let skip = |holds: bool| usize::from(if holds { jt } else { jf });
        at += 1 + match code {
            0x20 => {
                accumulator = call.word(k);
                0
            }
            0x54 => {
                accumulator &= k;
                0
            }
            0x05 => k as usize,
            0x15 => skip(accumulator == k),
            0x25 => skip(accumulator > k),
            0x35 => skip(accumulator >= k),
            0x06 => return (k, steps),
            other => panic!("unknown instruction {other:#x}"),
        };
    }
}

/// Entries about one number, in order; for a call that multiplexes with the
/// first argument that is meant.
type Entries<'a> = Vec<(&'a LinuxSyscall, Option<u64>)>;

/// A spec, read directly.
struct Direct<'a> {
    seccomp: &'a LinuxSeccomp,
    listed: BTreeSet<Machine>,
    about: HashMap<(Machine, u32), Entries<'a>>,
    last: HashMap<Machine, u32>,
}

fn value(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    action.as_u32(errno)
}

impl<'a> Direct<'a> {
    fn new(seccomp: &'a LinuxSeccomp) -> Self {
        let arches = seccomp.architectures().iter().flatten();
        let listed = std::iter::once(Machine::native())
            .chain(arches.map(|arch| match arch {
                Arch::ScmpArchX86_64 => Machine::X86_64,
                Arch::ScmpArchX86 => Machine::X86,
                Arch::ScmpArchX32 => Machine::X32,
                Arch::ScmpArchAarch64 => Machine::Aarch64,
                Arch::ScmpArchArm => Machine::Arm,
                other => panic!("{other}"),
            }))
            .collect();
        let mut direct = Self { seccomp, listed, about: HashMap::new(), last: HashMap::new() };
        for machine in Machine::ALL {
            for entry in seccomp.syscalls().iter().flatten() {
                for name in entry.names() {
                    direct.note(machine, entry, name);
                }
            }
        }
        direct
    }

    fn note(&mut self, machine: Machine, entry: &'a LinuxSyscall, name: &str) {
        if let Some(number) = machine.number(name) {
            self.note_number(machine, number, (entry, None));
        }
        if let Some((number, first)) = machine.multiplexed(name) {
            self.note_number(machine, number, (entry, Some(first)));
        }
    }

    fn note_number(
        &mut self,
        machine: Machine,
        number: u32,
        about: (&'a LinuxSyscall, Option<u64>),
    ) {
        self.about.entry((machine, number)).or_default().push(about);
        let last = self.last.entry(machine).or_default();
        *last = number.max(*last);
    }

    fn default(&self) -> u32 {
        value(self.seccomp.default_action(), self.seccomp.default_errno_ret())
    }

    /// What calls get that are newer than the spec, if not the default.
    fn newer(&self) -> Option<u32> {
        match self.seccomp.default_action() {
            LinuxSeccompAction::ScmpActAllow
            | LinuxSeccompAction::ScmpActLog
            | LinuxSeccompAction::ScmpActTrace => None,
            _ if self.seccomp.default_errno_ret() == Some(38) => None,
            _ => Some(0x0005_0000 | 38),
        }
    }

    fn verdict(&self, call: &Call) -> u32 {
        let machine = match call.audit {
            0xc000_003e if call.number >= 0x4000_0000 => Machine::X32,
            0xc000_003e => Machine::X86_64,
            0x4000_0003 => Machine::X86,
            0xc000_00b7 => Machine::Aarch64,
            0x4000_0028 => Machine::Arm,
            _ => return 0,
        };
        let lone = !self.listed.contains(&Machine::X32) && self.listed.contains(&Machine::X86_64);
        if machine == Machine::X32 && lone {
            let skipped = call.number == u32::MAX;
            return self.newer().unwrap_or(if skipped { self.default() } else { 0 });
        }
        // x32 has no table of its own without x86-64.
        if !self.listed.contains(&machine)
            || machine == Machine::X32 && !self.listed.contains(&Machine::X86_64)
        {
            return 0;
        }
        if let (Some(newer), Some(last)) = (self.newer(), self.last.get(&machine))
            && call.number > *last
        {
            return newer;
        }
        self.by_entries(machine, call)
    }

    fn by_entries(&self, machine: Machine, call: &Call) -> u32 {
        let default = self.default();
        let action = |entry: &LinuxSyscall| value(entry.action(), entry.errno_ret());
        let without = |entry: &LinuxSyscall| entry.args().as_ref().is_none_or(Vec::is_empty);
        let about = self.about.get(&(machine, call.number)).map_or(&[][..], Vec::as_slice);
        let about = || about.iter().filter(|(entry, _)| action(entry) != default);
        if let Some((entry, _)) = about().find(|(entry, mux)| mux.is_none() && without(entry)) {
            return action(entry);
        }
        let applies = |entry: &LinuxSyscall, multiplexed: Option<u64>| match multiplexed {
            None => holds(entry.args().as_deref().unwrap_or_default(), machine, call),
            Some(first) => {
                let kind = |value: u32| (value & 0xffff_0000).cast_signed();
                let stricter = kind(action(entry)) <= kind(default);
                first == call.arguments[0] & 0xffff_ffff && (without(entry) || stricter)
            }
        };
        let found = about().find(|(entry, multiplexed)| applies(entry, *multiplexed));
        found.map_or(default, |(entry, _)| action(entry))
    }
}

/// Whether the conditions of an entry hold.
fn holds(args: &[LinuxSeccompArg], machine: Machine, call: &Call) -> bool {
    let all: u64 = if machine.wide() { u64::MAX } else { 0xffff_ffff };
    let one = |arg: &LinuxSeccompArg| {
        let (actual, value) = (call.arguments[arg.index()] & all, arg.value() & all);
        match arg.op() {
            LinuxSeccompOperator::ScmpCmpEq => actual == value,
            LinuxSeccompOperator::ScmpCmpNe => actual != value,
            LinuxSeccompOperator::ScmpCmpLt => actual < value,
            LinuxSeccompOperator::ScmpCmpLe => actual <= value,
            LinuxSeccompOperator::ScmpCmpGt => actual > value,
            LinuxSeccompOperator::ScmpCmpGe => actual >= value,
            LinuxSeccompOperator::ScmpCmpMaskedEq => {
                actual & value == arg.value_two().unwrap_or(0) & value
            }
        }
    };
    let different: BTreeSet<usize> = args.iter().map(LinuxSeccompArg::index).collect();
    if different.len() < args.len() { args.iter().any(one) } else { args.iter().all(one) }
}

const AUDITS: [u32; 6] =
    [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0xc000_0015, 0xffff_ffff];

/// Every number that any table has, x32's, the Arm ones, and some out of range.
fn numbers() -> Vec<u32> {
    (0..1024)
        .chain(0x4000_0000..0x4000_0000 + 1024)
        .chain(0xf_0000..0xf_0010)
        .chain([4096, 0x3fff_ffff, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, u32::MAX])
        .collect()
}

/// Arguments around the values that the conditions compare with.
fn samples(seccomp: &LinuxSeccomp) -> Vec<[u64; 6]> {
    let entries = seccomp.syscalls().as_deref().unwrap_or_default();
    let args = entries.iter().flat_map(|entry| entry.args().as_deref().unwrap_or_default());
    let mut values: BTreeSet<u64> = [0, 1, u64::MAX, 1 << 32].into();
    for arg in args {
        for value in [arg.value(), arg.value_two().unwrap_or(0)] {
            values.extend([value, value.wrapping_add(1), value.wrapping_sub(1)]);
            values.extend([value ^ 1 << 32, value ^ 1 << 63, !value]);
        }
    }
    let mut samples = vec![[0; 6]];
    for value in &values {
        samples.push([*value; 6]);
        samples.extend((0..6).map(|index| {
            let mut arguments = [0; 6];
            arguments[index] = *value;
            arguments
        }));
    }
    // The pair that decides about audit sockets.
    samples.extend([[16, 0, 9, 0, 0, 0], [16, 3, 8, 0, 0, 0], [15, 3, 9, 0, 0, 0]]);
    samples
}

/// Compares everywhere.
fn compare(seccomp: &LinuxSeccomp, program: &[Instruction], samples: &[[u64; 6]]) {
    let conditional: BTreeSet<u32> = seccomp
        .syscalls()
        .iter()
        .flatten()
        .filter(|entry| entry.args().is_some())
        .flat_map(|entry| entry.names())
        .flat_map(|name| Machine::ALL.map(|machine| machine.number(name)))
        .flatten()
        // What multiplexes.
        .chain([102, 117])
        .collect();
    let direct = Direct::new(seccomp);
    for audit in AUDITS {
        for number in numbers() {
            let full = conditional.contains(&number);
            for arguments in samples.iter().take(if full { samples.len() } else { 2 }) {
                let call = Call { number, audit, arguments: *arguments };
                let (actual, expected) = (run(program, &call).0, direct.verdict(&call));
                assert_eq!(actual, expected, "{call:x?}: {actual:#x} for {expected:#x}");
            }
        }
    }
}

#[test]
fn a_call_that_only_another_one_reaches_is_known() {
    // i386 has no `semop`, but `ipc`, whose number is above that of `write`.
    let seccomp: LinuxSeccomp = serde_json::from_value(serde_json::json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [{"names": ["write", "semop"], "action": "SCMP_ACT_ALLOW"}],
    }))
    .expect("a profile");
    let program = program::write(&Rules::new(&seccomp).expect("rules")).expect("written");
    compare(&seccomp, &program, &[[1, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0]]);
    let mut call = Call { number: 117, audit: 0x4000_0003, arguments: [1, 0, 0, 0, 0, 0] };
    assert_eq!(run(&program, &call).0, 0x7fff_0000);
    call.number = 118;
    assert_eq!(run(&program, &call).0, 0x0005_0000 | 38);
}

fn docker_capabilities() -> Capabilities {
    use Capability::{
        AuditWrite, Chown, DacOverride, Fowner, Fsetid, Kill, Mknod, NetBindService, NetRaw,
        Setfcap, Setgid, Setpcap, Setuid, SysChroot,
    };
    [
        AuditWrite,
        Chown,
        DacOverride,
        Fowner,
        Fsetid,
        Kill,
        Mknod,
        NetBindService,
        NetRaw,
        Setfcap,
        Setgid,
        Setpcap,
        Setuid,
        SysChroot,
    ]
    .into()
}

#[test]
fn the_default_profile_is_carried_out_for_every_number() {
    use Capability::{DacReadSearch, SysAdmin, SysModule, SysPtrace, SysRawio, SysTime};
    let sets = [
        Capabilities::new(),
        docker_capabilities(),
        [SysAdmin, DacReadSearch, SysModule, SysPtrace, SysTime, SysRawio].into(),
    ];
    for capabilities in &sets {
        for machine in [Machine::X86_64, Machine::Aarch64] {
            let seccomp = default_profile(capabilities, machine).expect("resolved");
            let filter = compile(&seccomp).expect("compiled");
            compare(&seccomp, &filter.instructions, &samples(&seccomp));
        }
    }
}

#[test]
fn the_default_profile_says_what_its_readers_know() {
    let seccomp = default_profile(&Capabilities::new(), Machine::X86_64).expect("resolved");
    let program = compile(&seccomp).expect("compiled").instructions;
    let verdict = |name: &str, first: u64| {
        let number = Machine::X86_64.number(name).expect("a number");
        let call = Call { number, audit: 0xc000_003e, arguments: [first, 0, 0, 0, 0, 0] };
        run(&program, &call).0
    };
    let (allow, eperm, enosys) = (0x7fff_0000, 0x0005_0001, 0x0005_0026);
    for (name, first, expected) in [
        ("read", 0, allow),
        ("execve", 0, allow),
        ("clone3", 0, allow),
        ("mount", 0, allow),
        ("bpf", 0, eperm),
        ("kexec_load", 0, eperm),
        ("init_module", 0, eperm),
        ("userfaultfd", 0, eperm),
        ("perf_event_open", 0, eperm),
        ("keyctl", 0, enosys),
        ("add_key", 0, enosys),
        ("io_uring_setup", 0, enosys),
        ("personality", 0, allow),
        ("personality", 0xffff_ffff, allow),
        ("personality", 0x1_0000_0008, enosys),
        ("personality", 0x4_0000, enosys),
    ] {
        assert_eq!(verdict(name, first), expected, "{name}({first:#x})");
    }
}

/// How long the program is, and the path of an average call when the kernel
/// tries them all as it loads the filter.
#[test]
fn the_default_filter_is_short() {
    let seccomp = default_profile(&docker_capabilities(), Machine::X86_64).expect("resolved");
    let program = compile(&seccomp).expect("compiled").instructions;
    let path = |audit| {
        let steps =
            (0..470).map(|number| run(&program, &Call { number, audit, arguments: [0; 6] }));
        steps.map(|(_, steps)| steps).sum::<usize>()
    };
    let mean = (path(0xc000_003e) + path(0x4000_0003)) / 940;
    println!("{} instructions, {mean} on the average path", program.len());
    assert!(program.len() < 300, "{} instructions", program.len());
    assert!(mean <= 12, "{mean} instructions on the average path");
}

#[test]
fn a_program_longer_than_a_jump_reaches_is_right() {
    // Every call of three architectures gets an answer of its own.
    let names: BTreeSet<&str> = syscalls::x86_64::Sysno::iter().map(|call| call.name()).collect();
    let list: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(place, name)| {
            json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 100 + place,
                   "args": if place % 9 == 0 {
                       json!([{"index": 1, "value": 7_u64 << 32, "op": "SCMP_CMP_GT"}])
                   } else { json!(null) }})
        })
        .collect();
    let seccomp: LinuxSeccomp = serde_json::from_value(json!({
        "defaultAction": "SCMP_ACT_ALLOW", "syscalls": list,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]}))
    .expect("a spec");
    let program = program::write(&Rules::new(&seccomp).expect("rules")).expect("written");
    assert!(program.len() > 1500, "{}", program.len());
    compare(&seccomp, &program, &[[0; 6], [7 << 32; 6], [8 << 32; 6], [(7 << 32) + 1; 6]]);
}

#[test]
fn what_cannot_be_compiled_is_named() {
    let refused = |value: serde_json::Value| {
        let seccomp = serde_json::from_value(value).expect("a spec");
        compile(&seccomp).expect_err("refused").to_string()
    };
    let with = |key: &str, value: serde_json::Value| {
        let mut spec = json!({"defaultAction": "SCMP_ACT_ALLOW"});
        spec[key] = value;
        spec
    };
    let rule = |rule: serde_json::Value| refused(with("syscalls", json!([rule])));
    let error = rule(json!({"names": ["read"], "action": "SCMP_ACT_NOTIFY"}));
    assert!(error.starts_with("`linux.seccomp.syscalls[0].action` cannot be"), "{error}");
    let error = refused(with("listenerPath", json!("/x")));
    assert!(error.starts_with("`linux.seccomp.listenerPath`"), "{error}");
    let error = refused(with("architectures", json!(["SCMP_ARCH_X86", "SCMP_ARCH_S390X"])));
    assert!(error.contains("architectures[1]` cannot be `SCMP_ARCH_S390X`"), "{error}");
    let error = refused(with("flags", json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])));
    assert!(error.contains("`linux.seccomp.flags[0]`"), "{error}");
    let error = rule(json!({"names": ["read"], "action": "SCMP_ACT_TRAP", "errnoRet": 1}));
    assert!(error.contains("`SCMP_ACT_TRAP` with error number 1"), "{error}");
    let error = rule(json!({"names": ["read"], "action": "SCMP_ACT_ERRNO",
        "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}));
    assert!(error.contains("`linux.seccomp.syscalls[0].args[0].index` cannot be `6`"), "{error}");
    for action in ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        let error = rule(json!({"names": ["execve"], "action": action}));
        assert!(error.contains("forbids execve"), "{error}");
    }
    let many: Vec<_> = (0..2000)
        .map(|value| {
            json!({"names": ["read"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 0, "value": value, "op": "SCMP_CMP_GT"}]})
        })
        .collect();
    assert!(refused(with("syscalls", json!(many))).contains("more than the kernel's 4096"));
}

#[test]
fn flags_and_what_is_permitted_are_told() {
    let seccomp = serde_json::from_value(json!({"defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
        "syscalls": [{"names": ["clock_gettime"], "action": "SCMP_ACT_KILL"}]}))
    .expect("a spec");
    let filter = compile(&seccomp).expect("compiled");
    assert_eq!(filter.flags, 6);
    assert!(!filter.permits_clock && filter.permits_guard);
}

fn condition() -> impl Strategy<Value = LinuxSeccompArg> {
    let value = prop_oneof![
        0_u64..4,
        Just(1 << 32),
        Just((1 << 32) + 1),
        Just(u64::MAX),
        Just(u64::from(u32::MAX)),
        any::<u64>()
    ];
    let operator = prop::sample::select(vec![
        LinuxSeccompOperator::ScmpCmpEq,
        LinuxSeccompOperator::ScmpCmpEq,
        LinuxSeccompOperator::ScmpCmpNe,
        LinuxSeccompOperator::ScmpCmpLt,
        LinuxSeccompOperator::ScmpCmpLe,
        LinuxSeccompOperator::ScmpCmpGt,
        LinuxSeccompOperator::ScmpCmpGe,
        LinuxSeccompOperator::ScmpCmpMaskedEq,
    ]);
    (0_usize..3, value.clone(), value, operator).prop_map(|(index, value, two, op)| {
        let builder = LinuxSeccompArgBuilder::default().index(index).value(value).value_two(two);
        builder.op(op).build().expect("complete")
    })
}

fn action() -> impl Strategy<Value = (LinuxSeccompAction, Option<u32>)> {
    prop_oneof![
        Just((LinuxSeccompAction::ScmpActAllow, None)),
        Just((LinuxSeccompAction::ScmpActKill, None)),
        Just((LinuxSeccompAction::ScmpActKillThread, None)),
        Just((LinuxSeccompAction::ScmpActKillProcess, None)),
        Just((LinuxSeccompAction::ScmpActTrap, None)),
        Just((LinuxSeccompAction::ScmpActLog, None)),
        Just((LinuxSeccompAction::ScmpActErrno, None)),
        Just((LinuxSeccompAction::ScmpActErrno, Some(38))),
        (0_u32..4096).prop_map(|errno| (LinuxSeccompAction::ScmpActErrno, Some(errno))),
        (0_u32..4096).prop_map(|errno| (LinuxSeccompAction::ScmpActTrace, Some(errno))),
    ]
}

fn syscall() -> impl Strategy<Value = LinuxSyscall> {
    let names = prop::sample::subsequence(
        vec![
            "read",
            "write",
            "open",
            "close",
            "socket",
            "connect",
            "accept",
            "accept4",
            "semop",
            "shmat",
            "ipc",
            "socketcall",
            "personality",
            "clone",
            "ioctl",
            "readv",
            "openat2",
            "set_tls",
            "no_such_call",
            "preadv2",
        ],
        1..5,
    );
    (names, action(), prop::collection::vec(condition(), 0..4)).prop_map(
        |(names, (action, errno), args)| {
            let mut syscall = LinuxSyscall::default();
            syscall.set_names(names.into_iter().map(str::to_owned).collect());
            syscall.set_action(action).set_errno_ret(errno);
            syscall.set_args((!args.is_empty()).then_some(args));
            syscall
        },
    )
}

fn profile() -> impl Strategy<Value = LinuxSeccomp> {
    let arches = prop::sample::subsequence(
        vec![
            Arch::ScmpArchX86_64,
            Arch::ScmpArchX86,
            Arch::ScmpArchX32,
            Arch::ScmpArchAarch64,
            Arch::ScmpArchArm,
        ],
        0..=5,
    );
    (action(), arches, prop::collection::vec(syscall(), 0..10)).prop_map(
        |((action, errno), arches, syscalls)| {
            let mut seccomp = LinuxSeccomp::default();
            seccomp.set_default_action(action).set_default_errno_ret(errno);
            seccomp.set_architectures(Some(arches)).set_syscalls(Some(syscalls));
            seccomp
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_profile_is_carried_out(
        seccomp in profile(),
        random in prop::collection::vec(any::<[u64; 6]>(), 4),
    ) {
        let program = program::write(&Rules::new(&seccomp).expect("rules")).expect("written");
        let mut samples = samples(&seccomp);
        samples.extend(random);
        compare(&seccomp, &program, &samples);
    }
}
