//! What differs between instances of a system, and what each is connected with.

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::super::order::{PeerChannel, PeerRecipe, fd};
use super::super::watch::Source;
use crate::spec::systems::fill;
use crate::sys::fdpass::stream_pair;

/// The channel's socket in the folder of an instance.
const SOCKET: &str = "channel";

/// Both ends of everything an instance is connected with.
pub(super) struct Wires {
    pub(super) ears: Vec<(Source, OwnedFd)>,
    pub(super) child: Vec<(OwnedFd, i32)>,
}

/// Connects an instance.
pub(super) fn wires(recipe: &PeerRecipe, folder: &Path, null: BorrowedFd<'_>) -> io::Result<Wires> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let mut ears = vec![(Source::Stderr, read)];
    let mut child = vec![(write.try_clone()?, 2)];
    if recipe.channel != PeerChannel::Streams {
        child.push((write, 1));
    }
    match recipe.channel {
        PeerChannel::Inherited(number) => {
            let (near, far) = stream_pair()?;
            ears.push((Source::Channel, near));
            child.push((far, number));
        }
        PeerChannel::Connected => ears.push((Source::Door, listen(folder)?.into())),
        PeerChannel::Streams => {
            let (near, far) = stream_pair()?;
            ears.push((Source::Channel, near));
            child.push((far.try_clone()?, 0));
            child.push((far, 1));
        }
    }
    if !matches!(recipe.channel, PeerChannel::Inherited(0) | PeerChannel::Streams) {
        child.push((null.try_clone_to_owned()?, 0));
    }
    if let Some((path, number)) = &recipe.filter {
        debug_assert_ne!(*number, fd::CHANNEL, "the filter is not the channel");
        child.push((fs::File::open(path)?.into(), *number));
    }
    Ok(Wires { ears, child })
}

/// A socket in the folder, however long its path is: the kernel takes no more
/// than 108 bytes for a name (unix(7)).
fn listen(folder: &Path) -> io::Result<UnixListener> {
    use std::os::fd::AsRawFd;
    let place = fs::File::open(folder)?;
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", place.as_raw_fd()))?;
    // Whoever the payload is inside; the folder is the user's own.
    fs::set_permissions(folder.join(SOCKET), fs::Permissions::from_mode(0o777))?;
    Ok(listener)
}

/// What differs between instances.
pub(super) struct Filled {
    values: [(&'static str, String); 4],
}

impl Filled {
    pub(super) fn new(id: &str, folder: &Path, run_id: &str) -> Self {
        let values = [
            ("id", id.to_owned()),
            ("files", folder.display().to_string()),
            ("socket", folder.join(SOCKET).display().to_string()),
            ("cgroup", format!("/unladen-{run_id}/{id}")),
        ];
        Self { values }
    }

    pub(super) fn fill(&self, text: &str) -> String {
        let values: Vec<(&str, &str)> =
            self.values.iter().map(|(name, value)| (*name, value.as_str())).collect();
        fill(text, &values)
    }

    pub(super) fn all(&self, words: &[String]) -> Vec<String> {
        words.iter().map(|word| self.fill(word)).collect()
    }
}
