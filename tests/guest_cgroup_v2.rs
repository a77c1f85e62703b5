//! Pure cgroup version 2, as almost every laptop has it, inside a guest that
//! this test boots: the command runs there as root, as an ordinary user with
//! a delegated part of the tree, and as one without.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test says what went wrong by panicking"
)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{run, skip, stderr, stdout};

const SPEC: &str = r#"
[rounds]
startup = 2
memory = 1
density = 1
[[cells]]
backend = "process"
startup = ["exit"]
memory = ["pause"]
[[cells]]
backend = "container"
startup = ["exit", "touch=16"]
memory = ["pause"]
density = ["pause"]
density_cap = 4
"#;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The guest kernel, when it is built.
fn kernel() -> Result<PathBuf, String> {
    let output = run(Command::new(root().join("scripts/guest/kernel.sh")).arg("--path"));
    if output.status.success() {
        return Ok(stdout(&output).trim().into());
    }
    Err(format!("no guest kernel: {}", stderr(&output).trim()))
}

/// A program with the libraries it needs, as `SRC:DST` pairs.
fn with_libraries(program: &Path, target: &str) -> BTreeSet<String> {
    let output = run(Command::new("ldd").arg(program));
    let libraries = stdout(&output);
    let paths = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    // Links are kept as links, so the files themselves are named.
    let pair = |path: &str| {
        let file = fs::canonicalize(path).expect("a library");
        format!("{}:{path}", file.display())
    };
    let mut pairs: BTreeSet<String> = paths.map(pair).collect();
    pairs.insert(format!("{}:{target}", program.display()));
    pairs
}

/// Packs the guest's file system; its `/init` is the script beside this test.
fn pack(dir: &Path) -> PathBuf {
    let spec = dir.join("spec.toml");
    fs::write(&spec, SPEC).expect("written");
    let init = dir.join("init");
    fs::copy(root().join("tests/guest/init"), &init).expect("copied");
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).expect("mode");
    // Without symbols it is a quarter of the size, and the guest's memory
    // holds it three times.
    let small = dir.join("unladen");
    let strip = run(Command::new("strip").arg("-o").arg(&small).arg(env!("CARGO_BIN_EXE_unladen")));
    assert!(strip.status.success(), "{}", stderr(&strip));
    let mut pairs = with_libraries(&small, "/bin/unladen");
    pairs.extend(with_libraries(Path::new("/bin/bash"), "/bin/bash"));
    pairs.extend(with_libraries(Path::new("/usr/bin/setpriv"), "/opt/setpriv"));
    pairs.insert("/bin/busybox:/bin/busybox".to_owned());
    pairs.insert(format!("{}:/spec.toml", spec.display()));
    let out = dir.join("guest.cpio");
    let mut script = Command::new(root().join("scripts/guest/initramfs.sh"));
    script.arg("--payload").arg(&init).arg("--out").arg(&out);
    for pair in pairs {
        script.args(["--add", &pair]);
    }
    let output = run(&mut script);
    assert!(output.status.success(), "{}", stderr(&output));
    out
}

/// Boots the guest and gives what its console said.
fn boot(kernel: &Path, initrd: &Path) -> String {
    let mut child = Command::new(root().join("scripts/vm/microvm.sh"))
        .args(["--memory", "2G", "--for", "start", "--kernel"])
        .arg(kernel)
        .arg("--initrd")
        .arg(initrd)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut console = child.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(n) = console.read(&mut buffer) {
            if n == 0 {
                break;
            }
            bytes.extend_from_slice(&buffer[..n]);
        }
        String::from_utf8_lossy(&bytes).replace('\r', "")
    });
    let ended = common::wait_until(Duration::from_secs(240), || reader.is_finished());
    drop(child.kill());
    child.wait().expect("reaped");
    let text = reader.join().expect("read");
    assert!(ended, "the guest did not end in time:\n{text}");
    text
}

/// Samples of one part of the test: metric, outcome, value and detail.
struct Part<'a> {
    lines: Vec<&'a str>,
}

impl<'a> Part<'a> {
    fn of(console: &'a str, name: &str) -> Self {
        let prefix = format!("@@ {name} ");
        let lines = console.lines().filter_map(|line| line.strip_prefix(prefix.as_str()));
        Self { lines: lines.collect() }
    }

    fn exit(&self) -> Option<i32> {
        self.lines.iter().find_map(|line| line.strip_prefix("exit ")?.parse().ok())
    }

    /// Number of good samples of a metric of a backend.
    fn ok(&self, backend: &str, metric: &str) -> usize {
        let of_backend = format!(",{backend},");
        let of_metric = format!(",{metric},");
        let fits = |line: &&&str| {
            line.contains(&of_backend) && line.contains(&of_metric) && line.contains(",ok,")
        };
        self.lines.iter().filter(fits).count()
    }
}

#[test]
fn the_runtime_works_on_pure_cgroup_v2() {
    let kernel = match kernel() {
        Ok(kernel) => kernel,
        Err(reason) => return skip(&reason),
    };
    for program in ["/bin/busybox", "/usr/bin/setpriv"] {
        if !Path::new(program).exists() {
            return skip(&format!("{program} is not installed"));
        }
    }
    let dir = tempfile::tempdir().expect("folder");
    let console = boot(&kernel, &pack(dir.path()));
    // The whole conversation helps where an assertion fails.
    std::io::stderr().write_all(console.as_bytes()).expect("written");
    assert!(console.contains("@@ done"), "the guest's script did not come to its end");

    let root = Part::of(&console, "root");
    // Nothing was handed out before the run, and nothing is after it.
    assert!(root.lines.iter().any(|line| line.trim() == "handed out:"), "{:?}", root.lines);
    assert_eq!(root.exit(), Some(0));
    for backend in ["process", "container"] {
        assert!(root.ok(backend, "startup.gone") >= 2, "{backend}");
        // Once alone, and at each of the three steps of the ladder.
        assert!(root.ok(backend, "memory.cgroup") >= 4, "{backend}");
        assert!(root.ok(backend, "memory.peak") >= 1, "{backend}");
    }
    assert_eq!(root.ok("container", "density.instances"), 1);

    let user = Part::of(&console, "user");
    assert_eq!(user.exit(), Some(0));
    // Who may not see a network namespace end has no `gone`.
    assert!(user.ok("container", "startup.removed") >= 2);
    assert!(user.ok("container", "memory.cgroup") >= 1, "the delegated part is used");

    let plain = Part::of(&console, "plain");
    assert_eq!(plain.exit(), Some(0), "without delegation it works too, without limits");
    assert!(plain.ok("container", "startup.removed") >= 2);
    assert_eq!(plain.ok("container", "memory.cgroup"), 0, "nothing is made up");
    assert!(
        plain.lines.iter().any(|line| line.starts_with("manifest") && line.contains("limit")),
        "the cell says that it has no limits"
    );

    for part in [root, user, plain] {
        assert!(!part.lines.iter().any(|line| line.starts_with("left ")), "cgroups are left");
    }
}
