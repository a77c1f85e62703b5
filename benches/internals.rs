//! The harness's own cost: the clock, and the parser of the payload's
//! stream. `cargo bench --bench internals`.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a bench says what went wrong by panicking"
)]

use criterion::{Criterion, criterion_group, criterion_main};
use unladen::payload::protocol::{INIT, READY, RESULT, WorkResult};
use unladen::payload::{Decoder, request};
use unladen::sys::clock::monotonic_ns;

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

criterion_group!(benches, clock, decoder);
criterion_main!(benches);
