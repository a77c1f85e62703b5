//! From a layout or archive to a stored image.

use std::cell::RefCell;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

use super::decompress::Plain;
use super::digest::Hashing;
use super::error::file;
use super::files::{make, remove_tree, write_json};
use super::limits::Budget;
use super::lookup::Merged;
use super::record::{LayerRecord, Record, chain_id};
use super::reference::split;
use super::select::{LayerSource, Selected, check_size, select};
use super::source::Source;
use super::store::{Store, normal_name};
use super::stored::Image;
use super::tarball::Tarball;
use super::unpack::Layer;
use super::{Digest, ImageError, layer_folder, layer_path};

/// Layers at most, so that the options of the mount fit into a page; builders
/// stop at 127.
const LAYERS: usize = 128;

/// Counts unpacked bytes on their way.
struct Metered<'a, R> {
    inner: R,
    budget: &'a RefCell<Budget>,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.budget.borrow_mut().spend(length as u64).map_err(io::Error::other)?;
        Ok(length)
    }
}

impl Store {
    /// Imports the image at `PATH[:REF]`, unless it is there already, and
    /// gives it `name` too. Layers that other images brought are used again.
    ///
    /// Either all of it is there afterwards or nothing is. Imports of several
    /// processes wait for each other.
    ///
    /// # Errors
    ///
    /// When it cannot be found, is damaged or hostile, exceeds the limits, or
    /// the store cannot be written.
    pub fn import(&self, text: &str, name: Option<&str>) -> Result<Image, ImageError> {
        let Some((path, reference)) = split(text) else {
            let missing = nix::errno::Errno::ENOENT.into();
            return Err(file("find", Path::new(text))(missing));
        };
        let mut budget = Budget::new(self.limits, &self.root);
        let source = Source::open(&path, &self.root.join("tmp"), &mut budget)?;
        let mut selected = select(&source, reference.as_deref(), self.limits)?;
        selected.names.extend(name.map(str::to_owned));
        for name in &mut selected.names {
            *name = normal_name(name);
        }
        selected.names.sort();
        selected.names.dedup();
        if selected.layers.is_empty() || selected.layers.len() > LAYERS {
            let count = selected.layers.len();
            return Err(ImageError::Invalid {
                what: "the image".to_owned(),
                reason: format!("it has {count} layers, and 1 to {LAYERS} can be used"),
            });
        }
        if let Some(image) = self.complete(&selected)? {
            return Ok(image);
        }
        let _lock = self.lock()?;
        self.sweep_locked()?;
        let result = self.import_locked(&source, &selected);
        if result.is_err() {
            // Layers that came before the one that failed.
            self.remove_unused_layers()?;
        }
        result?;
        // Under the lock, so nobody can have removed it meanwhile.
        self.hold(&selected.id)?.ok_or_else(|| ImageError::NotFound { name: text.to_owned() })
    }

    /// The image, if nothing of it is missing.
    fn complete(&self, selected: &Selected) -> Result<Option<Image>, ImageError> {
        let Some(image) = self.hold(&selected.id)? else { return Ok(None) };
        for chain in &image.record.layers {
            if self.layer(chain)?.is_none() {
                return Ok(None);
            }
        }
        let named = selected.names.iter().all(|name| image.record.names.contains(name));
        Ok(named.then_some(image))
    }

    fn import_locked(&self, source: &Source, selected: &Selected) -> Result<(), ImageError> {
        let budget = RefCell::new(Budget::new(self.limits, &self.root));
        let mut chains: Vec<Digest> = Vec::new();
        let mut size = 0;
        let mut remarks = Vec::new();
        let mut fresh = false;
        for (index, layer) in selected.layers.iter().enumerate() {
            let chain = chain_id(chains.last(), &layer.diff);
            let record = match self.layer(&chain)? {
                Some(record) => record,
                None => {
                    fresh = true;
                    let label = format!("{} of {}", index + 1, selected.layers.len());
                    self.import_layer(source, layer, &chains, &chain, &label, &budget)?
                }
            };
            size += record.size;
            remarks.extend(record.remarks);
            chains.push(chain);
        }
        if fresh {
            // A record is a promise that outlives a loss of power.
            let root = fs::File::open(&self.root).map_err(file("open", &self.root))?;
            nix::unistd::syncfs(&root).map_err(|errno| file("sync", &self.root)(errno.into()))?;
        }
        let mut names = selected.names.clone();
        let before = self.list()?.into_iter().find(|record| record.id == selected.id);
        names.extend(before.into_iter().flat_map(|record| record.names));
        names.sort();
        names.dedup();
        self.write_record(&Record {
            id: selected.id.clone(),
            names,
            created: selected.created.clone(),
            imported: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            size,
            layers: chains,
            config: selected.config.clone(),
            remarks,
        })
    }

    /// Unpacks a layer beside its place, checks it, and moves it there.
    fn import_layer(
        &self,
        source: &Source,
        layer: &LayerSource,
        below: &[Digest],
        chain: &Digest,
        label: &str,
        budget: &RefCell<Budget>,
    ) -> Result<LayerRecord, ImageError> {
        let draft = self.root.join("tmp/layer");
        make(&draft, 0o700)?;
        make(&draft.join("fs"), 0o700)?;
        let done = self.fill(source, layer, below, &draft.join("fs"), label, budget);
        let (size, entries, remarks) = match done {
            Ok(done) => done,
            Err(error) => {
                remove_tree(&draft)?;
                // A damaged blob may look like anything; say what it is.
                check_blob(source, layer, label)?;
                return Err(error);
            }
        };
        let record =
            LayerRecord { chain: chain.clone(), diff: layer.diff.clone(), size, entries, remarks };
        write_json(&draft.join("draft.json"), &draft.join("layer.json"), &record)?;
        let place = self.root.join(layer_folder(chain));
        if place.exists() {
            self.discard(&place)?;
        }
        fs::rename(&draft, &place).map_err(file("rename to", &place))?;
        Ok(record)
    }

    fn fill(
        &self,
        source: &Source,
        layer: &LayerSource,
        below: &[Digest],
        into: &Path,
        label: &str,
        budget: &RefCell<Budget>,
    ) -> Result<(u64, u64, Vec<String>), ImageError> {
        let before = (budget.borrow().unpacked(), budget.borrow().entries());
        let merged = if below.is_empty() {
            None
        } else {
            let lowers: Vec<String> = below.iter().rev().map(layer_path).collect();
            Some(Merged::open(&self.root, &lowers)?)
        };
        let work = Layer { label, below: merged.as_ref(), budget, privileged: self.privileged };
        let unreadable = |error| work.unreadable(error);
        // One byte more than promised is enough to know that there are more.
        let most = layer.promised.as_ref().map_or(u64::MAX, |(_, size)| size.saturating_add(1));
        let blob = Hashing::new(source.blob(&layer.file)?.take(most));
        let plain = Plain::new(blob).map_err(unreadable)?;
        let metered = Metered { inner: plain, budget };
        let mut tarball = Tarball::new(Hashing::new(metered), self.limits);
        let remarks = work.unpack(&mut tarball, into)?;
        let (diff, _, metered) = tarball.into_inner().finish().map_err(unreadable)?;
        let (digest, size, _) =
            metered.inner.into_inner().into_inner().finish().map_err(unreadable)?;
        if let Some((promised, bytes)) = &layer.promised {
            let what = format!("layer {label}");
            check_size(&what, *bytes, size)?;
            promised.check(&digest, &what)?;
        }
        layer.diff.check(&diff, &format!("layer {label} as unpacked"))?;
        let budget = budget.borrow();
        Ok((budget.unpacked() - before.0, budget.entries() - before.1, remarks))
    }
}

/// Holds a blob against what was promised of it.
fn check_blob(source: &Source, layer: &LayerSource, label: &str) -> Result<(), ImageError> {
    let Some((promised, bytes)) = &layer.promised else { return Ok(()) };
    let blob = source.blob(&layer.file)?.take(bytes.saturating_add(1));
    let unreadable = |source| ImageError::Layer { layer: label.to_owned(), source };
    let (digest, size, _) = Hashing::new(blob).finish().map_err(unreadable)?;
    let what = format!("layer {label}");
    check_size(&what, *bytes, size)?;
    promised.check(&digest, &what)
}
