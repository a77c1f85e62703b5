//! Mount options, as fstab and the OCI runtime specification spell them
//! (<https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config.md>,
//! "Linux mount options").

use std::ffi::CString;

use nix::libc;

use super::{PlanError, c_string};
use crate::sys::spawn::MountAttributes;

/// `MOUNT_ATTR_RDONLY` of mount_setattr(2).
pub(super) const READ_ONLY: u64 = 1;
/// `MOUNT_ATTR_NODEV` of mount_setattr(2).
pub(super) const NO_DEVICES: u64 = 4;
/// The bits that together say how access times are kept.
const ATIME_BITS: u64 = 0x70;
const NO_ATIME: u64 = 0x10;
const STRICT_ATIME: u64 = 0x20;
const NO_DIR_ATIME: u64 = 0x80;
const NO_SYMLINK_FOLLOW: u64 = 0x20_0000;

/// Words for one mount, with what they set and clear (`MOUNT_ATTR_*`). With an
/// `r` before it a word is for everything beneath too.
const WORDS: [(&str, u64, u64); 19] = [
    ("ro", READ_ONLY, 0),
    ("rw", 0, READ_ONLY),
    ("nosuid", 0x2, 0),
    ("suid", 0, 0x2),
    ("nodev", NO_DEVICES, 0),
    ("dev", 0, NO_DEVICES),
    ("noexec", 0x8, 0),
    ("exec", 0, 0x8),
    ("nosymfollow", NO_SYMLINK_FOLLOW, 0),
    ("symfollow", 0, NO_SYMLINK_FOLLOW),
    ("nodiratime", NO_DIR_ATIME, 0),
    ("diratime", 0, NO_DIR_ATIME),
    // The kernel wants the whole group cleared before one is set; with none
    // set it is relatime.
    ("noatime", NO_ATIME, ATIME_BITS),
    ("atime", 0, ATIME_BITS),
    ("relatime", 0, ATIME_BITS),
    ("norelatime", 0, ATIME_BITS),
    ("strictatime", STRICT_ATIME, ATIME_BITS),
    ("nostrictatime", 0, ATIME_BITS),
    ("defaults", 0, 0),
];

/// Words about a whole filesystem, with the parameter that fsconfig(2) takes,
/// or none where it is the default.
const SUPER_WORDS: [(&str, Option<&str>); 10] = [
    ("sync", Some("sync")),
    ("async", None),
    ("dirsync", Some("dirsync")),
    ("lazytime", Some("lazytime")),
    ("nolazytime", None),
    ("mand", Some("mand")),
    ("nomand", None),
    // About messages in the kernel's log.
    ("silent", None),
    ("loud", None),
    ("noiversion", None),
];

/// Words about who sees later mounts, with their `MS_*` flag.
const PROPAGATION: [(&str, u64); 4] = [
    ("private", libc::MS_PRIVATE),
    ("slave", libc::MS_SLAVE),
    ("shared", libc::MS_SHARED),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// Words that this runtime does not carry out, with the reason.
const REFUSED: [(&str, &str); 8] = [
    ("remount", "every mount of this runtime is new"),
    ("idmap", "this runtime does not map the ids of a mount"),
    ("ridmap", "this runtime does not map the ids of a mount"),
    ("tmpcopyup", "this runtime does not copy what a mount hides into it"),
    ("copy-symlink", "this runtime follows links inside the container"),
    ("src-nofollow", "this runtime follows links to the source of a mount"),
    ("dest-nofollow", "this runtime follows links inside the container"),
    ("iversion", "the kernel takes it from the filesystem"),
];

/// The words that are known, besides those of filesystems.
pub(in crate::container) fn names() -> Vec<String> {
    let once = ["bind", "private", "slave"];
    let words = WORDS.iter().map(|word| word.0).filter(|word| *word != "defaults");
    let twice = once.into_iter().chain(words);
    let mut names: Vec<String> =
        twice.flat_map(|word| [word.to_owned(), format!("r{word}")]).collect();
    names.extend(SUPER_WORDS.iter().map(|word| word.0.to_owned()));
    names.push("defaults".to_owned());
    names.sort_unstable();
    names
}

/// The options of one mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// For the mount itself.
    pub(super) attributes: MountAttributes,
    /// For it and everything beneath.
    pub(super) recursive: MountAttributes,
    /// `MS_*`, and whether it is for everything beneath too; private if none
    /// is named.
    pub(super) propagation: Option<(u64, bool)>,
    /// A bind, and whether it takes along what is mounted below.
    pub(super) bind: Option<bool>,
    /// Words about the whole filesystem.
    pub(super) whole: Vec<&'static str>,
    /// What is left, for the filesystem itself.
    pub(super) data: Vec<String>,
}

impl Options {
    /// Reads the words of one mount; `field` names it.
    pub(super) fn parse(words: &[String], field: &str) -> Result<Self, PlanError> {
        let mut options = Self::default();
        for text in words {
            if let Some((_, reason)) = REFUSED
                .iter()
                .find(|(name, _)| text.split('=').next().is_some_and(|word| word == *name))
            {
                return Err(PlanError::Value {
                    field: format!("{field}.options"),
                    value: text.clone(),
                    reason,
                });
            }
            options.read(text);
        }
        Ok(options)
    }

    fn read(&mut self, text: &str) {
        let by_name = |name: &str| WORDS.iter().find(|(word, ..)| *word == name);
        let flow = |name: &str| PROPAGATION.iter().find(|(word, _)| *word == name);
        let below = text.strip_prefix('r');
        if text == "bind" {
            self.bind = Some(self.bind.unwrap_or(false));
        } else if text == "rbind" {
            self.bind = Some(true);
        } else if let Some((_, set, clear)) = by_name(text) {
            apply(&mut self.attributes, *set, *clear);
        } else if let Some((_, set, clear)) = below.and_then(by_name) {
            apply(&mut self.recursive, *set, *clear);
        } else if let Some((_, flag)) = flow(text) {
            self.propagation = Some((*flag, false));
        } else if let Some((_, flag)) = below.and_then(flow) {
            self.propagation = Some((*flag, true));
        } else if let Some((_, parameter)) = SUPER_WORDS.iter().find(|(word, _)| *word == text) {
            self.whole.extend(*parameter);
        } else {
            self.data.push(text.to_owned());
        }
    }

    /// Whether the mount is read-only.
    pub(super) fn read_only(&self) -> bool {
        (self.attributes.set | self.recursive.set) & READ_ONLY != 0
    }

    /// Bits of a new mount.
    pub(super) fn bits(&self) -> u64 {
        self.attributes.set | self.recursive.set
    }

    /// Parameters of a new filesystem.
    pub(super) fn parameters(
        &self,
        field: &str,
        source: CString,
        read_only: bool,
    ) -> Result<Vec<(CString, Option<CString>)>, PlanError> {
        let mut all = vec![(CString::from(c"source"), Some(source))];
        if read_only {
            all.push((c"ro".into(), None));
        }
        for word in &self.whole {
            all.push((c_string(field, word)?, None));
        }
        for text in &self.data {
            all.push(match text.split_once('=') {
                Some((name, value)) => (c_string(field, name)?, Some(c_string(field, value)?)),
                None => (c_string(field, text)?, None),
            });
        }
        Ok(all)
    }
}

/// The later word wins.
fn apply(attributes: &mut MountAttributes, set: u64, clear: u64) {
    attributes.set = attributes.set & !clear | set;
    attributes.clear = (attributes.clear & !set) | clear;
    if set & ATIME_BITS != 0 {
        attributes.clear |= ATIME_BITS;
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
    fn words_become_bits_and_the_rest_parameters() {
        let options = parse("nosuid,strictatime,mode=755,size=64k,ro,sync,newinstance");
        assert_eq!(options.bits(), 0x2 | STRICT_ATIME | READ_ONLY);
        assert!(options.read_only() && options.bind.is_none());
        let text = |text: &str| CString::new(text).expect("no NUL");
        assert_eq!(
            options.parameters("mounts[0]", text("tmpfs"), true).expect("fine"),
            [
                ("source", Some("tmpfs")),
                ("ro", None),
                ("sync", None),
                ("mode", Some("755")),
                ("size", Some("64k")),
                ("newinstance", None),
            ]
            .map(|(name, value)| (text(name), value.map(text)))
        );
        assert!(!parse("ro,rw").read_only());
        assert_eq!(parse("noatime,relatime").bits(), 0);
    }

    #[test]
    fn binds_change_attributes_of_one_mount_or_of_all() {
        let options = parse("rbind,ro,noatime,dev,rnosuid");
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.attributes.set, READ_ONLY | NO_ATIME);
        assert_eq!(options.attributes.clear, ATIME_BITS | 0x4);
        assert_eq!(options.recursive.set, 0x2);
        assert_eq!(parse("rbind,bind").bind, Some(true));
        assert_eq!(parse("rro").recursive.set, READ_ONLY);
        assert_eq!(parse("noatime,strictatime").attributes.set, STRICT_ATIME);
    }

    #[test]
    fn propagation_is_for_one_mount_or_for_all() {
        assert_eq!(parse("rslave").propagation, Some((libc::MS_SLAVE, true)));
        assert_eq!(parse("private").propagation, Some((libc::MS_PRIVATE, false)));
        assert_eq!(parse("nosuid").propagation, None);
    }

    #[test]
    fn what_is_not_carried_out_is_named() {
        for word in ["idmap", "idmap=uids=0-1-10", "ridmap", "tmpcopyup", "remount"] {
            let error = Options::parse(&[word.to_owned()], "mounts[3]").expect_err("refused");
            let start = format!("`mounts[3].options` cannot be `{word}`");
            assert!(error.to_string().starts_with(&start), "{error}");
        }
    }
}
