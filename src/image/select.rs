//! Which image of a layout is meant: from indexes, manifests and
//! configurations, each checked against what names it, to a list of layers.

use std::path::Path;

use oci_spec::image::{
    Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, Os, Platform,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::digest::is_hex;
use super::reference::{means, name_of};
use super::source::{Source, not_an_image};
use super::{Config, Digest, ImageError, Limits};

/// Indexes within indexes that are followed.
const DEPTH: u32 = 4;

const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFESTS: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const LAYERS: [&str; 8] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];

/// A layer as the layout has it.
pub(super) struct LayerSource {
    /// Name of its file in the layout.
    pub(super) file: String,
    /// What its bytes are, unless the layout does not say.
    pub(super) promised: Option<(Digest, u64)>,
    /// Digest of what it unpacks to.
    pub(super) diff: Digest,
}

/// The image that is meant.
pub(super) struct Selected {
    pub(super) id: Digest,
    pub(super) names: Vec<String>,
    pub(super) created: Option<String>,
    pub(super) config: Config,
    pub(super) layers: Vec<LayerSource>,
}

/// One image of `docker save`'s own list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Reads descriptions of one layout.
struct Reader<'a> {
    source: &'a Source,
    limits: Limits,
}

/// Finds the image that a reference means; without one there must be only
/// one image.
pub(super) fn select(
    source: &Source,
    reference: Option<&str>,
    limits: Limits,
) -> Result<Selected, ImageError> {
    let reader = Reader { source, limits };
    // Newer versions of `docker save` write both; the index says more.
    if source.has("index.json") {
        reader.oci(reference)
    } else if source.has("manifest.json") {
        reader.docker(reference)
    } else {
        let reason = "it has neither `index.json` (an OCI image layout) nor `manifest.json` \
                      (what `docker save` writes)";
        Err(not_an_image(&source.path, reason))
    }
}

impl Reader<'_> {
    /// An OCI image layout.
    fn oci(&self, reference: Option<&str>) -> Result<Selected, ImageError> {
        let bytes = self.source.small("index.json", self.limits.json)?;
        let index: ImageIndex = parse("the image's `index.json`", &bytes)?;
        let named: Vec<(Vec<String>, &Descriptor)> =
            index.manifests().iter().map(|entry| (names(entry), entry)).collect();
        let fits = |names: &[String]| {
            reference.is_none_or(|wanted| names.iter().any(|name| means(wanted, name)))
        };
        let mut chosen = named.iter().filter(|(names, _)| fits(names));
        let candidates: Vec<_> = chosen.by_ref().collect();
        let all = || named.iter().flat_map(|(names, _)| names.clone()).collect::<Vec<_>>();
        // The same image under several names, or for several platforms.
        let tags = |names: &[String]| names.last().cloned();
        let mut different: Vec<_> = candidates.iter().map(|(names, _)| tags(names)).collect();
        different.dedup();
        let first = candidates.first().map(|(_, entry)| entry.digest());
        let same = candidates.iter().all(|(_, entry)| Some(entry.digest()) == first);
        if candidates.is_empty() || (different.len() > 1 && !same) {
            return Err(which(&self.source.path, reference, all()));
        }
        let mut own: Vec<String> = Vec::new();
        for (names, _) in named.iter().filter(|(_, entry)| Some(entry.digest()) == first) {
            own.extend(full_names(&self.source.path, names));
        }
        if own.is_empty() {
            own.push(name_of(&self.source.path, "latest"));
        }
        own.sort();
        own.dedup();
        let entries: Vec<&Descriptor> = candidates.iter().map(|(_, entry)| *entry).collect();
        let manifest = self.manifest(&entries, DEPTH)?;
        self.of_manifest(&manifest, own)
    }

    /// The manifest for this host among several.
    fn manifest(&self, entries: &[&Descriptor], depth: u32) -> Result<ImageManifest, ImageError> {
        let host = host_platform();
        let known = |entry: &&&Descriptor| {
            entry.platform().as_ref().is_none_or(|platform| is_for(platform, &host))
        };
        let fitting: Vec<&&Descriptor> = entries.iter().filter(known).collect();
        // Without a platform anywhere, the configuration will say.
        let exact = fitting.iter().find(|entry| entry.platform().is_some());
        let Some(entry) = exact.or_else(|| fitting.first()) else {
            let found = entries.iter().filter_map(|entry| entry.platform().as_ref());
            return Err(wrong_platform(&host, found.map(describe).collect()));
        };
        let what = format!("the manifest {}", entry.digest());
        let kind = entry.media_type().to_string();
        let bytes = self.checked(entry, &what)?;
        if INDEXES.contains(&kind.as_str()) {
            if depth == 0 {
                return Err(invalid(&what, "indexes are nested too deeply"));
            }
            let index: ImageIndex = parse(&what, &bytes)?;
            let inner: Vec<&Descriptor> = index.manifests().iter().collect();
            return self.manifest(&inner, depth - 1);
        }
        if !MANIFESTS.contains(&kind.as_str()) {
            return Err(invalid(&what, &format!("its type `{kind}` is no image's")));
        }
        parse(&what, &bytes)
    }

    fn of_manifest(
        &self,
        manifest: &ImageManifest,
        names: Vec<String>,
    ) -> Result<Selected, ImageError> {
        let what = format!("the configuration {}", manifest.config().digest());
        let bytes = self.checked(manifest.config(), &what)?;
        let mut files = Vec::new();
        for layer in manifest.layers() {
            let what = format!("the layer {}", layer.digest());
            let kind = layer.media_type().to_string();
            if !LAYERS.contains(&kind.as_str()) {
                return Err(invalid(&what, &format!("its type `{kind}` is not known here")));
            }
            let digest = Digest::parse(layer.digest().as_ref(), &what)?;
            files.push((blob_file(&digest), Some((digest, layer.size()))));
        }
        finish(&what, &bytes, files, names)
    }

    /// What `docker save` wrote before it wrote OCI layouts.
    fn docker(&self, reference: Option<&str>) -> Result<Selected, ImageError> {
        let bytes = self.source.small("manifest.json", self.limits.json)?;
        let images: Vec<DockerImage> = parse("the image's `manifest.json`", &bytes)?;
        let tags = |image: &DockerImage| image.repo_tags.clone().unwrap_or_default();
        let fits = |image: &&DockerImage| {
            reference.is_none_or(|wanted| tags(image).iter().any(|name| means(wanted, name)))
        };
        let chosen: Vec<&DockerImage> = images.iter().filter(fits).collect();
        let [image] = chosen.as_slice() else {
            let all = images.iter().flat_map(tags).collect();
            return Err(which(&self.source.path, reference, all));
        };
        let what = format!("the configuration `{}`", image.config);
        let bytes = self.source.small(&image.config, self.limits.json)?;
        // Its name is its digest, with or without an ending.
        let stem = image.config.rsplit('/').next().unwrap_or_default();
        let stem = stem.strip_suffix(".json").unwrap_or(stem);
        if is_hex(stem) {
            Digest::parse(&format!("sha256:{stem}"), &what)?.check(&Digest::of(&bytes), &what)?;
        }
        let mut names = tags(image);
        if names.is_empty() {
            names.push(name_of(&self.source.path, "latest"));
        }
        let files = image.layers.iter().map(|file| (file.clone(), None)).collect();
        finish(&what, &bytes, files, names)
    }

    /// A description that must be what its descriptor says.
    fn checked(&self, entry: &Descriptor, what: &str) -> Result<Vec<u8>, ImageError> {
        let digest = Digest::parse(entry.digest().as_ref(), what)?;
        let bytes = self.source.small(&blob_file(&digest), self.limits.json)?;
        check_size(what, entry.size(), bytes.len() as u64)?;
        digest.check(&Digest::of(&bytes), what)?;
        Ok(bytes)
    }
}

/// From a configuration to the end.
fn finish(
    what: &str,
    bytes: &[u8],
    files: Vec<(String, Option<(Digest, u64)>)>,
    names: Vec<String>,
) -> Result<Selected, ImageError> {
    let config: ImageConfiguration = parse(what, bytes)?;
    let host = host_platform();
    let (os, architecture) = (config.os(), config.architecture());
    if (os, architecture) != (host.os(), host.architecture()) {
        return Err(wrong_platform(&host, vec![format!("{os}/{architecture}")]));
    }
    let diffs = config.rootfs().diff_ids();
    if diffs.len() != files.len() {
        let (layers, ids) = (files.len(), diffs.len());
        return Err(invalid(what, &format!("there are {layers} layers, but ids of {ids}")));
    }
    let mut layers = Vec::new();
    for ((file, promised), diff) in files.into_iter().zip(diffs) {
        layers.push(LayerSource { file, promised, diff: Digest::parse(diff, what)? });
    }
    Ok(Selected {
        id: Digest::of(bytes),
        names,
        created: config.created().clone(),
        config: Config::from_oci(&config),
        layers,
    })
}

/// Refuses another size than the promised one.
pub(super) fn check_size(what: &str, expected: u64, found: u64) -> Result<(), ImageError> {
    if expected == found {
        return Ok(());
    }
    Err(ImageError::Mismatch {
        what: what.to_owned(),
        aspect: "size",
        expected: format!("{expected} bytes"),
        found: format!("{found} bytes"),
    })
}

fn blob_file(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes)
        .map_err(|source| ImageError::Json { what: what.to_owned(), source })
}

fn invalid(what: &str, reason: &str) -> ImageError {
    ImageError::Invalid { what: what.to_owned(), reason: reason.to_owned() }
}

/// Names of an entry of an index, the most complete one last.
fn names(entry: &Descriptor) -> Vec<String> {
    let Some(annotations) = entry.annotations() else { return Vec::new() };
    ["org.opencontainers.image.ref.name", "io.containerd.image.name"]
        .iter()
        .filter_map(|key| annotations.get(*key).cloned())
        .collect()
}

/// Names by which the image can be called from now on.
fn full_names(path: &Path, names: &[String]) -> Option<String> {
    let name = names.last()?;
    // A tag alone says too little.
    Some(if name.contains(['/', ':']) { name.clone() } else { name_of(path, name) })
}

fn which(path: &Path, reference: Option<&str>, mut names: Vec<String>) -> ImageError {
    names.sort();
    names.dedup();
    let problem = match reference {
        Some(reference) => format!("has no image `{reference}`"),
        None if names.is_empty() => "has no image, or several without names".to_owned(),
        None => "has several images: write which one after a colon".to_owned(),
    };
    ImageError::Reference { path: path.to_owned(), problem, names }
}

/// Linux on this machine's architecture, by the names of the image format.
fn host_platform() -> Platform {
    let mut platform = Platform::default();
    platform.set_os(Os::Linux);
    platform.set_architecture(match std::env::consts::ARCH {
        "x86_64" => Arch::Amd64,
        "aarch64" => Arch::ARM64,
        other => Arch::from(other),
    });
    platform
}

fn is_for(platform: &Platform, host: &Platform) -> bool {
    (platform.os(), platform.architecture()) == (host.os(), host.architecture())
}

fn describe(platform: &Platform) -> String {
    let variant = platform.variant().as_ref().map(|variant| format!("/{variant}"));
    format!("{}/{}{}", platform.os(), platform.architecture(), variant.unwrap_or_default())
}

fn wrong_platform(host: &Platform, mut found: Vec<String>) -> ImageError {
    found.sort();
    found.dedup();
    ImageError::Platform { wanted: describe(host), found }
}
