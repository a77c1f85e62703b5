//! The harness's own cost: the clock, the parser of the payload's stream,
//! seccomp filters, and the protection of the executable. `cargo bench --bench internals`.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a bench says what went wrong by panicking"
)]

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use nix::sched::CloneFlags;
use oci_spec::runtime::{Capabilities, LinuxSeccomp, LinuxSeccompAction};
use unladen::container::seccomp::{Machine, compile, default_profile};
use unladen::payload::protocol::{INIT, READY, RESULT, WorkResult};
use unladen::payload::{Decoder, request};
use unladen::sys::clock::monotonic_ns;
use unladen::sys::spawn::{Child, Command, Filter, Instruction, Launch, Program, Step};

fn clock(criterion: &mut Criterion) {
    criterion.bench_function("clock read", |bencher| bencher.iter(monotonic_ns));
}

fn decoder(criterion: &mut Criterion) {
    let mut stream = vec![INIT, READY];
    let result = WorkResult { count: 1, checksum: 2, code: 0 };
    stream.extend(request(RESULT, &result.encode()));
    criterion.bench_function("decode a start", |bencher| {
        bencher.iter(|| Decoder::default().push(&stream));
    });
}

/// A program as libseccomp writes it by default: one comparison per call,
/// with the calls of the profile that are always allowed.
fn one_comparison_per_call(seccomp: &LinuxSeccomp) -> Vec<Instruction> {
    const ALLOW: u32 = 0x7fff_0000;
    let instruction = |code, jt, jf, k| Instruction { code, jt, jf, k };
    let mut program = vec![instruction(0x20, 0, 0, 4)];
    for machine in [Machine::X86_64, Machine::X86, Machine::Aarch64, Machine::Arm] {
        let listed = seccomp.architectures().iter().flatten();
        if !listed.copied().any(|arch| Machine::from_spec(arch) == Some(machine)) {
            continue;
        }
        let always = seccomp.syscalls().iter().flatten().filter(|entry| {
            entry.action() == LinuxSeccompAction::ScmpActAllow && entry.args().is_none()
        });
        let numbers: Vec<u32> = always
            .flat_map(|entry| entry.names())
            .filter_map(|name| machine.number(name))
            .collect();
        let mut part = vec![instruction(0x20, 0, 0, 0)];
        for numbers in numbers.chunks(200) {
            for (place, number) in numbers.iter().enumerate() {
                let to_return = u8::try_from(numbers.len() - place).expect("small");
                part.push(instruction(0x15, to_return, 0, *number));
            }
            part.extend([instruction(0x05, 0, 0, 1), instruction(0x06, 0, 0, ALLOW)]);
        }
        part.push(instruction(0x06, 0, 0, 0x0005_0026));
        let length = u32::try_from(part.len()).expect("small");
        program.push(instruction(0x15, 1, 0, machine.audit()));
        program.push(instruction(0x05, 0, 0, length));
        program.extend(part);
    }
    program.push(instruction(0x06, 0, 0, 0));
    program
}

/// A child that loads a filter, if there is one, and ends.
fn filtered(filter: Option<Filter>) -> Command {
    let path = || c"/bin/true".to_owned();
    let steps = [Step::MapDescriptors, Step::NoNewPrivileges];
    let steps = steps.into_iter().chain(filter.map(Step::Seccomp)).collect();
    let program = Program::Paths(vec![path()]);
    let command = Command::new(program, vec![path()], vec![], CloneFlags::empty(), steps);
    command.expect("sound").traced(true)
}

fn wait(child: &Child) {
    child.pidfd.wait(None).expect("waited");
}

/// What loading a filter takes, in the child, without what surrounds it.
fn filters(criterion: &mut Criterion) {
    let seccomp = default_profile(&Capabilities::new(), Machine::native()).expect("resolved");
    criterion.bench_function("seccomp: profile to spec", |bencher| {
        bencher.iter(|| default_profile(&Capabilities::new(), Machine::native()));
    });
    criterion.bench_function("seccomp: spec to filter", |bencher| {
        bencher.iter(|| compile(&seccomp));
    });
    let tree = compile(&seccomp).expect("compiled");
    let linear = Filter { instructions: one_comparison_per_call(&seccomp), ..tree.clone() };
    for (name, filter) in [("range tree", tree), ("one comparison per call", linear)] {
        let length = filter.instructions.len();
        let mut command = filtered(Some(filter));
        let name = format!("seccomp: load {name} ({length} instructions)");
        criterion.bench_function(&name, |bencher| {
            bencher.iter_custom(|iterations| {
                let load = |_| {
                    let child = command.spawn(&Launch::default()).expect("launched");
                    wait(&child);
                    Duration::from_nanos(child.trace[2] - child.trace[1])
                };
                (0..iterations).map(load).sum()
            });
        });
    }
}

/// What the protection of this executable adds to a launch.
fn guard(criterion: &mut Criterion) {
    for (name, guarded) in [("launch", false), ("guarded launch", true)] {
        let mut command = filtered(None).guarded(guarded).expect("permitted");
        criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let launch = |_| {
                    let begun = monotonic_ns();
                    let child = command.spawn(&Launch::default()).expect("launched");
                    let took = monotonic_ns() - begun;
                    wait(&child);
                    Duration::from_nanos(took)
                };
                (0..iterations).map(launch).sum()
            });
        });
    }
}

criterion_group!(benches, clock, decoder, filters, guard);
criterion_main!(benches);
