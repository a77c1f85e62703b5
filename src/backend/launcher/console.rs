//! What a console said, in a few lines: those that say why, else the last
//! ones. It understands no more of a kernel's messages than which of them
//! are about an end.

/// Words of a line that says why something ended. Kernel: `init/do_mounts.c`,
/// `init/main.c`, `mm/oom_kill.c`, `kernel/panic.c`; QEMU: `accel/kvm`.
const TELLING: [&str; 17] = [
    "Kernel panic",
    "VFS: ",
    "ut of memory",
    "deadlocked on memory",
    "Initramfs unpacking failed",
    "Failed to execute",
    "No working init",
    "BUG: ",
    "Oops",
    "PANIC",
    "System halted",
    "unladen-loader: ",
    "EXT4-fs error",
    "mounting",
    "KVM internal error",
    "emulation failure",
    "qemu-system",
];

/// How many lines are shown.
const LINES: usize = 4;
/// The longest line that is shown, in characters.
const WIDTH: usize = 160;

/// The lines of `bytes` that tell most, joined by ` | `, without times,
/// colours and control characters; at most [`LINES`] of at most [`WIDTH`]
/// characters.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<String> =
        text.split(['\n', '\r']).map(plain).filter(|line| !line.is_empty()).collect();
    let tells = |line: &&String| {
        // The last line of a panic only says that it is over.
        TELLING.iter().any(|word| line.contains(word)) && !line.starts_with("---[")
    };
    let mut shown: Vec<&String> = Vec::new();
    for line in lines.iter().filter(tells) {
        if !shown.contains(&line) {
            shown.push(line);
        }
    }
    if shown.is_empty() {
        shown = lines.iter().collect();
    }
    // The first one is the cause, the last ones are the end.
    if shown.len() > LINES {
        let rest = shown.len() - (LINES - 1);
        shown = if lines.len() == shown.len() {
            shown[shown.len() - LINES..].to_vec()
        } else {
            [&shown[..1], &shown[rest..]].concat()
        };
    }
    shown.into_iter().map(String::as_str).collect::<Vec<_>>().join(" | ")
}

/// A line without its time, escape sequences and control characters, cut to
/// [`WIDTH`].
fn plain(line: &str) -> String {
    let mut clean = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // ESC [ ... up to a letter (ECMA-48, control sequences).
            if chars.next() == Some('[') {
                chars.by_ref().find(|c| ('@'..='~').contains(c));
            }
        } else if !c.is_control() {
            clean.push(c);
        }
    }
    let clean = clean.trim();
    let untimed = match clean.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((time, rest)) if is_time(time) => rest.trim(),
        _ => clean,
    };
    untimed.chars().take(WIDTH).collect()
}

/// Whether this is a kernel's time: seconds since its start.
fn is_time(text: &str) -> bool {
    text.contains('.') && text.chars().all(|c| c.is_ascii_digit() || c == '.' || c == ' ')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_root_that_is_missing_is_told_by_its_cause_and_the_panic() {
        let said = "[    0.331275] /dev/root: Can't open blockdev\r\n\
            [    0.331600] VFS: Cannot open root device \"vda\" or unknown-block(0,0): error -6\r\n\
            [    0.332000] Please append a correct \"root=\" boot option; here are the available partitions:\r\n\
            [    0.332400] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r\n\
            [    0.332800] CPU: 0 PID: 1 Comm: swapper/0 Not tainted 6.1.192-unladen #1\r\n\
            [    0.333200] Call Trace:\r\n\
            [    0.333600]  <TASK>\r\n\
            [    0.334000] ---[ end Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0) ]---\r\n";
        assert_eq!(
            excerpt(said.as_bytes()),
            "VFS: Cannot open root device \"vda\" or unknown-block(0,0): error -6 | Kernel panic - \
             not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"
        );
    }

    #[test]
    fn without_a_telling_line_the_last_ones_are_shown_plain() {
        let said = b"\x1b[2J\x1b[01;01Hone\r\ntwo\n\n[    1.000000] three\nfour\nfi\x07ve";
        assert_eq!(excerpt(said), "two | three | four | five");
        assert_eq!(excerpt(b"[not a time] x"), "[not a time] x");
        assert_eq!(excerpt(b""), "");
    }

    #[test]
    fn of_many_telling_lines_the_first_and_the_last_are_shown() {
        let said: String = (0..9).map(|n| format!("Out of memory: {n}\nnoise\n")).collect();
        let told = excerpt(said.as_bytes());
        assert!(told.starts_with("Out of memory: 0 | Out of memory: 6"), "{told}");
        assert!(told.ends_with("Out of memory: 8"), "{told}");
    }

    proptest! {
        #[test]
        fn whatever_it_says_the_excerpt_is_short_and_printable(
            bytes in proptest::collection::vec(any::<u8>(), 0..2000),
            words in proptest::collection::vec("(Kernel panic|\u{1b}\\[[0-9;]{0,4}|\\[ 1.0\\] |a|\n|\r)", 0..200),
        ) {
            for said in [bytes, words.concat().into_bytes()] {
                let told = excerpt(&said);
                prop_assert!(told.chars().count() <= LINES * WIDTH + (LINES - 1) * 3);
                prop_assert!(!told.chars().any(char::is_control));
            }
        }
    }
}
