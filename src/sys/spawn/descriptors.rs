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
    /// Ranges of numbers, both ends included, that are no targets.
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
        gaps.push((next, u32::MAX));
        let above = RawFd::try_from(next).map_err(|_| RawFd::MAX)?;
        Ok(Self { moves, above, gaps })
    }

    /// Puts everything in place. `others` are descriptors that the child
    /// still needs; they are moved out of the way, or are -1.
    pub(super) fn arrange(&self, others: [&AtomicI32; 2]) -> Result<(), Errno> {
        for fd in self.moves.iter().map(|entry| &entry.source).chain(others) {
            let number = fd.load(Relaxed);
            if (0..self.above).contains(&number) {
                fd.store(copy_above(number, self.above)?, Relaxed);
            }
        }
        for entry in &self.moves {
            let arguments = [signed(entry.source.load(Relaxed)), signed(entry.target), 0, 0, 0, 0];
            // SAFETY: no pointers. The target's old content is not needed:
            // this runs in the child's own descriptor table.
            unsafe { call(libc::SYS_dup3, arguments)? };
        }
        for (first, last) in &self.gaps {
            let arguments = [word(*first), word(*last), word(libc::CLOSE_RANGE_CLOEXEC), 0, 0, 0];
            // SAFETY: no pointers; only marks descriptors of the child.
            unsafe { call(libc::SYS_close_range, arguments)? };
        }
        Ok(())
    }
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
        assert_eq!(places(&[]), Ok((0, vec![(0, u32::MAX)])));
        assert_eq!(places(&[2, 0, 1]), Ok((3, vec![(3, u32::MAX)])));
        assert_eq!(places(&[1, 5]), Ok((6, vec![(0, 0), (2, 4), (6, u32::MAX)])));
        assert_eq!(places(&[1, 1]), Err(1));
        assert_eq!(places(&[-1]), Err(-1));
    }
}
