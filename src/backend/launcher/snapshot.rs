//! Making a machine's snapshot: a guest is started cold, proves its work, is
//! saved, and ends. All of it happens before any timed window.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use super::live::Live;
use super::order::{Failure, Snapshot, Until, fd};
use super::place::Ground;
use super::qmp::Conversation;
use super::start::start;
use super::template::Template;
use super::watch::{Goal, Trouble};
use crate::payload::protocol::WorkResult;
use crate::record::Mark;
use crate::sys::clock::Deadline;

/// How often it is looked whether a state is written.
const WRITTEN_POLL: Duration = Duration::from_millis(2);

impl Snapshot {
    /// Where QEMU is to save the state. Before 8.2 it knows no files, only
    /// commands (docs/devel/migration/main.rst in its source). It has saved
    /// when the command's pipe has taken everything, which the command may
    /// not have read yet; so the file gets its name when it is whole.
    pub(super) fn save_uri(&self) -> String {
        let state = self.state_file();
        if self.files {
            return format!("file:{}", state.display());
        }
        let quoted = |path: &Path| path.display().to_string().replace('\'', r"'\''");
        let (part, whole) = (quoted(&state.with_extension("part")), quoted(&state));
        format!("exec:cat > '{part}' && mv '{part}' '{whole}'")
    }

    /// Where QEMU is to load the state from. A file's descriptor, which 8.2
    /// has a better word for, saves starting a shell and `cat`.
    pub(super) fn load_uri(&self) -> String {
        if self.files {
            format!("file:{}", self.state_file().display())
        } else {
            format!("fd:{}", fd::STATE)
        }
    }

    /// The state for one more guest: each reads from its beginning.
    pub(super) fn open(&self) -> Result<OwnedFd, String> {
        let path = self.state_file();
        File::open(&path)
            .map(OwnedFd::from)
            .map_err(|error| format!("cannot open the snapshot `{}`: {error}", path.display()))
    }

    /// How a guest is made to go on from it.
    pub(super) fn conversation(&self) -> Conversation {
        Conversation::load(&self.load_uri(), self.mapped)
    }

    /// Waits until its files are on the disk, so that writing them back does
    /// not fall into a timed window.
    fn settle(&self) -> io::Result<()> {
        File::open(self.state_file())?.sync_all()?;
        if self.mapped {
            File::open(self.memory_file())?.sync_all()?;
        }
        Ok(())
    }
}

/// What a template's machines go on from.
pub(super) struct Restore {
    pub(super) snapshot: Snapshot,
    /// What the saved guest has proved.
    pub(super) result: WorkResult,
}

/// Makes an empty folder for snapshots, readable by nobody else.
pub(super) fn empty_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Starts the template's machine cold, and saves it once its work is proved.
pub(super) fn take(
    source: &mut Template,
    snapshot: &Snapshot,
    ground: &mut Ground,
    name: &str,
    null: BorrowedFd<'_>,
    control: BorrowedFd<'_>,
) -> Result<WorkResult, Failure> {
    let deadline = Duration::from_millis(snapshot.deadline_ms);
    let mut live = start(source, ground, name, null, Until::Ready, None)?;
    let saved = save(&mut live, snapshot, control, deadline);
    live.destroy();
    saved
}

fn save(
    live: &mut Live,
    snapshot: &Snapshot,
    control: BorrowedFd<'_>,
    deadline: Duration,
) -> Result<WorkResult, Failure> {
    live.wait(Goal::Proved, control, deadline)?;
    live.save(Conversation::save(&snapshot.save_uri(), snapshot.mapped), control, deadline)?;
    let kept = written(live, snapshot, control, deadline).and_then(|()| snapshot.settle());
    kept.map_err(|error| {
        live.failure(Mark::Ready, format!("snapshot: cannot write it to the disk: {error}"))
    })?;
    let proved = live.watch.result;
    let mut result = proved.ok_or_else(|| live.failure(Mark::Ready, "no proof".to_owned()))?;
    if let Some(code) = snapshot.ends {
        result.code = code;
    }
    Ok(result)
}

/// Waits until the file with the state is there, and in it everything that
/// QEMU has written. What else there is to hear is heard meanwhile.
fn written(
    live: &mut Live,
    snapshot: &Snapshot,
    control: BorrowedFd<'_>,
    deadline: Duration,
) -> io::Result<()> {
    let state = snapshot.state_file();
    let until = Deadline::after(deadline);
    while !state.try_exists()? {
        let heard = live.watch.until(
            Goal::Exited,
            live.pidfd.as_fd(),
            control,
            Deadline::after(WRITTEN_POLL),
        );
        let why = match heard {
            Err(Trouble::Deadline) if !until.passed() => continue,
            Err(Trouble::Deadline) => {
                "QEMU has saved, but what writes its state has not ended well"
            }
            _ => "QEMU has ended before",
        };
        return Err(io::Error::other(why));
    }
    Ok(())
}
