//! QEMU's machine protocol (QMP), as far as snapshots need it: lines of JSON
//! in, one command at a time out (docs/interop/qmp-spec.rst in QEMU's
//! source). It reads and writes no descriptor.
//!
//! The crates that speak QMP wait inside their reads. Here a wait also ends
//! with the process, with the deadline and with the harness, and each line
//! is stamped when it arrives; so only the words are ours, and the JSON is
//! `serde_json`'s.

use std::collections::VecDeque;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

/// No line is longer, in bytes; QEMU's greeting has some 150.
const MAX_LINE: usize = 64 * 1024;

/// How much of a line that is not understood is told, in characters.
const TOLD: usize = 120;

/// Bytes per second that saving may take: no limit in practice. QEMU's
/// default of 128 MiB (`MAX_THROTTLE` in migration/migration.c) is meant for
/// networks.
const BANDWIDTH: u64 = 1 << 34;

/// Why a conversation cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum QmpError {
    /// A line without an end.
    #[error("QMP: a line has more than {MAX_LINE} bytes")]
    TooLong,
    /// A line that is no message of QMP.
    #[error("QMP: `{0}` is no message")]
    NoMessage(String),
    /// An answer to no command, or a second greeting.
    #[error("QMP: {0} was not asked for")]
    Unasked(&'static str),
    /// QEMU refuses a command.
    #[error("QEMU refuses `{command}`: {reason}")]
    Refused {
        /// The command.
        command: &'static str,
        /// Its own words.
        reason: String,
    },
    /// Saving failed.
    #[error("QEMU cannot save the guest: {0}")]
    NotSaved(String),
}

/// One message from QEMU.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Message {
    /// It can be talked to.
    Greeting,
    /// A command was carried out.
    Answer(Value),
    /// A command was refused, in QEMU's words.
    Refusal(String),
    /// Something happened.
    Event {
        /// What.
        name: String,
        /// Its data; null when it has none.
        data: Value,
    },
}

/// A line as it is written. Members that are not known have to be ignored
/// (section "Compatibility considerations" of the protocol).
#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "QMP")]
    greeting: Option<IgnoredAny>,
    #[serde(rename = "return")]
    answer: Option<Value>,
    error: Option<WireError>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
struct WireError {
    desc: String,
}

/// Reads one line.
pub(super) fn parse(line: &[u8]) -> Result<Message, QmpError> {
    let nonsense = || {
        let text = String::from_utf8_lossy(line);
        QmpError::NoMessage(text.trim().chars().take(TOLD).collect())
    };
    let wire: Wire = serde_json::from_slice(line).map_err(|_| nonsense())?;
    match (wire.greeting, wire.answer, wire.error, wire.event) {
        (Some(_), None, None, None) => Ok(Message::Greeting),
        (None, Some(answer), None, None) => Ok(Message::Answer(answer)),
        (None, None, Some(error), None) => Ok(Message::Refusal(error.desc)),
        (None, None, None, Some(name)) => Ok(Message::Event { name, data: wire.data }),
        _ => Err(nonsense()),
    }
}

/// Bytes cut into lines.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<u8>);

impl Lines {
    /// Takes bytes, in pieces of any size.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole line, without its end.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, QmpError> {
        match self.0.iter().position(|byte| *byte == b'\n') {
            Some(end) if end <= MAX_LINE => {
                let mut line: Vec<u8> = self.0.drain(..=end).collect();
                line.pop();
                Ok(Some(line))
            }
            None if self.0.len() <= MAX_LINE => Ok(None),
            _ => Err(QmpError::TooLong),
        }
    }
}

/// A command with its arguments.
#[derive(Clone, Debug, PartialEq)]
struct Command {
    name: &'static str,
    arguments: Value,
}

impl Command {
    fn line(&self) -> Vec<u8> {
        let command = json!({ "execute": self.name, "arguments": self.arguments });
        let mut line = command.to_string().into_bytes();
        line.push(b'\n');
        line
    }
}

/// What a message leads to.
#[derive(Debug, PartialEq)]
pub(super) enum Reaction {
    /// Nothing yet.
    Wait,
    /// This is to be sent.
    Send(Vec<u8>),
    /// The guest goes on.
    Resumed,
    /// The guest is saved.
    Saved,
}

/// Commands that are sent one after another, each when the one before was
/// carried out, and what is then awaited.
#[derive(Debug)]
pub(super) struct Conversation {
    left: VecDeque<Command>,
    greeted: bool,
    awaited: Option<&'static str>,
}

impl Conversation {
    /// Saves a running guest. `mapped` leaves out the memory, which is a
    /// file already.
    pub(super) fn save(uri: &str, mapped: bool) -> Self {
        Self::of([
            ("qmp_capabilities", json!({})),
            capabilities(&[("events", true), ("x-ignore-shared", mapped)]),
            ("migrate-set-parameters", json!({ "max-bandwidth": BANDWIDTH })),
            ("migrate", json!({ "uri": uri })),
        ])
    }

    /// Has a waiting guest load its state and go on.
    pub(super) fn load(uri: &str, mapped: bool) -> Self {
        Self::of([
            ("qmp_capabilities", json!({})),
            capabilities(&[("x-ignore-shared", mapped)]),
            ("migrate-incoming", json!({ "uri": uri })),
        ])
    }

    fn of<const N: usize>(commands: [(&'static str, Value); N]) -> Self {
        let left = commands.map(|(name, arguments)| Command { name, arguments });
        Self { left: left.into(), greeted: false, awaited: None }
    }

    /// Understands one message.
    pub(super) fn hear(&mut self, message: Message) -> Result<Reaction, QmpError> {
        match message {
            Message::Greeting if self.greeted => Err(QmpError::Unasked("a second greeting")),
            Message::Greeting => {
                self.greeted = true;
                Ok(self.go_on())
            }
            Message::Answer(answer) => match self.awaited.take() {
                None => Err(QmpError::Unasked("an answer")),
                Some("query-migrate") => Err(QmpError::NotSaved(reason(&answer))),
                Some(_) => Ok(self.go_on()),
            },
            Message::Refusal(reason) => match self.awaited.take() {
                None => Err(QmpError::Unasked("an error")),
                Some(command) => Err(QmpError::Refused { command, reason }),
            },
            Message::Event { name, data } => Ok(self.event(&name, &data)),
        }
    }

    /// Sends the next command, unless one is not answered yet.
    fn go_on(&mut self) -> Reaction {
        if self.awaited.is_some() {
            return Reaction::Wait;
        }
        let Some(command) = self.left.pop_front() else { return Reaction::Wait };
        self.awaited = Some(command.name);
        Reaction::Send(command.line())
    }

    /// Events of the states that matter; QEMU has many more.
    fn event(&mut self, name: &str, data: &Value) -> Reaction {
        match (name, data.get("status").and_then(Value::as_str)) {
            ("RESUME", _) => Reaction::Resumed,
            ("MIGRATION", Some("completed")) => Reaction::Saved,
            ("MIGRATION", Some("failed")) => {
                // The event has no reason; the state has.
                self.left.push_front(Command { name: "query-migrate", arguments: json!({}) });
                self.go_on()
            }
            _ => Reaction::Wait,
        }
    }
}

/// The command that switches capabilities on or off.
fn capabilities(wanted: &[(&str, bool)]) -> (&'static str, Value) {
    let list: Vec<Value> =
        wanted.iter().map(|(name, on)| json!({ "capability": name, "state": on })).collect();
    ("migrate-set-capabilities", json!({ "capabilities": list }))
}

/// Why a migration failed.
fn reason(answer: &Value) -> String {
    let reason = answer.get("error-desc").and_then(Value::as_str);
    reason.unwrap_or("it gives no reason").to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What QEMU 7.2.22 said while a guest was saved.
    const SAVING: &str = include_str!("../../../tests/golden/qmp/save.txt");
    /// What it said while one was restored.
    const LOADING: &str = include_str!("../../../tests/golden/qmp/load.txt");

    fn names(lines: &[Vec<u8>]) -> Vec<String> {
        let name = |line: &Vec<u8>| -> String {
            let value: Value = serde_json::from_slice(line).expect("JSON");
            value["execute"].as_str().expect("a command").to_owned()
        };
        lines.iter().map(name).collect()
    }

    /// Plays QEMU's part; gives the commands it was sent and the ends.
    fn play(
        mut conversation: Conversation,
        recorded: &str,
    ) -> Result<(Vec<Vec<u8>>, Vec<Reaction>), QmpError> {
        let (mut sent, mut ends) = (Vec::new(), Vec::new());
        let mut lines = Lines::default();
        lines.push(recorded.as_bytes());
        while let Some(line) = lines.next()? {
            match conversation.hear(parse(&line)?)? {
                Reaction::Wait => {}
                Reaction::Send(line) => sent.push(line),
                end => ends.push(end),
            }
        }
        Ok((sent, ends))
    }

    #[test]
    fn a_recorded_save_is_followed_to_its_end() {
        let (sent, ends) = play(Conversation::save("exec:cat > f", true), SAVING).expect("played");
        let commands =
            ["qmp_capabilities", "migrate-set-capabilities", "migrate-set-parameters", "migrate"];
        assert_eq!(names(&sent), commands);
        assert_eq!(ends, [Reaction::Saved]);
    }

    #[test]
    fn a_recorded_load_is_followed_until_the_guest_goes_on() {
        let (sent, ends) = play(Conversation::load("fd:6", true), LOADING).expect("played");
        assert_eq!(
            names(&sent),
            ["qmp_capabilities", "migrate-set-capabilities", "migrate-incoming"]
        );
        let last = String::from_utf8_lossy(&sent[2]).into_owned();
        assert!(last.contains("\"fd:6\"") && last.ends_with('\n'), "{last}");
        assert_eq!(ends, [Reaction::Resumed]);
    }

    #[test]
    fn a_refusal_names_the_command_and_nothing_more_is_sent() {
        let refusal = "{\"QMP\": {}}\n{\"return\": {}}\n\
            {\"error\": {\"class\": \"GenericError\", \"desc\": \"no such capability\"}}\n";
        let error = play(Conversation::load("fd:6", true), refusal).expect_err("refused");
        let told = "QEMU refuses `migrate-set-capabilities`: no such capability";
        assert_eq!(error.to_string(), told);
    }

    #[test]
    fn a_failed_save_is_asked_for_its_reason() {
        let failing = "{\"QMP\": {}}\n{\"return\": {}}\n{\"return\": {}}\n{\"return\": {}}\n\
            {\"event\": \"MIGRATION\", \"data\": {\"status\": \"failed\"}}\n\
            {\"return\": {}}\n\
            {\"return\": {\"status\": \"failed\", \"error-desc\": \"disk full\"}}\n";
        let error = play(Conversation::save("file:/x", false), failing).expect_err("failed");
        assert_eq!(error.to_string(), "QEMU cannot save the guest: disk full");
    }

    #[test]
    fn nonsense_is_told_and_not_waited_for() {
        for line in ["", "[]", "{}", "null", "{\"return\": {}, \"event\": \"STOP\"}", "qemu: no"] {
            assert!(matches!(parse(line.as_bytes()), Err(QmpError::NoMessage(_))), "{line}");
        }
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; MAX_LINE + 1]);
        assert!(matches!(lines.next(), Err(QmpError::TooLong)));
        let unasked = play(Conversation::load("fd:6", true), "{\"return\": {}}\n");
        assert!(matches!(unasked, Err(QmpError::Unasked(_))), "{unasked:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_understood_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let mut lines = Lines::default();
            lines.push(&bytes);
            let mut conversation = Conversation::load("fd:6", true);
            while let Ok(Some(line)) = lines.next() {
                prop_assert!(!line.contains(&b'\n'));
                if let Ok(message) = parse(&line) {
                    let _ = conversation.hear(message);
                }
            }
        }

        #[test]
        fn lines_are_the_same_however_they_arrive(cut in 0_usize..SAVING.len()) {
            let gather = |pieces: &[&[u8]]| {
                let (mut lines, mut all) = (Lines::default(), Vec::new());
                for piece in pieces {
                    lines.push(piece);
                    while let Ok(Some(line)) = lines.next() {
                        all.push(line);
                    }
                }
                all
            };
            let bytes = SAVING.as_bytes();
            prop_assert_eq!(gather(&[&bytes[..cut], &bytes[cut..]]), gather(&[bytes]));
        }
    }
}
