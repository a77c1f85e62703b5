//! What the store writes down about an image and a layer.

use serde::{Deserialize, Serialize};

use super::{Config, Digest};

/// A stored image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Digest of its configuration.
    pub id: Digest,
    /// Names that it can be called by.
    pub names: Vec<String>,
    /// When it was made, as its maker says, in RFC 3339.
    pub created: Option<String>,
    /// When it was imported, in RFC 3339.
    pub imported: String,
    /// Bytes of all its layers unpacked, not counting holes.
    pub size: u64,
    /// Its layers from the lowest up, by chain id.
    pub layers: Vec<Digest>,
    /// About its process.
    pub config: Config,
    /// What of its layers could not be kept, such as attributes.
    pub remarks: Vec<String>,
}

/// A stored layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LayerRecord {
    pub(super) chain: Digest,
    pub(super) diff: Digest,
    pub(super) size: u64,
    pub(super) entries: u64,
    pub(super) remarks: Vec<String>,
}

/// The chain id of a layer on top of another: the OCI image specification's
/// "Layer ChainID".
pub(super) fn chain_id(below: Option<&Digest>, diff: &Digest) -> Digest {
    below.map_or_else(|| diff.clone(), |below| Digest::of(format!("{below} {diff}").as_bytes()))
}
