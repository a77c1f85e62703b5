//! Images from disk: every layout, the command, and the store under
//! concurrency and kills.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;
mod image_kit;

use std::fs;
use std::time::Duration;

use common::{is_root, run, stderr, stdout};
use image_kit::{
    Layer, Layout, Packing, config, docker_archive, hello, import, layer_folder, layout,
    layout_with, sha256, store, with_cache,
};
use serde_json::{Value, json};
use unladen::image::Store;

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
