//! The store: layers unpacked once, and records of images.
//!
//! ```text
//! lock            held by whoever changes anything
//! l/ID/fs         an unpacked layer, ID being half of its chain id
//! l/ID/layer.json its record, written last
//! base/           mount points for images that lack them, below every image
//! i/ID/image.json an image's record; the folder is locked while in use
//! tmp/            drafts, renamed when complete
//! mnt/            where a container mounts, in its own mount namespace
//! ```
//!
//! Drafts belong to whoever holds the lock, so whatever is in `tmp/` when the
//! lock is taken was left by a process that was killed, and is swept.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use nix::fcntl::Flock;

use super::error::file;
use super::files::{make, read_json, remove_tree, write_json};
use super::lock::{share, try_alone, wait_alone};
use super::record::{LayerRecord, Record};
use super::stored::Image;
use super::{Digest, ImageError, Limits, layer_folder};

/// Mount points below every image.
const BASE: [&str; 5] = ["base", "base/proc", "base/sys", "base/dev", "base/tmp"];

/// A store of images.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) root: PathBuf,
    pub(super) limits: Limits,
    /// Whether layers keep their owners and are marked by `trusted.*`.
    pub(super) privileged: bool,
}

impl Store {
    /// Opens the store of this user, and makes it if need be:
    /// `$XDG_CACHE_HOME/unladen/images` or `~/.cache/unladen/images`. Without
    /// privileges it is `images-rootless`, since its layers differ: all files
    /// belong to the caller.
    ///
    /// # Errors
    ///
    /// When there is no cache folder, or it cannot be written, or the store
    /// belongs to somebody else.
    pub fn open() -> Result<Self, ImageError> {
        let base = etcetera::choose_base_strategy().map_err(|_| ImageError::NoCache)?;
        let name = if is_privileged() { "images" } else { "images-rootless" };
        Self::open_at(&base.cache_dir().join("unladen").join(name))
    }

    /// Opens a store in this folder, and makes it if need be.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn open_at(root: &Path) -> Result<Self, ImageError> {
        let parent = root.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(file("create", parent))?;
        // Nobody else may come near the programs with setuid bits in it.
        make(root, 0o700)?;
        let root = root.canonicalize().map_err(file("find", root))?;
        let owner = root.metadata().map_err(file("look at", &root))?.uid();
        let user = nix::unistd::geteuid().as_raw();
        if owner != user {
            return Err(ImageError::Owner { path: root, owner, user });
        }
        fs::set_permissions(&root, PermissionsExt::from_mode(0o700))
            .map_err(file("set the mode of", &root))?;
        for name in ["l", "i", "tmp", "mnt"] {
            make(&root.join(name), 0o700)?;
        }
        for name in BASE {
            let mode = if name == "base/tmp" { 0o1777 } else { 0o755 };
            make(&root.join(name), mode)?;
        }
        Ok(Self { root, limits: Limits::default(), privileged: is_privileged() })
    }

    /// Sets limits for imports.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Finds an image by `PATH[:REF]`, importing it if need be, or by the
    /// name or the beginning of the id of a stored one. What starts with `/`
    /// or `.`, or exists as a file, is a path.
    ///
    /// # Errors
    ///
    /// When there is no such image, or it cannot be imported.
    pub fn resolve(&self, text: &str) -> Result<Image, ImageError> {
        if text.starts_with(['/', '.']) || super::reference::split(text).is_some() {
            return self.import(text, None);
        }
        let record = self.find(text)?;
        self.hold(&record.id)?.ok_or_else(|| ImageError::NotFound { name: text.to_owned() })
    }

    /// All stored images, sorted by their first names.
    ///
    /// # Errors
    ///
    /// When a record cannot be read.
    pub fn list(&self) -> Result<Vec<Record>, ImageError> {
        let folder = self.root.join("i");
        let mut records = Vec::new();
        for entry in fs::read_dir(&folder).map_err(file("read", &folder))? {
            let path = entry.map_err(file("read", &folder))?.path();
            // Removed meanwhile: not there.
            records.extend(read_json::<Record>(&path.join("image.json"))?);
        }
        records.sort_by(|a, b| (&a.names, &a.id).cmp(&(&b.names, &b.id)));
        Ok(records)
    }

    /// Removes a name, or with the last name, or by the beginning of its id
    /// (at least four digits), the image with all layers that no other has.
    /// Returns the removed image's record, or nothing if it has other names.
    ///
    /// # Errors
    ///
    /// When there is none, or a running container uses it.
    pub fn remove(&self, name: &str) -> Result<Option<Record>, ImageError> {
        let _lock = self.lock()?;
        let mut record = self.find(name)?;
        let wanted = normal_name(name);
        if record.names.len() > 1 && record.names.contains(&wanted) {
            record.names.retain(|name| *name != wanted);
            self.write_record(&record)?;
            return Ok(None);
        }
        let folder = self.image_folder(&record.id);
        let Some(_alone) = try_alone(&folder)? else {
            return Err(ImageError::InUse { name: name.to_owned() });
        };
        self.discard(&folder)?;
        self.remove_unused_layers()?;
        Ok(Some(record))
    }

    /// Removes what killed imports left, and returns how many drafts there
    /// were; none while an import is under way, which does the same.
    ///
    /// # Errors
    ///
    /// When something cannot be removed.
    pub fn sweep(&self) -> Result<usize, ImageError> {
        let path = self.root.join("lock");
        if !path.exists() {
            return Ok(0);
        }
        match try_alone(&path)? {
            Some(_lock) => self.sweep_locked(),
            None => Ok(0),
        }
    }

    /// Takes the store for changes.
    pub(super) fn lock(&self) -> Result<Flock<fs::File>, ImageError> {
        wait_alone(&self.root.join("lock"))
    }

    pub(super) fn sweep_locked(&self) -> Result<usize, ImageError> {
        let tmp = self.root.join("tmp");
        let mut count = 0;
        for entry in fs::read_dir(&tmp).map_err(file("read", &tmp))? {
            let path = entry.map_err(file("read", &tmp))?.path();
            remove_tree(&path)?;
            count += 1;
        }
        // An import that was killed leaves layers, or a folder without record.
        let images = self.root.join("i");
        for entry in fs::read_dir(&images).map_err(file("read", &images))? {
            let path = entry.map_err(file("read", &images))?.path();
            if !path.join("image.json").exists() {
                remove_tree(&path)?;
            }
        }
        self.remove_unused_layers()?;
        Ok(count)
    }

    /// The lock and record of an image.
    pub(super) fn hold(&self, id: &Digest) -> Result<Option<Image>, ImageError> {
        let folder = self.image_folder(id);
        let Some(lock) = share(&folder)? else { return Ok(None) };
        let record = read_json::<Record>(&folder.join("image.json"))?;
        Ok(record.map(|record| Image { record, lock, store: self.clone() }))
    }

    /// An image by name or beginning of its id.
    fn find(&self, name: &str) -> Result<Record, ImageError> {
        let records = self.list()?;
        let wanted = normal_name(name);
        if let Some(record) = records.iter().find(|record| record.names.contains(&wanted)) {
            return Ok(record.clone());
        }
        let start = name.strip_prefix("sha256:").unwrap_or(name);
        let mut fitting = records.iter().filter(|record| record.id.hex().starts_with(start));
        match (fitting.next(), fitting.count()) {
            (Some(record), 0) if start.len() >= 4 => Ok(record.clone()),
            (Some(_), more) if start.len() >= 4 => {
                Err(ImageError::Ambiguous { name: name.to_owned(), count: more + 1 })
            }
            _ => Err(ImageError::NotFound { name: name.to_owned() }),
        }
    }

    /// Writes an image's record, and takes its names from all others.
    pub(super) fn write_record(&self, record: &Record) -> Result<(), ImageError> {
        for mut other in self.list()? {
            let before = other.names.len();
            other.names.retain(|name| !record.names.contains(name));
            if other.id != record.id && other.names.len() != before {
                self.put(&other)?;
            }
        }
        self.put(record)
    }

    fn put(&self, record: &Record) -> Result<(), ImageError> {
        let folder = self.image_folder(&record.id);
        make(&folder, 0o700)?;
        write_json(&self.root.join("tmp/image.json"), &folder.join("image.json"), record)
    }

    fn image_folder(&self, id: &Digest) -> PathBuf {
        self.root.join("i").join(id.hex())
    }

    /// The record of a layer that is there completely.
    pub(super) fn layer(&self, chain: &Digest) -> Result<Option<LayerRecord>, ImageError> {
        let path = self.root.join(layer_folder(chain)).join("layer.json");
        let Some(record) = read_json::<LayerRecord>(&path)? else { return Ok(None) };
        if record.chain != *chain {
            return Err(ImageError::Invalid {
                what: format!("the stored layer {}", path.display()),
                reason: format!("it is {}, not {chain}", record.chain),
            });
        }
        Ok(Some(record))
    }

    pub(super) fn remove_unused_layers(&self) -> Result<(), ImageError> {
        let images = self.list()?;
        let used: Vec<String> =
            images.iter().flat_map(|image| image.layers.iter().map(layer_folder)).collect();
        let folder = self.root.join("l");
        for entry in fs::read_dir(&folder).map_err(file("read", &folder))? {
            let entry = entry.map_err(file("read", &folder))?;
            let name = format!("l/{}", entry.file_name().to_string_lossy());
            if !used.contains(&name) {
                self.discard(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes a folder in one instant, then what was in it.
    pub(super) fn discard(&self, folder: &Path) -> Result<(), ImageError> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let away = self.root.join("tmp").join(format!("gone-{name}"));
        fs::rename(folder, &away).map_err(file("remove", folder))?;
        remove_tree(&away)
    }
}

/// Whether this process may give files to others and set `trusted.*`
/// attributes: root of the host, not of a user namespace.
pub(super) fn is_privileged() -> bool {
    nix::unistd::geteuid().is_root() && crate::sys::namespace::in_first_user_namespace()
}

/// A name in its familiar form and with a tag, so that `busybox` is `busybox:latest`.
pub(super) fn normal_name(name: &str) -> String {
    let name = super::reference::familiar(name);
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains([':', '@']) { name.to_owned() } else { format!("{name}:latest") }
}
