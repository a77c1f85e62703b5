//! What changed on the host between two moments, beyond what a measurement
//! itself does. A run that was disturbed says so wherever its numbers stand.

use crate::record::HostFact;

use super::facts::fact;

/// Share of the processors' time that the hypervisor may give to others.
const STEAL: f64 = 0.01;
/// Shares of a run's time in which something may have waited: for a
/// processor, for memory, for a disk (`some` in Documentation/accounting/psi.rst).
/// A run keeps about one processor busy and leaves little waiting.
const WAITED: [(&str, f64, &str); 3] =
    [("cpu", 0.25, "processor"), ("memory", 0.01, "memory"), ("io", 0.10, "disk")];
/// Settings that must not change while something is measured.
const STEADY: [(&str, &str); 6] = [
    ("cpu.governor", "CPU governor"),
    ("cpu.turbo", "turbo"),
    ("cpu.smt", "SMT"),
    ("memory.thp", "THP"),
    ("memory.ksm", "KSM"),
    ("power.source", "power source"),
];

/// Something that happened during a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disturbance {
    /// A few words for charts: `CPU governor changed during the run`.
    pub label: String,
    /// The whole sentence with values.
    pub detail: String,
}

impl Disturbance {
    fn new(label: String, detail: String) -> Self {
        Self { label, detail: format!("disturbed: {detail}") }
    }
}

/// What the facts before and after a run tell about the time between. Facts
/// that one side lacks tell nothing.
#[must_use]
pub fn disturbances(before: &[HostFact], after: &[HostFact]) -> Vec<Disturbance> {
    let mut found: Vec<Disturbance> = STEADY
        .iter()
        .filter_map(|(name, title)| {
            let (then, now) = (fact(before, name)?, fact(after, name)?);
            let label = format!("{title} changed during the run");
            (then != now)
                .then(|| Disturbance::new(label, format!("{name} was {then} and is {now}")))
        })
        .collect();
    let moments = Moments { before, after };
    // Counters begin anew with a boot; a run may be resumed after one.
    if moments.seconds().is_some() {
        found.extend(moments.throttled());
        found.extend(moments.stolen());
        found.extend(WAITED.iter().filter_map(|waited| moments.waited(*waited)));
    }
    found
}

struct Moments<'a> {
    before: &'a [HostFact],
    after: &'a [HostFact],
}

impl Moments<'_> {
    /// How much a counter grew; `None` when it cannot be told.
    fn grown(&self, name: &str) -> Option<f64> {
        let number = |facts| fact(facts, name)?.parse::<f64>().ok();
        Some(number(self.after)? - number(self.before)?)
    }

    /// The time between the two moments, in seconds.
    fn seconds(&self) -> Option<f64> {
        self.grown("host.uptime_seconds").filter(|seconds| *seconds > 0.0)
    }

    fn throttled(&self) -> Option<Disturbance> {
        let count = |name| self.grown(name).unwrap_or(0.0);
        let times = count("cpu.throttled.core") + count("cpu.throttled.package");
        (times > 0.0).then(|| {
            let detail = format!("processors were slowed down {times} times by their heat");
            Disturbance::new("throttled by heat during the run".to_owned(), detail)
        })
    }

    fn stolen(&self) -> Option<Disturbance> {
        let share = self.grown("cpu.ticks.steal")? / self.grown("cpu.ticks.all")?;
        (share > STEAL).then(|| {
            let detail = format!(
                "{:.1} % of the processors' time went to other virtual machines (steal)",
                100.0 * share
            );
            Disturbance::new("time stolen by the hypervisor".to_owned(), detail)
        })
    }

    fn waited(&self, (resource, bound, title): (&str, f64, &str)) -> Option<Disturbance> {
        let name = format!("psi.{resource}");
        let microseconds = |facts| stalled(fact(facts, &name)?);
        let waited = (microseconds(self.after)? - microseconds(self.before)?) / 1e6;
        let share = waited / self.seconds()?;
        (share > bound).then(|| {
            let detail = format!(
                "during {:.0} % of the run something waited for a {title} (pressure), more than \
                 the {:.0} % that a run causes by itself",
                100.0 * share,
                100.0 * bound
            )
            .replace("a memory", "memory");
            Disturbance::new(format!("{title} under pressure during the run"), detail)
        })
    }
}

/// The total of `some avg10=0.00 avg60=0.00 avg300=0.00 total=12; full ...`,
/// in microseconds.
fn stalled(text: &str) -> Option<f64> {
    let some = text.split("; ").find(|line| line.starts_with("some "))?;
    some.split_whitespace().find_map(|word| word.strip_prefix("total=")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(pairs: &[(&str, &str)]) -> Vec<HostFact> {
        let fact = |(name, value): &(&str, &str)| HostFact {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        pairs.iter().map(fact).collect()
    }

    fn quiet() -> Vec<(&'static str, &'static str)> {
        vec![
            ("host.uptime_seconds", "100.00"),
            ("cpu.governor", "performance"),
            ("power.source", "mains"),
            ("cpu.throttled.core", "7"),
            ("cpu.ticks.steal", "50"),
            ("cpu.ticks.all", "1000"),
            ("psi.cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1000000"),
            ("psi.memory", "some avg10=0 avg60=0 avg300=0 total=5; full avg10=0 total=9"),
        ]
    }

    /// The same host a hundred seconds later, with one fact changed.
    fn later(change: (&'static str, &'static str)) -> Vec<HostFact> {
        let mut after = quiet();
        for fact in &mut after {
            match fact.0 {
                "host.uptime_seconds" => fact.1 = "200.00",
                "cpu.ticks.all" => fact.1 = "21000",
                _ => {}
            }
            if fact.0 == change.0 {
                fact.1 = change.1;
            }
        }
        facts(&after)
    }

    fn labels(change: (&'static str, &'static str)) -> Vec<String> {
        disturbances(&facts(&quiet()), &later(change)).into_iter().map(|d| d.label).collect()
    }

    #[test]
    fn each_disturbance_is_named_and_quiet_is_quiet() {
        assert_eq!(labels(("", "")), [""; 0]);
        for (name, value, label) in [
            ("cpu.governor", "powersave", "CPU governor changed during the run"),
            ("power.source", "battery", "power source changed during the run"),
            ("cpu.throttled.core", "9", "throttled by heat during the run"),
            ("cpu.ticks.steal", "450", "time stolen by the hypervisor"),
            (
                "psi.cpu",
                "some avg10=0.00 total=27000000",
                "processor under pressure during the run",
            ),
            (
                "psi.memory",
                "some total=2000005; full total=9",
                "memory under pressure during the run",
            ),
        ] {
            assert_eq!(labels((name, value)), [label], "{name}");
        }
    }

    #[test]
    fn what_a_run_itself_does_is_no_disturbance() {
        assert_eq!(labels(("cpu.ticks.steal", "150")), [""; 0], "half a per cent");
        assert_eq!(labels(("psi.cpu", "some total=20000000")), [""; 0]);
    }

    #[test]
    fn counters_of_another_boot_are_not_compared() {
        let mut after = later(("cpu.throttled.core", "900"));
        after.retain(|fact| fact.name != "host.uptime_seconds");
        after.extend(facts(&[("host.uptime_seconds", "20.00")]));
        assert_eq!(disturbances(&facts(&quiet()), &after), []);
        let gone = format!("{}gone", crate::host::UNAVAILABLE);
        let after = facts(&[("cpu.governor", &gone), ("host.uptime_seconds", "200")]);
        assert_eq!(disturbances(&facts(&quiet()), &after), [], "absent is not changed");
    }
}
