//! Tokens such as `{id}` in the words of a command.

/// What a token may be, beside the names of a system's own parameters.
pub type Token = (&'static str, &'static str);

/// All tokens with what they stand for.
pub const TOKENS: [Token; 25] = [
    ("bin", "the system's program"),
    ("id", "name of the instance, with the run's id in it"),
    ("run", "the run's id"),
    ("files", "folder of the instance; an OCI runtime's bundle"),
    ("state", "folder of the system's own files in this run"),
    ("runs", "folder of the run's instances"),
    ("brief", "folder of the run with a short name, for sockets"),
    ("rootfs", "the unpacked root file system"),
    ("payload", "path of the payload inside"),
    ("kernel", "our guest kernel, uncompressed, for a machine monitor"),
    ("initrd", "the initramfs with the payload, for a machine monitor"),
    ("append", "the payload's variables as words of a kernel's command line"),
    ("image", "name of the imported image"),
    ("archive", "the image as an archive, for `load`"),
    ("socket", "the channel's socket on the host"),
    ("inside", "the channel's socket inside"),
    ("cgroup", "control group of the instance"),
    ("parent", "control group of the run"),
    ("daemon", "the daemon's socket"),
    ("memory", "memory limit in bytes"),
    ("pids", "limit of processes"),
    ("cpus", "processors, such as 0.5"),
    ("quota", "processor time of each 100 ms, in microseconds"),
    ("name", "a variable's name, in `env` only"),
    ("value", "a variable's value, in `env` only"),
];

/// Tokens that stand for several words, alone in theirs.
pub const LISTS: [Token; 2] =
    [("options", "the words of `options`"), ("env", "the payload's variables, as `env` says")];

/// The tokens of a word: `{`, lower-case letters, `}`.
pub fn tokens(word: &str) -> impl Iterator<Item = &str> {
    word.split('{').skip(1).filter_map(|rest| {
        let (name, _) = rest.split_once('}')?;
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        (!name.is_empty() && name.bytes().all(plain)).then_some(name)
    })
}

/// A word with its tokens replaced; those that are not given stay.
#[must_use]
pub fn fill(word: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(at) = rest.find('{') {
        filled.push_str(&rest[..at]);
        let inner = &rest[at + 1..];
        let known = inner.split_once('}').and_then(|(name, after)| {
            let (_, value) = values.iter().find(|(known, _)| *known == name)?;
            Some((value, after))
        });
        match known {
            Some((value, after)) => {
                filled.push_str(value);
                rest = after;
            }
            None => {
                filled.push('{');
                rest = inner;
            }
        }
    }
    filled.push_str(rest);
    filled
}
