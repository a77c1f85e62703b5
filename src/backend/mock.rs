//! A backend without instances: every mark and every byte is exactly what
//! its parameters say, so that the whole pipeline can be tested to the tick.

use super::launcher::order::Failure;
use super::process::own_version;
use super::{Backend, BackendError, Instance, MemorySource, Prepared, Timeline, Until};
use crate::payload::expected_result;
use crate::payload::protocol::WorkResult;
use crate::record::{BackendName, CellKey, Clock, Ledger, Mark, Version};

/// Marks since `request` and the parameters that set them, in nanoseconds.
const STARTUP: [(&str, Mark); 5] = [
    ("spawned", Mark::Spawned),
    ("init", Mark::Init),
    ("ready", Mark::Ready),
    ("exited", Mark::Exited),
    ("gone", Mark::Gone),
];

/// What one prepared cell does.
#[derive(Clone, Debug)]
struct Script {
    cell: CellKey,
    launches: u64,
}

impl Script {
    /// The whole number under `name`.
    fn number(&self, name: &str) -> Option<u64> {
        self.cell.params.get(name)?.parse().ok()
    }
}

/// The mock backend. Parameters: the marks of its timeline in nanoseconds
/// since `request` (`spawned`, `init`, `ready`, `exited`, `gone`) and since
/// `stop` (`stop_exited`, `stop_gone`); `drift` nanoseconds more on each
/// launch; bytes of each ledger (`pss`, `uss`, `rss`, `cgroup`, `peak`);
/// `fail_every=N` lets each N-th launch fail before `ready`; `http`
/// nanoseconds for an answer; `in_use` asks for cold starts of a program that
/// runs already, which no start can be.
#[derive(Debug, Default)]
pub struct Mock {
    scripts: Vec<Script>,
}

impl Backend for Mock {
    fn name(&self) -> BackendName {
        BackendName::Mock
    }

    fn clock(&self) -> Clock {
        Clock::Mock
    }

    fn versions(&mut self) -> Result<Vec<Version>, BackendError> {
        Ok(vec![own_version("mock")])
    }

    fn prepare(&mut self, cell: &CellKey) -> Result<Prepared, BackendError> {
        let template = u32::try_from(self.scripts.len()).unwrap_or(u32::MAX);
        let script = Script { cell: cell.clone(), launches: 0 };
        let in_use = script.number("in_use").and_then(|_| std::env::current_exe().ok());
        self.scripts.push(script);
        let command = vec![format!("mock {}", cell.params)];
        let cold = in_use.into_iter().collect();
        let deadline = std::time::Duration::from_secs(1);
        Ok(Prepared { command, cold, ..Prepared::new(template, deadline) })
    }

    fn launch(
        &mut self,
        prepared: &Prepared,
        until: Until,
    ) -> Result<Box<dyn Instance>, BackendError> {
        let index = usize::try_from(prepared.template).unwrap_or(usize::MAX);
        let Some(script) = self.scripts.get_mut(index) else {
            return Err(BackendError::Unavailable(format!("no mock template {index}")));
        };
        let drift = script.launches * script.number("drift").unwrap_or(0);
        script.launches += 1;
        let mut timeline = Timeline::default();
        timeline.stamp(Mark::Request, 0);
        let fails = script.number("fail_every").is_some_and(|n| script.launches % n.max(1) == 0);
        for (name, mark) in STARTUP {
            if fails && mark == Mark::Ready {
                let reason = "the mock was told to fail".to_owned();
                return Err(Failure { due: mark, reason, timeline }.into());
            }
            if until == Until::Ready && mark > Mark::Ready {
                break;
            }
            if let Some(at) = script.number(name) {
                timeline.stamp(mark, at + drift);
            }
        }
        Ok(Box::new(MockInstance { script: script.clone(), timeline }))
    }
}

/// An instance of the mock.
struct MockInstance {
    script: Script,
    timeline: Timeline,
}

impl Instance for MockInstance {
    fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    fn result(&self) -> WorkResult {
        expected_result(self.script.cell.workload)
    }

    fn memory(&self) -> MemorySource {
        let value = |ledger: Ledger| Some((ledger, self.script.number(ledger.as_str())? as f64));
        MemorySource::Exact(Ledger::ALL.into_iter().filter_map(value).collect())
    }

    fn ping(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn http(&mut self) -> Result<u64, BackendError> {
        Ok(self.script.number("http").unwrap_or(0))
    }

    fn release(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn stop(self: Box<Self>) -> Result<Timeline, BackendError> {
        let mut timeline = self.timeline;
        let stop = timeline.at(Mark::Ready).unwrap_or(0);
        timeline.stamp(Mark::Stop, stop);
        for (name, mark) in [("stop_exited", Mark::Exited), ("stop_gone", Mark::Gone)] {
            if let Some(after) = self.script.number(name) {
                timeline.stamp(mark, stop + after);
            }
        }
        Ok(timeline)
    }
}
