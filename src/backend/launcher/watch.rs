//! Watching one instance: every byte and every exit is stamped the moment it
//! arrives.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::sockopt::PeerCredentials;

use super::super::Timeline;
use super::console::excerpt;
use super::order::{Failure, Probe};
use super::qmp::{self, Conversation, Lines, QmpError, Reaction};
use super::trace::Trace;
use crate::payload::protocol::{PING, WorkResult};
use crate::payload::{Decoder, Event, request};
use crate::record::Mark;
use crate::sys::aside::aside;
use crate::sys::clock::{Deadline, monotonic_ns};

/// How much of a console or of stderr is kept for a message, in bytes: all
/// that a kernel says during a boot.
const TAIL: usize = 64 * 1024;

/// What a restored guest's first answer must bring back.
const NONCE: u64 = 0x5245_5355_4D45_4421;

/// Something that an instance is heard on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The machine monitor's control socket; its greeting is `vmm_ready`.
    Qmp,
    /// The guest's console; the kernel's first byte is `kernel`.
    Console,
    /// What the started program itself complains about.
    Stderr,
    /// A traced machine's log of what it translates.
    Trace,
    /// The payload's channel.
    Channel,
    /// A socket to which a payload connects: its connection is the channel.
    Door,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// The workload is ready and its proof of work has arrived.
    Proved,
    /// The guest is saved.
    Saved,
    /// The first process ended.
    Exited,
    /// The payload let go of its channel.
    Closed,
}

/// Why a wait ended without its goal.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Time is up.
    Deadline,
    /// The first process ended before the goal.
    Died,
    /// The payload reported an error, or spoke nonsense.
    Said(String),
    /// The harness is gone.
    Orphaned,
    /// A wait or a read failed.
    Io(&'static str, io::Error),
}

impl Trouble {
    /// In words; `died` says how the first process ended.
    pub(super) fn told(self, deadline: Duration, died: impl FnOnce() -> String) -> String {
        match self {
            Self::Deadline => format!("not within {:.1} s", deadline.as_secs_f64()),
            Self::Died => died(),
            Self::Said(text) => text,
            Self::Orphaned => "the harness is gone".to_owned(),
            Self::Io(call, error) => format!("cannot {call}: {error}"),
        }
    }
}

/// The ears on one instance.
#[derive(Debug)]
pub(super) struct Watch {
    sources: Vec<(Source, File)>,
    decoder: Decoder,
    console: Vec<u8>,
    stderr: Vec<u8>,
    lines: Lines,
    conversation: Option<Conversation>,
    saved: bool,
    trace: Trace,
    /// What the guest had proved before it was saved, for one that goes on
    /// from there.
    inherited: Option<WorkResult>,
    /// The process that connected to the door.
    pub(super) peer: Option<i32>,
    /// The marks so far.
    pub(super) timeline: Timeline,
    /// The proof of work, once it has arrived.
    pub(super) result: Option<WorkResult>,
}

impl Watch {
    /// Listens to these descriptors.
    pub(super) fn new(sources: Vec<(Source, OwnedFd)>) -> Self {
        let sources = sources.into_iter().map(|(source, fd)| (source, File::from(fd))).collect();
        Self {
            sources,
            decoder: Decoder::default(),
            console: Vec::new(),
            stderr: Vec::new(),
            lines: Lines::default(),
            conversation: None,
            saved: false,
            trace: Trace::default(),
            inherited: None,
            peer: None,
            timeline: Timeline::default(),
            result: None,
        }
    }

    /// Looks for the finer marks of a traced machine.
    pub(super) fn look_for(&mut self, probes: Vec<(Mark, Probe)>) {
        self.trace = Trace::new(probes);
    }

    /// Gets out of the way of those who are started from now on.
    pub(super) fn step_aside(&mut self) {
        let sources = std::mem::take(&mut self.sources).into_iter();
        self.sources = sources.map(|(name, file)| (name, aside(file.into()).into())).collect();
    }

    /// The channel, while it is open.
    pub(super) fn channel(&self) -> Option<&File> {
        let found = self.sources.iter().find(|(source, _)| *source == Source::Channel);
        found.map(|(_, file)| file)
    }

    /// Lets go of the channel: an end of a connection keeps the other end's
    /// network namespace.
    pub(super) fn hang_up(&mut self) {
        self.sources.retain(|(source, _)| *source != Source::Channel);
    }

    /// Expects a guest that goes on from a snapshot in which it had proved
    /// `inherited`: its first answer makes it ready.
    pub(super) fn restore(&mut self, conversation: Conversation, inherited: WorkResult) {
        self.conversation = Some(conversation);
        self.inherited = Some(inherited);
    }

    /// Begins to talk to the machine monitor.
    pub(super) fn converse(&mut self, conversation: Conversation) -> Result<(), Trouble> {
        self.conversation = Some(conversation);
        self.talk(monotonic_ns())
    }

    /// Waits until the goal is reached. `exit` becomes readable when the
    /// first process has ended, `control` when the harness is gone.
    pub(super) fn until(
        &mut self,
        goal: Goal,
        exit: BorrowedFd<'_>,
        control: BorrowedFd<'_>,
        deadline: Deadline,
    ) -> Result<(), Trouble> {
        loop {
            match goal {
                Goal::Proved if self.result.is_some() => return Ok(()),
                Goal::Saved if self.saved => return Ok(()),
                Goal::Closed if self.channel().is_none() => return Ok(()),
                _ => {}
            }
            let (heard, exited, orphaned) = self.listen(exit, control, deadline)?;
            if orphaned {
                return Err(Trouble::Orphaned);
            }
            if let Some(at) = heard {
                // While anything can be read, an exit is not yet the last word.
                self.take(at)?;
            } else if exited {
                return if goal == Goal::Exited { Ok(()) } else { Err(Trouble::Died) };
            } else if deadline.passed() {
                return Err(Trouble::Deadline);
            }
        }
    }

    /// Waits for anything: the index of a readable source, whether the
    /// process ended, and whether the harness is gone.
    fn listen(
        &self,
        exit: BorrowedFd<'_>,
        control: BorrowedFd<'_>,
        deadline: Deadline,
    ) -> Result<(Option<usize>, bool, bool), Trouble> {
        let mut fds: Vec<PollFd<'_>> = self
            .sources
            .iter()
            .map(|(_, file)| PollFd::new(file.as_fd(), PollFlags::POLLIN))
            .collect();
        fds.push(PollFd::new(exit, PollFlags::POLLIN));
        // Its end is always reported, whatever is asked for.
        fds.push(PollFd::new(control, PollFlags::empty()));
        match poll(&mut fds, deadline.poll_timeout()) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(Trouble::Io("poll", error.into())),
        }
        let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
        let sources = self.sources.len();
        Ok((fds[..sources].iter().position(ready), ready(&fds[sources]), ready(&fds[sources + 1])))
    }

    /// Reads what one source has, and stamps it.
    fn take(&mut self, index: usize) -> Result<(), Trouble> {
        let (source, file) = &mut self.sources[index];
        let source = *source;
        if source == Source::Door {
            return self.admit(index);
        }
        let mut buffer = [0; 4096];
        let n = match file.read(&mut buffer) {
            Ok(n) => n,
            // A socket whose other end died with unread bytes says so once.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(Trouble::Io("read", error)),
        };
        let now = monotonic_ns();
        if n == 0 {
            self.sources.remove(index);
            return Ok(());
        }
        match source {
            Source::Qmp => {
                self.timeline.stamp(Mark::VmmReady, now);
                self.lines.push(&buffer[..n]);
                return self.talk(now);
            }
            Source::Console => {
                keep_tail(&mut self.console, &buffer[..n]);
                if is_kernel(&self.console) {
                    self.timeline.stamp(Mark::Kernel, now);
                }
                self.trace.hear_console(&buffer[..n], now, &mut self.timeline);
            }
            Source::Trace => self.trace.hear_log(&buffer[..n], now, &mut self.timeline),
            Source::Stderr => keep_tail(&mut self.stderr, &buffer[..n]),
            Source::Channel => return self.hear(&buffer[..n], now),
            // It is never read from.
            Source::Door => {}
        }
        Ok(())
    }

    /// Takes the first connection to the door as the channel.
    fn admit(&mut self, index: usize) -> Result<(), Trouble> {
        let failed = |error| Trouble::Io("accept", error);
        let (_, door) = self.sources.remove(index);
        let (stream, _) = UnixListener::from(OwnedFd::from(door)).accept().map_err(failed)?;
        let whose = nix::sys::socket::getsockopt(&stream, PeerCredentials);
        // 0 is a process that our own pid namespace does not show.
        self.peer = whose.ok().map(|whose| whose.pid()).filter(|pid| *pid > 0);
        self.sources.push((Source::Channel, File::from(OwnedFd::from(stream))));
        Ok(())
    }

    /// Answers what the machine monitor has said. Without a conversation
    /// its lines wait.
    fn talk(&mut self, now: u64) -> Result<(), Trouble> {
        let said = |error: QmpError| Trouble::Said(error.to_string());
        while let Some(conversation) = &mut self.conversation
            && let Some(line) = self.lines.next().map_err(said)?
        {
            match conversation.hear(qmp::parse(&line).map_err(said)?).map_err(said)? {
                Reaction::Wait => {}
                Reaction::Send(bytes) => self.say(Source::Qmp, &bytes)?,
                Reaction::Saved => self.saved = true,
                Reaction::Resumed => {
                    self.timeline.stamp(Mark::Resumed, now);
                    self.say(Source::Channel, &request(PING, &NONCE.to_le_bytes()))?;
                }
            }
        }
        Ok(())
    }

    /// Writes to a source. One that was closed has more to tell by its end.
    fn say(&mut self, to: Source, bytes: &[u8]) -> Result<(), Trouble> {
        let Some((_, file)) = self.sources.iter_mut().find(|(source, _)| *source == to) else {
            return Ok(());
        };
        match file.write_all(bytes) {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                Err(Trouble::Io("write", error))
            }
            _ => Ok(()),
        }
    }

    /// Understands bytes of the payload.
    fn hear(&mut self, bytes: &[u8], now: u64) -> Result<(), Trouble> {
        for event in self.decoder.push(bytes) {
            match event {
                Event::Pong(NONCE) if self.inherited.is_some() && self.result.is_none() => {
                    self.timeline.stamp(Mark::Ready, now);
                    self.result = self.inherited;
                }
                Event::Init | Event::Ready | Event::Result(_) if self.inherited.is_some() => {
                    return Err(Trouble::Said(format!("it began afresh: {event:?}")));
                }
                Event::Init => self.timeline.stamp(Mark::Init, now),
                Event::Ready => self.timeline.stamp(Mark::Ready, now),
                Event::Result(result) => self.result = Some(result),
                Event::Error(text) => return Err(Trouble::Said(format!("payload: {text}"))),
                // Serial ports may carry noise before the first mark.
                Event::Garbage(_)
                    if self.timeline.at(Mark::Init).is_none() && self.result.is_none() => {}
                other => return Err(Trouble::Said(format!("unexpected on channel: {other:?}"))),
            }
        }
        Ok(())
    }

    /// A failure of the instance with everything that is known about it.
    pub(super) fn failure(&self, due: Mark, reason: &str) -> Failure {
        let stage =
            if matches!(due, Mark::Exited | Mark::Removed | Mark::Gone) { "end" } else { "start" };
        let reason = format!("{stage}, waiting for {due}: {reason}{}", self.last_words());
        Failure { due, reason, timeline: self.timeline.clone() }
    }

    /// What is known about a failure: the telling lines of stderr and console.
    pub(super) fn last_words(&self) -> String {
        let mut words = String::new();
        for (name, bytes) in [("stderr", &self.stderr), ("console", &self.console)] {
            let last = excerpt(bytes);
            if !last.is_empty() {
                words.push_str(&format!("; {name}: {last}"));
            }
        }
        words
    }
}

/// Whether a kernel has begun to speak. UEFI firmware comes before it on the
/// same line, and clears the screen first (an escape sequence).
fn is_kernel(console: &[u8]) -> bool {
    const BANNER: &[u8] = b"Linux version ";
    console.first().is_some_and(|first| *first != 0x1b)
        || console.windows(BANNER.len()).any(|window| window == BANNER)
}

/// Appends bytes and keeps the last ones.
fn keep_tail(tail: &mut Vec<u8>, bytes: &[u8]) {
    tail.extend_from_slice(bytes);
    let surplus = tail.len().saturating_sub(TAIL);
    tail.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;
    use crate::payload::protocol::{INIT, READY, RESULT};
    use crate::payload::request;
    use crate::sys::fdpass::stream_pair;

    fn watch_with_channel() -> (Watch, UnixStream) {
        let (near, far) = stream_pair().expect("pair");
        (Watch::new(vec![(Source::Channel, near)]), UnixStream::from(far))
    }

    fn wait(watch: &mut Watch, goal: Goal, millis: u64) -> Result<(), Trouble> {
        // Neither ever becomes readable: a pipe whose writer stays open.
        let (idle, _writer) = nix::unistd::pipe().expect("pipe");
        let deadline = Deadline::after(Duration::from_millis(millis));
        watch.until(goal, idle.as_fd(), idle.as_fd(), deadline)
    }

    #[test]
    fn a_proof_is_heard_and_marks_are_stamped_in_order() {
        let (mut watch, mut payload) = watch_with_channel();
        let result = WorkResult { count: 1, checksum: 2, code: 0 };
        payload.write_all(&[0, b'\n', INIT, READY]).expect("written");
        payload.write_all(&request(RESULT, &result.encode())).expect("written");
        wait(&mut watch, Goal::Proved, 10_000).expect("proved");
        assert_eq!(watch.result, Some(result));
        let timeline = &watch.timeline;
        assert!(timeline.at(Mark::Init).expect("init") <= timeline.at(Mark::Ready).expect("ready"));
    }

    #[test]
    fn silence_ends_at_the_deadline_and_an_error_at_once() {
        let (mut watch, mut payload) = watch_with_channel();
        payload.write_all(&[INIT]).expect("written");
        assert!(matches!(wait(&mut watch, Goal::Proved, 20), Err(Trouble::Deadline)));
        payload.write_all(&request(crate::payload::protocol::ERROR, b"no memory")).expect("sent");
        match wait(&mut watch, Goal::Proved, 10_000) {
            Err(Trouble::Said(text)) => assert_eq!(text, "payload: no memory"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_firmware_that_clears_the_screen_is_not_yet_the_kernel() {
        assert!(!is_kernel(b""));
        assert!(is_kernel(b"["));
        assert!(!is_kernel(b"\x1b[2JBdsDxe: starting Boot0001\r\n"));
        assert!(is_kernel(b"\x1b[2JBdsDxe\r\n[    0.000000] Linux version 6.1"));
    }

    #[test]
    fn the_tail_keeps_the_end() {
        let mut tail = Vec::new();
        keep_tail(&mut tail, &[b'a'; TAIL]);
        keep_tail(&mut tail, b"the end");
        assert_eq!(tail.len(), TAIL);
        assert!(tail.ends_with(b"the end"));
    }
}
