//! A stored image in use.

use std::os::unix::fs::MetadataExt;

use super::error::file;
use super::lock::ImageLock;
use super::lookup::Merged;
use super::overlay::{Overlay, Writable};
use super::record::Record;
use super::{Config, ImageError, Store, layer_path};

/// A stored image, ready to be used. While it is held it cannot be removed.
#[derive(Debug)]
pub struct Image {
    /// What the store knows about it.
    pub record: Record,
    /// Keeps it in the store.
    pub lock: ImageLock,
    pub(super) store: Store,
}

impl Image {
    /// What the image says about its process.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.record.config
    }

    /// Its layers as a root filesystem.
    ///
    /// # Errors
    ///
    /// When the topmost layer cannot be looked at.
    pub fn overlay(&self, writable: Writable) -> Result<Overlay, ImageError> {
        let lowers = self.lowers();
        let top =
            lowers.first().map_or_else(|| self.store.root.clone(), |top| self.store.root.join(top));
        let root_mode = top.metadata().map_err(file("look at", &top))?.mode() & 0o7777;
        Ok(Overlay { store: self.store.root.clone(), lowers, writable, root_mode })
    }

    /// A text file of the image, such as `/etc/passwd`, or nothing if it has
    /// none. Links are followed inside the image only. At most 4 MiB are read.
    ///
    /// # Errors
    ///
    /// When the layers cannot be read.
    pub fn read(&self, path: &str) -> Result<Option<String>, ImageError> {
        Merged::open(&self.store.root, &self.lowers())?.read(path)
    }

    /// Whether a path of the image leads to a folder. A working directory
    /// that does not exist needs a writable overlay, in which it is made.
    ///
    /// # Errors
    ///
    /// When the layers cannot be read.
    pub fn has_folder(&self, path: &str) -> Result<bool, ImageError> {
        Merged::open(&self.store.root, &self.lowers())?.is_folder(path)
    }

    /// Layers from the topmost down, relative to the store.
    fn lowers(&self) -> Vec<String> {
        let mut lowers: Vec<String> = self.record.layers.iter().rev().map(layer_path).collect();
        lowers.push("base".to_owned());
        lowers
    }
}
