//! Hostile and damaged images: each ends in one clear error and leaves
//! nothing, neither in the store nor anywhere else.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod image_kit;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use image_kit::{Layer, Layout, Packing, config, docker_archive, gzip, layout, sha256};
use proptest::prelude::*;
use serde_json::json;
use tar::EntryType;
use unladen::errors::chain;
use unladen::image::{Limits, Store};

/// A store, and a folder that no image may touch.
struct Scene {
    folder: tempfile::TempDir,
    store: Store,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("outside")).expect("made");
        fs::write(folder.path().join("outside/file"), "untouched").expect("written");
        let store = Store::open_at(&folder.path().join("store")).expect("opened");
        Self { folder, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Imports, and expects an error that says this.
    fn refuses(&self, source: &Path, reason: &str) {
        let text = source.display().to_string();
        let error = match self.store.import(&text, None) {
            Ok(image) => panic!("imported {:?} instead of: {reason}", image.record),
            Err(error) => chain(&error),
        };
        assert!(error.contains(reason), "`{error}` does not say `{reason}`");
        assert!(!error.contains('\n') && error.len() < 700, "{error}");
        self.nothing_is_left();
    }

    fn nothing_is_left(&self) {
        for name in ["l", "i", "tmp", "mnt"] {
            let left: Vec<_> =
                fs::read_dir(self.path("store").join(name)).expect("there").collect();
            assert!(left.is_empty(), "left in {name}: {left:?}");
        }
        let outside: Vec<_> = fs::read_dir(self.path("outside")).expect("there").collect();
        assert_eq!(outside.len(), 1, "{outside:?}");
        let file = self.path("outside/file");
        assert_eq!(fs::read_to_string(&file).expect("there"), "untouched");
        let meta = file.metadata().expect("there");
        assert_eq!((meta.nlink(), meta.mode() & 0o7777), (1, 0o644));
    }

    fn refuses_layers(&self, layers: &[Vec<u8>], reason: &str) {
        let source = tempfile::tempdir_in(self.folder.path()).expect("folder");
        self.refuses(&layout(source.path(), layers), reason);
    }
}

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

#[test]
fn every_blob_is_what_its_name_says() {
    let scene = Scene::new();
    let layer = Layer::new().file("f", "content").bytes();
    let digest = sha256(&layer);
    let fresh = || {
        let source = tempfile::tempdir_in(scene.folder.path()).expect("folder");
        let folder = layout(source.path(), std::slice::from_ref(&layer));
        (source, folder)
    };
    let damage = |reason: &str, act: &dyn Fn(&Path, &Path)| {
        let (_source, folder) = fresh();
        act(&folder, &folder.join("blobs/sha256").join(&digest));
        scene.refuses(&folder, reason);
    };
    damage("layer 1 of 1 is damaged or not the original: its digest is", &|_, blob| {
        let mut bytes = fs::read(blob).expect("read");
        bytes[600] ^= 1;
        fs::write(blob, bytes).expect("written");
    });
    damage("layer 1 of 1 is damaged or not the original: its size is", &|_, blob| {
        let bytes = fs::read(blob).expect("read");
        fs::write(blob, &bytes[..bytes.len() - 512]).expect("written");
    });
    damage("layer 1 of 1 is damaged or not the original: its size is", &|_, blob| {
        let mut bytes = fs::read(blob).expect("read");
        bytes.extend_from_slice(&[0; 512]);
        fs::write(blob, bytes).expect("written");
    });
    damage("cannot be read", &|_, blob| fs::remove_file(blob).expect("removed"));
    // What is not a plain file below the layout.
    let elsewhere = scene.path("elsewhere");
    fs::write(&elsewhere, &layer).expect("written");
    damage("is, or lies behind, a symbolic link", &|_, blob| {
        fs::remove_file(blob).expect("removed");
        symlink(&elsewhere, blob).expect("linked");
    });
    damage("is, or lies behind, a symbolic link", &|folder, _| {
        let moved = folder.join("moved");
        fs::rename(folder.join("blobs/sha256"), &moved).expect("moved");
        symlink(&moved, folder.join("blobs/sha256")).expect("linked");
    });
    damage("it is not a regular file", &|_, blob| {
        fs::remove_file(blob).expect("removed");
        nix::unistd::mkfifo(blob, nix::sys::stat::Mode::S_IRUSR).expect("made");
    });
    damage("it is not a regular file", &|_, blob| {
        fs::remove_file(blob).expect("removed");
        fs::create_dir(blob).expect("made");
    });
}

/// An honest image whose configuration or layout somebody changes.
fn refuses_changed(
    scene: &Scene,
    reason: &str,
    change_config: impl FnOnce(&mut serde_json::Value),
    change: impl FnOnce(&mut Layout, serde_json::Value),
) {
    let layers = [Layer::new().file("f", "x").bytes()];
    let mut config = config(&layers, &json!({}));
    change_config(&mut config);
    let source = tempfile::tempdir_in(scene.folder.path()).expect("folder");
    let mut layout = Layout::new(source.path().join("layout"));
    let manifest = layout.manifest(&layers, Packing::Gzip, &config);
    change(&mut layout, manifest);
    scene.refuses(&layout.folder, reason);
}

#[test]
fn configurations_that_lie_are_refused() {
    let scene = Scene::new();
    let with = |reason: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let list = |layout: &mut Layout, manifest| layout.list(manifest, Some("latest"));
        refuses_changed(&scene, reason, change, list);
    };
    with("layer 1 of 1 as unpacked is damaged or not the original", &|config| {
        config["rootfs"]["diff_ids"][0] = json!(format!("sha256:{}", sha256(b"other")));
    });
    with("there are 1 layers, but ids of 0", &|config| config["rootfs"]["diff_ids"] = json!([]));
    with("is not `sha256:` and 64 hexadecimal digits", &|config| {
        config["rootfs"]["diff_ids"][0] = json!("sha256:../../../../outside/file");
    });
    with("it is for: linux/s390x", &|config| config["architecture"] = json!("s390x"));
    with("cannot be understood", &|config| config["config"]["Env"] = json!("text"));
}

#[test]
fn indexes_that_lie_are_refused() {
    let scene = Scene::new();
    let with = |reason: &str, change: &dyn Fn(&mut Layout, serde_json::Value)| {
        refuses_changed(&scene, reason, |_| {}, change);
    };
    let written = |reason: &str, text: &str| {
        with(reason, &|layout, _| {
            fs::write(layout.folder.join("index.json"), text).expect("written");
        });
    };
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let other =
        json!({"mediaType": kind, "size": 1, "digest": format!("sha512:{}", "0".repeat(128))});
    let index = json!({"schemaVersion": 2, "manifests": [other]}).to_string();
    written("64 hexadecimal digits", &index);
    written("cannot be understood", "{");
    written("has no image", r#"{"schemaVersion":2,"manifests":[]}"#);
    written("cannot be understood", &"[".repeat(1 << 20));
    written("larger than the limit of 4 MiB", &" ".repeat(5 << 20));
    with("no image's", &|layout, _| {
        let blob = layout.blob("text/plain", b"hello");
        layout.list(blob, None);
    });
    with("its size is", &|layout, mut manifest| {
        manifest["size"] = json!(7);
        layout.list(manifest, None);
    });
    // An index that contains itself cannot be made, but long chains can.
    with("nested too deeply", &|layout, mut inner| {
        for _ in 0..8 {
            let index = json!({"schemaVersion": 2, "manifests": [inner]}).to_string();
            inner = layout.blob("application/vnd.oci.image.index.v1+json", index.as_bytes());
        }
        layout.list(inner, None);
    });
}

#[test]
fn archives_stay_within_themselves() {
    let scene = Scene::new();
    let layer = Layer::new().file("f", "x").bytes();
    let path = scene.path("saved.tar");
    docker_archive(&path, &[("box:1", vec![layer])]);
    let whole = fs::read(&path).expect("read");
    for cut in [512, 1500, 3000] {
        fs::write(&path, &whole[..cut]).expect("written");
        let error = scene.store.import(&path.display().to_string(), None).expect_err("refused");
        assert!(!chain(&error).is_empty());
        scene.nothing_is_left();
    }
    // A description that is a link to a file of the host.
    let secret = scene.path("outside/file").display().to_string();
    let archive = Layer::new().symlink("manifest.json", &secret).bytes();
    fs::write(&path, archive).expect("written");
    scene.refuses(&path, "it is no tar archive, or an empty one");
    let archive = Layer::new().symlink("manifest.json", "a").symlink("a", "manifest.json").bytes();
    fs::write(&path, archive).expect("written");
    scene.refuses(&path, "neither `index.json`");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever bytes change in a layer (with digests that fit, so that the
    /// unpacking sees them), it is imported or refused, and touches nothing
    /// outside.
    #[test]
    fn mutated_layers_never_escape(
        changes in prop::collection::vec((0_usize..6000, any::<u8>()), 1..12),
        cut in prop::option::of(0_usize..6000),
        fix in any::<bool>(),
    ) {
        let scene = Scene::new();
        let outside = scene.path("outside").display().to_string();
        let mut layer = Layer::new()
            .folder("d", 0o755)
            .file("d/f", "content")
            .symlink("d/out", &outside)
            .hard_link("h", "d/f")
            .pax(&[("path", b"a/long/name"), ("SCHILY.xattr.user.x", b"1\n2")])
            .file("short", "x")
            .pax(&[("GNU.sparse.size", b"100000"), ("GNU.sparse.map", b"0,1,99999,1")])
            .file("sparse", "xy")
            .file("d/.wh.gone", "")
            .file("d/.wh..wh..opq", "")
            .bytes();
        for (at, value) in changes {
            let at = at % layer.len();
            layer[at] = value;
        }
        if let Some(cut) = cut {
            layer.truncate(cut % layer.len());
        }
        if fix {
            // Headers whose checksums fit get deeper.
            let mut at = 0;
            while at + 512 <= layer.len() {
                let header = tar::Header::from_byte_slice(&layer[at..at + 512]);
                let looks = header.as_ustar().is_some() || header.as_gnu().is_some();
                if looks {
                    let mut header = header.clone();
                    header.set_cksum();
                    layer[at..at + 512].copy_from_slice(header.as_bytes());
                }
                at += 512;
            }
        }
        let source = tempfile::tempdir_in(scene.folder.path()).expect("folder");
        let folder = layout(source.path(), &[layer]);
        if scene.store.import(&folder.display().to_string(), None).is_err() {
            scene.nothing_is_left();
        }
        prop_assert_eq!(
            fs::read_to_string(scene.path("outside/file")).expect("there"),
            "untouched"
        );
    }

    /// Archives of any bytes are refused without a panic.
    #[test]
    fn mutated_archives_never_panic(
        changes in prop::collection::vec((0_usize..20_000, any::<u8>()), 1..20),
        zipped in any::<bool>(),
    ) {
        let scene = Scene::new();
        let path = scene.path("saved.tar");
        docker_archive(&path, &[("box:1", vec![Layer::new().file("f", "x").bytes()])]);
        let mut bytes = fs::read(&path).expect("read");
        if zipped {
            bytes = gzip(&bytes);
        }
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        fs::write(&path, bytes).expect("written");
        if scene.store.import(&path.display().to_string(), None).is_err() {
            scene.nothing_is_left();
        }
    }
}
