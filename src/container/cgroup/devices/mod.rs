//! Who may use which device node: rules, and how each version is told them.
//!
//! Version 1 has files that take one rule after the other. Version 2 asks an
//! eBPF program of the cgroup, which is made of the rules in
//! [`program`].

mod program;

use std::fmt;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use super::detect::Version;
use super::{CgroupError, files};
use crate::sys::bpf::{BpfError, load_device_program, set_device_program};

/// Kind of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Character devices.
    Character,
    /// Block devices.
    Block,
}

/// What may be done with a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceAccess {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Making a node with mknod(2).
    pub make: bool,
}

impl DeviceAccess {
    /// Everything.
    pub const ALL: Self = Self { read: true, write: true, make: true };
    /// Making nodes only.
    pub const MAKE: Self = Self { read: false, write: false, make: true };
}

/// In the kernel's letters: `rwm`.
impl fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (granted, letter) in [(self.read, "r"), (self.write, "w"), (self.make, "m")] {
            f.write_str(if granted { letter } else { "" })?;
        }
        Ok(())
    }
}

/// One rule. `None` fits everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Whether what fits is allowed or denied.
    pub allow: bool,
    /// Kind of the device.
    pub kind: Option<DeviceKind>,
    /// Major number.
    pub major: Option<u32>,
    /// Minor number.
    pub minor: Option<u32>,
    /// The accesses that the rule is about.
    pub access: DeviceAccess,
}

impl DeviceRule {
    /// Denies everything: where a list of allowed devices starts.
    pub const DENY_ALL: Self =
        Self { allow: false, kind: None, major: None, minor: None, access: DeviceAccess::ALL };

    /// The devices that every container has, whatever its spec says: the OCI
    /// runtime specification's "Default Devices"
    /// (<https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#default-devices>)
    /// and, as with runc, the making of any node: one that cannot be opened is
    /// harmless, and packages have them.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        let rule = |kind, major, minor, access| Self {
            allow: true,
            kind: Some(kind),
            major,
            minor,
            access,
        };
        let character =
            |major, minor| rule(DeviceKind::Character, Some(major), minor, DeviceAccess::ALL);
        let mut rules = vec![
            rule(DeviceKind::Character, None, None, DeviceAccess::MAKE),
            rule(DeviceKind::Block, None, None, DeviceAccess::MAKE),
        ];
        // null, zero, full, random, urandom.
        rules.extend([3, 5, 7, 8, 9].map(|minor| character(1, Some(minor))));
        // tty and ptmx; the slaves of devpts are 136 to 143, of which the
        // first serves the first 256 (the kernel's devices.txt).
        rules.extend([0, 2].map(|minor| character(5, Some(minor))));
        rules.push(character(136, None));
        rules
    }
}

/// As version 1 takes it: `c 1:3 rwm`, or `a` for everything.
impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| {
            number.map_or_else(|| "*".to_owned(), |number| number.to_string())
        };
        let kind = match self.kind {
            Some(DeviceKind::Character) => "c",
            Some(DeviceKind::Block) => "b",
            None => return f.write_str("a"),
        };
        write!(f, "{kind} {}:{} {}", number(self.major), number(self.minor), self.access)
    }
}

/// Tells the kernel the rules of a group. No rules change nothing.
pub(super) fn apply(
    rules: &[DeviceRule],
    version: Version,
    folder: &Path,
) -> Result<(), CgroupError> {
    if rules.is_empty() {
        return Ok(());
    }
    match version {
        Version::V1 => rules.iter().flat_map(without_all).try_for_each(|rule| {
            let file = if rule.allow { "devices.allow" } else { "devices.deny" };
            files::set("devices", &folder.join(file), &rule.to_string())
        }),
        Version::V2 => guard(rules, folder)
            .map_err(|source| CgroupError::Guard { path: folder.to_owned(), source }),
    }
}

/// Version 1 has no rule for both kinds but the one for everything, so others
/// become two.
fn without_all(rule: &DeviceRule) -> Vec<DeviceRule> {
    let everything = rule.access == DeviceAccess::ALL && rule.major.or(rule.minor).is_none();
    if rule.kind.is_some() || everything {
        return vec![*rule];
    }
    [DeviceKind::Character, DeviceKind::Block]
        .map(|kind| DeviceRule { kind: Some(kind), ..*rule })
        .to_vec()
}

fn guard(rules: &[DeviceRule], folder: &Path) -> Result<(), BpfError> {
    let cgroup = File::open(folder).map_err(|error| BpfError::Attach {
        operation: "open the folder for",
        source: nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or_default()),
    })?;
    let program = load_device_program(&program::compile(rules))?;
    set_device_program(cgroup.as_fd(), Some(program.as_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_gets_one_line_per_rule() {
        let folder = tempfile::tempdir().expect("folder");
        for name in ["devices.allow", "devices.deny"] {
            std::fs::write(folder.path().join(name), "").expect("written");
        }
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("read");
        apply(&[DeviceRule::DENY_ALL], Version::V1, folder.path()).expect("applied");
        assert_eq!(read("devices.deny"), "a");
        let lines: Vec<String> = DeviceRule::defaults().iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "c *:* m",
                "b *:* m",
                "c 1:3 rwm",
                "c 1:5 rwm",
                "c 1:7 rwm",
                "c 1:8 rwm",
                "c 1:9 rwm",
                "c 5:0 rwm",
                "c 5:2 rwm",
                "c 136:* rwm"
            ]
        );
        let rule = DeviceRule { allow: true, major: Some(7), ..DeviceRule::DENY_ALL };
        let lines: Vec<String> = without_all(&rule).iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["c 7:* rwm", "b 7:* rwm"]);
    }

    #[test]
    fn without_rules_nothing_is_touched() {
        apply(&[], Version::V2, Path::new("/no/such/folder")).expect("nothing to do");
        let error = apply(&[DeviceRule::DENY_ALL], Version::V2, Path::new("/no/such/folder"));
        let error = error.expect_err("no folder");
        assert!(error.to_string().starts_with("cannot guard the devices of /no/such"), "{error}");
    }
}
