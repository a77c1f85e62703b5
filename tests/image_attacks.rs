//! Hostile layers: each ends in one clear error and leaves nothing, neither in
//! the store nor anywhere else.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod image_kit;

use std::fs;
use std::path::Path;

use image_kit::{Layer, Packing, Scene, gzip, layout};
use serde_json::json;
use tar::EntryType;
use unladen::image::Limits;

#[test]
fn names_that_lead_out_are_refused() {
    let scene = Scene::new();
    let long = "a/".repeat(40);
    let deep = |count: usize| {
        let name = "d/".repeat(count);
        Layer::new().pax(&[("path", name.as_bytes())]).folder("short", 0o755).bytes()
    };
    let path = |name: &[u8]| Layer::new().pax(&[("path", name)]).file("short", "x").bytes();
    for (layer, reason) in [
        (Layer::new().file("/outside/file", "x").bytes(), "the name is absolute"),
        (Layer::new().file("../outside/file", "x").bytes(), "leads upwards by `..`"),
        (Layer::new().file("a/../../x", "x").bytes(), "leads upwards by `..`"),
        (Layer::new().folder("..", 0o777).bytes(), "leads upwards by `..`"),
        (Layer::new().symlink("a/..", "/etc").bytes(), "leads upwards by `..`"),
        (path(b"a/../../b"), "leads upwards by `..`"),
        (path(b"/etc/passwd"), "the name is absolute"),
        (path(b"a\0b"), "NUL byte"),
        (path(&[b'n'; 300]), "name too long"),
        (path(&[b'n'; 5000]), "the name is too long"),
        (deep(300), "too deep"),
        (Layer::new().file(".", "x").bytes(), "takes the place of the root folder"),
        (Layer::new().file(&format!("{long}../../../x"), "x").bytes(), "leads upwards"),
    ] {
        scene.refuses_layers(&[layer], reason);
    }
}

#[test]
fn links_lead_nowhere_else() {
    let scene = Scene::new();
    let outside = scene.path("outside").display().to_string();
    let file = format!("{outside}/file");
    let not_a_folder = "below something that is not a folder";
    for (layer, reason) in [
        // A link, and then through it.
        (Layer::new().symlink("out", &outside).file("out/file", "x").bytes(), not_a_folder),
        (Layer::new().symlink("out", "..").file("out/x/y", "x").bytes(), not_a_folder),
        (
            Layer::new().folder("d", 0o755).symlink("in", "d").file("in/x", "x").bytes(),
            not_a_folder,
        ),
        (Layer::new().symlink("out", &outside).folder("out/deep/er", 0o777).bytes(), not_a_folder),
        (Layer::new().symlink("out", &outside).hard_link("out/new", "out").bytes(), not_a_folder),
        (Layer::new().symlink("out", &outside).file("out/.wh.file", "").bytes(), not_a_folder),
        (Layer::new().symlink("out", &outside).file("out/.wh..wh..opq", "").bytes(), not_a_folder),
        // A link in place of what was there, and the other way round.
        (Layer::new().symlink("out", &file).file("out", "x").bytes(), "different kinds of file"),
        (Layer::new().file("f", "x").symlink("f", &file).bytes(), "different kinds of file"),
        (Layer::new().folder("f", 0o755).symlink("f", &outside).bytes(), "place of a folder"),
        (Layer::new().folder("f", 0o755).file("f", "x").bytes(), "place of a folder"),
        (Layer::new().symlink("f", &outside).folder("f", 0o755).bytes(), "different kinds of file"),
        (Layer::new().file("f", "x").folder("f", 0o755).bytes(), "different kinds of file"),
        (Layer::new().file("f", "x").file("f/g", "x").bytes(), not_a_folder),
        // Hard links.
        (Layer::new().hard_link("x", &file).bytes(), "hard link to something that is not in"),
        (Layer::new().hard_link("x", "../outside/file").bytes(), "cannot be in the layer"),
        (Layer::new().symlink("o", &outside).hard_link("x", "o/file").bytes(), "not in the layer"),
        (Layer::new().folder("d", 0o755).hard_link("x", "d").bytes(), "hard link to a folder"),
        (Layer::new().hard_link("x", ".").bytes(), "hard link to something that is not in"),
        (Layer::new().hard_link("x", "x").bytes(), "hard link to something that is not in"),
    ] {
        scene.refuses_layers(&[layer], reason);
    }
}

#[test]
fn layers_do_not_conspire() {
    let scene = Scene::new();
    let outside = scene.path("outside").display().to_string();
    let below = |layer: Layer| layer.bytes();
    for lower in [
        Layer::new().symlink("d", &outside),
        Layer::new().file("d", "x"),
        Layer::new().symlink("d", "e"),
    ] {
        let lower = below(lower);
        let reason = "in the layers below, `d` is not a folder";
        scene.refuses_layers(&[lower.clone(), Layer::new().file("d/file", "x").bytes()], reason);
        scene.refuses_layers(&[lower, Layer::new().file("d/e/.wh.file", "").bytes()], reason);
    }
    // With an entry of its own the folder replaces the link, which is honest.
    let lower = Layer::new().symlink("d", &outside).bytes();
    let upper = Layer::new().folder("d", 0o755).file("d/file", "x").bytes();
    let source = tempfile::tempdir_in(scene.folder.path()).expect("folder");
    let folder = layout(source.path(), &[lower, upper]);
    let image = scene.store.import(&folder.display().to_string(), None).expect("imported");
    assert_eq!(image.read("/d/file").expect("read").as_deref(), Some("x"));
    assert_eq!(fs::read_to_string(scene.path("outside/file")).expect("there"), "untouched");
}

#[test]
fn marks_of_removal_name_one_thing() {
    let scene = Scene::new();
    for (name, reason) in [
        (".wh...", "marks no name"),
        (".wh..", "marks no name"),
        ("a/.wh.", "marks no name"),
        (".wh.a/b", "below a mark of removal"),
        (".wh.a/.wh.b", "below a mark of removal"),
    ] {
        scene.refuses_layers(&[Layer::new().file(name, "").bytes()], reason);
    }
    let raw = Layer::new().entry(
        EntryType::Char,
        "null",
        0,
        |header| {
            header.set_device_major(0).expect("set");
            header.set_device_minor(0).expect("set");
        },
        &[],
    );
    scene.refuses_layers(&[raw.bytes()], "device 0:0 would stand for a removed file");
}

#[test]
fn kinds_and_owners_that_do_not_exist_are_refused() {
    let scene = Scene::new();
    let odd = Layer::new().entry(EntryType::new(b'Z'), "odd", 0o644, |_| {}, &[]);
    scene.refuses_layers(&[odd.bytes()], "type 'Z' is not known");
    for owner in ["4294967295", "99999999999"] {
        let layer = Layer::new().pax(&[("uid", owner.as_bytes())]).file("f", "x").bytes();
        scene.refuses_layers(&[layer], "no valid id");
    }
    let layer = Layer::new().symlink("empty", "").bytes();
    scene.refuses_layers(&[layer], "cannot make the link");
}

#[test]
fn sizes_end_at_limits() {
    let small = Limits { unpacked: 1 << 20, entries: 50, ..Limits::default() };
    let scene = Scene::new();
    let scene = Scene { store: scene.store.clone().with_limits(small), ..scene };
    // A bomb: a mebibyte of zeros is a kibibyte.
    let zeros = vec![0_u8; 8 << 20];
    let bomb = Layer::new().entry(EntryType::Regular, "zeros", 0o644, |_| {}, &zeros).bytes();
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let source = tempfile::tempdir_in(scene.folder.path()).expect("folder");
        let layers = [bomb.clone()];
        let folder = image_kit::layout_with(source.path(), &layers, packing, &json!({}));
        scene.refuses(&folder, "the unpacked image is larger than the limit of 1 MiB");
    }
    // Sizes that are only said.
    for size in ["99999999", "18446744073709551615", "9223372036854775807"] {
        let layer = Layer::new().pax(&[("size", size.as_bytes())]).file("f", "x").bytes();
        scene.refuses_layers(&[layer], "larger than the limit of 1 MiB");
    }
    let layer = Layer::new().pax(&[("size", b"-1")]).file("f", "x").bytes();
    scene.refuses_layers(&[layer], "a number is none");
    // After the last entry, where nobody looks.
    let mut layer = Layer::new().file("f", "x").bytes();
    layer.extend_from_slice(&zeros);
    scene.refuses_layers(&[layer], "the unpacked image is larger than the limit of 1 MiB");
    // Many entries.
    let mut layer = Layer::new();
    for number in 0..60 {
        layer = layer.folder(&format!("d{number}"), 0o755);
    }
    scene.refuses_layers(&[layer.bytes()], "the number of the image's entries");
    // An archive that is a bomb as a whole.
    let path = scene.path("bomb.tar.gz");
    fs::write(&path, gzip(&zeros)).expect("written");
    scene.refuses(&path, "the unpacked image is larger than the limit of 1 MiB");
    // Long headers.
    let long = vec![b'x'; 2 << 20];
    let scene = Scene { store: scene.store.clone().with_limits(Limits::default()), ..scene };
    for kind in [EntryType::GNULongName, EntryType::XHeader, EntryType::XGlobalHeader] {
        let layer = Layer::new().entry(kind, "long", 0o644, |_| {}, &long).file("f", "x");
        scene.refuses_layers(&[layer.bytes()], "extended header has more than 1048576 bytes");
    }
}

#[test]
fn sparse_files_do_not_lie() {
    let scene = Scene::new();
    let sparse = |records: &[(&str, &[u8])], content: &str| {
        Layer::new().pax(records).file("f", content).bytes()
    };
    for (layer, reason) in [
        (
            sparse(&[("GNU.sparse.size", b"9"), ("GNU.sparse.map", b"5,9")], "123456789"),
            "beyond its end",
        ),
        (sparse(&[("GNU.sparse.size", b"9"), ("GNU.sparse.map", b"0,9")], "1"), "beyond its end"),
        (sparse(&[("GNU.sparse.size", b"9"), ("GNU.sparse.map", b"3,2,0,2")], "1234"), "overlap"),
        (sparse(&[("GNU.sparse.map", b"0,1")], "1"), "has no size"),
        (
            sparse(&[("GNU.sparse.size", b"99999999999999999"), ("GNU.sparse.map", b"0,1")], "1"),
            "larger than the limit",
        ),
        (
            sparse(
                &[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"9")],
                &format!("{:600}", "99999999999\n"),
            ),
            "too many pieces",
        ),
    ] {
        // The short data is not a whole block.
        scene.refuses_layers(&[layer], reason);
    }
}

#[test]
fn damaged_archives_are_recognised() {
    let scene = Scene::new();
    let whole = Layer::new().file("a", &"x".repeat(3000)).file("b", "y").bytes();
    for cut in [100, 600, 2000, 4000] {
        scene.refuses_layers(&[whole[..cut].to_vec()], "the archive ends within");
    }
    let mut flipped = whole.clone();
    flipped[20] ^= 1;
    scene.refuses_layers(&[flipped], "a header's checksum is wrong");
    for text in ["no archive", ""] {
        let path = scene.path("text");
        fs::write(&path, text).expect("written");
        scene.refuses(
            &path,
            if text.is_empty() { "no tar archive" } else { "cannot read the archive" },
        );
    }
    scene.refuses(Path::new("/dev/null"), "neither a folder nor a file");
    scene.refuses(&scene.path("outside"), "neither `index.json`");
    scene.refuses(&scene.path("nothing"), "No such file");
}
