//! The KVM device. That it opens does not mean that a real kernel runs under
//! it; only booting one tells, which is the virtual machine backend's work.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;

use super::source::Root;

/// State of `/dev/kvm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvmDevice {
    /// There is none.
    Absent,
    /// It opens for reading and writing.
    Openable,
    /// It exists and this user may not open it.
    Forbidden,
    /// It exists and cannot be opened, for this reason.
    Broken(String),
}

impl KvmDevice {
    /// Tries to open `/dev/kvm` below `root`.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        match OpenOptions::new().read(true).write(true).open(Root(root).path("dev/kvm")) {
            Ok(_) => Self::Openable,
            Err(error) => match error.kind() {
                ErrorKind::NotFound => Self::Absent,
                ErrorKind::PermissionDenied => Self::Forbidden,
                _ => Self::Broken(error.to_string()),
            },
        }
    }

    /// The value in facts.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Absent => "absent".to_owned(),
            Self::Openable => "openable".to_owned(),
            Self::Forbidden => "present, not openable by this user".to_owned(),
            Self::Broken(reason) => format!("present, cannot be opened: {reason}"),
        }
    }
}
