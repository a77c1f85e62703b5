//! Damaged images and such as lie about themselves: each ends in one clear
//! error and leaves nothing, whatever was changed in them.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod image_kit;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use image_kit::{Layer, Layout, Packing, Scene, config, docker_archive, gzip, layout, sha256};
use proptest::prelude::*;
use serde_json::json;
use unladen::errors::chain;

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
