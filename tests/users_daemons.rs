//! Daemons of the user's: used only when asked, and nothing in them is touched
//! that is not the run's. Each is a daemon of the test's own, in which the
//! user has an image, a container that has ended and a volume.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;
mod peer_lab;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{run, run_id, samples, skip, stderr, stdout, values, wait_until};
use peer_lab::Lab;

/// A program of the user's, which must end in order.
fn must(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().expect("it starts");
    assert!(output.status.success(), "{words:?}: {}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

/// An engine whose daemon is the user's.
struct Engine<'a> {
    name: &'a str,
    socket: String,
    /// Its cells: their parameters and what is measured.
    cells: &'a str,
    /// Metrics that this gives.
    metrics: &'a [&'a str],
    /// What lists everything in it.
    lists: &'a [&'a [&'a str]],
}

impl Engine<'_> {
    fn command(&self, words: &[&str]) -> String {
        let docker = format!("unix://{}", self.socket);
        let front = match self.name {
            "docker" => ["docker", "--host", &docker],
            _ => ["ctr", "--address", &self.socket],
        };
        must(&[&front, words].concat())
    }

    /// Everything in it, with states and digests.
    fn objects(&self) -> Vec<String> {
        self.lists.iter().map(|words| self.command(words)).collect()
    }
}

/// Measures the engine with the user's daemon; everything is as it was before.
fn measured_with(lab: &Lab, engine: &Engine<'_>) {
    let name = engine.name;
    let before = engine.objects();
    let text = format!(
        "[rounds]\nstartup = 1\nmemory = 1\n[[cells]]\nbackend = \"{name}\"\n{}",
        engine.cells
    );
    let (spec, out) = (lab.file(&format!("{name}.toml"), &text), lab.folder.path().join(name));
    let mut command = lab.unladen();
    command.args(["run", "--no-report", "--engine-socket", &format!("{name}={}", engine.socket)]);
    let output = run(command.arg(&spec).arg("--out").arg(&out));
    let rows = samples(&out);
    let bad: Vec<_> = rows.iter().filter(|row| row["outcome"] == "failed").collect();
    assert!(output.status.success(), "{bad:#?}\n{}", stderr(&output));
    for metric in engine.metrics {
        assert!(!values(&rows, name, metric).is_empty(), "{name}: no {metric}");
    }
    let id = run_id(&out);
    let gone = || lab.left(&id).is_empty();
    assert!(wait_until(Duration::from_secs(20), gone), "{name}: {:#?}", lab.left(&id));
    assert_eq!(engine.objects(), before, "{name}: the user's objects");
    // Without being asked it does not look for it.
    let unasked = lab.folder.path().join(format!("{name}-unasked"));
    let output =
        run(lab.unladen().args(["run", "--no-report"]).arg(&spec).arg("--out").arg(&unasked));
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    refused(&unasked, name, "--engine-socket");
}

/// Every cell of an engine was left out for a reason with this word.
fn refused(out: &Path, name: &str, word: &str) {
    let rows = samples(out);
    let own: Vec<_> = rows.iter().filter(|row| row["backend"] == name).collect();
    assert!(!own.is_empty(), "{name} is not mentioned");
    for row in own {
        assert!(row["outcome"] == "skipped" && row["detail"].contains(word), "{row:?}");
    }
}

/// An archive with one static program as `true`; nothing without one.
fn image(folder: &Path) -> Option<String> {
    let places = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new);
    let Some(busybox) = places.into_iter().find(|path| path.exists()) else {
        skip("busybox is not installed (scripts/setup.sh --for test)");
        return None;
    };
    let path = folder.join("image.tar");
    let mut archive = tar::Builder::new(fs::File::create(&path).expect("made"));
    archive.append_path_with_name(busybox, "bin/true").expect("packed");
    archive.finish().expect("packed");
    Some(path.display().to_string())
}

/// A lab for the run and one whose daemons are the user's.
fn labs() -> Option<(Lab, Lab)> {
    Some((Lab::new(&[])?, Lab::new(&["docker-vfs", "containerd"])?))
}

#[test]
fn a_users_daemon_is_used_when_asked_and_what_is_in_it_stays() {
    let Some((lab, user)) = labs() else { return };
    let Some(image) = image(user.folder.path()) else { return };
    let docker = Engine {
        name: "docker",
        socket: user.socket("docker-vfs").display().to_string(),
        cells: "params = { storage = \"vfs\" }\nstartup = [\"exit\"]\nmemory = [\"pause\"]\n",
        metrics: &["startup.ready", "startup.gone", "memory.pss"],
        lists: &[
            &["ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}} {{.Image}}"],
            &["images", "--all", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"],
            &["volume", "ls", "--format", "{{.Name}}"],
            &["network", "ls", "--no-trunc", "--format", "{{.ID}} {{.Name}}"],
        ],
    };
    docker.command(&["import", &image, "user/box:mine"]);
    docker.command(&["volume", "create", "users-volume"]);
    let own = ["--network", "none", "--volume", "users-volume:/data", "user/box:mine", "/bin/true"];
    docker.command(&[&["create", "--name", "users-own"], &own[..]].concat());
    docker.command(&[&["run", "--name", "users-past"], &own[..]].concat());
    let containerd = Engine {
        name: "containerd",
        socket: user.socket("containerd").display().to_string(),
        cells: "params = { snapshotter = \"native\" }\nstartup = [\"pause\"]\n",
        metrics: &["startup.ready", "stop.gone"],
        lists: &[
            &["namespaces", "list", "--quiet"],
            &["images", "list"],
            &["containers", "list"],
            &["snapshots", "--snapshotter", "native", "list"],
            &["content", "list", "--quiet"],
        ],
    };
    let saved = user.folder.path().join("saved.tar").display().to_string();
    docker.command(&["save", "--output", &saved, "user/box:mine"]);
    containerd.command(&["images", "import", "--snapshotter", "native", &saved]);
    let name = "docker.io/user/box:mine";
    containerd.command(&[
        "containers",
        "create",
        "--snapshotter",
        "native",
        name,
        "users-own",
        "/bin/true",
    ]);
    // A cell is not measured under the name of a storage driver that its
    // daemon does not have.
    let spec = "[rounds]\nstartup = 1\n[[cells]]\nbackend = \"docker\"\nstartup = [\"exit\"]\n";
    let (spec, out) = (lab.file("other.toml", spec), lab.folder.path().join("other"));
    let asked = format!("docker={}", docker.socket);
    let mut command = lab.unladen();
    command.args(["run", "--no-report", "--engine-socket", &asked]).arg(spec);
    let output = run(command.arg("--out").arg(&out));
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    refused(&out, "docker", "storage driver overlay2");
    for engine in [&docker, &containerd] {
        measured_with(&lab, engine);
    }
    assert_eq!(docker.objects()[0].lines().count(), 2, "both of the user's containers");
    assert_eq!(containerd.objects()[2].lines().count(), 2, "a heading and the user's container");
}

#[test]
fn a_socket_of_nobody_is_wrong_use() {
    let folder = tempfile::tempdir().expect("folder");
    let nowhere = folder.path().join("no.sock").display().to_string();
    for (asked, word) in [
        (format!("runc={nowhere}"), "containerd"),
        (format!("nobody={nowhere}"), "docker"),
        (format!("docker={nowhere}"), "no socket"),
    ] {
        let output = run(common::unladen().args(["run", "peers", "--engine-socket", &asked]));
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }
}
