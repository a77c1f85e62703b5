//! Container images from disk: OCI layouts and archives, and what `docker
//! save` writes, checked, unpacked once, and described as a root filesystem.
//!
//! A [`Store`] keeps each layer unpacked in the form that overlayfs mounts;
//! [`Store::resolve`] finds an image by name, id or `PATH[:REF]` and gives an
//! [`Image`]: its [`Config`], an [`Overlay`] for `Plan::with_overlay`, and a
//! lock that keeps it from being removed.
//!
//! Nothing is fetched from a network, nothing is mounted, and nothing of an
//! image is executed here.

mod attributes;
mod config;
mod decompress;
mod digest;
mod error;
mod files;
mod import;
mod limits;
mod lock;
mod lookup;
mod overlay;
mod record;
mod reference;
mod removals;
mod select;
mod source;
mod sparse;
mod store;
mod stored;
mod tarball;
mod tree;
mod unpack;

pub use self::config::Config;
pub use self::digest::Digest;
pub use self::error::ImageError;
pub use self::limits::Limits;
pub use self::lock::ImageLock;
pub use self::overlay::{Overlay, Writable};
pub use self::record::Record;
pub use self::store::Store;
pub use self::stored::Image;

/// The attribute that makes a folder hide the same folder of the layers
/// below, as the initial user namespace and as a user namespace has it
/// (`Documentation/filesystems/overlayfs.rst` of Linux, "whiteouts and opaque
/// directories" and "userxattr").
const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// Where a layer lies in the store. Half of a digest names it, so that many
/// fit into mount options; the whole digest stands beside it and is compared.
fn layer_path(chain: &Digest) -> String {
    format!("{}/fs", layer_folder(chain))
}

/// The folder of a layer with all that belongs to it.
fn layer_folder(chain: &Digest) -> String {
    format!("l/{}", &chain.hex()[..24])
}
