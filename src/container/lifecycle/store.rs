//! The folder in which each container has one of its own:
//!
//! - `state.json`: what is known about it; replaced as a whole, so that a
//!   reader never sees half of it.
//! - `lock`: held by a command that changes the container.
//! - `start`, `started`: the FIFOs that its first process waits at, see
//!   `sys::spawn`.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::error::LifecycleError;
use super::state::Record;

const STATE: &str = "state.json";
const LOCK: &str = "lock";
/// Longest name; a path has at most 4096 bytes.
const LONGEST_ID: usize = 1024;

/// All containers of one root folder.
#[derive(Clone, Debug)]
pub(super) struct Store {
    root: PathBuf,
}

/// One container, locked against other commands that change it.
#[derive(Debug)]
pub(super) struct Entry {
    id: String,
    folder: PathBuf,
    lock: Flock<File>,
}

impl Store {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Takes a name that nobody has.
    pub(super) fn create(&self, id: &str) -> Result<Entry, LifecycleError> {
        let folder = self.folder(id)?;
        let mut builder = DirBuilder::new();
        // Configurations may hold secrets.
        builder.mode(0o700);
        builder
            .recursive(true)
            .create(&self.root)
            .map_err(LifecycleError::state("make the folder", &self.root))?;
        match builder.recursive(false).create(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(LifecycleError::Exists(id.to_owned()));
            }
            other => other.map_err(LifecycleError::state("make the folder", &folder))?,
        }
        self.lock(id, folder)
    }

    /// Locks a container; waits for the command that has it.
    pub(super) fn open(&self, id: &str) -> Result<Entry, LifecycleError> {
        let folder = self.existing(id)?;
        let entry = self.lock(id, folder)?;
        // The command that was waited for may have removed it.
        let path = entry.folder.join(LOCK);
        let same = fs::metadata(&path)
            .and_then(|now| entry.lock.metadata().map(|held| held.ino() == now.ino()))
            .unwrap_or(false);
        if same { Ok(entry) } else { Err(LifecycleError::Unknown(id.to_owned())) }
    }

    /// What is known about a container now, without waiting for anybody.
    pub(super) fn read(&self, id: &str) -> Result<Record, LifecycleError> {
        read(id, &self.existing(id)?)
    }

    /// The names of all containers.
    pub(super) fn list(&self) -> Result<Vec<String>, LifecycleError> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(LifecycleError::state("read", &self.root))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(LifecycleError::state("read", &self.root))?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                names.extend(entry.file_name().into_string().ok());
            }
        }
        names.sort();
        Ok(names)
    }

    /// The folder of a container.
    pub(super) fn folder(&self, id: &str) -> Result<PathBuf, LifecycleError> {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
        let only_dots = id.bytes().all(|byte| byte == b'.');
        if only_dots || id.len() > LONGEST_ID || !id.bytes().all(fine) {
            return Err(LifecycleError::Id(id.to_owned()));
        }
        Ok(self.root.join(id))
    }

    fn existing(&self, id: &str) -> Result<PathBuf, LifecycleError> {
        let folder = self.folder(id)?;
        if folder.is_dir() { Ok(folder) } else { Err(LifecycleError::Unknown(id.to_owned())) }
    }

    fn lock(&self, id: &str, folder: PathBuf) -> Result<Entry, LifecycleError> {
        let path = folder.join(LOCK);
        let file = match File::options().create(true).truncate(false).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LifecycleError::Unknown(id.to_owned()));
            }
            other => other.map_err(LifecycleError::state("open", &path))?,
        };
        let mut file = file;
        loop {
            match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(lock) => return Ok(Entry { id: id.to_owned(), folder, lock }),
                Err((again, nix::errno::Errno::EINTR)) => file = again,
                Err((_, error)) => {
                    return Err(LifecycleError::state("lock", path)(error.into()));
                }
            }
        }
    }
}

impl Entry {
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn read(&self) -> Result<Record, LifecycleError> {
        read(&self.id, &self.folder)
    }

    /// Replaces what is known about the container.
    pub(super) fn write(&self, record: &Record) -> Result<(), LifecycleError> {
        let path = self.folder.join(STATE);
        let put = || {
            let mut draft = tempfile::NamedTempFile::new_in(&self.folder)?;
            draft.write_all(&serde_json::to_vec(record)?)?;
            draft.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        put().map_err(LifecycleError::state("write", path.clone()))
    }

    /// Forgets the container; what is left of it belongs to nobody.
    pub(super) fn remove(self) -> Result<(), LifecycleError> {
        // The state first: a folder without it can still be deleted again.
        let state = self.folder.join(STATE);
        match fs::remove_file(&state) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LifecycleError::state("remove", state)(error));
            }
            _ => {}
        }
        fs::remove_dir_all(&self.folder).map_err(LifecycleError::state("remove", &self.folder))
    }
}

fn read(id: &str, folder: &Path) -> Result<Record, LifecycleError> {
    let path = folder.join(STATE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.exists() => {
            return Err(LifecycleError::Unknown(id.to_owned()));
        }
        // Whoever was to write it was killed before.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(LifecycleError::state("read", path)(error)),
    };
    let damaged =
        |source| LifecycleError::Damaged { id: id.to_owned(), path: path.clone(), source };
    let record: Record = serde_json::from_slice(&text).map_err(damaged)?;
    if record.version != Record::VERSION || record.id != id {
        use serde::de::Error;
        let text = "it was written by another version, or for another container";
        return Err(damaged(serde_json::Error::custom(text)));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_root() {
        let store = Store::new(Path::new("/run/x"));
        for id in ["a", "libpod-1.2_3+4", "..a", "0"] {
            assert!(store.folder(id).is_ok(), "{id}");
        }
        let long = "a".repeat(LONGEST_ID + 1);
        for id in ["", ".", "..", "a/b", "a b", "ä", "a\n", &long] {
            assert!(matches!(store.folder(id), Err(LifecycleError::Id(_))), "{id}");
        }
    }

    #[test]
    fn a_name_is_taken_once_and_free_again() {
        let root = tempfile::tempdir().expect("folder");
        let store = Store::new(&root.path().join("deep/root"));
        assert_eq!(store.list().expect("nothing"), Vec::<String>::new());
        let entry = store.create("one").expect("free");
        assert!(matches!(store.create("one"), Err(LifecycleError::Exists(_))));
        assert!(matches!(store.open("two"), Err(LifecycleError::Unknown(_))));
        let mode = entry.folder().metadata().expect("there").mode() & 0o777;
        assert_eq!(mode, 0o700);
        assert_eq!(store.list().expect("one"), ["one"]);
        let error = entry.read().expect_err("nothing written");
        assert!(matches!(error, LifecycleError::Damaged { .. }), "{error}");
        entry.remove().expect("removed");
        assert!(matches!(store.open("one"), Err(LifecycleError::Unknown(_))));
        store.create("one").expect("free again");
    }

    #[test]
    fn who_waited_for_a_lock_sees_that_the_container_is_gone() {
        let root = tempfile::tempdir().expect("folder");
        let store = Store::new(root.path());
        let entry = store.create("one").expect("free");
        let other = store.clone();
        let waiter = std::thread::spawn(move || other.open("one").map(drop));
        std::thread::sleep(std::time::Duration::from_millis(30));
        entry.remove().expect("removed");
        let result = waiter.join().expect("no panic");
        assert!(matches!(result, Err(LifecycleError::Unknown(_))), "{result:?}");
    }
}
