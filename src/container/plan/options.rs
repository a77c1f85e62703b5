//! Mount options, as fstab and the OCI runtime specification spell them.

use nix::libc;

use super::PlanError;
use crate::sys::spawn::MountAttributes;

/// `MOUNT_ATTR_RDONLY` of mount_setattr(2).
pub(super) const READ_ONLY: u64 = 1;
/// The bits that together say how access times are kept.
const ATIME_BITS: u64 = 0x70;

/// What one word means, for new filesystems (`MS_*`) and for binds
/// (`MOUNT_ATTR_*`).
struct Word {
    name: &'static str,
    flag: u64,
    attribute: u64,
    /// Whether it clears rather than sets.
    clears: bool,
}

const fn word(name: &'static str, flag: u64, attribute: u64) -> Word {
    Word { name, flag, attribute, clears: false }
}

const fn unword(name: &'static str, flag: u64, attribute: u64) -> Word {
    Word { name, flag, attribute, clears: true }
}

const WORDS: &[Word] = &[
    word("ro", libc::MS_RDONLY, READ_ONLY),
    unword("rw", libc::MS_RDONLY, READ_ONLY),
    word("nosuid", libc::MS_NOSUID, 0x2),
    unword("suid", libc::MS_NOSUID, 0x2),
    word("nodev", libc::MS_NODEV, 0x4),
    unword("dev", libc::MS_NODEV, 0x4),
    word("noexec", libc::MS_NOEXEC, 0x8),
    unword("exec", libc::MS_NOEXEC, 0x8),
    word("noatime", libc::MS_NOATIME, 0x10),
    word("strictatime", libc::MS_STRICTATIME, 0x20),
    word("relatime", libc::MS_RELATIME, 0),
    word("nodiratime", libc::MS_NODIRATIME, 0x80),
    unword("diratime", libc::MS_NODIRATIME, 0x80),
];

/// The words that are known, besides those of filesystems.
pub(in crate::container) fn names() -> Vec<&'static str> {
    let mut names = vec!["bind", "defaults", "private", "rbind", "rprivate"];
    names.extend(WORDS.iter().map(|word| word.name));
    names.sort_unstable();
    names
}

/// The options of one mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// `MS_*`, for a new filesystem.
    pub(super) flags: u64,
    /// For a bind.
    pub(super) attributes: MountAttributes,
    /// A bind, and whether it takes along what is mounted below.
    pub(super) bind: Option<bool>,
    /// What is left, for the filesystem itself.
    pub(super) data: String,
}

impl Options {
    /// Reads the words of one mount; `field` names it.
    pub(super) fn parse(words: &[String], field: &str) -> Result<Self, PlanError> {
        let mut options = Self::default();
        let mut data: Vec<&str> = Vec::new();
        for text in words {
            match text.as_str() {
                "bind" => options.bind = Some(options.bind.unwrap_or(false)),
                "rbind" => options.bind = Some(true),
                // What every mount here is anyway.
                "defaults" | "private" | "rprivate" => {}
                "shared" | "rshared" | "slave" | "rslave" | "unbindable" | "runbindable" => {
                    return Err(PlanError::Value {
                        field: format!("{field}.options"),
                        value: text.clone(),
                        reason: "mounts of this runtime are always private",
                    });
                }
                other => match WORDS.iter().find(|word| word.name == other) {
                    Some(word) => options.apply(word),
                    None => data.push(other),
                },
            }
        }
        options.data = data.join(",");
        Ok(options)
    }

    fn apply(&mut self, word: &Word) {
        let attributes = &mut self.attributes;
        if word.clears {
            self.flags &= !word.flag;
            attributes.set &= !word.attribute;
            attributes.clear |= word.attribute;
            return;
        }
        self.flags |= word.flag;
        if matches!(word.name, "noatime" | "strictatime" | "relatime") {
            // The kernel wants the whole group cleared before one is set.
            attributes.clear |= ATIME_BITS;
            attributes.set &= !ATIME_BITS;
        }
        attributes.set |= word.attribute;
        if word.attribute & ATIME_BITS == 0 && word.name != "relatime" {
            attributes.clear &= !word.attribute;
        }
    }

    /// Whether the mount is read-only.
    pub(super) fn read_only(&self) -> bool {
        self.flags & libc::MS_RDONLY != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Options {
        let words: Vec<String> = text.split(',').map(str::to_owned).collect();
        Options::parse(&words, "mounts[0]").expect("fine")
    }

    #[test]
    fn words_become_flags_and_the_rest_data() {
        let options = parse("nosuid,strictatime,mode=755,size=64k,ro");
        assert_eq!(options.flags, libc::MS_NOSUID | libc::MS_STRICTATIME | libc::MS_RDONLY);
        assert_eq!(options.data, "mode=755,size=64k");
        assert!(options.read_only() && options.bind.is_none());
        assert!(!parse("ro,rw").read_only());
    }

    #[test]
    fn binds_change_attributes() {
        let options = parse("rbind,ro,noatime,dev");
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.attributes.set, READ_ONLY | 0x10);
        assert_eq!(options.attributes.clear, 0x70 | 0x4);
        assert_eq!(parse("rbind,bind").bind, Some(true));
    }

    #[test]
    fn propagation_to_the_host_is_refused() {
        let error = Options::parse(&["rshared".to_owned()], "mounts[3]").expect_err("refused");
        assert!(error.to_string().starts_with("`mounts[3].options` cannot be `rshared`"));
    }
}
