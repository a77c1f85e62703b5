//! Containers whose root is made of the layers of an image.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;
mod image_kit;
mod lab;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use common::{is_root, run, skip as skipped, stderr, stdout};
use image_kit::{Layer, Packing, hello, import, layout, layout_with, store, with_cache};
use lab::Lab;
use oci_spec::runtime::Spec;
use serde_json::json;
use tar::EntryType;
use unladen::container::cgroup::Limits as GroupLimits;
use unladen::container::{CellOptions, Container, Plan, default_cell_spec};
use unladen::image::{Image, Store, Writable};
use unladen::sys::pidfd::Exit;

/// Layers of an image in which the host's shell runs, once its programs are
/// bound into it.
fn shell_layers() -> Vec<Vec<u8>> {
    let base = Layer::new()
        .folder("usr", 0o755)
        .symlink("bin", "usr/bin")
        .symlink("lib", "usr/lib")
        .symlink("lib64", "usr/lib64")
        .folder("etc", 0o755)
        .file("etc/passwd", "root:x:0:0::/root:\nwww:x:33:33::/srv:\n")
        .file("etc/old", "old")
        .folder("data", 0o755)
        .file("data/hidden", "x")
        .folder("root", 0o755);
    let top = Layer::new()
        .file("etc/.wh.old", "")
        .file("etc/new", "new")
        .file("data/.wh..wh..opq", "")
        .file("data/shown", "y")
        .file(".wh.root", "");
    vec![base.bytes(), top.bytes()]
}

/// The plan of a cell on an image.
fn plan_on(image: &Image, lab: &Lab, writable: Writable, script: &str, user: bool) -> Plan {
    let overlay = image.overlay(writable).expect("overlay");
    let arguments = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let options = CellOptions {
        rootfs: &overlay.root_path(),
        arguments,
        limits: GroupLimits::default(),
        user_namespace: user,
        network: true,
        seccomp: None,
    };
    let mut spec: Spec = lab::with_programs(default_cell_spec(&options));
    let readonly = writable == Writable::No;
    spec.root_mut().as_mut().expect("root").set_readonly(Some(readonly));
    let plan = Plan::from_spec(&spec, &lab.rootfs).expect("plan");
    plan.with_overlay(&overlay, Path::new("/srv/app")).expect("plan")
}

const LOOK: &str = "echo etc $(ls -A /etc); echo data $(ls -A /data); echo root $(ls -d /root 2>/dev/null || echo gone); \
    (echo x > /etc/new) 2>/dev/null; echo $(cat /etc/new); (: > /file) 2>/dev/null && ls /file; ls -d /srv/app 2>/dev/null; \
    grep ' / / ' /proc/self/mountinfo | grep -o 'overlay' | head -1";

#[test]
fn containers_run_on_layers() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let folder = tempfile::tempdir().expect("folder");
    let store = store(folder.path());
    let image = import(&store, &layout(folder.path(), &shell_layers()));
    let lab = Lab::new();
    let before = lab::mounts_of_host();
    let fixed = "etc new passwd\ndata shown\nroot gone\nnew\noverlay\n";
    let changed = "etc new passwd\ndata shown\nroot gone\nx\n/file\n/srv/app\noverlay\n";
    let mut number = 0;
    for user in [false, true] {
        for (writable, expected) in [
            (Writable::No, fixed),
            (Writable::Private { size: None }, changed),
            (Writable::Private { size: Some(1 << 20) }, changed),
        ] {
            let plan = plan_on(&image, &lab, writable, LOOK, user);
            for container in [Container::prepare(&plan), Container::prepare_direct(&plan)] {
                let mut container = container.expect("prepared");
                // Twice: what one writes the next does not see.
                for _ in 0..2 {
                    number += 1;
                    let group =
                        lab.tree.create(&format!("c{number}"), plan.limits()).expect("group");
                    let (exit, output) = lab::output(&mut container, &group);
                    assert_eq!(exit, Exit::Code(0), "{writable:?} {user}: {output}");
                    assert_eq!(output, expected, "{writable:?}, user namespace: {user}");
                }
            }
        }
    }
    // A writable layer has a size.
    let script = "head -c 4M /dev/zero > /big; echo $?";
    let plan = plan_on(&image, &lab, Writable::Private { size: Some(1 << 20) }, script, false);
    let group = lab.tree.create("full", plan.limits()).expect("group");
    let (_, output) = lab::output(&mut Container::prepare_direct(&plan).expect("prepared"), &group);
    assert!(output.contains("No space left") && output.ends_with("1\n"), "{output}");
    assert_eq!(lab::mounts_of_host(), before, "mounts came to the host");
    assert!(fs::read_dir(folder.path().join("store/mnt")).expect("there").next().is_none());
}

#[test]
fn as_many_layers_as_there_can_be_are_mounted() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let folder = tempfile::tempdir().expect("folder");
    let store = store(folder.path());
    let mut layers = shell_layers();
    while layers.len() < 128 {
        layers.push(Layer::new().file(&format!("etc/{}", layers.len()), "x").bytes());
    }
    let image = import(&store, &layout(folder.path(), &layers));
    let lab = Lab::new();
    let script = "ls /etc | wc -l";
    let plan = plan_on(&image, &lab, Writable::Private { size: None }, script, true);
    let group = lab.tree.create("many", plan.limits()).expect("group");
    let (exit, output) =
        lab::output(&mut Container::prepare_direct(&plan).expect("prepared"), &group);
    assert_eq!((exit, output.as_str()), (Exit::Code(0), "128\n"));
    layers.push(hello());
    let here = tempfile::tempdir_in(folder.path()).expect("folder");
    let source = layout(here.path(), &layers).display().to_string();
    let error = store.import(&source, None).expect_err("too many").to_string();
    assert!(error.contains("it has 129 layers, and 1 to 128 can be used"), "{error}");
}

#[test]
fn an_image_with_an_odd_path_runs_by_the_command() {
    let folder = tempfile::tempdir().expect("folder");
    // What overlayfs options and `PATH:REF` give a meaning to.
    let cache = folder.path().join("a,b:c=d\\e f");
    fs::create_dir(&cache).expect("made");
    let process = json!({"Cmd": ["-c", "echo $A $HOME $(pwd) $(id -u)"], "Entrypoint": ["/bin/sh"],
        "Env": ["A=from-the-image", "PATH=/usr/bin"], "User": "www", "WorkingDir": "/srv/new"});
    let source = layout_with(&cache, &shell_layers(), Packing::Gzip, &process);
    let container = |arguments: &[&str]| {
        let mut command = with_cache(&cache);
        command.args(["container", "run", "--volume", "/usr:/usr:ro", "--image"]);
        let output = run(command.arg(format!("{}:latest", source.display())).args(arguments));
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    if !is_root() {
        return skipped("another user of the image needs root");
    }
    assert_eq!(container(&[]), "from-the-image /srv /srv/new 33\n");
    assert_eq!(container(&["--readonly"]), "from-the-image /srv /srv/new 33\n");
    assert_eq!(
        container(&["--user", "0", "--env", "A=mine", "--workdir", "/etc"]),
        "mine /root /etc 0\n"
    );
    assert_eq!(container(&["--", "-c", "cat /etc/new; ls /data"]), "newshown\n");
    assert_eq!(container(&["--rootless", "--user", "root", "--", "-c", "ls /data"]), "shown\n");
}

#[test]
fn an_image_stays_while_a_container_runs_on_it() {
    if !is_root() {
        return skipped("the layers of this test need root's store");
    }
    let folder = tempfile::tempdir().expect("folder");
    let source = layout(folder.path(), &shell_layers());
    let output = run(with_cache(folder.path()).args(["image", "import"]).arg(&source));
    assert!(output.status.success(), "{}", stderr(&output));
    let mut command = with_cache(folder.path());
    command.args(["container", "run", "--volume", "/usr:/usr:ro", "--image", "layout", "--"]);
    command.args(["/bin/sh", "-c", "echo ready; read word"]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("started");
    let mut line = String::new();
    let mut lines = std::io::BufReader::new(child.stdout.as_mut().expect("piped"));
    std::io::BufRead::read_line(&mut lines, &mut line).expect("UTF-8");
    assert_eq!(line, "ready\n");
    let remove = || run(with_cache(folder.path()).args(["image", "rm", "layout"]));
    let output = remove();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("is in use by a running container"), "{}", stderr(&output));
    drop(child.stdin.take());
    child.wait().expect("waited");
    assert!(remove().status.success());
}

#[test]
fn an_overlay_needs_its_own_mount_point() {
    let folder = tempfile::tempdir().expect("folder");
    let image = import(&store(folder.path()), &layout(folder.path(), &[hello()]));
    let options = CellOptions {
        rootfs: folder.path(),
        arguments: vec!["/x".to_owned()],
        limits: GroupLimits::default(),
        user_namespace: false,
        network: true,
        seccomp: None,
    };
    let plan = || Plan::from_spec(&default_cell_spec(&options), folder.path()).expect("plan");
    let overlay = image.overlay(Writable::No).expect("overlay");
    let error = plan().with_overlay(&overlay, Path::new("/")).map(drop).expect_err("refused");
    assert!(error.to_string().contains("it must be the image store's mount point"), "{error}");
}

#[test]
fn an_unprivileged_user_imports_and_runs() {
    if !is_root() {
        return skipped("becoming another user needs root");
    }
    let folder = tempfile::tempdir().expect("folder");
    let open =
        |path: &Path| fs::set_permissions(path, PermissionsExt::from_mode(0o777)).expect("set");
    open(folder.path());
    // The command itself may lie where others cannot go.
    let program = folder.path().join("unladen");
    common::copy_program(Path::new(env!("CARGO_BIN_EXE_unladen")), &program);
    let mut layers = shell_layers();
    layers.push(
        Layer::new()
            .folder("closed", 0o500)
            .entry(
                EntryType::Regular,
                "closed/file",
                0o600,
                |header| {
                    header.set_uid(77);
                    header.set_gid(88);
                },
                b"x",
            )
            .bytes(),
    );
    let source = layout(folder.path(), &layers);
    let other = folder.path().join("device");
    fs::create_dir(&other).expect("made");
    let device = Layer::new().device(EntryType::Block, "sda", 0o600, (8, 0));
    let device = layout(&other, &[device.bytes()]);
    let command = || {
        let mut command = Command::new(&program);
        command.env("XDG_CACHE_HOME", folder.path().join("cache")).uid(65534).gid(65534);
        command.current_dir("/").stdin(std::process::Stdio::null());
        command
    };
    let output = run(command().args(["image", "import"]).arg(&device));
    assert!(stderr(&output).contains("only root can make device nodes"), "{}", stderr(&output));
    let output = run(command().args(["image", "import"]).arg(&source));
    assert!(output.status.success(), "{}", stderr(&output));
    let root = folder.path().join("cache/unladen/images-rootless");
    assert_eq!(root.metadata().expect("there").mode() & 0o777, 0o700);
    let output = run(command()
        .args(["container", "run", "--volume", "/usr:/usr:ro", "--image", "layout", "--", "/bin/sh", "-c"])
        .arg("id -u; cat /etc/new; ls /data; cat /closed/file; stat -c %u:%g /closed/file; : > /closed/new && echo wrote"));
    assert_eq!(stdout(&output), "0\nnewshown\nx0:0\nwrote\n", "{}", stderr(&output));
    let output = run(command().args(["image", "rm", "layout"]));
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(fs::read_dir(root.join("l")).expect("there").count(), 0);
    // Root does not take over what is somebody else's.
    let error = Store::open_at(&root).expect_err("refused").to_string();
    assert!(error.contains("belongs to user 65534, not to user 0"), "{error}");
}
