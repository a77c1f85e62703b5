//! Memory of one idle instance of each backend that can run here, measured
//! by criterion in bytes instead of time. `cargo bench --bench memory`.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a bench says what went wrong by panicking"
)]

mod common;

use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use unladen::backend::Until;
use unladen::record::{Experiment, Ledger, Workload};
use unladen::units::Unit;

/// Proportional set size in bytes, read by `iter_custom`.
struct Pss;

impl Measurement for Pss {
    type Intermediate = ();
    type Value = u64;

    fn start(&self) -> Self::Intermediate {}

    /// Only `iter_custom` gives values: bytes do not pass by themselves.
    fn end(&self, (): Self::Intermediate) -> Self::Value {
        unreachable!("memory is measured with iter_custom only")
    }

    fn add(&self, a: &Self::Value, b: &Self::Value) -> Self::Value {
        a + b
    }

    fn zero(&self) -> Self::Value {
        0
    }

    fn to_f64(&self, value: &Self::Value) -> f64 {
        *value as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &Binary
    }
}

/// Prints bytes with binary prefixes.
struct Binary;

impl Binary {
    /// Divides all values by the largest prefix that fits `typical`.
    fn scale(typical: f64, values: &mut [f64]) -> &'static str {
        let steps = [(1024.0 * 1024.0 * 1024.0, "GiB"), (1024.0 * 1024.0, "MiB"), (1024.0, "KiB")];
        let (factor, unit) =
            steps.into_iter().find(|(factor, _)| typical >= *factor).unwrap_or((1.0, "B"));
        values.iter_mut().for_each(|value| *value /= factor);
        unit
    }
}

impl ValueFormatter for Binary {
    fn format_value(&self, value: f64) -> String {
        Unit::Bytes.human(value)
    }

    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        Self::scale(typical, values)
    }

    fn scale_throughputs(&self, typical: f64, _: &Throughput, values: &mut [f64]) -> &'static str {
        Self::scale(typical, values)
    }

    fn scale_for_machines(&self, _: &mut [f64]) -> &'static str {
        "B"
    }
}

fn memory(criterion: &mut Criterion<Pss>) {
    let mut group = criterion.benchmark_group("memory.pss");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    for mut bench in common::benches(Experiment::Memory, Workload::Pause) {
        group.bench_function(bench.label.clone(), |bencher| {
            bencher.iter_custom(|iterations| {
                let pss = |_| {
                    let instance = bench.launch(Until::Ready);
                    let reading = unladen::probe::memory(&instance.memory());
                    let bytes = reading.get(Ledger::Pss).expect("the kernel tells the PSS");
                    instance.stop().expect("the instance stops");
                    bytes
                };
                (0..iterations).map(pss).sum()
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(Pss);
    targets = memory
}
criterion_main!(benches);
