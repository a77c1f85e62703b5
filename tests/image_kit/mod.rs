//! Images made in the tests themselves: layers entry by entry, honest or not,
//! in each of the layouts that the store reads.
#![allow(dead_code, reason = "each test file uses a part")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};
use unladen::errors::chain;
use unladen::image::{Image, Store, Writable};

/// How a layer is stored.
#[derive(Clone, Copy, Debug)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// A layer that is being made.
pub struct Layer(Builder<Vec<u8>>);

impl Layer {
    pub fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// An entry of any kind; its name may be anything too.
    pub fn entry(
        mut self,
        kind: EntryType,
        name: &str,
        mode: u32,
        change: impl FnOnce(&mut Header),
        content: &[u8],
    ) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        // Written directly: the crate refuses names that attacks need.
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.0.append(&header, content).expect("appended");
        self
    }

    /// A device of these numbers.
    pub fn device(
        self,
        kind: EntryType,
        name: &str,
        mode: u32,
        (major, minor): (u32, u32),
    ) -> Self {
        let number = |header: &mut Header| {
            header.set_device_major(major).expect("set");
            header.set_device_minor(minor).expect("set");
        };
        self.entry(kind, name, mode, number, &[])
    }

    pub fn file(self, name: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, name, 0o644, |_| {}, content.as_bytes())
    }

    pub fn folder(self, name: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, name, mode, |_| {}, &[])
    }

    pub fn link(self, kind: EntryType, name: &str, target: &str) -> Self {
        let set = |header: &mut Header| {
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        };
        self.entry(kind, name, 0o777, set, &[])
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.link(EntryType::Symlink, name, target)
    }

    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.link(EntryType::Link, name, target)
    }

    /// Records for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.entry(EntryType::XHeader, "pax", 0o644, |_| {}, &body)
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("finished")
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(bytes).expect("packed");
    packer.finish().expect("packed")
}

fn pack(bytes: &[u8], packing: Packing) -> (Vec<u8>, &'static str) {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    let kind = "application/vnd.oci.image.layer.v1.tar";
    match packing {
        Packing::Plain => (bytes.to_vec(), kind),
        Packing::Gzip => (gzip(bytes), "application/vnd.oci.image.layer.v1.tar+gzip"),
        Packing::Zstd => (
            compress_to_vec(bytes, CompressionLevel::Fastest),
            "application/vnd.oci.image.layer.v1.tar+zstd",
        ),
    }
}

pub const HOST: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// An image's configuration.
pub fn config(layers: &[Vec<u8>], process: &Value) -> Value {
    let diffs: Vec<String> =
        layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
    json!({
        "created": "2026-01-02T03:04:05Z",
        "architecture": HOST,
        "os": "linux",
        "config": process,
        "rootfs": {"type": "layers", "diff_ids": diffs},
    })
}

/// An OCI image layout in a folder.
pub struct Layout {
    pub folder: PathBuf,
    pub manifests: Vec<Value>,
}

impl Layout {
    pub fn new(folder: PathBuf) -> Self {
        fs::create_dir_all(folder.join("blobs/sha256")).expect("made");
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
        let layout = Self { folder, manifests: Vec::new() };
        layout.write_index();
        layout
    }

    /// Stores bytes and describes them.
    pub fn blob(&self, kind: &str, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        fs::write(self.blob_path(&digest), bytes).expect("written");
        json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    }

    pub fn blob_path(&self, digest: &str) -> PathBuf {
        self.folder.join("blobs/sha256").join(digest)
    }

    /// Describes an image of these layers without listing it.
    pub fn manifest(&self, layers: &[Vec<u8>], packing: Packing, config: &Value) -> Value {
        let config = serde_json::to_vec(config).expect("JSON");
        let config = self.blob("application/vnd.oci.image.config.v1+json", &config);
        let layers: Vec<Value> = layers
            .iter()
            .map(|layer| {
                let (bytes, kind) = pack(layer, packing);
                self.blob(kind, &bytes)
            })
            .collect();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers,
        });
        self.blob(kind, &serde_json::to_vec(&manifest).expect("JSON"))
    }

    /// Lists a manifest (or another index) under a name.
    pub fn list(&mut self, mut descriptor: Value, name: Option<&str>) {
        if let Some(name) = name {
            descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        }
        self.manifests.push(descriptor);
        self.write_index();
    }

    fn write_index(&self) {
        let index = json!({"schemaVersion": 2, "manifests": self.manifests});
        fs::write(self.folder.join("index.json"), index.to_string()).expect("written");
    }

    /// The same as an archive.
    pub fn archive(&self, path: &Path, zipped: bool) {
        let mut builder = Builder::new(Vec::new());
        builder.append_dir_all(".", &self.folder).expect("packed");
        let bytes = builder.into_inner().expect("packed");
        fs::write(path, if zipped { gzip(&bytes) } else { bytes }).expect("written");
    }
}

/// A layout with one image named `latest`; returns its folder.
pub fn layout(folder: &Path, layers: &[Vec<u8>]) -> PathBuf {
    layout_with(folder, layers, Packing::Plain, &json!({"Cmd": ["/bin/sh"]}))
}

pub fn layout_with(
    folder: &Path,
    layers: &[Vec<u8>],
    packing: Packing,
    process: &Value,
) -> PathBuf {
    let mut layout = Layout::new(folder.join("layout"));
    let manifest = layout.manifest(layers, packing, &config(layers, process));
    layout.list(manifest, Some("latest"));
    layout.folder
}

/// What old versions of `docker save` write: a layer that comes twice is a
/// link to where it was first.
pub fn docker_archive(path: &Path, images: &[(&str, Vec<Vec<u8>>)]) {
    let mut builder = Builder::new(Vec::new());
    let mut add = |kind: EntryType, name: &str, link: Option<&str>, bytes: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        match link {
            Some(link) => builder.append_link(&mut header, name, link).expect("packed"),
            None => builder.append_data(&mut header, name, bytes).expect("packed"),
        }
    };
    let mut seen: Vec<(String, String)> = Vec::new();
    let mut list = Vec::new();
    for (number, (name, layers)) in images.iter().enumerate() {
        let config = config(layers, &json!({"Cmd": ["/bin/sh"]})).to_string();
        let config_name = format!("{}.json", sha256(config.as_bytes()));
        add(EntryType::Regular, &config_name, None, config.as_bytes());
        let mut files = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            let digest = sha256(layer);
            let file = format!("{number}-{index}/layer.tar");
            match seen.iter().find(|(known, _)| *known == digest) {
                Some((_, first)) => {
                    add(EntryType::Symlink, &file, Some(&format!("../{first}")), &[]);
                }
                None => {
                    add(EntryType::Regular, &file, None, layer);
                    seen.push((digest, file.clone()));
                }
            }
            files.push(file);
        }
        list.push(json!({"Config": config_name, "RepoTags": [name], "Layers": files}));
    }
    add(EntryType::Regular, "manifest.json", None, Value::from(list).to_string().as_bytes());
    fs::write(path, builder.into_inner().expect("packed")).expect("written");
}

/// A store of its own.
pub fn store(folder: &Path) -> Store {
    Store::open_at(&folder.join("store")).expect("opened")
}

/// Imports what is there.
pub fn import(store: &Store, source: &Path) -> Image {
    match store.import(&source.display().to_string(), None) {
        Ok(image) => image,
        Err(error) => panic!("{}", chain(&error)),
    }
}

/// The folder of an image's n-th layer from below.
pub fn layer_folder(image: &Image, number: usize) -> PathBuf {
    let overlay = image.overlay(Writable::No).expect("overlay");
    let lowers = overlay.lowers();
    overlay.working_directory().join(&lowers[image.record.layers.len() - 1 - number])
}

/// A layer with one file.
pub fn hello() -> Vec<u8> {
    Layer::new().folder("etc", 0o755).file("etc/hello", "hello").bytes()
}

/// The command with a cache of its own.
pub fn with_cache(cache: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unladen"));
    command.env("XDG_CACHE_HOME", cache);
    command
}

/// A store, and a folder that no image may touch.
pub struct Scene {
    pub folder: tempfile::TempDir,
    pub store: Store,
}

impl Scene {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("outside")).expect("made");
        fs::write(folder.path().join("outside/file"), "untouched").expect("written");
        let store = Store::open_at(&folder.path().join("store")).expect("opened");
        Self { folder, store }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Imports, and expects an error that says this.
    pub fn refuses(&self, source: &Path, reason: &str) {
        let text = source.display().to_string();
        let error = match self.store.import(&text, None) {
            Ok(image) => panic!("imported {:?} instead of: {reason}", image.record),
            Err(error) => chain(&error),
        };
        assert!(error.contains(reason), "`{error}` does not say `{reason}`");
        assert!(!error.contains('\n') && error.len() < 700, "{error}");
        self.nothing_is_left();
    }

    pub fn nothing_is_left(&self) {
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

    pub fn refuses_layers(&self, layers: &[Vec<u8>], reason: &str) {
        let source = tempfile::tempdir_in(self.folder.path()).expect("folder");
        self.refuses(&layout(source.path(), layers), reason);
    }
}
