use super::*;
use crate::record::Experiment;
use crate::record::{BackendName, CellFact, CellKey, RunState, Workload};
use proptest::prelude::*;
use std::collections::BTreeMap;

const SPEC: &str = r#"
[rounds]
startup = 3
memory = 2
density = 1
[[cells]]
backend = "process"
startup = ["exit"]
memory = ["pause"]
[[cells]]
backend = "process"
params = { control = 1 }
startup = ["exit"]
memory = ["pause"]
[[cells]]
backend = "vm"
startup = ["exit"]
memory = ["pause"]
density = ["pause"]
density_cap = 4
"#;

fn spec(text: &str) -> Spec {
    Spec::parse("test.toml", text).expect("valid spec")
}

fn names(cells: &[PlannedCell]) -> Vec<String> {
    cells.iter().map(|cell| format!("{} x{}", cell.key, cell.rounds)).collect()
}

fn plan(seed: u64) -> Plan {
    Plan::new(cells(&spec(SPEC), &Filters::default()).expect("cells"), &[], seed)
}

#[test]
fn the_stored_seed_gives_this_very_order() {
    let plan = plan(42);
    assert_eq!(
        names(&plan.cells),
        [
            "startup process exit x3",
            "memory process pause x2",
            "startup process (control) exit x3",
            "memory process (control) pause x2",
            "startup vm tuned microvm exit x3",
            "memory vm tuned microvm pause x2",
            "density vm tuned microvm pause x1",
            "density process pause x1",
        ]
    );
    assert_eq!(plan.order, PINNED.map(<[usize]>::to_vec));
    assert_eq!(plan.trials(), 17);
}

/// Never edit: a stored seed must give the same order in every version.
const PINNED: [&[usize]; 4] = [&[2, 1, 5, 4, 3, 0], &[7, 6], &[0, 4, 2, 3, 1, 5], &[2, 4, 0]];

#[test]
fn the_null_backend_and_its_control_are_in_every_run() {
    let vm_only = spec(
        "[[cells]]\nbackend=\"vm\"\nstartup=[\"exit\", \"http\"]\ndensity=[\"pause\"]\ndensity_cap=4",
    );
    let all = cells(&vm_only, &Filters::default()).expect("cells");
    assert_eq!(
        names(&all),
        [
            "startup vm tuned microvm exit x15",
            "startup vm tuned microvm http x15",
            "density vm tuned microvm pause x1",
            "startup process exit x15",
            "startup process http x15",
            "density process pause x1",
            "startup process (control) exit x15",
        ]
    );
    assert_eq!(all[5].cap, Some(4));

    let filters = Filters {
        backends: vec![BackendName::Vm],
        experiments: vec![Experiment::Memory],
        ..Filters::default()
    };
    assert_eq!(
        names(&cells(&spec(SPEC), &filters).expect("cells")),
        [
            "memory vm tuned microvm pause x2",
            "memory process pause x2",
            "memory process (control) pause x2"
        ]
    );

    let mock = spec("[[cells]]\nbackend=\"mock\"\nstartup=[\"exit\"]");
    assert_eq!(
        names(&cells(&mock, &Filters::default()).expect("cells")),
        ["startup mock exit x15"]
    );
}

#[test]
fn filters_that_leave_nothing_say_what_there_is() {
    let filters = Filters {
        backends: vec![BackendName::Container],
        workloads: vec![Workload::Exit, Workload::Touch(64)],
        ..Filters::default()
    };
    let error = cells(&spec(SPEC), &filters).expect_err("no container").to_string();
    assert_eq!(
        error,
        "no cell of spec test.toml matches --backend container --workload exit --workload touch=64; \
         it has experiments density, memory, startup; backends process, vm; workloads exit, pause"
    );
}

#[test]
fn what_cannot_run_is_in_the_plan_and_in_no_round() {
    let cells = cells(&spec(SPEC), &Filters::default()).expect("cells");
    let plan = Plan::new(cells, &[(4, "no QEMU".to_owned()), (99, "?".to_owned())], 1);
    assert_eq!(plan.cells[4].skipped.as_deref(), Some("no QEMU"));
    assert!(plan.order.iter().flatten().all(|index| *index != 4));
    assert_eq!(plan.trials(), 14);
}

#[test]
fn density_rounds_stand_evenly_between_the_others() {
    let rounds = |many: usize, few: usize| {
        spread(vec![vec![0]; many], vec![vec![1]; few])
            .iter()
            .map(|round| if round == &[1] { 'D' } else { '.' })
            .collect::<String>()
    };
    assert_eq!(rounds(4, 0), "....");
    assert_eq!(rounds(0, 2), "DD");
    assert_eq!(rounds(4, 1), "..D..");
    assert_eq!(rounds(6, 3), ".D..D..D.");
    assert_eq!(rounds(1, 2), "DD.");
}

#[test]
fn rounds_that_may_not_be_needed_come_last() {
    let text = "[rounds]\nstartup = 3\nmemory = 2\ndensity = 1\n[[cells]]\nbackend = \"container\"\n\
                startup = [\"exit\"]\nmemory = [\"pause\"]\ndensity = [\"pause\"]";
    let spec = Spec::parse("t.toml", text).expect("valid");
    let precision = Some(Precision { thousandths: 50, max_rounds: 7 });
    let filters = Filters { precision, ..Filters::default() };
    let plan = Plan::new(cells(&spec, &filters).expect("cells"), &[], 1);
    assert_eq!(plan.sure_rounds(), 4, "three and a ladder's own");
    assert_eq!(plan.order.len(), 8);
    let of = |experiment: Experiment, rounds: &[Vec<usize>]| {
        rounds
            .iter()
            .flatten()
            .filter(|cell| plan.cells[**cell].key.experiment == experiment)
            .count()
    };
    let (sure, more) = plan.order.split_at(4);
    // Container, null backend and control.
    assert_eq!([of(Experiment::Startup, sure), of(Experiment::Startup, more)], [9, 12]);
    assert_eq!([of(Experiment::Memory, sure), of(Experiment::Memory, more)], [6, 0]);
    assert_eq!([of(Experiment::Density, sure), of(Experiment::Density, more)], [2, 0]);
    assert_eq!(Filters::from_overrides(&filters.to_overrides()).expect("known"), filters);
}

fn manifest(plan: &Plan, filters: &Filters) -> Manifest {
    let fact = |cell: &PlannedCell| CellFact {
        cell: cell.key.clone(),
        rounds: cell.rounds,
        outcome: if cell.skipped.is_some() { Outcome::Skipped } else { Outcome::Ok },
        detail: cell.skipped.clone().unwrap_or_default(),
        command: Vec::new(),
        accelerator: None,
    };
    Manifest {
        schema: crate::record::SCHEMA_VERSION,
        run_id: "20261123-043512-a1b2c3".to_owned(),
        state: RunState::Interrupted,
        started: String::new(),
        ended: None,
        argv: Vec::new(),
        spec_name: "test.toml".to_owned(),
        spec_text: SPEC.to_owned(),
        overrides: filters.to_overrides(),
        seed: plan.seed,
        cells: plan.cells.iter().map(fact).collect(),
        order: plan.order.clone(),
        host_before: Vec::new(),
        host_after: Vec::new(),
        labels: Vec::new(),
        versions: Vec::new(),
        artefacts: Vec::new(),
        settings_changed: Vec::new(),
        does: BTreeMap::new(),
        warnings: Vec::new(),
    }
}

#[test]
fn a_run_continues_from_its_manifest_alone() {
    let filters = Filters { rounds: Some(2), ..Filters::default() };
    let cells = cells(&spec(SPEC), &filters).expect("cells");
    let plan = Plan::new(cells, &[(4, "no QEMU".to_owned())], u64::MAX);
    let manifest = manifest(&plan, &filters);
    let stored = serde_json::to_string(&manifest).expect("JSON");
    let manifest: Manifest = serde_json::from_str(&stored).expect("the same");
    assert_eq!(Plan::resume(&manifest).expect("resumes"), plan);

    let done: BTreeSet<_> = plan.remaining(&BTreeSet::new()).take(3).collect();
    let rest: Vec<_> = plan.remaining(&done).collect();
    assert_eq!(rest.len(), plan.trials() - 3);
    assert!(rest.iter().all(|trial| !done.contains(trial)));

    let mut other = manifest.clone();
    other.order[0][0] = 99;
    assert!(Plan::resume(&other).is_err());
    let mut other = manifest.clone();
    other.cells.pop();
    assert!(Plan::resume(&other).is_err());
    let mut other = manifest.clone();
    other.cells[0].rounds += 1;
    assert!(Plan::resume(&other).is_err());
    let mut other = manifest.clone();
    other.spec_text.push_str("[[cels]]");
    assert!(matches!(Plan::resume(&other), Err(PlanError::StoredSpec(_))));
    let mut other = manifest;
    other.overrides = BTreeMap::from([("rounds".to_owned(), "0".to_owned())]);
    assert!(matches!(Plan::resume(&other), Err(PlanError::BadOverride { .. })));
}

fn any_cells() -> impl Strategy<Value = Vec<PlannedCell>> {
    let cell = (0..3_usize, 1..6_u32, proptest::bool::weighted(0.2));
    proptest::collection::vec(cell, 0..12).prop_map(|list| {
        list.into_iter()
            .map(|(experiment, rounds, skipped)| PlannedCell {
                key: CellKey {
                    experiment: Experiment::ALL[experiment],
                    backend: BackendName::Process,
                    workload: Workload::Pause,
                    params: crate::record::Params::default(),
                },
                rounds,
                at_most: rounds,
                cap: None,
                slo_ms: None,
                skipped: skipped.then(|| "no".to_owned()),
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn every_cell_has_its_trials_once_a_round(cells in any_cells(), seed: u64) {
        let plan = Plan::new(cells.clone(), &[], seed);
        prop_assert_eq!(&plan, &Plan::new(cells.clone(), &[], seed));
        for (index, cell) in cells.iter().enumerate() {
            let per_round: Vec<usize> = plan
                .order
                .iter()
                .map(|round| round.iter().filter(|other| **other == index).count())
                .collect();
            prop_assert!(per_round.iter().all(|count| *count <= 1));
            let rounds = if cell.skipped.is_some() { 0 } else { cell.rounds as usize };
            prop_assert_eq!(per_round.iter().sum::<usize>(), rounds);
        }
        for round in &plan.order {
            prop_assert!(!round.is_empty());
            let is_ladder = |index: &usize| cells[*index].key.experiment.is_ladder();
            prop_assert!(round.iter().all(is_ladder) || !round.iter().any(is_ladder));
        }
    }

    #[test]
    fn filters_read_back(experiments in proptest::sample::subsequence(Experiment::ALL.to_vec(), 0..=3),
                         backends in proptest::sample::subsequence(BackendName::ALL.to_vec(), 0..=4),
                         touch in proptest::option::of(1..65_536_u32),
                         rounds in proptest::option::of(1..100_u32)) {
        let workloads = touch.map_or_else(Vec::new, |mib| vec![Workload::Http, Workload::Touch(mib)]);
        let filters = Filters { experiments, backends, workloads, rounds, precision: None };
        prop_assert_eq!(Filters::from_overrides(&filters.to_overrides()).ok(), Some(filters));
    }
}
