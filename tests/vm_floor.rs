//! How little a virtual machine can cost: bare KVM, and QEMU with a guest of
//! a few instructions. Real machines, under every accelerator that works.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests"
)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{run, skip, stderr};
use unladen::sys::fork;

type Row = BTreeMap<String, String>;

/// Runs a spec of start-up cells and gives its rows.
fn measure(cells: &str) -> Vec<Row> {
    common::measure(&format!("[rounds]\nstartup = 5\n{cells}"))
}

fn kvm_opens() -> bool {
    let opened = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    if let Err(error) = &opened {
        skip(&format!("/dev/kvm: {error}"));
    }
    opened.is_ok()
}

/// Whether this host has the small build of QEMU.
fn lean_qemu() -> Result<(), String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/vm/qemu-version.sh");
    let output = run(std::process::Command::new(script).args(["--qemu", "lean"]));
    if output.status.success() { Ok(()) } else { Err(stderr(&output)) }
}

/// The values of a metric of the cells with this backend and these parameters.
fn values(rows: &[Row], backend: &str, params: &str, metric: &str) -> Vec<f64> {
    rows.iter()
        .filter(|row| row["backend"] == backend && row["params"] == params)
        .filter(|row| row["metric"] == metric && row["outcome"] == "ok")
        .map(|row| row["value"].parse().expect("a number"))
        .collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn bare_kvm_runs_a_guest_and_its_phases_are_in_order() {
    if !kvm_opens() {
        return;
    }
    let rows = measure("[[cells]]\nbackend = \"kvm-bare\"\nstartup = [\"exit\"]\n");
    let phases = [
        "cloned",
        "set_up",
        "kvm_opened",
        "vm_created",
        "vm_memory",
        "vcpu_created",
        "vmm_ready",
        "kernel",
        "init",
        "ready",
        "exited",
        "removed",
        "gone",
    ];
    let all = phases.map(|mark| values(&rows, "kvm-bare", "", &format!("startup.{mark}")));
    for (mark, values) in phases.iter().zip(&all) {
        assert_eq!(values.len(), 5, "{mark} of every trial");
    }
    for round in 0..5 {
        let times: Vec<f64> = all.iter().map(|values| values[round]).collect();
        assert!(times.is_sorted(), "round {}: {times:?}", round + 1);
    }
    assert!(
        rows.iter().all(|row| row["metric"] != "startup.spawned" || row["backend"] != "kvm-bare")
    );
}

#[test]
fn the_stub_proves_its_work_on_every_machine_and_accelerator() {
    let mut cells = String::new();
    let mut wanted =
        vec!["accel=tcg;kernel=stub;machine=microvm", "accel=tcg;kernel=stub;machine=q35"];
    if kvm_opens() {
        wanted.push("accel=kvm;kernel=stub;machine=microvm");
        match lean_qemu() {
            Ok(()) => wanted.push("accel=kvm;kernel=stub;machine=microvm;qemu=lean"),
            Err(reason) => skip(&reason),
        }
    }
    for params in &wanted {
        let words: Vec<String> = params
            .split(';')
            .map(|pair| pair.split_once('=').map(|(k, v)| format!("{k} = \"{v}\"")).expect("pair"))
            .collect();
        cells.push_str(&format!(
            "[[cells]]\nbackend = \"vm\"\nparams = {{ {} }}\nstartup = [\"exit\"]\n",
            words.join(", ")
        ));
    }
    let rows = measure(&cells);
    for params in &wanted {
        for mark in ["vmm_ready", "kernel", "init", "ready", "gone"] {
            let values = values(&rows, "vm", params, &format!("startup.{mark}"));
            let details: Vec<&str> = rows
                .iter()
                .filter(|row| row["params"] == *params && row["outcome"] != "ok")
                .map(|row| row["detail"].as_str())
                .collect();
            assert_eq!(values.len(), 5, "{params} {mark}: {details:?}");
        }
    }
    for params in &wanted {
        let all = |mark: &str| values(&rows, "vm", params, &format!("startup.{mark}"));
        let (first, second) = (all("kernel"), all("init"));
        assert!(first.iter().zip(&second).all(|(kernel, init)| kernel <= init), "{params}");
    }
    let ready = |params| median(values(&rows, "vm", params, "startup.ready"));
    let ratio = ready(wanted[1]) / ready(wanted[0]);
    println!("stub on q35 over microvm: {ratio:.2}");
    assert!(ratio > 1.0, "SeaBIOS and PCI cost more than qboot without: {ratio}");
}

#[test]
fn a_guest_without_an_operating_system_has_no_other_workload() {
    let rows = measure(
        "[[cells]]\nbackend = \"vm\"\nparams = { kernel = \"stub\", accel = \"tcg\" }\nstartup = [\"pause\"]\n",
    );
    let stub: Vec<&Row> = rows.iter().filter(|row| row["params"].contains("kernel=stub")).collect();
    assert_eq!(stub.len(), 1, "{stub:?}");
    assert_eq!(stub[0]["outcome"], "skipped");
    assert!(stub[0]["detail"].contains("no workload but exit"), "{}", stub[0]["detail"]);
}

#[test]
fn a_process_with_threads_is_not_copied() {
    // The test harness runs each test in a thread of its own.
    assert!(!fork::is_alone());
    let place = fork::Place { into_cgroup: None, join: &[], fds: &[] };
    let refused = fork::copy(&place, || (), || 0);
    assert_eq!(refused.map(|(pid, _)| pid), Err(nix::errno::Errno::EDEADLK));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_guest_that_never_ends_is_ended_at_its_deadline() {
    use std::num::NonZeroUsize;
    use std::time::Duration;
    use unladen::backend::Launcher;
    use unladen::backend::launcher::order::{Answer, Order, Recipe, Until};
    use unladen::payload::stub::{EXECUTABLE, parts};

    if !kvm_opens() {
        return;
    }
    let mut image = EXECUTABLE.expect("x86-64").to_vec();
    let found = parts(&image).expect("the stub");
    let (at, bytes) = found
        .segments
        .iter()
        .find(|(at, bytes)| (*at..*at + bytes.len() as u64).contains(&found.entry))
        .expect("a segment with the entry");
    let inside = usize::try_from(found.entry - at).expect("small");
    let offset =
        image.windows(bytes.len()).position(|window| window == bytes).expect("in the file");
    // jmp to itself: no exit that KVM would tell of.
    image[offset + inside..][..2].copy_from_slice(&[0xeb, 0xfe]);

    let id = format!("20260102-030405-{:06x}", std::process::id() & 0xff_ffff);
    let path = Path::new(env!("CARGO_BIN_EXE_unladen"));
    let mut launcher = Launcher::start(path, &id, None).expect("a launcher");
    let memory = NonZeroUsize::new(16 * 1024 * 1024).expect("not zero");
    let order = Order::Prepare { template: 1, recipe: Recipe::Bare { image, memory } };
    let (answer, _) = launcher.order(&order, Duration::from_secs(10)).expect("an answer");
    assert!(matches!(answer, Answer::Prepared { .. }), "{answer:?}");
    for (instance, until) in [("one", Until::Ready), ("two", Until::Gone)] {
        let instance = instance.to_owned();
        let order = Order::Launch { template: 1, instance, until, deadline_ms: 300 };
        let (answer, _) = launcher.order(&order, Duration::from_secs(10)).expect("an answer");
        let Answer::Failed(failure) = answer else { panic!("it ended: {answer:?}") };
        assert!(failure.reason.contains("not within 0.3 s"), "{}", failure.reason);
        // It was made and is running; what is due is its first exit.
        assert_eq!(failure.due.as_str(), "kernel", "{}", failure.reason);
    }
    drop(launcher);
    assert!(common::traces_of(&id).is_empty(), "{:?}", common::traces_of(&id));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_guest_that_does_not_end_as_it_should_is_an_error() {
    use std::num::NonZeroUsize;
    use std::ops::ControlFlow;
    use unladen::sys::kvm::{Guest, KvmError, Phase, Stamps, run};

    if !kvm_opens() {
        return;
    }
    let memory = NonZeroUsize::new(64 * 1024).expect("not zero");
    let attempt = |segments: &[(u64, Vec<u8>)]| {
        let stamps = Stamps::new().expect("mapped");
        let guest = Guest { segments, entry: 0x1000, memory };
        let mut said = Vec::new();
        let end = run(&guest, &stamps, &mut |port, bytes| {
            said.push((port, bytes.to_vec()));
            if port == 0x99 { ControlFlow::Break(bytes[0]) } else { ControlFlow::Continue(()) }
        });
        (end, said, stamps.at(Phase::FirstExit).is_some())
    };
    // mov al, 7; out 0x98, al; inc al; out 0x99, al
    let good = vec![0xb0, 7, 0xe6, 0x98, 0xfe, 0xc0, 0xe6, 0x99];
    let (end, said, came_out) = attempt(&[(0x1000, good)]);
    assert_eq!(end.expect("ran"), 8);
    assert_eq!(said, [(0x98, vec![7]), (0x99, vec![8])]);
    assert!(came_out);
    // hlt, with nobody to wake it.
    let (end, _, _) = attempt(&[(0x1000, vec![0xf4])]);
    assert!(matches!(end, Err(KvmError::Stopped(_))), "{end:?}");
    let (end, _, came_out) = attempt(&[(60 * 1024, vec![0; 8 * 1024])]);
    assert!(matches!(end, Err(KvmError::TooSmall { .. })), "{end:?}");
    assert!(!came_out, "it never ran");
}

#[test]
fn the_machine_scripts_start_a_kernel_without_an_initial_file_system() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/vm/microvm.sh");
    let folder = tempfile::tempdir().expect("folder");
    let kernel = folder.path().join("kernel");
    std::fs::write(&kernel, unladen::payload::stub::EXECUTABLE.unwrap_or_default())
        .expect("kernel");
    let mut command = std::process::Command::new(script);
    command.args(["--print", "--balloon", "reporting", "--kernel"]).arg(&kernel);
    let output = run(&mut command);
    let printed = common::stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!printed.lines().any(|line| line == "-initrd"), "{printed}");
    assert!(printed.contains("virtio-balloon-device,free-page-reporting=on"), "{printed}");
}

#[test]
fn the_lean_build_is_for_kvm_and_microvm_only() {
    let folder = tempfile::tempdir().expect("folder");
    let kernel = folder.path().join("kernel");
    std::fs::write(&kernel, unladen::payload::stub::EXECUTABLE.unwrap_or_default())
        .expect("kernel");
    for (script, accel, said) in
        [("microvm", "tcg", "needs --accel kvm"), ("q35", "kvm", "for the machine microvm")]
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("scripts/vm/{script}.sh"));
        let mut command = std::process::Command::new(path);
        command.args(["--print", "--qemu", "lean", "--accel", accel, "--kernel"]).arg(&kernel);
        let output = run(&mut command);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
}
