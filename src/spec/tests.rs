use super::*;
use crate::record::{BackendName, Experiment};
use std::collections::BTreeSet;

fn message(text: &str) -> String {
    match Spec::parse("specs/my.toml", text) {
        Ok(spec) => panic!("accepted: {:?}", spec.cells),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_entry_becomes_one_cell_per_experiment_and_workload() {
    let spec = Spec::parse(
        "x.toml",
        r#"
        [rounds]
        startup = 3
        [[cells]]
        backend = "vm"
        params = { machine = "q35", memory = "131072K", cpus = 2 }
        startup = ["exit", "touch=64"]
        density = ["pause"]
        density_cap = 8
        [[cells]]
        backend = "container"
        params = { userns = true }
        memory = ["http"]
        rounds = 2
        "#,
    )
    .expect("valid");
    let cells: Vec<_> =
        spec.cells.iter().map(|cell| (cell.key.to_string(), cell.rounds, cell.cap)).collect();
    let vm = "vm cpus=2 tuned q35";
    assert_eq!(
        cells,
        [
            (format!("startup {vm} exit"), 3, None),
            (format!("startup {vm} touch=64"), 3, None),
            (format!("density {vm} pause"), DEFAULT_DENSITY_ROUNDS, Some(8)),
            ("memory container userns=yes http".to_owned(), 2, Some(1)),
        ]
    );
    assert_eq!((spec.name.as_str(), spec.title.as_str()), ("x.toml", "x.toml"));
}

/// Specs with one mistake each, and the whole message. `{cell}` stands for the
/// first two lines of an entry.
const MISTAKES: &[(&str, &str)] = &[
    (
        "{cell}startup = [\"exit\"]\n\n\nworklods = []",
        "specs/my.toml:6: unknown key \"worklods\" in [[cells]], expected backend, params, startup, memory, density, minimum, scale, ksm, rounds, density_cap, memory_cap, scale_cap, ksm_cap",
    ),
    (
        "{cell}startpu = [\"exit\"]",
        "specs/my.toml:3: unknown key \"startpu\" in [[cells]], did you mean \"startup\"?",
    ),
    (
        "[rounds]\nmemroy = 3\n{cell}",
        "specs/my.toml:2: unknown key \"memroy\" in [rounds], did you mean \"memory\"?",
    ),
    (
        "titel = \"x\"",
        "specs/my.toml:1: unknown key \"titel\" at top level, did you mean \"title\"?",
    ),
    (
        "[density]\ncapp = 1",
        "specs/my.toml:2: unknown key \"capp\" in [density], did you mean \"cap\"?",
    ),
    (
        "[[cells]]\nbackend = \"contianer\"",
        "specs/my.toml:2: unknown backend \"contianer\", did you mean \"container\"?",
    ),
    (
        "[[cells]]\nbackend = \"hyper-v\"",
        "specs/my.toml:2: unknown backend \"hyper-v\", expected process, container, kvm-bare, vm, runc, crun, \
         youki, unladen-oci, runsc, bwrap, unshare, lxc, nspawn, podman, docker, containerd, nerdctl, kata, \
         firecracker, cloud-hypervisor, crosvm",
    ),
    (
        "{cell}startup = [\n\"exit\",\n\"pasue\"]",
        "specs/my.toml:5: unknown workload \"pasue\", did you mean \"pause\"?",
    ),
    (
        "{cell}startup = [\"touch=0\"]",
        "specs/my.toml:3: unknown workload \"touch=0\", did you mean \"touch=64\"?",
    ),
    (
        "{cell}params = { machin = \"q35\" }",
        "specs/my.toml:3: unknown parameter \"machin\" of backend vm, did you mean \"machine\"?",
    ),
    (
        "{cell}params = { machine = \"isapc\" }",
        "specs/my.toml:3: parameter machine = \"isapc\" of backend vm: expected microvm or q35 or pc or virt",
    ),
    (
        "{cell}params = { memory = \"much\" }",
        "specs/my.toml:3: parameter memory = \"much\" of backend vm: expected a size from 16M to 1024G, such as 128M",
    ),
    (
        "{cell}params = { memory = [] }",
        "specs/my.toml:3: parameter memory must be a text, a number or true/false",
    ),
    (
        "{cell}memory = [\"exit\"]",
        "specs/my.toml:3: memory of workload \"exit\" makes no sense: it has ended before it could be read; use pause, touch=MIB or http",
    ),
    (
        "{cell}startup = [\"touch=128\"]",
        "specs/my.toml:3: workload \"touch=128\" cannot fit into memory = \"128M\" of backend vm",
    ),
    (
        "{cell}memory = [\"read=0\"]",
        "specs/my.toml:3: unknown workload \"read=0\", expected pause, exit, exit=CODE (1 to 127), touch=MIB (1 to 65536), \
         churn=MIB, read=MIB (1 to 1024), sleep=MS, spin=MS (1 to 600000), http",
    ),
    (
        "{cell}memory = [\"read=64\"]",
        "specs/my.toml:3: workload \"read=64\" cannot fit into memory = \"128M\" of backend vm",
    ),
    (
        "{cell}startup = [\"read=8\"]",
        "specs/my.toml:3: workload \"read=8\" is for the experiments memory and density of the backends process, \
         container and vm, not for startup of vm",
    ),
    (
        "[[cells]]\nbackend = \"runc\"\nmemory = [\"read=8\"]",
        "specs/my.toml:3: workload \"read=8\" is for the experiments memory and density of the backends process, \
         container and vm, not for memory of runc",
    ),
    (
        "{cell}",
        "specs/my.toml:1: this entry of [[cells]] measures nothing: add startup = [...], memory = [...] or density = [...]",
    ),
    (
        "{cell}startup = [\"exit\"]\ndensity_cap = 4",
        "specs/my.toml:4: density_cap stands in an entry of [[cells]] that has no density list",
    ),
    (
        "{cell}startup = [\"exit\"]\nrounds = 0",
        "specs/my.toml:4: rounds = 0 is outside 1 to 100000",
    ),
    ("[rounds]\nmemory = -1\n{cell}", "specs/my.toml:2: memory = -1 is outside 1 to 100000"),
    ("[density]\ncap = 0", "specs/my.toml:2: cap = 0 is outside 1 to 100000"),
    (
        "{cell}startup = [\"exit\"]\n{cell}params = { machine = \"microvm\" }\nstartup = [\"exit\"]",
        "specs/my.toml:7: cell `startup vm tuned microvm exit` appears twice, first at line 3",
    ),
    (
        "{cell}startup = \"exit\"",
        "specs/my.toml:3: invalid type: string \"exit\", expected a list such as [\"pause\"]",
    ),
    (
        "[rounds]\nstartup = \"ten\"",
        "specs/my.toml:2: invalid type: string \"ten\", expected a whole number",
    ),
    ("rounds = 3", "specs/my.toml:1: invalid type: integer `3`, expected a table"),
    ("[[cells]]\nstartup = [\"exit\"]", "specs/my.toml:1: missing key \"backend\" in [[cells]]"),
    ("", "specs/my.toml:1: the spec is empty: it needs at least one [[cells]] entry"),
    (
        "[[cells]]\nbackend = \"mock\"\nstartup = [\"exit\"]\n[[cells]]\nbackend = \"process\"\nstartup = [\"exit\"]",
        "specs/my.toml:6: backend mock cannot stand beside real backends: its times are not measured",
    ),
];

#[test]
fn errors_lead_to_the_place_and_name_the_nearest() {
    for (text, expected) in MISTAKES {
        let text = text.replace("{cell}", "[[cells]]\nbackend = \"vm\"\n");
        assert_eq!(message(&text), *expected, "{text}");
    }
    let syntax = message("[[cells]\n");
    assert!(syntax.starts_with("specs/my.toml:1: "), "{syntax}");
}

#[test]
fn the_mock_backend_takes_any_tick_setting() {
    let spec = "[[cells]]\nbackend = \"mock\"\nparams = { init = 5, fail_every = 3, control = 1 }\nstartup = [\"exit\"]";
    let spec = Spec::parse("m", spec).expect("valid");
    assert_eq!(spec.cells[0].key.params.to_string(), "control=1;fail_every=3;init=5");
    let bad = "[[cells]]\nbackend = \"mock\"\nparams = { init = \"soon\" }\nstartup = [\"exit\"]";
    assert!(message(bad).ends_with("expected a whole number"), "{}", message(bad));
}

#[test]
fn every_shipped_profile_is_valid_and_holds_all_backends() {
    for profile in PROFILES {
        let spec = Spec::load(profile.name).expect(profile.name);
        assert_eq!(spec.text, profile.text);
        if matches!(profile.name, "many" | "peers" | "crowd") {
            // They ask another question.
            continue;
        }
        let labels: BTreeSet<_> = spec.cells.iter().map(|cell| cell.key.label()).collect();
        for label in [
            "process",
            "process (control)",
            "container",
            "container userns=yes",
            "vm tuned microvm",
            "vm tuned q35",
            "kvm-bare",
            "qemu-stub tcg microvm",
        ] {
            assert!(labels.contains(label), "{} lacks {label}", profile.name);
        }
        // Floors are of start-up only, and the smallest memory takes long.
        for experiment in [Experiment::Startup, Experiment::Memory, Experiment::Density] {
            let backends: BTreeSet<_> = spec
                .cells
                .iter()
                .filter(|cell| cell.key.experiment == experiment && !cell.key.is_floor())
                .map(|cell| cell.key.backend)
                .collect();
            let arms = [BackendName::Process, BackendName::Container, BackendName::Vm];
            assert_eq!(backends, arms.into(), "{} {experiment}", profile.name);
        }
    }
}

#[test]
fn names_that_lead_nowhere_and_files_that_are_no_text() {
    let unknown = Spec::load("quik").expect_err("no such profile").to_string();
    assert_eq!(
        unknown,
        "cannot find spec `quik`: it is neither a profile (smoke, quick, peers, many, crowd, full) nor a file, did you mean \"quick\"?"
    );
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name);
    let load = |name: &str| Spec::load(path(name).to_str().expect("UTF-8"));

    assert!(matches!(load("absent.toml"), Err(SpecError::Read { .. })));
    assert!(matches!(load("."), Err(SpecError::Read { .. })));

    std::fs::write(path("binary.toml"), b"title = \"x\"\n# \xff\n").expect("written");
    assert!(matches!(load("binary.toml"), Err(SpecError::NotUtf8 { line: 2, .. })));

    let huge = File::create(path("huge.toml")).expect("created");
    huge.set_len(MAX_SPEC_BYTES + 1).expect("sparse");
    assert!(matches!(load("huge.toml"), Err(SpecError::TooLarge { .. })));
    assert!(matches!(Spec::load("/dev/zero"), Err(SpecError::TooLarge { .. })));

    std::fs::write(path("good"), "[[cells]]\nbackend=\"process\"\nstartup=[\"exit\"]")
        .expect("written");
    assert_eq!(load("good").expect("a file without extension").cells.len(), 1);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(\\[\\[cells\\]\\]|\\[rounds\\]|backend|params|startup|[ =\"\\[\\]{}\n]|mock|vm|exit|touch=|[0-9-]{1,22}|\\PC){0,40}") {
        let _ = Spec::parse("fuzz", &text);
    }
}
