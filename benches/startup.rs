//! Start-up of each backend that can run here: from request to the mark
//! `ready` of the same payload. `cargo bench --bench startup`.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a bench says what went wrong by panicking"
)]

mod common;

use std::time::Duration;

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use unladen::backend::Until;
use unladen::record::{Experiment, Mark, Workload};

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

criterion_group!(benches, startup);
criterion_main!(benches);
