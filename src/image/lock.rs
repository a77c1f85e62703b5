//! Locks of the store, all of them `flock`s on files or folders: the kernel
//! gives them back when their holder ends, however it ends.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::ImageError;
use super::error::file;

/// Keeps an image in the store as long as it, or a duplicate of its
/// descriptor in any process, is open. Nothing else needs to be done with it.
#[derive(Debug)]
pub struct ImageLock(OwnedFd);

impl ImageLock {
    /// A descriptor that holds the lock too, to be handed on to a process
    /// that outlives this one. It is closed on `execve` unless that is
    /// changed.
    ///
    /// # Errors
    ///
    /// When this process has no descriptor left.
    pub fn share(&self) -> std::io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

/// Takes a shared lock of a folder, or nothing if the folder is gone.
pub(super) fn share(folder: &Path) -> Result<Option<ImageLock>, ImageError> {
    let Some(opened) = open(folder)? else { return Ok(None) };
    let opened = OwnedFd::from(opened);
    // nix's own guard takes the lock away when it is dropped, from all
    // duplicates; here the last of them that is closed does.
    #[allow(deprecated, reason = "the guard that replaces it ends the lock too early")]
    let locked = nix::fcntl::flock(opened.as_raw_fd(), FlockArg::LockShared);
    locked.map_err(|errno| file("lock", folder)(errno.into()))?;
    // Somebody may have removed it while this waited.
    if !is_still(&opened, folder)? {
        return Ok(None);
    }
    Ok(Some(ImageLock(opened)))
}

/// Takes the lock of a folder alone, or nothing if somebody has it.
pub(super) fn try_alone(folder: &Path) -> Result<Option<Flock<File>>, ImageError> {
    let opened = File::open(folder).map_err(file("open", folder))?;
    match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
        Ok(locked) => Ok(Some(locked)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(file("lock", folder)(errno.into())),
    }
}

/// Takes the lock of a file alone, and waits for it.
pub(super) fn wait_alone(path: &Path) -> Result<Flock<File>, ImageError> {
    let opened =
        File::options().create(true).append(true).open(path).map_err(file("open", path))?;
    Flock::lock(opened, FlockArg::LockExclusive)
        .map_err(|(_, errno)| file("lock", path)(errno.into()))
}

fn open(folder: &Path) -> Result<Option<File>, ImageError> {
    match File::open(folder) {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file("open", folder)(error)),
    }
}

/// Whether an open folder is what its path leads to.
fn is_still(opened: &OwnedFd, folder: &Path) -> Result<bool, ImageError> {
    let own =
        nix::sys::stat::fstat(opened).map_err(|errno| file("look at", folder)(errno.into()))?;
    Ok(folder.metadata().is_ok_and(|now| (now.dev(), now.ino()) == (own.st_dev, own.st_ino)))
}
