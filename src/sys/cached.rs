//! The page cache of single files: how much of a file is in memory, and
//! letting go of it. Nothing here touches any other file's pages.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc;

/// Pages of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// How many are in the page cache. Of a file that this user neither owns
    /// nor may write, the kernel says that all are (mincore(2), since Linux
    /// 5.2).
    pub cached: usize,
    /// How many the file has.
    pub all: usize,
}

impl Pages {
    /// Bytes of the cached pages.
    #[must_use]
    pub fn bytes(self) -> u64 {
        (self.cached * page_size()) as u64
    }
}

/// Lets go of a file's pages. Those that are mapped by a process stay, as do
/// those of file systems that live in memory; see [`pages`] for what is left.
/// Needs no privilege (posix_fadvise(2), `POSIX_FADV_DONTNEED`).
///
/// # Errors
/// When the file cannot be opened or written out.
pub fn let_go(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    // Dirty pages are not let go.
    file.sync_data()?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(())
}

/// Counts the pages of a file.
///
/// # Errors
/// When the file cannot be opened or mapped.
pub fn pages(path: &Path) -> io::Result<Pages> {
    let file = File::open(path)?;
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    if length == 0 {
        return Ok(Pages { cached: 0, all: 0 });
    }
    let size = page_size();
    let mut map = vec![0_u8; length.div_ceil(size)];
    // SAFETY: a fresh mapping at an address of the kernel's choice, of which
    // nothing is ever read or written; `map` has a byte for each of its pages;
    // it is unmapped once, before anybody else can know of it.
    unsafe {
        let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
        let address =
            libc::mmap(std::ptr::null_mut(), length, protection, flags, file.as_raw_fd(), 0);
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let result = match libc::mincore(address, length, map.as_mut_ptr()) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        };
        libc::munmap(address, length);
        result?;
    }
    let cached = map.iter().filter(|page| **page & 1 == 1).count();
    Ok(Pages { cached, all: map.len() })
}

fn page_size() -> usize {
    // SAFETY: no pointers.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_cached_until_it_is_let_go() {
        // Beside the tests' own executable: /tmp may be in memory.
        let folder = std::env::current_exe().expect("own file");
        let file = tempfile::NamedTempFile::new_in(folder.parent().expect("folder")).expect("file");
        std::fs::write(file.path(), vec![1_u8; 5 * page_size() + 1]).expect("written");
        assert_eq!(pages(file.path()).expect("counted"), Pages { cached: 6, all: 6 });
        assert_eq!(pages(file.path()).expect("counted").bytes(), 6 * page_size() as u64);
        let_go(file.path()).expect("let go");
        assert_eq!(pages(file.path()).expect("counted"), Pages { cached: 0, all: 6 });
        std::fs::read(file.path()).expect("read");
        assert_eq!(pages(file.path()).expect("counted").cached, 6);
        std::fs::write(file.path(), []).expect("emptied");
        assert_eq!(pages(file.path()).expect("counted"), Pages { cached: 0, all: 0 });
    }
}
