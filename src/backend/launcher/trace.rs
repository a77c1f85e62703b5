//! The finer marks of a traced machine: what QEMU translates for the first
//! time, and what the guest's kernel says. It knows neither addresses nor
//! words itself; its order brings them.

use super::super::Timeline;
use super::order::Probe;
use crate::record::Mark;

/// Text that is not understood yet is kept up to this length, in bytes: no
/// line that matters is longer.
const MAX_LINE: usize = 4096;

/// The probes of one machine, and what was read of both texts.
#[derive(Debug, Default)]
pub(super) struct Trace {
    probes: Vec<(Mark, Probe)>,
    translated: Line,
    said: Line,
}

impl Trace {
    pub(super) fn new(probes: Vec<(Mark, Probe)>) -> Self {
        Self { probes, ..Self::default() }
    }

    /// Hears QEMU's log of translated instructions (its option `-d in_asm`),
    /// where each one stands behind its address.
    pub(super) fn hear_log(&mut self, bytes: &[u8], now: u64, timeline: &mut Timeline) {
        let Self { probes, translated, .. } = self;
        translated.take(bytes, |line| {
            let Some(at) = address(line) else { return };
            stamp(probes, timeline, now, |probe| matches!(probe, Probe::Address(a) if *a == at));
        });
    }

    /// Hears the guest's console.
    pub(super) fn hear_console(&mut self, bytes: &[u8], now: u64, timeline: &mut Timeline) {
        let Self { probes, said, .. } = self;
        said.take(bytes, |line| {
            let says = |probe: &Probe| match probe {
                Probe::Words(words) => contains(line, words.as_bytes()),
                Probe::Address(_) => false,
            };
            stamp(probes, timeline, now, says);
        });
    }
}

fn stamp(
    probes: &[(Mark, Probe)],
    timeline: &mut Timeline,
    now: u64,
    wanted: impl Fn(&Probe) -> bool,
) {
    for (mark, _) in probes.iter().filter(|(_, probe)| wanted(probe)) {
        timeline.stamp(*mark, now);
    }
}

fn contains(line: &[u8], words: &[u8]) -> bool {
    line.windows(words.len().max(1)).any(|window| window == words)
}

/// The address in a line such as `0xfffffff0:  ea 5b e0 00 f0  ljmpw ...`.
fn address(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line).ok()?.trim_start();
    let (digits, _) = text.strip_prefix("0x")?.split_once(':')?;
    u64::from_str_radix(digits, 16).ok()
}

/// A text cut into lines, the last of which is not whole yet.
#[derive(Debug, Default)]
struct Line(Vec<u8>);

impl Line {
    /// Gives every line that these bytes complete.
    fn take(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = MAX_LINE.saturating_sub(self.0.len());
            self.0.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                each(&self.0);
                self.0.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What QEMU 7.2.22 logged, shortened.
    const LOG: &[u8] = b"----------------\nIN: \n0xfffffff0:  ea 5b e0 00 f0           ljmpw    \
        $0xf000:$0xe05b\n\n----------------\nIN: \n0xffffffff80ef09b4:  55                       \
        pushq    %rbp\n0xffffffff80ef09b5:  48 89 e5   movq     %rsp, %rbp\n";

    fn probes() -> Vec<(Mark, Probe)> {
        vec![
            (Mark::Firmware, Probe::Address(0xffff_fff0)),
            (Mark::StartKernel, Probe::Address(0xffff_ffff_80ef_09b4)),
            (Mark::RunInit, Probe::Words("Run /init as init".to_owned())),
        ]
    }

    #[test]
    fn a_recorded_log_and_a_console_give_their_marks_however_they_arrive() {
        for cut in 0..LOG.len() {
            let (mut trace, mut timeline) = (Trace::new(probes()), Timeline::default());
            trace.hear_log(&LOG[..cut], 10, &mut timeline);
            trace.hear_log(&LOG[cut..], 20, &mut timeline);
            assert!(timeline.at(Mark::Firmware).is_some(), "{cut}");
            assert!(timeline.at(Mark::StartKernel).is_some(), "{cut}");
            assert_eq!(timeline.at(Mark::RunInit), None);
            trace.hear_console(b"[    1.92] Run /in", 30, &mut timeline);
            assert_eq!(timeline.at(Mark::RunInit), None);
            trace.hear_console(b"it as init process\r\n", 40, &mut timeline);
            assert_eq!(timeline.at(Mark::RunInit), Some(40));
        }
    }

    #[test]
    fn without_probes_nothing_is_stamped() {
        let (mut trace, mut timeline) = (Trace::default(), Timeline::default());
        trace.hear_log(LOG, 1, &mut timeline);
        trace.hear_console(b"Run /init as init process\n", 1, &mut timeline);
        assert_eq!(timeline, Timeline::default());
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne_and_little_is_kept(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..6)
        ) {
            let (mut trace, mut timeline) = (Trace::new(probes()), Timeline::default());
            for piece in pieces {
                trace.hear_log(&piece, 1, &mut timeline);
                trace.hear_console(&piece, 1, &mut timeline);
                prop_assert!(trace.translated.0.len() <= MAX_LINE);
                prop_assert!(trace.said.0.len() <= MAX_LINE);
            }
        }
    }
}
