//! Images from disk to running containers: every layout, every kind of file,
//! the store under concurrency and kills, and roots made of layers.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;
mod image_kit;
mod lab;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{is_root, run, skip as skipped, stderr, stdout, unladen};
use image_kit::{Layer, Layout, Packing, config, docker_archive, layout, layout_with, sha256};
use lab::Lab;
use oci_spec::runtime::Spec;
use serde_json::{Value, json};
use tar::EntryType;
use unladen::container::cgroup::Limits as GroupLimits;
use unladen::container::{CellOptions, Container, Plan, default_cell_spec};
use unladen::errors::chain;
use unladen::image::{Image, Store, Writable};
use unladen::sys::pidfd::Exit;
use xattr::FileExt;

fn store(folder: &Path) -> Store {
    Store::open_at(&folder.join("store")).expect("opened")
}

fn import(store: &Store, source: &Path) -> Image {
    match store.import(&source.display().to_string(), None) {
        Ok(image) => image,
        Err(error) => panic!("{}", chain(&error)),
    }
}

/// The folder of an image's n-th layer from below.
fn layer_folder(image: &Image, number: usize) -> PathBuf {
    let overlay = image.overlay(Writable::No).expect("overlay");
    let lowers = overlay.lowers();
    overlay.working_directory().join(&lowers[image.record.layers.len() - 1 - number])
}

fn hello() -> Vec<u8> {
    Layer::new().folder("etc", 0o755).file("etc/hello", "hello").bytes()
}

#[test]
fn every_layout_gives_the_same_image() {
    let folder = tempfile::tempdir().expect("folder");
    let layers = [hello(), Layer::new().file("etc/second", "two").bytes()];
    let process = json!({"Cmd": ["/bin/sh"], "Env": ["A=1"], "WorkingDir": "/etc", "User": "7:8",
        "Entrypoint": ["/e"], "StopSignal": "SIGQUIT", "Labels": {"x": "y"},
        "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}}});
    let mut ids = Vec::new();
    for (number, packing) in [Packing::Plain, Packing::Gzip, Packing::Zstd].into_iter().enumerate()
    {
        let here = folder.path().join(number.to_string());
        fs::create_dir(&here).expect("made");
        let source = layout_with(&here, &layers, packing, &process);
        let archive = Layout::new(here.join("empty")); // Only for its `archive`.
        let archive = Layout { folder: source.clone(), ..archive };
        let (plain, zipped) = (here.join("box.tar"), here.join("box.tgz"));
        archive.archive(&plain, false);
        archive.archive(&zipped, true);
        for (source, name) in
            [(&source, "layout:latest"), (&plain, "box:latest"), (&zipped, "box:latest")]
        {
            // Each into a store of its own, so that all is unpacked.
            let home = tempfile::tempdir_in(folder.path()).expect("folder");
            let store = store(home.path());
            let image = import(&store, source);
            assert_eq!(image.record.names, [name]);
            assert_eq!(image.read("/etc/hello").expect("read").as_deref(), Some("hello"));
            assert_eq!(image.read("etc/second").expect("read").as_deref(), Some("two"));
            assert_eq!(image.config().command(&[]).expect("command"), ["/e", "/bin/sh"]);
            assert_eq!(image.config().working_directory(), "/etc");
            assert_eq!(image.config().user, "7:8");
            assert_eq!(image.config().env, ["A=1"]);
            assert_eq!(image.config().stop_signal.as_deref(), Some("SIGQUIT"));
            assert_eq!(image.record.created.as_deref(), Some("2026-01-02T03:04:05Z"));
            assert!(image.record.remarks.is_empty(), "{:?}", image.record.remarks);
            assert!(fs::read_dir(home.path().join("store/tmp")).expect("there").next().is_none());
            ids.push(image.record.id.clone());
        }
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[test]
fn docker_archives_have_names_and_links() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("saved.tar");
    let other = Layer::new().file("other", "2").bytes();
    docker_archive(
        &path,
        &[
            ("docker.io/library/one:1", vec![hello()]),
            ("registry.example/two:2", vec![hello(), other]),
        ],
    );
    let store = store(folder.path());
    let text = path.display().to_string();
    let error = store.resolve(&text).expect_err("which").to_string();
    let names = "it has: docker.io/library/one:1, registry.example/two:2";
    assert!(error.contains("has several images") && error.ends_with(names), "{error}");
    let error = store.resolve(&format!("{text}:three")).expect_err("which").to_string();
    assert!(error.contains("has no image `three`") && error.ends_with(names), "{error}");
    let two = store.resolve(&format!("{text}:registry.example/two:2")).expect("imported");
    assert_eq!(two.read("other").expect("read").as_deref(), Some("2"));
    let one = store.resolve(&format!("{text}:one:1")).expect("imported");
    // The layer that both have is there once, and so is its folder.
    assert_eq!(layer_folder(&one, 0), layer_folder(&two, 0));
    assert_eq!(fs::read_dir(folder.path().join("store/l")).expect("there").count(), 2);
    assert_eq!(one.record.names, ["one:1"]);
    assert_eq!(store.resolve("docker.io/library/one:1").expect("stored").record, one.record);
    assert_eq!(store.resolve("one:1").expect("stored").record, one.record);
    // The same image under its tag alone.
    assert_eq!(store.resolve(&format!("{text}:1")).expect("stored").record.id, one.record.id);
}

#[test]
fn new_docker_archives_are_read_by_their_index() {
    let folder = tempfile::tempdir().expect("folder");
    let mut layout = Layout::new(folder.path().join("layout"));
    let layers = [hello()];
    let mut manifest = layout.manifest(&layers, Packing::Plain, &config(&layers, &json!({})));
    manifest["annotations"] = json!({
        "io.containerd.image.name": "docker.io/library/busybox:1.36",
        "org.opencontainers.image.ref.name": "1.36",
    });
    let mut other = manifest.clone();
    other["annotations"] = json!({
        "io.containerd.image.name": "docker.io/library/busybox:latest",
        "org.opencontainers.image.ref.name": "latest",
    });
    layout.list(manifest, None);
    layout.list(other, None);
    // Two names of one image are no question.
    fs::write(layout.folder.join("manifest.json"), "not even looked at").expect("written");
    let path = folder.path().join("new.tar");
    layout.archive(&path, false);
    let store = store(folder.path());
    let image = import(&store, &path);
    assert_eq!(image.record.names, ["busybox:1.36", "busybox:latest"]);
    assert_eq!(store.resolve("busybox").expect("stored").record, image.record);
}

#[test]
fn indexes_are_resolved_for_this_host() {
    let folder = tempfile::tempdir().expect("folder");
    let mut layout = Layout::new(folder.path().join("layout"));
    let layers = [hello()];
    let host = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let mut inner = layout.manifest(&layers, Packing::Gzip, &config(&layers, &json!({})));
    inner["platform"] = json!({"os": "linux", "architecture": host});
    // Blobs of other platforms need not be there.
    let other = |os: &str, architecture: &str, variant: Option<&str>| {
        let mut platform = json!({"os": os, "architecture": architecture});
        if let Some(variant) = variant {
            platform["variant"] = json!(variant);
        }
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 3,
            "digest": format!("sha256:{}", sha256(architecture.as_bytes())), "platform": platform,
        })
    };
    let others = [
        other("linux", "arm", Some("v7")),
        other("unknown", "unknown", None),
        other("windows", host, None),
    ];
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = |manifests: &[Value]| {
        json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests}).to_string()
    };
    let mut all = others.to_vec();
    all.push(inner);
    let both = layout.blob(kind, index(&all).as_bytes());
    let none = layout.blob(kind, index(&others).as_bytes());
    layout.list(both, Some("both"));
    layout.list(none, Some("none"));
    let store = store(folder.path());
    let text = layout.folder.display().to_string();
    let image = store.resolve(&format!("{text}:both")).expect("imported");
    assert_eq!(image.record.names, ["layout:both"]);
    let error = store.resolve(&format!("{text}:none")).expect_err("not for us").to_string();
    let found = format!("it is for: linux/arm/v7, unknown/unknown, windows/{host}");
    assert!(error.contains(&format!("not for linux/{host}")) && error.contains(&found), "{error}");
    let error = store.resolve(&text).expect_err("which").to_string();
    assert!(error.ends_with("it has: both, none"), "{error}");
}

#[test]
fn all_kinds_of_files_are_unpacked() {
    let folder = tempfile::tempdir().expect("folder");
    let long = format!("{}/{}", "long".repeat(40), "name".repeat(50));
    let mut layer = Layer::new()
        // Not in order, and with parents missing.
        .entry(
            EntryType::Regular,
            "usr/bin/tool",
            0o4755,
            |header| {
                header.set_uid(if is_root() { 12 } else { 0 });
                header.set_gid(34);
            },
            b"tool",
        )
        .pax(&[("mtime", b"1000000000.25")])
        .file("usr/bin/other", "other")
        .hard_link("usr/bin/linked", "/usr/bin/tool")
        .symlink("bin", "usr/bin")
        .symlink("dangling", "../../../../etc/passwd")
        .entry(EntryType::Fifo, "pipe", 0o620, |_| {}, &[])
        .pax(&[("path", long.as_bytes())])
        .file("short", "long")
        .folder("usr", 0o750)
        .folder("closed", 0o0)
        .folder(".", 0o711)
        // Twice: the later one counts.
        .file("twice", "first")
        .file("twice", "second");
    if is_root() {
        layer = layer.entry(
            EntryType::Char,
            "null",
            0o666,
            |header| {
                header.set_device_major(1).expect("set");
                header.set_device_minor(3).expect("set");
            },
            &[],
        );
    }
    let store = store(folder.path());
    let image = import(&store, &layout(folder.path(), &[layer.bytes()]));
    let root = layer_folder(&image, 0);
    let meta = |name: &str| root.join(name).symlink_metadata().expect(name);
    let tool = meta("usr/bin/tool");
    assert_eq!((tool.mode() & 0o7777, tool.nlink(), tool.mtime()), (0o4755, 2, 1_000_000_000));
    assert_eq!(tool.ino(), meta("usr/bin/linked").ino());
    if is_root() {
        assert_eq!((tool.uid(), tool.gid()), (12, 34));
        let null = meta("null");
        assert!(null.file_type().is_char_device() && null.rdev() == nix::sys::stat::makedev(1, 3));
    }
    assert_eq!(meta("usr/bin/other").mtime_nsec(), 250_000_000);
    assert_eq!(fs::read_link(root.join("bin")).expect("a link"), Path::new("usr/bin"));
    assert!(meta("dangling").is_symlink() && meta("dangling").mtime() == 1_000_000_000);
    assert!(meta("pipe").file_type().is_fifo() && meta("pipe").mode() & 0o777 == 0o620);
    assert_eq!(fs::read_to_string(root.join(&long)).expect("read"), "long");
    assert_eq!(fs::read_to_string(root.join("twice")).expect("read"), "second");
    assert_eq!((meta("usr").mode() & 0o7777, meta("usr").mtime()), (0o750, 1_000_000_000));
    assert_eq!(meta("closed").mode() & 0o7777, 0);
    assert_eq!((meta(".").mode() & 0o7777, meta(".").mtime()), (0o711, 1_000_000_000));
    // Nobody said anything about this one.
    assert_eq!(meta("usr/bin").mode() & 0o7777, 0o755);
}

#[test]
fn extended_attributes_are_kept_or_reported() {
    let folder = tempfile::tempdir().expect("folder");
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layer = Layer::new()
        .pax(&[
            ("SCHILY.xattr.user.note", b"two\nlines"),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.security.selinux", b"label"),
        ])
        .file("usr/bin/other", "other");
    let store = store(folder.path());
    let image = import(&store, &layout(folder.path(), &[layer.bytes()]));
    let root = layer_folder(&image, 0);
    let other = fs::File::open(root.join("usr/bin/other")).expect("opened");
    assert_eq!(other.get_xattr("user.note").expect("read").as_deref(), Some(&b"two\nlines"[..]));
    if is_root() {
        let found = other.get_xattr("security.capability").expect("read");
        assert_eq!(found.as_deref(), Some(&capability[..]));
    }
    for name in ["trusted.overlay.opaque", "user.overlay.redirect", "security.selinux"] {
        assert_eq!(other.get_xattr(name).expect("read"), None);
        let told = |line: &&String| line.contains(name) && line.contains("usr/bin/other");
        assert!(image.record.remarks.iter().any(|line| told(&line)), "{:?}", image.record.remarks);
    }
}

#[test]
fn removals_become_what_overlayfs_understands() {
    let folder = tempfile::tempdir().expect("folder");
    let lower = Layer::new()
        .folder("tmp", 0o1777)
        .folder("etc", 0o700)
        .file("etc/a", "a")
        .file("etc/b", "b")
        .folder("var", 0o755)
        .file("var/old", "x")
        .file("f", "x")
        .folder("d", 0o755)
        .file("d/x", "x");
    // Marks before and after what they are about; parents without entries.
    let upper = Layer::new()
        .file("etc/.wh.a", "")
        .file("var/new", "y")
        .file("var/.wh..wh..opq", "")
        .file(".wh.f", "")
        .file("tmp/t", "t")
        .file(".wh..wh.plnk/1.2", "")
        .folder("d", 0o711)
        .file("d/y", "y")
        .file(".wh.d", "")
        .file(".wh.never", "");
    let store = store(folder.path());
    let image = import(&store, &layout(folder.path(), &[lower.bytes(), upper.bytes()]));
    let read = |path: &str| image.read(path).expect("read");
    for gone in ["etc/a", "var/old", "f", "d/x", "never"] {
        assert_eq!(read(gone), None, "{gone}");
    }
    for there in ["etc/b", "var/new", "tmp/t", "d/y"] {
        assert!(read(there).is_some(), "{there}");
    }
    let root = layer_folder(&image, 1);
    let meta = |name: &str| root.join(name).symlink_metadata().expect(name);
    for mark in ["etc/a", "f", "never"] {
        assert!(meta(mark).file_type().is_char_device() && meta(mark).rdev() == 0, "{mark}");
    }
    let opaque = |name: &str| {
        let key = if is_root() { "trusted.overlay.opaque" } else { "user.overlay.opaque" };
        xattr::get(root.join(name), key).expect("read").as_deref() == Some(b"y")
    };
    assert!(opaque("var") && opaque("d") && !opaque("etc") && !opaque("tmp"));
    // A folder that only this layer's parents imply is as it was below.
    assert_eq!(meta("tmp").mode() & 0o7777, 0o1777);
    assert_eq!(meta("etc").mode() & 0o7777, 0o700);
    assert_eq!(meta("d").mode() & 0o7777, 0o711);
    assert!(!root.join(".wh..wh.plnk").exists());
}

#[test]
fn sparse_files_stay_sparse() {
    let folder = tempfile::tempdir().expect("folder");
    let big = folder.path().join("big");
    let file = fs::File::create(&big).expect("made");
    // More pieces than one header holds.
    for number in 0..40_u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, b"data", number << 20).expect("written");
    }
    file.set_len(100 << 20).expect("grown");
    drop(file);
    let expected = fs::read(&big).expect("read");
    let formats =
        [("gnu", None), ("posix", Some("0.0")), ("posix", Some("0.1")), ("posix", Some("1.0"))];
    for (format, version) in formats {
        let path = folder.path().join("layer.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(folder.path()).arg("--sparse").arg(format!("--format={format}"));
        tar.args(version.map(|version| format!("--sparse-version={version}")));
        let status = tar.arg("-cf").arg(&path).arg("big").status().expect("tar runs");
        assert!(status.success());
        let layer = fs::read(&path).expect("read");
        assert!(layer.len() < 4 << 20, "tar did not make it sparse");
        let home = tempfile::tempdir_in(folder.path()).expect("folder");
        let image = import(&store(home.path()), &layout(home.path(), &[layer]));
        let found = layer_folder(&image, 0).join("big");
        let meta = found.metadata().expect("there");
        assert_eq!(meta.len(), 100 << 20, "{format} {version:?}");
        assert!(meta.blocks() * 512 < 4 << 20, "{format} {version:?}: {}", meta.blocks());
        assert!(fs::read(&found).expect("read") == expected, "{format} {version:?}");
    }
}

#[test]
fn removing_keeps_what_others_need() {
    let folder = tempfile::tempdir().expect("folder");
    let base = hello();
    let path = folder.path().join("saved.tar");
    let more = Layer::new().file("more", "2").bytes();
    docker_archive(&path, &[("one:1", vec![base.clone()]), ("two:2", vec![base, more])]);
    let text = path.display().to_string();
    let store = store(folder.path());
    let import = |reference: &str, name| {
        store.import(&format!("{text}:{reference}"), name).expect("imported")
    };
    let layers = || fs::read_dir(folder.path().join("store/l")).expect("there").count();
    drop(import("one:1", Some("alias")));
    let two = import("two:2", None);
    assert_eq!((store.list().expect("list").len(), layers()), (2, 2));
    // A name of two, then the last.
    assert_eq!(store.remove("alias").expect("removed"), None);
    let one = store.remove("one:1").expect("removed").expect("the image");
    assert_eq!((store.list().expect("list").len(), layers()), (1, 2));
    let error = store.remove("one:1").expect_err("gone").to_string();
    assert!(error.contains("there is no image `one:1`"), "{error}");
    // In use, until the last who holds it lets go.
    let shared = two.lock.share().expect("shared");
    for name in ["two:2", &two.record.id.hex()[..8]] {
        let error = store.remove(name).expect_err("in use").to_string();
        assert!(error.contains(&format!("`{name}` is in use")), "{error}");
    }
    let id = two.record.id.hex().to_owned();
    drop(two);
    assert!(store.remove("two:2").is_err(), "the other descriptor holds it");
    drop(shared);
    assert!(store.remove(&id[..3]).is_err(), "too short");
    store.remove(&id[..12]).expect("removed").expect("the image");
    assert_eq!((store.list().expect("list").len(), layers()), (0, 0));
    assert_ne!(one.id.hex(), id);
    // A name moves to who has it last.
    let a = import("one:1", Some("moving"));
    let b = import("two:2", Some("moving"));
    assert_eq!(store.resolve("moving").expect("stored").record.id, b.record.id);
    assert_eq!(store.resolve("one:1").expect("stored").record.names, ["one:1"]);
    drop((a, b));
}

/// The command with a cache of its own.
fn with_cache(cache: &Path) -> Command {
    let mut command = unladen();
    command.env("XDG_CACHE_HOME", cache);
    command
}

#[test]
fn the_command_imports_lists_and_removes() {
    let folder = tempfile::tempdir().expect("folder");
    let source = layout(folder.path(), &[hello()]);
    let image = |arguments: &[&str]| run(with_cache(folder.path()).arg("image").args(arguments));
    let output = image(&["import", &source.display().to_string(), "--name", "mine"]);
    let text = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(text.ends_with("layout:latest mine:latest\n"), "{text}");
    let list = stdout(&image(&["list"]));
    assert!(list.contains("layout:latest mine:latest") && list.contains("2026-01-02"), "{list}");
    let json: Value = serde_json::from_str(&stdout(&image(&["list", "--json"]))).expect("JSON");
    assert_eq!(json[0]["names"], json!(["layout:latest", "mine:latest"]));
    let short = json[0]["id"].as_str().expect("id")["sha256:".len()..][..12].to_owned();
    assert!(text.starts_with(&short) && list.contains(&short));
    assert_eq!(stdout(&image(&["rm", "mine"])), "removed the name mine\n");
    assert_eq!(stdout(&image(&["rm", &short])), format!("removed {short}\n"));
    assert!(stderr(&image(&["list"])).contains("there are no images"));
    for arguments in [&["rm", "mine"][..], &["import", "/nonexistent"], &["import", "/etc"]] {
        let output = image(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    }
    let source = source.display().to_string();
    let output = image(&["import", &source, "--max-size", "1K"]);
    assert!(stderr(&output).contains("limit of 1 KiB, see --max-size"), "{}", stderr(&output));
    let output = image(&["import", &source, "--max-entries", "1"]);
    assert!(stderr(&output).contains("limit of 1, see --max-entries"), "{}", stderr(&output));
}

#[test]
fn importers_at_the_same_time_do_not_disturb_each_other() {
    let folder = tempfile::tempdir().expect("folder");
    let big = Layer::new().file("big", &"x".repeat(4 << 20)).bytes();
    let mut children = Vec::new();
    for number in 0..6 {
        let here = folder.path().join(number.to_string());
        fs::create_dir(&here).expect("made");
        // Two different images, three times each; one layer in common.
        let own = Layer::new().file("own", &(number % 2).to_string()).bytes();
        let source = layout(&here, &[big.clone(), own]);
        let mut command = with_cache(folder.path());
        command.args(["image", "import"]).arg(source).arg("--name").arg(format!("n{number}"));
        command.stdout(std::process::Stdio::null());
        children.push(command.spawn().expect("started"));
    }
    for mut child in children {
        assert!(child.wait().expect("waited").success());
    }
    let list = stdout(&run(with_cache(folder.path()).args(["image", "list", "--json"])));
    let list: Value = serde_json::from_str(&list).expect("JSON");
    assert_eq!(list.as_array().expect("a list").len(), 2, "{list}");
    let name = if is_root() { "images" } else { "images-rootless" };
    let root = folder.path().join("unladen").join(name);
    let count = |name: &str| fs::read_dir(root.join(name)).expect("there").count();
    assert_eq!((count("l"), count("i"), count("tmp")), (3, 2, 0));
    let store = Store::open_at(&root).expect("opened");
    for number in 0..6 {
        let image = store.resolve(&format!("n{number}")).expect("there");
        assert_eq!(image.read("own").expect("read"), Some((number % 2).to_string()));
    }
}

#[test]
fn killed_imports_leave_nothing_that_counts() {
    let folder = tempfile::tempdir().expect("folder");
    let layers: Vec<Vec<u8>> = (0..4)
        .map(|number| {
            let mut layer = Layer::new();
            for file in 0..300 {
                layer = layer.file(&format!("d{number}/{file}"), &"x".repeat(3000));
            }
            layer.bytes()
        })
        .collect();
    let source = layout_with(folder.path(), &layers, Packing::Gzip, &json!({}));
    let import = || {
        let mut command = with_cache(folder.path());
        command.args(["image", "import"]).arg(&source);
        command.stdout(std::process::Stdio::null()).spawn().expect("started")
    };
    let name = if is_root() { "images" } else { "images-rootless" };
    let root = folder.path().join("unladen").join(name);
    let count = |name: &str| fs::read_dir(root.join(name)).expect("there").count();
    let mut killed_within = 0;
    for number in 0..12_u64 {
        let mut child = import();
        std::thread::sleep(Duration::from_millis(5 + 13 * number));
        child.kill().expect("killed");
        let finished = child.wait().expect("waited").success();
        if root.join("tmp").exists() && (count("tmp") > 0 || count("l") > 0) && !finished {
            killed_within += 1;
        }
        let store = Store::open_at(&root).expect("opened");
        for image in store.list().expect("list") {
            // What is listed is whole.
            let image = store.resolve(image.id.hex()).expect("there");
            assert_eq!(image.read("d3/299").expect("read").map(|text| text.len()), Some(3000));
        }
        if number % 3 == 2 {
            // What `unladen clean` does, which would also see other tests' runs.
            store.sweep().expect("swept");
            assert_eq!(count("tmp"), 0);
            for image in store.list().expect("list") {
                store.remove(image.id.hex()).expect("removed");
            }
            assert_eq!((count("l"), count("i")), (0, 0));
        }
    }
    assert!(killed_within > 0, "no kill came while an import was under way");
    assert!(import().wait().expect("waited").success());
    assert_eq!((count("l"), count("i"), count("tmp")), (4, 1, 0));
}

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
    fs::copy(env!("CARGO_BIN_EXE_unladen"), &program).expect("copied");
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
    let device = Layer::new().entry(
        EntryType::Block,
        "sda",
        0o600,
        |header| {
            header.set_device_major(8).expect("set");
            header.set_device_minor(0).expect("set");
        },
        &[],
    );
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

#[test]
fn files_of_an_image_are_read_inside_it() {
    let folder = tempfile::tempdir().expect("folder");
    let secret = folder.path().join("secret");
    fs::write(&secret, "secret").expect("written");
    let lower = Layer::new()
        .folder("etc", 0o755)
        .file("etc/real", "real")
        .symlink("etc/passwd", "../../../etc/real")
        .symlink("abs", "/etc/real")
        .symlink("out", &secret.display().to_string())
        .symlink("circle", "circle")
        .symlink("dir", "etc")
        .file("plain", "p")
        .entry(EntryType::Fifo, "pipe", 0o644, |_| {}, &[]);
    let upper = Layer::new().folder("etc", 0o755).file("etc/real", "newer").folder("plain2", 0o755);
    let store = store(folder.path());
    let image = import(&store, &layout(folder.path(), &[lower.bytes(), upper.bytes()]));
    for (path, expected) in [
        ("/etc/passwd", Some("newer")),
        ("abs", Some("newer")),
        ("dir/real", Some("newer")),
        ("dir/../abs", Some("newer")),
        ("out", None),
        ("pipe", None),
        ("etc", None),
        ("plain/x", None),
        ("nothing", None),
        ("../../etc/real", Some("newer")),
    ] {
        assert_eq!(image.read(path).expect("read").as_deref(), expected, "{path}");
    }
    assert!(image.read("circle").is_err());
    assert!(image.has_folder("/dir").expect("looked") && image.has_folder("/").expect("looked"));
    assert!(!image.has_folder("/plain").expect("looked"));
    symlink("/", folder.path().join("root")).expect("linked");
}
