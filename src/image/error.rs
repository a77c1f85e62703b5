//! Why an image cannot be read, unpacked, stored or used.

use std::io;
use std::path::PathBuf;

/// Why something about an image failed. Nothing that was begun is left.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file of the host.
    #[error("cannot {operation} `{}`", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no cache folder.
    #[error("cannot find the user's cache folder: set HOME or XDG_CACHE_HOME")]
    NoCache,
    /// The store belongs to somebody else.
    #[error("the image store `{}` belongs to user {owner}, not to user {user}: set XDG_CACHE_HOME to a folder of your own", path.display())]
    Owner {
        /// The store.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// Neither a layout nor an archive.
    #[error("`{}` is no image: {reason}", path.display())]
    NotAnImage {
        /// The file or folder.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// Which of several images is meant.
    #[error("`{}` {problem}; it has: {}", path.display(), list(names))]
    Reference {
        /// The layout or archive.
        path: PathBuf,
        /// What is wrong with the reference.
        problem: String,
        /// The names inside.
        names: Vec<String>,
    },
    /// The image is for other machines.
    #[error("the image is not for {wanted}; it is for: {}", list(found))]
    Platform {
        /// `os/architecture` of this host.
        wanted: String,
        /// Those that are there.
        found: Vec<String>,
    },
    /// A file inside an image that is missing or not a plain file.
    #[error("the image's `{name}` cannot be read: {reason}")]
    Blob {
        /// Its name inside.
        name: String,
        /// Why.
        reason: String,
    },
    /// The content is not what the image promises.
    #[error("{what} is damaged or not the original: its {aspect} is {found}, not {expected}")]
    Mismatch {
        /// Which content.
        what: String,
        /// `digest` or `size`.
        aspect: &'static str,
        /// What the image says.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A description that cannot be understood.
    #[error("{what} cannot be understood")]
    Json {
        /// Which one.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A description that contradicts itself or uses what is not known here.
    #[error("{what}: {reason}")]
    Invalid {
        /// Which one.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// A limit of this program that protects the host.
    #[error("{what} is larger than the limit of {limit}{hint}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The limit with its unit.
        limit: String,
        /// What to do about it, from a comma on.
        hint: &'static str,
    },
    /// The disk would be too full.
    #[error("the disk of `{}` has only {free} left, and {keep} are kept free: remove something, such as images by `unladen image rm`", path.display())]
    DiskFull {
        /// The store.
        path: PathBuf,
        /// What is free.
        free: String,
        /// What must stay free.
        keep: String,
    },
    /// A layer that is hostile or damaged.
    #[error("the entry `{entry}` of layer {layer} is refused: {reason}")]
    Entry {
        /// The layer's number, from 1, and how many there are.
        layer: String,
        /// Name of the entry.
        entry: String,
        /// Why.
        reason: String,
    },
    /// A layer that cannot be unpacked here.
    #[error("cannot {operation} `{entry}` of layer {layer}")]
    Unpack {
        /// What was tried.
        operation: &'static str,
        /// The layer's number, from 1, and how many there are.
        layer: String,
        /// Name of the entry.
        entry: String,
        /// Why.
        source: io::Error,
    },
    /// A layer that cannot be read to its end.
    #[error("layer {layer} cannot be read")]
    Layer {
        /// The layer's number, from 1, and how many there are.
        layer: String,
        /// Why.
        source: io::Error,
    },
    /// No image of this name.
    #[error("there is no image `{name}` in the store, and no such file: see `unladen image list`")]
    NotFound {
        /// The name or id.
        name: String,
    },
    /// More than one image.
    #[error("`{name}` is the beginning of {count} images' ids: write more of it")]
    Ambiguous {
        /// The beginning.
        name: String,
        /// How many.
        count: usize,
    },
    /// A container runs on it.
    #[error("the image `{name}` is in use by a running container")]
    InUse {
        /// The name or id.
        name: String,
    },
}

impl ImageError {
    /// Whether the image or the arguments are to blame, and not the host.
    #[must_use]
    pub fn is_input(&self) -> bool {
        !matches!(
            self,
            Self::NoCache | Self::Owner { .. } | Self::DiskFull { .. } | Self::Unpack { .. }
        )
    }
}

/// Names for a message.
fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// An error about a file of the host.
pub(super) fn file<'a>(
    operation: &'static str,
    path: &'a std::path::Path,
) -> impl FnOnce(io::Error) -> ImageError + use<'a> {
    move |source| ImageError::File { operation, path: path.to_owned(), source }
}
