//! `unladen container run` with real containers: every flag as the command
//! sees it, exit codes, streams, signals, and nothing left behind.
//!
//! The containers run the host's own programs: its `/usr` is a read-only
//! volume in an otherwise empty root filesystem.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::too_many_lines,
    reason = "a test says what went wrong by panicking"
)]

mod common;
mod engine;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

use common::{is_root, skip, stderr, stdout, unladen};
use engine::{Engine, fine, first_process, run};

#[test]
fn the_exit_code_is_the_commands() {
    let engine = Engine::new();
    for code in [0, 1, 2, 7, 125, 255] {
        let output = run(engine.sh(&[], &format!("exit {code}")));
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert_eq!(stderr(&output), "");
    }
    // 128 and the signal's number, and not a signal that killed this program.
    let child = engine.sh(&[], "echo ready; sleep 1000").stdout(Stdio::piped()).spawn();
    let mut child = child.expect("started");
    let mut line = String::new();
    let output = child.stdout.take().expect("piped");
    BufReader::new(output).read_line(&mut line).expect("text");
    let inside = first_process(child.id()).expect("it runs");
    engine::kill(inside, "KILL");
    let status = child.wait().expect("waited");
    assert_eq!((status.code(), status.signal()), (Some(137), None));
}

#[test]
fn a_command_that_cannot_run_has_its_own_codes() {
    let engine = Engine::new();
    let text = engine.rootfs().join("text");
    fs::write(&text, "no program\n").expect("written");
    fs::set_permissions(&text, fs::Permissions::from_mode(0o644)).expect("changed");
    for (command, code, part) in [
        ("/no/such/program", 127, "cannot execute /no/such/program: ENOENT"),
        ("no-such-program", 127, "no-such-program"),
        ("/text", 126, "cannot execute /text: EACCES"),
        ("/usr", 126, "cannot execute /usr: EACCES"),
    ] {
        let output = run(engine.run(&[]).arg("--").arg(command));
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{command}: {error}");
        assert!(error.contains(part) && error.lines().count() == 1, "{error}");
    }
    fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).expect("changed");
    let output = run(engine.run(&[]).arg("--").arg("/text"));
    assert_eq!(output.status.code(), Some(126), "{}", stderr(&output));
    assert!(stderr(&output).contains("ENOEXEC"), "{}", stderr(&output));
}

#[test]
fn wrong_use_is_one_clear_error_with_125() {
    let engine = Engine::new();
    let rootfs = engine.rootfs().display().to_string();
    fs::write(engine.rootfs().join("file"), "").expect("written");
    let with = |more: &[&str]| -> Vec<String> {
        let words = ["--rootfs", &rootfs].into_iter().chain(more.iter().copied());
        words.chain(["--", "true"]).map(str::to_owned).collect()
    };
    for (arguments, part) in [
        (vec!["--".to_owned(), "true".to_owned()], "--rootfs"),
        (vec!["--rootfs".to_owned(), rootfs.clone()], "there is no command to run"),
        (with(&["--rootfs", "/x"]), "--rootfs"),
        (with(&["--image", "/x"]), "--image"),
        (vec!["--bundle".to_owned(), "/no/bundle".to_owned()], "/no/bundle"),
        (with(&["--bundle", "/x"]), "--bundle"),
        (with(&["--overlay", "--readonly"]), "--readonly"),
        (with(&["--memory", "64Q"]), "64Q"),
        (with(&["--memory", "0"]), "--memory"),
        (with(&["--memory", "1k"]), "nothing starts in less than 64 KiB"),
        (with(&["--swap", "1M"]), "--memory"),
        (with(&["--cpus", "0"]), "number of processors"),
        (with(&["--pids", "0"]), "--pids"),
        (with(&["--net", "moon"]), "loopback"),
        (with(&["--user", "nobody-here"]), "no user `nobody-here`"),
        (with(&["--user", "0:no-group"]), "no group `no-group`"),
        (with(&["-v", "name:/x"]), "./name"),
        (with(&["-v", "/no/such/source:/x"]), "/no/such/source"),
        (with(&["-v", "/usr:x"]), "not an absolute path"),
        (with(&["--tmpfs", "x"]), "not an absolute path"),
        (with(&["--device", "/dev/null:null"]), "not an absolute path"),
        (with(&["--device", "/dev/null:/dev/x:rx"]), "letters `rwm`"),
        (with(&["--device", "/dev/null", "--rootless"]), "--device needs root"),
        (with(&["--tmpfs", "/x:colour=red"]), "colour=red"),
        (with(&["--env", "=x"]), "no name before"),
        (with(&["--env-file", "/no/file"]), "/no/file"),
        (with(&["--workdir", "x"]), "not an absolute path"),
        (with(&["--workdir", "/file"]), "change to the directory /file ("),
        (with(&["--hostname", "a b"]), "host name"),
        (with(&["--cap-add", "FLY"]), "`FLY` is no capability"),
        (with(&["--ulimit", "files=3"]), "`files`"),
        (with(&["--ulimit", "nofile=3:2"]), "above the second"),
        (with(&["--no-new-privileges=maybe"]), "maybe"),
        (with(&["--seccomp", "/no/profile"]), ""),
        (with(&["--frobnicate"]), "--frobnicate"),
    ] {
        let output = run(unladen().args(["container", "run"]).args(&arguments));
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(125), "{arguments:?}: {error}");
        assert!(error.contains(part), "{arguments:?}: {error}");
        assert_eq!(error.matches("error: ").count(), 1, "{arguments:?}: {error}");
        assert_eq!(stdout(&output), "");
    }
    assert_eq!(run(unladen().args(["container", "run", "--help"])).status.code(), Some(0));
}

#[test]
fn every_flag_is_seen_inside() {
    if !is_root() {
        return skip("users other than one's own need root");
    }
    let engine = Engine::new();
    let folder = tempfile::tempdir().expect("folder");
    fs::write(folder.path().join("file"), "content\n").expect("written");
    fs::write(folder.path().join("env"), "# comment\nFROM_FILE=f\nBOTH=file\n").expect("written");
    fs::create_dir_all(engine.rootfs().join("etc")).expect("made");
    let passwd = "root:x:0:0::/root:\nworker:x:1000:1001::/home/worker:\n";
    fs::write(engine.rootfs().join("etc/passwd"), passwd).expect("written");
    fs::write(engine.rootfs().join("etc/group"), "team:x:50:worker\n").expect("written");
    let path = folder.path().display();
    let script = r#"
        echo host $(hostname)
        echo id $(id -u):$(id -g) $(id -G)
        echo where $(pwd)
        echo home $HOME name $HOSTNAME
        echo env $GIVEN $FROM_FILE $BOTH $PASSED ${UNKNOWN-unset}
        echo limits $(ulimit -Sn) $(ulimit -Hn) $(ulimit -c)
        echo umask $(umask)
        echo score $(cat /proc/self/oom_score_adj)
        grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status
        cat /read/file; (echo x > /read/file) 2>/dev/null && echo wrote-read
        echo y > /write/file
        echo z > /scratch/file && stat -f -c '%T %b' /scratch
        echo lines $(grep -c : /proc/net/dev)
        echo pid $$
    "#;
    let output = fine(
        engine
            .sh(
                &[
                    "--hostname",
                    "box",
                    "--user",
                    "worker",
                    "--workdir",
                    "/usr/bin",
                    "-e",
                    "GIVEN=a b",
                    "--env",
                    "PASSED",
                    "-e",
                    "UNKNOWN",
                    "--env-file",
                    &format!("{path}/env"),
                    "-e",
                    "BOTH=flag",
                    "--ulimit",
                    "nofile=100:200",
                    "--ulimit",
                    "core=0",
                    "--oom-score-adj",
                    "77",
                    "--cap-add",
                    "net_raw",
                    "--cap-drop",
                    "KILL",
                    "-v",
                    &format!("{path}:/read:ro"),
                    "--volume",
                    &format!("{path}:/write"),
                    "--tmpfs",
                    "/scratch:size=1m,mode=777",
                ],
                script,
            )
            .env("PASSED", "on"),
    );
    // Writable by everybody, or the command's user could not.
    assert_eq!(
        output.lines().collect::<Vec<_>>(),
        [
            "host box",
            "id 1000:1001 1001 50",
            "where /usr/bin",
            "home /home/worker name box",
            "env a b f flag on unset",
            "limits 100 200 0",
            "umask 0022",
            "score 77",
            "CapEff:\t0000000000002000",
            "CapBnd:\t00000000800425db",
            "NoNewPrivs:\t1",
            "content",
            "tmpfs 256",
            "lines 1",
            "pid 1",
        ],
        "{output}"
    );
}

#[test]
fn a_printed_spec_is_a_bundle() {
    let engine = Engine::new();
    let flags = ["--hostname", "printed", "-e", "A=b", "--ulimit", "nofile=99"];
    let script = "echo $(hostname) $A $(ulimit -n); grep -c . /proc/mounts";
    let text = fine(engine.sh(&flags, script));
    let mut command = engine.sh(&flags, script);
    let words: Vec<String> =
        command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let mut printing = unladen();
    let (front, back) = words.split_at(2);
    printing.args(front).arg("--print-spec").args(back);
    let spec = fine(&mut printing);
    assert_eq!(spec, fine(&mut printing), "two printed specs differ");
    let bundle = tempfile::tempdir().expect("folder");
    fs::write(bundle.path().join("config.json"), &spec).expect("written");
    let output = fine(unladen().args(["container", "run", "--bundle"]).arg(bundle.path()));
    assert_eq!(output, text);
    assert_eq!(fine(&mut command), text);
    let broken = spec.replace("\"hostname\"", "\"hostnam\"");
    fs::write(bundle.path().join("config.json"), broken).expect("written");
    let output = run(unladen().args(["container", "run", "--bundle"]).arg(bundle.path()));
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr(&output).contains("hostnam"), "{}", stderr(&output));
}

#[test]
fn help_and_readme_tell_the_same_codes() {
    let help = fine(unladen().args(["container", "run", "--help"]));
    for code in ["125", "126", "127", "128+n"] {
        assert!(help.contains(code), "{help}");
    }
    let mut text = String::new();
    fs::File::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"))
        .and_then(|mut file| file.read_to_string(&mut text))
        .expect("README.md");
    let codes = help.split("Exit codes:").nth(1).expect("a table");
    for line in codes.lines().filter(|line| !line.trim().is_empty()) {
        let (code, meaning) = line.trim().split_once("  ").expect("two columns");
        let row = format!("| {code} | {meaning} |");
        assert!(text.contains(&row), "the README lacks: {row}");
    }
}
