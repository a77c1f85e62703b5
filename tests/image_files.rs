//! What is unpacked of an image: every kind of file, attributes, removals.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;
mod image_kit;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use common::is_root;
use image_kit::{Layer, import, layer_folder, layout, store};
use tar::EntryType;
use xattr::FileExt;

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
        layer = layer.device(EntryType::Char, "null", 0o666, (1, 3));
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
