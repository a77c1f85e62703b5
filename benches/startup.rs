//! Start-up of each backend that can run here, from request to the mark
//! `ready` of the same payload; and of containers made within this process,
//! from request to the mark `init`, beside one made by hand.
//! `cargo bench --bench startup`.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    reason = "a bench says what went wrong by panicking"
)]

mod common;
mod floor;

use std::time::{Duration, SystemTime};

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use unladen::backend::Until;
use unladen::host::RunId;
use unladen::record::{Experiment, Mark, Workload};

use self::floor::start::{Kind, Starts};

fn startup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("startup.ready");
    // A machine takes a second where a process takes a tenth of a
    // millisecond: the same number of trials per sample for all of a sample.
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    for mut bench in common::benches(Experiment::Startup, Workload::Exit) {
        group.bench_function(bench.label.clone(), |bencher| {
            bencher.iter_custom(|iterations| {
                let ready = |_| {
                    let instance = bench.launch(Until::Gone);
                    let taken = instance.timeline().between(Mark::Request, Mark::Ready);
                    Duration::from_nanos(taken.expect("a launched instance was ready"))
                };
                (0..iterations).map(ready).sum()
            });
        });
    }
    group.finish();
}

/// Each sample starts all kinds in turn, of which it keeps one: they share
/// whatever the host does meanwhile.
fn within_a_program(criterion: &mut Criterion) {
    let run_id = RunId::new(SystemTime::now()).expect("random bytes");
    let mut starts = match Starts::new(&format!("{run_id}-floor")) {
        Ok(starts) => starts,
        Err(reason) => return eprintln!("skipped: containers within a program: {reason}"),
    };
    let mut group = criterion.benchmark_group("startup.init");
    group.sampling_mode(SamplingMode::Flat).sample_size(20);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    for kept in Kind::ALL {
        group.bench_function(kept.name(), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut total = 0;
                for turn in 0..iterations as usize {
                    for at in 0..Kind::ALL.len() {
                        let kind = Kind::ALL[(turn + at) % Kind::ALL.len()];
                        let taken = starts.start(kind).unwrap_or_else(|error| panic!("{error}"));
                        total += if kind == kept { taken } else { 0 };
                    }
                }
                Duration::from_nanos(total)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, startup, within_a_program);
criterion_main!(benches);
