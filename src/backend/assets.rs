//! The files that the command carries inside itself: the payload and the
//! scripts, unpacked to the user's cache under a name made from their hash.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use etcetera::BaseStrategy;
use include_dir::{Dir, DirEntry, include_dir};
use sha2::{Digest, Sha256};

use super::data;
use crate::payload;
use crate::record::{ArtefactFact, Workload};

static SCRIPTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/scripts");

/// Why the carried files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AssetsError {
    /// There is no cache folder.
    #[error("cannot find the user's cache folder: set HOME or XDG_CACHE_HOME")]
    NoCache,
    /// A file could not be unpacked.
    #[error("cannot {operation} `{path}`")]
    Unpack {
        /// What was tried.
        operation: &'static str,
        /// The file or folder.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no stub guest for this architecture.
    #[error("the stub guest is for x86-64 only")]
    NoStub,
    /// There is no payload for arm64.
    #[error(
        "this command carries no payload for arm64: `rustup target add aarch64-unknown-none`, then \
         build it again"
    )]
    NoForeignPayload,
    /// A script could not be started.
    #[error("cannot run `{script}` (the scripts need bash)")]
    Run {
        /// The script.
        script: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A script failed.
    #[error("`{script}` ended with {status}: {message}")]
    Script {
        /// The script with its arguments.
        script: String,
        /// Its exit status.
        status: String,
        /// What it said on stderr.
        message: String,
    },
}

/// The unpacked files.
#[derive(Debug)]
pub struct Assets {
    cache: PathBuf,
    folder: PathBuf,
}

impl Assets {
    /// Unpacks into the user's cache (`$XDG_CACHE_HOME/unladen` or
    /// `~/.cache/unladen`), unless the same files are there already.
    ///
    /// # Errors
    /// When there is no cache folder or it cannot be written.
    pub fn unpack() -> Result<Self, AssetsError> {
        Self::unpack_into(&user_cache()?)
    }

    /// Unpacks into this cache folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn unpack_into(cache: &Path) -> Result<Self, AssetsError> {
        let folder = cache.join("assets").join(&fingerprint()[..16]);
        let assets = Self { cache: cache.to_owned(), folder };
        if !assets.folder.is_dir() {
            let parent = cache.join("assets");
            fs::create_dir_all(&parent).map_err(failed("create", &parent))?;
            let fresh = tempfile::tempdir_in(&parent).map_err(failed("create in", &parent))?;
            unpack_scripts(&SCRIPTS, &fresh.path().join("scripts"))?;
            write_file(&fresh.path().join(payload::FILE_NAME), payload::EXECUTABLE, 0o755)?;
            write_file(&fresh.path().join(payload::LOADER_NAME), payload::LOADER, 0o755)?;
            fs::set_permissions(fresh.path(), fs::Permissions::from_mode(0o755))
                .map_err(failed("set the mode of", fresh.path()))?;
            if let Some(foreign) = payload::EXECUTABLE_AARCH64 {
                write_file(&fresh.path().join(payload::FILE_NAME_AARCH64), foreign, 0o755)?;
            }
            if let Some(stub) = payload::stub::EXECUTABLE {
                write_file(&fresh.path().join(payload::stub::FILE_NAME), stub, 0o644)?;
            }
            match fs::rename(fresh.path(), &assets.folder) {
                // Somebody else was faster with the same files.
                Err(_) if assets.folder.is_dir() => {}
                result => result.map_err(failed("rename to", &assets.folder))?,
            }
        }
        Ok(assets)
    }

    /// The cache folder.
    #[must_use]
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The payload's executable.
    #[must_use]
    pub fn payload(&self) -> PathBuf {
        self.folder.join(payload::FILE_NAME)
    }

    /// The payload's executable for arm64.
    ///
    /// # Errors
    /// When this command was built without it.
    pub fn payload_aarch64(&self) -> Result<PathBuf, AssetsError> {
        match payload::EXECUTABLE_AARCH64 {
            Some(_) => Ok(self.folder.join(payload::FILE_NAME_AARCH64)),
            None => Err(AssetsError::NoForeignPayload),
        }
    }

    /// The stub guest's file.
    ///
    /// # Errors
    /// Where there is none for this architecture.
    pub fn stub(&self) -> Result<PathBuf, AssetsError> {
        let path = self.folder.join(payload::stub::FILE_NAME);
        match payload::stub::EXECUTABLE {
            Some(_) => Ok(path),
            None => Err(AssetsError::NoStub),
        }
    }

    /// Where a script, such as `vm/microvm.sh`, is unpacked.
    #[must_use]
    pub fn script_path(&self, name: &str) -> PathBuf {
        self.folder.join("scripts").join(name)
    }

    /// Runs a script, such as `vm/microvm.sh`, and gives what it printed.
    ///
    /// # Errors
    /// When it cannot be run or does not end with 0; the message is its own.
    pub fn script(&self, name: &str, arguments: &[String]) -> Result<String, AssetsError> {
        let path = self.script_path(name);
        let output: Output =
            Command::new(&path).args(arguments).stdin(Stdio::null()).output().map_err(
                |source| AssetsError::Run { script: path.display().to_string(), source },
            )?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(AssetsError::Script {
            script: format!("{name} {}", arguments.join(" ")).trim().to_owned(),
            status: output.status.to_string(),
            message: String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "),
        })
    }

    /// The file that a workload reads, made once; `None` for one that reads
    /// none.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn data(&self, workload: Workload) -> Result<Option<PathBuf>, AssetsError> {
        data::file(&self.cache, workload)
    }

    /// The initial file system of a guest, packed once, with the file that its
    /// workload reads, if there is one.
    ///
    /// # Errors
    /// When the packing script fails.
    pub fn initramfs(&self, data: Option<&Path>) -> Result<PathBuf, AssetsError> {
        let name = data::name("initramfs", data, ".cpio");
        self.made_once(&name, "guest/initramfs.sh", &["--payload"], "--out", data)
    }

    /// The same for an arm64 guest.
    ///
    /// # Errors
    /// When there is no payload for it, or the packing script fails.
    pub fn initramfs_aarch64(&self, data: Option<&Path>) -> Result<PathBuf, AssetsError> {
        let payload = self.payload_aarch64()?.display().to_string();
        let front = ["--payload", payload.as_str()];
        let name = data::name("initramfs-aarch64", data, ".cpio");
        self.made(&name, "guest/initramfs.sh", &front, "--out", data)
    }

    /// A guest's root file system as an image for a disk, made once.
    ///
    /// # Errors
    /// When the script fails, such as without `mke2fs`.
    pub fn root_image(&self, data: Option<&Path>) -> Result<PathBuf, AssetsError> {
        let name = data::name("root", data, ".ext4");
        self.made_once(&name, "guest/rootfs.sh", &["--payload"], "--image", data)
    }

    /// A guest's root file system as a folder to share, made once.
    ///
    /// # Errors
    /// When the script fails.
    pub fn root_folder(&self, data: Option<&Path>) -> Result<PathBuf, AssetsError> {
        let name = data::name("root", data, "");
        self.made_once(&name, "guest/rootfs.sh", &["--payload"], "--folder", data)
    }

    /// The initial file system of a guest whose kernel, in the file `kernel`,
    /// needs these modules: with the loader before the payload.
    ///
    /// # Errors
    /// When the kernel has no such module, or the packing script fails.
    pub fn initramfs_with(
        &self,
        kernel: &Path,
        modules: &[&str],
        data: Option<&Path>,
    ) -> Result<PathBuf, AssetsError> {
        let mut hasher = Sha256::new();
        hasher.update(kernel.as_os_str().as_encoded_bytes());
        let stem = format!("initramfs-{}-{}", modules.join("-"), &hex(&hasher.finalize())[..8]);
        let name = data::name(&stem, data, ".cpio");
        let text = |path: PathBuf| path.display().to_string();
        let loader = text(self.folder.join(payload::LOADER_NAME));
        let kernel = kernel.display().to_string();
        let mut front = vec!["--loader", &loader, "--kernel", &kernel];
        front.extend(modules.iter().flat_map(|module| ["--module", module]));
        front.push("--payload");
        self.made_once(&name, "guest/modules.sh", &front, "--out", data)
    }

    /// A file that a script makes from the payload: `front`, whose last flag
    /// takes the payload, then the flag that takes the result.
    fn made_once(
        &self,
        name: &str,
        script: &str,
        front: &[&str],
        out: &str,
        data: Option<&Path>,
    ) -> Result<PathBuf, AssetsError> {
        let payload = self.payload().display().to_string();
        self.made(name, script, &[front, &[payload.as_str()]].concat(), out, data)
    }

    /// A file that a script makes, unless it is there.
    fn made(
        &self,
        name: &str,
        script: &str,
        front: &[&str],
        out: &str,
        data: Option<&Path>,
    ) -> Result<PathBuf, AssetsError> {
        let path = self.folder.join(name);
        if !path.exists() {
            let made = path.display().to_string();
            let words = front.iter().copied().chain([out, made.as_str()]);
            let words: Vec<String> = words.map(str::to_owned).chain(data::flags(data)).collect();
            match self.script(script, &words) {
                // Somebody else was faster with the same folder.
                Err(_) if path.exists() => {}
                other => drop(other?),
            }
        }
        Ok(path)
    }
}

/// The user's cache: `$XDG_CACHE_HOME/unladen` or `~/.cache/unladen`.
pub(super) fn user_cache() -> Result<PathBuf, AssetsError> {
    let base = etcetera::choose_base_strategy().map_err(|_| AssetsError::NoCache)?;
    Ok(base.cache_dir().join("unladen"))
}

/// A file's name, size and SHA-256.
///
/// # Errors
/// When it cannot be read.
pub fn artefact(role: &str, path: &Path) -> Result<ArtefactFact, AssetsError> {
    let bytes = fs::read(path).map_err(failed("read", path))?;
    Ok(ArtefactFact {
        role: role.to_owned(),
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        sha256: hex(&Sha256::digest(&bytes)),
        bytes: bytes.len() as u64,
    })
}

/// A hash over everything that is carried.
fn fingerprint() -> String {
    let mut hasher = Sha256::new();
    hasher.update(payload::EXECUTABLE);
    hasher.update(payload::LOADER);
    hasher.update(payload::EXECUTABLE_AARCH64.unwrap_or_default());
    hasher.update(payload::stub::EXECUTABLE.unwrap_or_default());
    hash_scripts(&SCRIPTS, &mut hasher);
    hex(&hasher.finalize())
}

fn hash_scripts(folder: &Dir<'_>, hasher: &mut Sha256) {
    for entry in folder.entries() {
        hasher.update(entry.path().as_os_str().as_encoded_bytes());
        match entry {
            DirEntry::Dir(inner) => hash_scripts(inner, hasher),
            DirEntry::File(file) => hasher.update(file.contents()),
        }
    }
}

/// Hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unpack_scripts(folder: &Dir<'_>, target: &Path) -> Result<(), AssetsError> {
    fs::create_dir_all(target).map_err(failed("create", target))?;
    for entry in folder.entries() {
        let path = target.join(entry.path().file_name().unwrap_or_default());
        match entry {
            DirEntry::Dir(inner) => unpack_scripts(inner, &path)?,
            DirEntry::File(file) => {
                // The archive keeps no modes: what starts with #! is run.
                let mode = if file.contents().starts_with(b"#!") { 0o755 } else { 0o644 };
                write_file(&path, file.contents(), mode)?;
            }
        }
    }
    Ok(())
}

fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), AssetsError> {
    let mut file = fs::File::create(path).map_err(failed("create", path))?;
    file.write_all(bytes).map_err(failed("write", path))?;
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed("set the mode of", path))
}

pub(super) fn failed<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> AssetsError + use<'a> {
    move |source| AssetsError::Unpack { operation, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacking_twice_gives_the_same_runnable_files() {
        let cache = tempfile::tempdir().expect("folder");
        let first = Assets::unpack_into(cache.path()).expect("unpacked");
        let second = Assets::unpack_into(cache.path()).expect("unpacked again");
        assert_eq!(first.payload(), second.payload());
        assert_eq!(fs::read(first.payload()).expect("read"), payload::EXECUTABLE);
        let help = first.script("vm/microvm.sh", &["--help".to_owned()]).expect("ran");
        assert!(help.contains("--kernel"), "{help}");
        let error = first.script("vm/microvm.sh", &["--nonsense".to_owned()]).expect_err("refused");
        assert!(error.to_string().contains("--nonsense"), "{error}");
    }
}
