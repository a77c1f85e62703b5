//! Pure cgroup version 2, as almost every laptop has it, inside guests that
//! these tests boot: the command runs there as root, as an ordinary user with
//! a delegated part of the tree, and as one without; and so do other tests.

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
use std::os::unix::fs::{PermissionsExt, symlink};
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

/// The commands under test.
const COMMANDS: [(&str, &str); 2] = [
    ("unladen", env!("CARGO_BIN_EXE_unladen")),
    ("unladen-oci", env!("CARGO_BIN_EXE_unladen-oci")),
];

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

/// A program without symbols: a quarter of the size, and the guest's memory
/// holds it three times.
fn strip(program: &Path, to: &Path) {
    let output = run(Command::new("strip").arg("-o").arg(to).arg(program));
    assert!(output.status.success(), "{}", stderr(&output));
}

/// Packs the guest's file system; its `/init` is the script beside this test,
/// `script` what that then does.
fn pack(dir: &Path, script: &str, tests: &[(String, PathBuf)]) -> PathBuf {
    let spec = dir.join("spec.toml");
    fs::write(&spec, SPEC).expect("written");
    let init = dir.join("init");
    fs::copy(root().join("tests/guest/init"), &init).expect("copied");
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).expect("mode");
    let mut pairs = BTreeSet::new();
    for (name, program) in COMMANDS {
        let small = dir.join(name);
        strip(Path::new(program), &small);
        pairs.extend(with_libraries(&small, &format!("/bin/{name}")));
        // The tests start it by the path that it had when they were compiled.
        let link = dir.join(format!("link-{name}"));
        symlink(format!("/usr/bin/{name}"), &link).expect("linked");
        pairs.insert(format!("{}:/opt/as-here{program}", link.display()));
    }
    let recorded = root().join("tests/golden/oci");
    pairs.insert(format!("{0}:/opt/as-here{0}", recorded.display()));
    pairs.extend(with_libraries(Path::new("/bin/bash"), "/bin/bash"));
    let shell = fs::canonicalize("/bin/sh").expect("a shell");
    pairs.extend(with_libraries(&shell, "/bin/sh"));
    pairs.extend(with_libraries(Path::new("/usr/bin/setpriv"), "/bin/setpriv"));
    for (name, program) in tests {
        let small = dir.join(name);
        strip(program, &small);
        pairs.extend(with_libraries(&small, &format!("/opt/tests/{name}")));
    }
    let script = root().join("tests/guest").join(script);
    pairs.insert(format!("{}:/script", script.display()));
    pairs.insert(format!("{}:/opt/list", list(dir).display()));
    pairs.insert("/bin/busybox:/bin/busybox".to_owned());
    pairs.insert(format!("{}:/spec.toml", spec.display()));
    let out = dir.join("guest.cpio");
    let mut packer = Command::new(root().join("scripts/guest/initramfs.sh"));
    packer.arg("--payload").arg(&init).arg("--out").arg(&out);
    for pair in pairs {
        packer.args(["--add", &pair]);
    }
    let output = run(&mut packer);
    assert!(output.status.success(), "{}", stderr(&output));
    out
}

/// Boots the guest and gives what its console said.
fn boot(kernel: &Path, initrd: &Path) -> String {
    let mut child = Command::new(root().join("scripts/vm/microvm.sh"))
        .args(["--memory", "2G", "--cpus", "2", "--for", "start", "--kernel"])
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
    let ended = common::wait_until(Duration::from_secs(1800), || reader.is_finished());
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

/// What a guest needs of this host: the kernel, or why there is no guest.
fn ready() -> Result<PathBuf, String> {
    for program in ["/bin/busybox", "/usr/bin/setpriv"] {
        if !Path::new(program).exists() {
            return Err(format!("{program} is not installed"));
        }
    }
    kernel()
}

/// A program of tests that also runs inside the guest.
struct Inside {
    name: &'static str,
    users: &'static [&'static str],
    /// Tests that say nothing about control groups and take long where the
    /// processor is emulated.
    without: &'static [&'static str],
}

const ROOT: &[&str] = &["root"];
const BOTH: &[&str] = &["root", "user"];

/// Those that need what the guest does not have are not among them.
const INSIDE: [Inside; 14] = [
    Inside { name: "container_runtime", users: BOTH, without: &[] },
    Inside { name: "container_cgroups", users: BOTH, without: &[] },
    Inside { name: "cgroup_enforcement", users: BOTH, without: &[] },
    Inside { name: "cgroup_paths", users: BOTH, without: &[] },
    Inside {
        name: "container_run",
        users: BOTH,
        without: &["help_and_readme_tell_the_same_codes", "wrong_use_is_one_clear_error_with_125"],
    },
    Inside { name: "container_inside", users: BOTH, without: &[] },
    Inside { name: "container_devices", users: ROOT, without: &[] },
    Inside { name: "container_limits", users: BOTH, without: &[] },
    Inside { name: "container_streams", users: BOTH, without: &["streams_are_the_commands_own"] },
    Inside { name: "container_bundles", users: ROOT, without: &[] },
    Inside {
        name: "oci_lifecycle",
        users: ROOT,
        without: &["a_program_that_is_not_there_is_said_before_the_start"],
    },
    Inside {
        name: "oci_hooks",
        users: ROOT,
        without: &["a_hook_that_fails_or_hangs_ends_the_container"],
    },
    Inside { name: "oci_streams", users: ROOT, without: &[] },
    Inside { name: "spawn", users: BOTH, without: &[] },
];

/// What a test in the guest may lack there, by the reasons it gives.
const MAY_SKIP: [(&str, &[&str]); 2] = [
    ("root", &["the test without root is another one"]),
    (
        "user",
        &[
            "need root",
            "needs root",
            "is root's",
            "without root they are those of a user namespace",
            "the test without root is another one",
        ],
    ),
];

/// The list of programs for the guest's script: who runs which without what.
fn list(dir: &Path) -> PathBuf {
    let line = |who: &str, inside: &Inside| {
        let without: String = inside.without.iter().map(|test| format!(" --skip {test}")).collect();
        format!("{who} {}{without}\n", inside.name)
    };
    let lines =
        INSIDE.iter().flat_map(|inside| inside.users.iter().map(move |who| line(who, inside)));
    let path = dir.join("list");
    fs::write(&path, lines.collect::<String>()).expect("written");
    path
}

/// The programs of these tests, as cargo has built them for this run.
fn test_programs() -> Vec<(String, PathBuf)> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).args(["test", "--no-run", "--message-format=json", "--offline"]);
    for inside in &INSIDE {
        cargo.args(["--test", inside.name]);
    }
    let own = std::env::current_exe().expect("own path");
    if own.iter().any(|part| part == "release") {
        cargo.arg("--release");
    }
    let output = run(&mut cargo);
    assert!(output.status.success(), "{}", stderr(&output));
    let messages = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    let messages = messages.map(|message: Result<serde_json::Value, _>| message.expect("JSON"));
    let program = |message: serde_json::Value| {
        let name = message["target"]["name"].as_str()?.to_owned();
        let path = message["executable"].as_str()?.into();
        INSIDE.iter().any(|inside| inside.name == name).then_some((name, path))
    };
    let programs: Vec<_> = messages.filter_map(program).collect();
    assert_eq!(programs.len(), INSIDE.len(), "{programs:?}");
    programs
}

/// The tests that skipped something in an output with `--show-output`, with
/// the reasons.
fn skipped(lines: &[&str]) -> Vec<(String, String)> {
    let mut test = "";
    let mut found = Vec::new();
    for line in lines {
        if let Some(name) = line.strip_prefix("---- ") {
            test = name.split(' ').next().unwrap_or_default();
        }
        if let Some(reason) = line.strip_prefix("SKIPPED: ") {
            found.push((test.to_owned(), reason.to_owned()));
        }
    }
    found
}

#[test]
fn the_runtimes_tests_pass_on_pure_cgroup_v2() {
    let kernel = match ready() {
        Ok(kernel) => kernel,
        Err(reason) => return skip(&reason),
    };
    let dir = tempfile::tempdir().expect("folder");
    let console = boot(&kernel, &pack(dir.path(), "tests", &test_programs()));
    // The whole conversation helps where an assertion fails.
    std::io::stderr().write_all(console.as_bytes()).expect("written");
    assert!(console.contains("@@ done"), "the guest's script did not come to its end");
    for (who, may_skip) in MAY_SKIP {
        for name in INSIDE.iter().filter(|one| one.users.contains(&who)).map(|one| one.name) {
            let part = Part::of(&console, &format!("{who} {name}"));
            assert_eq!(part.exit(), Some(0), "{name} as {who}");
            let passed = part.lines.iter().find_map(|line| {
                let (_, counts) = line.split_once("test result: ok. ")?;
                counts.split(' ').next()?.parse::<usize>().ok()
            });
            let passed = passed.expect("a count");
            let skipped = skipped(&part.lines);
            eprintln!("{name} as {who}: {passed} passed, {} of them skipped", skipped.len());
            assert!(passed > skipped.len(), "{name} as {who}: nothing but skips");
            for (test, reason) in skipped {
                let fine = may_skip.iter().any(|known| reason.contains(known));
                assert!(fine, "{name}::{test} as {who} was skipped: {reason}");
            }
            let left: Vec<_> = part.lines.iter().filter(|line| line.starts_with("left ")).collect();
            assert!(left.is_empty(), "{name} as {who}: {left:?}");
        }
    }
}

#[test]
fn the_runtime_works_on_pure_cgroup_v2() {
    let kernel = match ready() {
        Ok(kernel) => kernel,
        Err(reason) => return skip(&reason),
    };
    let dir = tempfile::tempdir().expect("folder");
    let console = boot(&kernel, &pack(dir.path(), "runs", &[]));
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

    // The same user, where systemd would give it a part of its own on request.
    let scope = Part::of(&console, "scope");
    assert_eq!(scope.exit(), Some(0));
    let asked = scope.lines.iter().filter(|line| line.starts_with("asked for: ")).count();
    assert_eq!(asked, 1, "{:?}", scope.lines);
    let wanted =
        "--user --scope --quiet --collect -p Delegate=yes -- /usr/bin/unladen run /spec.toml";
    assert!(console.contains(&format!("@@ scope asked for: {wanted} --backend container")));

    for part in [root, user, plain, scope] {
        assert!(!part.lines.iter().any(|line| line.starts_with("left ")), "cgroups are left");
    }
}
