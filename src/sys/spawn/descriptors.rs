//! Where a child's descriptors go.
//!
//! Sources and targets may overlap in any way: every source whose number could
//! be a target is first copied above all targets, then everything is copied
//! down. What is not a target is closed by `execve` (`close_range` with
//! `CLOSE_RANGE_CLOEXEC`, Linux 5.11), which also keeps the file that is
//! executed open for as long as it is needed.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;
use nix::libc;

use crate::sys::raw::{call, signed, small, word};

/// Gives the calling child, which so far shares its parent's descriptors, a
/// table of its own with those up to `highest`: neither copying what others
/// keep nor closing it later (Linux 5.9, else all are copied).
pub(super) fn own_table(highest: RawFd) -> Result<(), Errno> {
    let first = highest.max(2).cast_unsigned() + 1;
    let arguments = [word(first), word(u32::MAX), word(libc::CLOSE_RANGE_UNSHARE), 0, 0, 0];
    // SAFETY: no pointers; what is closed is the child's own copy.
    let own = unsafe { call(libc::SYS_close_range, arguments) };
    match own {
        Ok(_) => Ok(()),
        // SAFETY: no pointers.
        Err(_) => unsafe {
            call(libc::SYS_unshare, [signed(libc::CLONE_FILES), 0, 0, 0, 0, 0]).map(drop)
        },
    }
}

/// One descriptor on its way.
#[derive(Debug)]
struct Move {
    source: AtomicI32,
    target: RawFd,
}

/// The arrangement of one launch, worked out before the child exists.
#[derive(Debug)]
pub(super) struct Places {
    moves: Vec<Move>,
    /// Numbers from here on are no targets.
    above: RawFd,
    /// Ranges of numbers below that, both ends included, that are no targets.
    gaps: Vec<(u32, u32)>,
}

impl Places {
    /// Works out the arrangement; fails with a target that is negative or
    /// named twice.
    pub(super) fn new(fds: &[(BorrowedFd<'_>, RawFd)]) -> Result<Self, RawFd> {
        let moves = fds
            .iter()
            .map(|(source, target)| Move {
                source: AtomicI32::new(source.as_raw_fd()),
                target: *target,
            })
            .collect();
        let mut targets: Vec<RawFd> = fds.iter().map(|(_, target)| *target).collect();
        targets.sort_unstable();
        let mut gaps = Vec::with_capacity(targets.len() + 1);
        let mut next = 0_u32;
        for target in targets {
            let number = u32::try_from(target).map_err(|_| target)?;
            if number < next {
                return Err(target);
            }
            if number > next {
                gaps.push((next, number - 1));
            }
            next = number + 1;
        }
        // The standard streams are targets too when there is a terminal.
        let above = next.max(3);
        if next < above {
            gaps.push((next, above - 1));
        }
        let above = RawFd::try_from(above).map_err(|_| RawFd::MAX)?;
        Ok(Self { moves, above, gaps })
    }

    /// The highest number among the sources, or -1.
    pub(super) fn highest(&self) -> RawFd {
        self.moves.iter().map(|entry| entry.source.load(Relaxed)).max().unwrap_or(-1)
    }

    /// Puts everything in place. `others` are descriptors that the child
    /// still needs, or -1; they come to stand above the targets. The rest is
    /// closed now, or, which is cheaper, by `execve`.
    pub(super) fn arrange(&self, others: &[&AtomicI32], now: bool) -> Result<(), Errno> {
        let count = RawFd::try_from(others.len()).map_err(|_| Errno::EOVERFLOW)?;
        let free = self.above + count;
        let sources = self.moves.iter().map(|entry| &entry.source);
        for fd in sources.chain(others.iter().copied()) {
            let number = fd.load(Relaxed);
            if (0..free).contains(&number) {
                fd.store(copy_above(number, free)?, Relaxed);
            }
        }
        for entry in &self.moves {
            copy_to(entry.source.load(Relaxed), entry.target, 0)?;
        }
        let mut next = self.above;
        for other in others.iter().filter(|other| other.load(Relaxed) >= 0) {
            copy_to(other.load(Relaxed), next, libc::O_CLOEXEC)?;
            other.store(next, Relaxed);
            next += 1;
        }
        let close = if now { 0 } else { libc::CLOSE_RANGE_CLOEXEC };
        let rest = (next.cast_unsigned(), u32::MAX);
        for (first, last) in self.gaps.iter().copied().chain([rest]) {
            let arguments = [word(first), word(last), word(close), 0, 0, 0];
            // SAFETY: no pointers; only concerns descriptors of the child.
            unsafe { call(libc::SYS_close_range, arguments)? };
        }
        Ok(())
    }
}

/// Copies a descriptor to a number, whose old content is not needed: this runs
/// in the child's own descriptor table.
fn copy_to(fd: RawFd, target: RawFd, flags: i32) -> Result<(), Errno> {
    let arguments = [signed(fd), signed(target), signed(flags), 0, 0, 0];
    // SAFETY: no pointers.
    unsafe { call(libc::SYS_dup3, arguments).map(drop) }
}

/// Copies a descriptor to the lowest free number from `above` on.
fn copy_above(fd: RawFd, above: RawFd) -> Result<RawFd, Errno> {
    let arguments = [signed(fd), signed(libc::F_DUPFD_CLOEXEC), signed(above), 0, 0, 0];
    // SAFETY: no pointers.
    unsafe { call(libc::SYS_fcntl, arguments).and_then(small) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn gaps_are_what_is_between_targets() {
        let file = std::io::stdin();
        let places = |targets: &[RawFd]| {
            let fds: Vec<_> = targets.iter().map(|target| (file.as_fd(), *target)).collect();
            Places::new(&fds).map(|places| (places.above, places.gaps))
        };
        assert_eq!(places(&[]), Ok((3, vec![(0, 2)])));
        assert_eq!(places(&[2, 0, 1]), Ok((3, vec![])));
        assert_eq!(places(&[1, 5]), Ok((6, vec![(0, 0), (2, 4)])));
        assert_eq!(places(&[1, 1]), Err(1));
        assert_eq!(places(&[-1]), Err(-1));
    }
}
