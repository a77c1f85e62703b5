//! The systems people really use, for real: each completes cells of start-up
//! and memory through the same command as every other measurement; a system
//! that hangs is killed; a run that is killed is cleaned up after; and nothing
//! of any of them is left.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;
mod peer_lab;

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use common::{
    cache, manifest, run, run_id, samples, skip, stderr, stdout, unprepared, values, wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peer_lab::{Lab, SYSTEMS};

/// Systems of which several live at once: one of each driver.
const LADDERS: [&str; 3] = ["runc", "bwrap", "podman"];

/// The rows of one system that are about a metric of a workload.
fn of<'a>(
    rows: &'a [BTreeMap<String, String>],
    (backend, workload, metric): (&str, &str, &str),
) -> Vec<&'a BTreeMap<String, String>> {
    rows.iter()
        .filter(|row| row["backend"] == backend && row["workload"] == workload)
        .filter(|row| row["metric"] == metric && row["outcome"] == "ok")
        .collect()
}

#[test]
fn every_system_starts_holds_memory_ends_and_leaves_nothing() {
    let Some(lab) = Lab::new(&["docker", "containerd"]) else { return };
    let mut spec = "[rounds]\nstartup = 2\nmemory = 1\ndensity = 1\n".to_owned();
    for (system, _) in SYSTEMS {
        spec.push_str(&format!(
            "[[cells]]\nbackend = \"{system}\"\nstartup = [\"exit\", \"pause\"]\nmemory = [\"pause\"]\n"
        ));
        if LADDERS.contains(&system) {
            spec.push_str("density = [\"pause\"]\ndensity_cap = 3\n");
        }
    }
    let (spec, out) = (lab.file("peers.toml", &spec), lab.folder.path().join("run"));
    let output = run(lab.unladen().arg("run").arg(&spec).arg("--out").arg(&out));
    let rows = samples(&out);
    let bad: Vec<_> = rows.iter().filter(|row| row["outcome"] == "failed").collect();
    assert!(output.status.success(), "{bad:#?}\n{}", stderr(&output));
    let (ladders, rows): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| row["experiment"] == "density");
    for (system, _) in SYSTEMS {
        for (workload, metric, count) in [
            ("exit", "startup.ready", 2),
            ("exit", "startup.removed", 2),
            ("pause", "startup.init", 2),
            ("pause", "startup.ready", 2),
            ("pause", "stop.removed", 2),
            ("pause", "stop.gone", 2),
            ("pause", "memory.pss", 1),
            ("pause", "memory.rss", 1),
            ("pause", "memory.hwm", 1),
        ] {
            let found = of(&rows, (system, workload, metric));
            assert_eq!(found.len(), count, "{system} {workload} {metric}");
        }
    }
    for system in LADDERS {
        assert_eq!(values(&ladders, system, "density.instances"), [3.0], "{system}");
    }
    // Their payload connects from its network namespace, whose end is seen.
    for engine in ["podman", "containerd", "docker"] {
        assert_eq!(of(&rows, (engine, "exit", "startup.gone")).len(), 2, "{engine}");
    }
    memory_is_that_of_everybody(&rows);
    let manifest = manifest(&out);
    let versions = manifest["versions"].as_array().expect("a list");
    for (system, _) in SYSTEMS {
        assert!(versions.iter().any(|version| version["name"] == system), "{system}: no version");
        let does = &manifest["does"][system]["cgroup"];
        assert!(does.as_str().is_some_and(|text| !text.is_empty()), "{system}: {does}");
    }
    let page = fs::read_to_string(out.join("report/index.html")).expect("the page");
    assert!(page.contains("What each arm does and does not do"));
    let id = run_id(&out);
    assert!(
        wait_until(Duration::from_secs(20), || lab.left(&id).is_empty()),
        "{:#?}",
        lab.left(&id)
    );
    assert_eq!(lab.objects(), "", "images, containers or name spaces are left");
}

/// Monitors and shims are counted where there are any, and only there; daemons
/// apart.
fn memory_is_that_of_everybody(rows: &[BTreeMap<String, String>]) {
    let one = |system: &str, metric: &str| values(rows, system, metric).first().copied();
    let pss = |system: &str| one(system, "memory.pss").expect("measured");
    // Nothing stays beside the payload, whose pages are some dozens of KiB.
    for alone in ["unladen-oci", "runc", "crun", "youki"] {
        assert!(pss(alone) < 200.0 * 1024.0, "{alone}: {}", pss(alone));
        assert!(one(alone, "memory.cgroup").is_some(), "{alone}");
    }
    // Something stays: bubblewrap's processes, conmon, a shim, a kernel.
    for accompanied in ["bwrap", "lxc", "nspawn", "podman", "containerd", "docker", "runsc"] {
        assert!(pss(accompanied) > 4.0 * pss("runc"), "{accompanied}: {}", pss(accompanied));
    }
    for (system, _) in SYSTEMS {
        let daemon = one(system, "memory.daemon.pss");
        let has = matches!(system, "containerd" | "docker");
        assert_eq!(daemon.is_some(), has, "{system}: {daemon:?}");
        assert!(daemon.is_none_or(|bytes| bytes > 1_000_000.0), "{system}: {daemon:?}");
    }
}

#[test]
fn what_a_killed_run_left_in_engines_is_cleaned_up() {
    let Some(lab) = Lab::new(&["docker", "containerd"]) else { return };
    for system in ["docker", "containerd", "podman", "runc"] {
        let text = format!(
            "[rounds]\nmemory = 50\n[[cells]]\nbackend = \"{system}\"\nmemory = [\"pause\"]\n"
        );
        let (spec, out) = (lab.file("killed.toml", &text), lab.folder.path().join(system));
        let mut command = lab.unladen();
        command.args(["run", "--no-report"]).arg(&spec).arg("--out").arg(&out);
        let mut harness =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        assert!(wait_until(Duration::from_secs(60), || out.join("manifest.json").exists()));
        let id = run_id(&out);
        let instances = lab.folder.path().join("unladen/instances").join(&id);
        let is_there = || {
            let names = fs::read_dir(&instances).into_iter().flatten().flatten();
            names.into_iter().any(|entry| {
                let pid = entry.path().join("pid");
                pid.exists() || entry.path().join("cid").exists() || system == "containerd"
            })
        };
        assert!(wait_until(Duration::from_secs(60), is_there), "{system}: no instance");
        // Both at once: nobody is left who could clean up.
        let launcher = launcher_of(&id);
        kill(Pid::from_raw(launcher), Signal::SIGKILL).expect("killed");
        harness.kill().expect("killed");
        harness.wait().expect("ended");
        assert!(!lab.left(&id).is_empty(), "{system}: nothing to clean up proves nothing");
        let cleaned = run(lab.unladen().args(["clean", &id]));
        assert!(cleaned.status.success(), "{}", stderr(&cleaned));
        let gone = || lab.left(&id).is_empty();
        assert!(wait_until(Duration::from_secs(20), gone), "{system}: {:#?}", lab.left(&id));
    }
    assert_eq!(lab.objects(), "", "images, containers or name spaces are left");
}

/// The process of a run's launcher.
fn launcher_of(run_id: &str) -> i32 {
    let is = |entry: &fs::DirEntry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&format!("__launcher\0{run_id}\0"))
    };
    let mut all = fs::read_dir("/proc").expect("/proc").flatten();
    let found = all.find(is).expect("a launcher");
    found.file_name().to_string_lossy().parse().expect("a number")
}

#[test]
fn a_user_adds_systems_and_one_that_hangs_is_killed() {
    let Some(lab) = Lab::new(&[]) else { return };
    let word = format!("unladen-peers-{}", std::process::id());
    let shell =
        |script: &str| format!("attached = [\"{{bin}}\", \"-c\", \"{script}\", \"{word}\"]");
    let backends = format!(
        "[systems.mine]\ndriver = \"oci\"\nbinary = [\"runc\"]\n\
         [systems.hangs]\ndriver = \"sandbox\"\nbinary = [\"bash\"]\n{}\n\
         [systems.fails]\ndriver = \"sandbox\"\nbinary = [\"bash\"]\n{}\n\
         [systems.nameless]\ndriver = \"oci\"\nbinary = [\"true\"]\nversion = [[\"{{bin}}\"]]\n\
         [systems.absent]\ndriver = \"oci\"\nbinary = [\"unladen-no-such-program\"]\n",
        shell("sleep 600 & sleep 600"),
        shell("echo out of order >&2; exit 7"),
    );
    let backends = lab.file("backends.toml", &backends);
    let mut spec = "[rounds]\nstartup = 1\n".to_owned();
    for name in ["mine", "hangs", "fails", "nameless", "absent"] {
        spec.push_str(&format!("[[cells]]\nbackend = \"{name}\"\nstartup = [\"pause\"]\n"));
    }
    let (spec, out) = (lab.file("mine.toml", &spec), lab.folder.path().join("run"));
    let mut command = lab.unladen();
    command.args(["run", "--no-report", "--deadline", "5s", "--backends"]).arg(&backends);
    let output = run(command.arg(&spec).arg("--out").arg(&out));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let rows = samples(&out);
    assert_eq!(values(&rows, "mine", "startup.ready").len(), 1, "{rows:#?}");
    let said = |name: &str, outcome: &str, words: &[&str]| {
        let row = rows.iter().find(|row| row["backend"] == name).expect("a row");
        assert_eq!(row["outcome"], outcome, "{row:?}");
        words.iter().for_each(|word| assert!(row["detail"].contains(word), "{row:?}"));
    };
    said("hangs", "failed", &["not within 5.0 s"]);
    said("fails", "failed", &["exit code 7", "out of order"]);
    said("nameless", "skipped", &["says nothing"]);
    said("absent", "skipped", &["unladen-no-such-program is not installed"]);
    let id = run_id(&out);
    assert!(
        wait_until(Duration::from_secs(20), || lab.left(&id).is_empty()),
        "{:#?}",
        lab.left(&id)
    );
    // The same systems in the listing, with version or reason.
    let listing = run(lab.unladen().args(["list", "--backends"]).arg(&backends));
    let text = stdout(&listing);
    assert!(text.contains("unladen-no-such-program is not installed"), "{text}");
    assert!(text.contains("never run by us"), "{text}");
    let unknown = run(lab.unladen().args(["run", "smoke", "--backend", "rnuc"]));
    assert_eq!(unknown.status.code(), Some(2), "{}", stderr(&unknown));
    assert!(stderr(&unknown).contains("did you mean `runc`?"), "{}", stderr(&unknown));
}

/// A machine monitor on our kernel, for which QEMU stands in, and a program
/// that has nothing but its standard streams.
const UNUSUAL: &str = r#"
[systems.monitor]
driver = "vmm"
binary = ["qemu-system-x86_64"]
network = false
attached = ["{bin}", "-M", "microvm,acpi=off,rtc=on", "-accel", "tcg", "-m", "128M", "-nodefaults", "-no-user-config",
  "-display", "none", "-no-reboot", "-name", "{id}", "-kernel", "{kernel}", "-initrd", "{initrd}",
  "-append", "reboot=t panic=-1 loglevel=0 {append}", "-chardev", "stdio,id=line,signal=off", "-serial", "chardev:line"]
[systems.off]
driver = "vmm"
binary = ["qemu-system-x86_64"]
network = false
power_off = true
attached = ["{bin}", "-M", "q35", "-accel", "tcg", "-m", "128M", "-nodefaults", "-no-user-config",
  "-display", "none", "-name", "{id}", "-kernel", "{kernel}", "-initrd", "{initrd}",
  "-append", "panic=-1 loglevel=0 {append}", "-chardev", "stdio,id=line,signal=off", "-serial", "chardev:line"]
[systems.piped]
driver = "sandbox"
binary = ["bwrap"]
channel = "streams"
attached = ["{bin}", "--unshare-all", "--die-with-parent", "--ro-bind", "{rootfs}", "/", "--clearenv", "{env}", "{payload}"]
env = ["--setenv", "{name}", "{value}"]
"#;

#[test]
fn machine_monitors_and_programs_with_streams_are_systems_too() {
    let Some(lab) = Lab::new(&[]) else { return };
    let guest = lab.folder.path().join("unladen/guest");
    std::os::unix::fs::symlink(cache().join("guest"), guest).expect("linked");
    let backends = lab.file("backends.toml", UNUSUAL);
    let mut spec = "[rounds]\nstartup = 1\n".to_owned();
    for name in ["monitor", "off", "piped"] {
        let cell = "startup = [\"exit\", \"pause\"]";
        spec.push_str(&format!("[[cells]]\nbackend = \"{name}\"\n{cell}\n"));
    }
    let (spec, out) = (lab.file("unusual.toml", &spec), lab.folder.path().join("run"));
    let mut command = lab.unladen();
    command.args(["run", "--no-report", "--deadline", "30s", "--backends"]).arg(&backends);
    let output = run(command.arg(&spec).arg("--out").arg(&out));
    let rows = samples(&out);
    if let Some(reason) = unprepared(&rows, "monitor") {
        return skip(&format!("no machine: {reason}"));
    }
    let bad: Vec<_> = rows.iter().filter(|row| row["outcome"] == "failed").collect();
    assert!(output.status.success(), "{bad:#?}\n{}", stderr(&output));
    for (name, metrics) in [
        ("monitor", ["startup.init", "startup.removed", "startup.gone", "stop.gone"]),
        ("off", ["startup.init", "startup.removed", "startup.gone", "stop.gone"]),
        ("piped", ["startup.init", "startup.removed", "startup.ready", "stop.gone"]),
    ] {
        for metric in metrics {
            assert!(!values(&rows, name, metric).is_empty(), "{name}: no {metric}");
        }
    }
    let id = run_id(&out);
    let gone = || lab.left(&id).is_empty();
    assert!(wait_until(Duration::from_secs(20), gone), "{:#?}", lab.left(&id));
}

#[test]
fn what_was_never_run_is_marked_so() {
    let listing = run(common::unladen().args(["list", "--json"]));
    let listing: serde_json::Value = serde_json::from_str(&stdout(&listing)).expect("JSON");
    let all = listing["backends"].as_array().expect("a list");
    let marked = |entry: &&serde_json::Value| entry["never_run"] == true;
    let names: Vec<&str> =
        all.iter().filter(marked).filter_map(|entry| entry["name"].as_str()).collect();
    assert_eq!(names, ["nerdctl", "kata", "firecracker", "cloud-hypervisor", "crosvm"]);
    // What a profile measures, and what the tests here see work, is not.
    let profile = include_str!("../benches/specs/peers.toml");
    for name in names {
        assert!(!profile.contains(&format!("\"{name}\"")), "{name}");
        assert!(SYSTEMS.iter().all(|(system, _)| *system != name), "{name}");
    }
}
