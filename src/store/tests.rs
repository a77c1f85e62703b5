use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::Path;

use proptest::prelude::*;
use tempfile::{TempDir, tempdir};

use super::row::write as write_row;
use super::*;
use crate::record::{
    BackendName, CellFact, CellKey, Clock, Experiment, Ledger, Manifest, Mark, Metric, Outcome,
    Params, RunState, SCHEMA_VERSION, Sample, Workload,
};

fn cell(backend: BackendName) -> CellKey {
    let experiment = Experiment::Startup;
    let params = "kernel=tuned;machine=q35".parse().expect("params");
    CellKey { experiment, backend, workload: Workload::Touch(64), params }
}

fn manifest() -> Manifest {
    let fact = |cell| CellFact {
        cell,
        rounds: 3,
        outcome: Outcome::Ok,
        detail: String::new(),
        command: vec!["qemu, \"quoted\"\nand broken".to_owned()],
        accelerator: None,
    };
    Manifest {
        schema: SCHEMA_VERSION,
        run_id: "20261123-043512-a1b2c3".to_owned(),
        state: RunState::Running,
        started: "2026-11-23T04:35:12Z".to_owned(),
        ended: None,
        argv: Vec::new(),
        spec_name: "test".to_owned(),
        spec_text: String::new(),
        overrides: BTreeMap::new(),
        seed: u64::MAX,
        cells: [BackendName::Process, BackendName::Vm].map(cell).map(fact).to_vec(),
        order: Vec::new(),
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

fn sample(round: u32, trial: u32, backend: BackendName, metric: Metric, value: f64) -> Sample {
    Sample {
        round,
        trial,
        step: None,
        cell: cell(backend),
        metric,
        clock: Clock::Monotonic,
        value: Some(value),
        outcome: Outcome::Ok,
        detail: String::new(),
    }
}

fn failed(round: u32, trial: u32, detail: &str) -> Sample {
    Sample {
        value: None,
        outcome: Outcome::Failed,
        detail: detail.to_owned(),
        ..sample(round, trial, BackendName::Vm, Metric::Startup(Mark::Ready), 0.0)
    }
}

/// Three trials: three rows, one row that failed, two rows.
fn trials() -> Vec<Vec<Sample>> {
    let init = Metric::Startup(Mark::Init);
    let pss = Metric::Memory(Ledger::Pss);
    let process = BackendName::Process;
    vec![
        vec![
            sample(1, 1, process, init, 431_700_000.0),
            sample(1, 1, process, Metric::Startup(Mark::Gone), 0.1 + 0.2),
            Sample { step: Some(8), clock: Clock::None, ..sample(1, 1, process, pss, 1e300) },
        ],
        vec![failed(1, 2, "init died, \"sorry\", it said; ümlaut")],
        vec![sample(2, 3, process, init, -5.0), sample(2, 3, process, pss, 0.0)],
    ]
}

fn stored() -> (TempDir, RunWriter) {
    let folder = tempdir().expect("folder");
    let mut writer = RunWriter::create(folder.path(), &manifest()).expect("created");
    for trial in trials() {
        writer.append_trial(&trial).expect("appended");
    }
    (folder, writer)
}

fn samples_file(folder: &TempDir) -> std::path::PathBuf {
    folder.path().join(SAMPLES_FILE)
}

#[test]
fn what_is_written_reads_back_while_the_writer_lives() {
    let (folder, writer) = stored();
    let data = read_run(folder.path()).expect("reads");
    assert_eq!(data.manifest, manifest());
    assert_eq!(data.samples, trials().concat());
    assert!(!data.torn);
    let complete = Manifest { state: RunState::Complete, ..manifest() };
    writer.write_manifest(&complete).expect("rewritten");
    assert_eq!(read_run(folder.path()).expect("reads").manifest, complete);
    let names: Vec<_> = fs::read_dir(folder.path()).expect("list").flatten().collect();
    assert_eq!(names.len(), 2, "no temporary file stays: {names:?}");
}

#[test]
fn a_cut_at_any_byte_loses_no_finished_trial_and_counts_no_half_one() {
    let (folder, writer) = stored();
    drop(writer);
    let whole = fs::read(samples_file(&folder)).expect("reads");
    // Where each trial ends, found without the reader under test.
    let mut ends = vec![read::header().len()];
    for trial in trials() {
        let mut text = Vec::new();
        for sample in &trial {
            write_row(&mut text, &manifest().run_id, trial.len(), sample).expect("row");
        }
        ends.push(ends.last().expect("one") + text.len());
    }
    assert_eq!(ends.last(), Some(&whole.len()));

    for cut in 0..=whole.len() {
        fs::write(samples_file(&folder), &whole[..cut]).expect("cut");
        let finished = ends[1..].iter().filter(|end| **end <= cut).count();
        let expected = trials()[..finished].concat();
        let data = read_run(folder.path()).unwrap_or_else(|error| panic!("cut {cut}: {error}"));
        assert_eq!(data.samples, expected, "cut {cut}");
        assert_eq!(data.torn, !ends.contains(&cut), "cut {cut}");

        let resumed = RunWriter::resume(folder.path()).expect("resumes");
        assert_eq!(resumed.data.samples, expected, "cut {cut}");
        assert_eq!(resumed.done.len(), finished, "cut {cut}");
        let mut writer = resumed.writer;
        // Each append waits for the disk: continue at every seventh byte, and
        // around the ends of trials.
        if cut % 7 != 0 && !ends.iter().any(|end| end.abs_diff(cut) <= 1) {
            continue;
        }
        for trial in &trials()[finished..] {
            writer.append_trial(trial).expect("appended");
        }
        drop(writer);
        assert_eq!(fs::read(samples_file(&folder)).expect("reads"), whole, "cut {cut}");
    }
}

#[test]
fn what_is_done_is_known_by_round_and_cell() {
    let (folder, writer) = stored();
    drop(writer);
    let resumed = RunWriter::resume(folder.path()).expect("resumes");
    assert_eq!(resumed.done.into_iter().collect::<Vec<_>>(), [(1, 0), (1, 1), (2, 0)]);
}

#[test]
fn the_steps_of_a_ladder_survive_until_its_trial_is_stored() {
    let (folder, mut writer) = stored();
    let before = read_run(folder.path()).expect("reads").samples;
    let all = trials();
    let step = |number: u32| {
        let mut sample = all[0][0].clone();
        (sample.round, sample.trial, sample.step) = (9, 99, Some(number));
        sample
    };
    writer.keep_partial(&[step(1)]).expect("kept");
    writer.keep_partial(&[step(2), step(3)]).expect("kept");
    let with_steps = read_run(folder.path()).expect("reads").samples;
    let kept: Vec<_> = with_steps[before.len()..].iter().map(|sample| sample.step).collect();
    assert_eq!(kept, [Some(1), Some(2), Some(3)], "as if the harness had been killed now");
    // The same steps and the end of the ladder: now they are stored for good.
    writer.append_trial(&[step(1), step(2), step(3), step(4)]).expect("stored");
    assert!(!folder.path().join(PARTIAL_FILE).exists());
    assert_eq!(read_run(folder.path()).expect("reads").samples.len(), before.len() + 4);
}

#[test]
fn one_writer_at_a_time_and_no_folder_that_is_in_use() {
    let (folder, writer) = stored();
    assert!(matches!(RunWriter::resume(folder.path()), Err(StoreError::Busy { .. })));
    let error = RunWriter::create(folder.path(), &manifest()).expect_err("not empty").to_string();
    let dir = folder.path().display();
    assert_eq!(
        error,
        format!(
            "cannot begin a run in {dir}: the folder is not empty; continue the run in it with \
             --resume {dir}, or choose another folder with --out"
        )
    );
    drop(writer);
    RunWriter::resume(folder.path()).expect("the lock went with its writer");

    let file = folder.path().join("file");
    fs::write(&file, "").expect("file");
    assert!(matches!(RunWriter::create(&file, &manifest()), Err(StoreError::Io { .. })));
    let deep = folder.path().join("a/b");
    RunWriter::create(&deep, &manifest()).expect("folders on the way are made");
}

/// Damages the stored file by replacing a text, and gives the message.
fn message_after(find: &str, replace: &str) -> String {
    let (folder, writer) = stored();
    drop(writer);
    let path = samples_file(&folder);
    let text = fs::read_to_string(&path).expect("reads");
    assert!(text.contains(find), "{find} in {text}");
    fs::write(&path, text.replacen(find, replace, 1)).expect("written");
    let error = read_run(folder.path()).map(|data| data.samples).expect_err("damaged").to_string();
    assert!(RunWriter::resume(folder.path()).is_err(), "nothing damaged is continued");
    assert_eq!(
        fs::read_to_string(&path).expect("reads"),
        text.replacen(find, replace, 1),
        "a refused file is left as it is"
    );
    let prefix = format!("cannot read {}: ", path.display());
    error.strip_prefix(&prefix).unwrap_or_else(|| panic!("{error}")).to_owned()
}

/// Text that stands in the file, what it is replaced by, and how the message
/// begins.
const DAMAGES: &[(&str, &str, &str)] = &[
    ("round", "rounds", "line 1: the first line must be `run_id,round,trial,rows,step,"),
    ("startup.gone", "startup.lunch", "line 3, column metric: unknown metric `startup.lunch`"),
    (
        "startup.init,ns",
        "startup.init,bytes",
        "line 2, column unit: `bytes`, but startup.init is in `ns`",
    ),
    (
        "startup.init,ns",
        "startup.init,s",
        "line 2, column unit: unknown name `s`, expected one of `ns`",
    ),
    ("431700000", "NaN", "line 2, column value: `NaN` is not a number"),
    ("431700000", "inf", "line 2, column value: `inf` is not a number"),
    ("431700000", "", "line 2, column value: an ok row has no value"),
    (",,failed", ",0,failed", "line 5, column value: a row that is not ok has a value"),
    (",ok,", ",fine,", "line 2, column outcome: unknown name `fine`, expected one of `ok`"),
    (",1,1,3", ",1,1,4", "line 3, column rows: 3 rows are missing before this one"),
    (",1,1,3", ",1,1,0", "line 2, column rows: a trial has at least one row"),
    (",1,1,3", ",1,x,3", "line 2, column trial: `x` is not a whole number"),
    (",1,1,3", ",-1,1,3", "line 2, column round: `-1` is not a whole number"),
    (",2,3,2", ",2,9,2", "line 7, column rows: 1 rows are missing before this one"),
    (
        "kernel=tuned;machine=q35",
        "machine=q35;kernel=tuned",
        "line 2, column params: `machine=q35;kernel=tuned` is not in sorted order",
    ),
    ("touch=64", "touch=65", "line 2: `startup process tuned q35 touch=65` is not in the manifest"),
    ("a1b2c3", "ffffff", "line 2, column run_id: `20261123-043512-ffffff` instead of the run's"),
    (",8,startup", ",startup", "line 4: 14 columns instead of 15"),
    ("init died", "init\rdied", "line 5, column detail: it has a line break"),
    ("init died", "init\ndied", "line 5, column detail: it has a line break"),
];

#[test]
fn damage_names_line_and_column() {
    for (find, replace, expected) in DAMAGES {
        let message = message_after(find, replace);
        assert!(message.starts_with(expected), "{find} -> {replace}: {message}");
    }
}

#[test]
fn a_line_lost_in_the_middle_or_doubled_is_damage() {
    let (folder, writer) = stored();
    drop(writer);
    let path = samples_file(&folder);
    let text = fs::read_to_string(&path).expect("reads");
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    for lost in 1..lines.len() - 1 {
        // A whole trial of one row may be missing: that is not damage.
        if lost == 4 {
            continue;
        }
        let mut rest = lines.clone();
        rest.remove(lost);
        fs::write(&path, rest.concat()).expect("written");
        let result = read_run(folder.path());
        let is_cut = lost == lines.len() - 2;
        assert_eq!(result.is_ok_and(|data| data.torn), is_cut, "line {lost}");
    }
    let doubled = [text.as_str(), lines[4]].concat();
    fs::write(&path, doubled).expect("written");
    let error = read_run(folder.path()).expect_err("twice").to_string();
    assert!(error.ends_with("line 8, column round: round 1 of this cell appears twice"), "{error}");

    fs::write(&path, [text.as_bytes(), b"\xff\n"].concat()).expect("written");
    assert!(read_run(folder.path()).is_err());
    let broken = text.replacen("init died", "init\u{0}died", 1).replacen('\u{0}', "\u{fffd}", 1);
    let mut bytes = broken.into_bytes();
    let at = bytes.windows(3).position(|w| w == "\u{fffd}".as_bytes()).expect("there");
    bytes[at] = 0xff;
    fs::write(&path, bytes).expect("written");
    let error = read_run(folder.path()).expect_err("not text").to_string();
    assert!(error.ends_with("line 5, column detail: not UTF-8 text"), "{error}");
}

#[test]
fn a_manifest_is_refused_with_its_reason() {
    let (folder, writer) = stored();
    drop(writer);
    let path = folder.path().join(MANIFEST_FILE);
    let text = fs::read_to_string(&path).expect("reads");

    fs::write(&path, text.replacen("\"schema\": 1", "\"schema\": 7", 1)).expect("written");
    assert!(matches!(read_run(folder.path()), Err(StoreError::Schema { found: 7, .. })));

    fs::write(&path, text.replacen("\"seed\"", "\"sead\"", 1)).expect("written");
    let error = read_run(folder.path()).expect_err("damaged");
    let cause = std::error::Error::source(&error).expect("cause").to_string();
    assert!(cause.contains("unknown field `sead`") && cause.contains("line "), "{cause}");

    fs::write(&path, &text[..text.len() / 2]).expect("written");
    assert!(matches!(read_run(folder.path()), Err(StoreError::Manifest { .. })));

    fs::remove_file(&path).expect("removed");
    assert!(matches!(read_run(folder.path()), Err(StoreError::NoRun { .. })));
    assert!(matches!(read_run(Path::new("/nonexistent")), Err(StoreError::NoRun { .. })));
}

#[test]
fn nothing_that_could_mislead_is_stored() {
    let (folder, mut writer) = stored();
    let before = fs::read(samples_file(&folder)).expect("reads");
    let good = || sample(3, 4, BackendName::Process, Metric::Startup(Mark::Init), 1.0);
    let stranger = CellKey { params: Params::default(), ..cell(BackendName::Process) };
    let bad = [
        vec![],
        vec![Sample { value: Some(f64::NAN), ..good() }],
        vec![Sample { value: Some(f64::INFINITY), ..good() }],
        vec![Sample { value: None, ..good() }],
        vec![Sample { outcome: Outcome::Failed, detail: "why".to_owned(), ..good() }],
        vec![failed(3, 4, " \n")],
        vec![Sample { trial: 0, ..good() }],
        vec![Sample { cell: stranger, ..good() }],
        vec![good(), Sample { trial: 5, ..good() }],
        vec![good(), failed(3, 4, "another cell")],
    ];
    for trial in bad {
        assert!(
            matches!(writer.append_trial(&trial), Err(StoreError::BadSample { .. })),
            "{trial:?}"
        );
    }
    assert_eq!(fs::read(samples_file(&folder)).expect("reads"), before);

    writer.append_trial(&[failed(3, 4, "two\r\nlines\tand\u{1b}[0m colour")]).expect("stored");
    let data = read_run(folder.path()).expect("reads");
    let detail = &data.samples.last().expect("one").detail;
    assert_eq!(detail, "two  lines and [0m colour");
}

#[test]
fn a_write_that_fails_names_the_file_and_the_way_out() {
    let folder = tempdir().expect("folder");
    let full = OpenOptions::new().append(true).open("/dev/full").expect("every Linux has it");
    let mut writer = RunWriter::new(folder.path(), &manifest(), full, 0).expect("writer");
    let error = writer.append_trial(&trials()[0]).expect_err("full").to_string();
    assert_eq!(
        error,
        format!(
            "cannot append to {}: the disk is full; what was measured before is kept, so free some \
             space and continue with --resume",
            samples_file(&folder).display()
        )
    );
}

/// Fills a real file system of 64 KiB, in a mount namespace of this thread.
fn fill_a_small_disk(folder: &Path) {
    use nix::mount::{MsFlags, mount};
    let none: Option<&str> = None;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("mount namespace");
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private");
    let size = Some("size=64k");
    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), size).expect("tmpfs");
    let folder = folder.join("run");
    let mut writer = RunWriter::create(&folder, &manifest()).expect("created");
    let pad = "x".repeat(3000);
    let mut finished = 0;
    let error = loop {
        match writer.append_trial(&[failed(finished + 1, finished + 1, &pad)]) {
            Ok(()) => finished += 1,
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert!(writer.write_manifest(&Manifest { seed: 1, ..manifest() }).is_err());
    let data = read_run(&folder).expect("reads");
    assert_eq!((data.samples.len(), data.torn), (finished as usize, false));
    assert_eq!(data.manifest, manifest(), "the old manifest is still there");
    assert_eq!(fs::read_dir(&folder).expect("list").count(), 2, "no temporary file stays");
}

#[test]
fn a_full_disk_keeps_what_is_there() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not checked: a file system of its own needs root");
        return;
    }
    let folder = tempdir().expect("folder");
    let path = folder.path().to_owned();
    std::thread::spawn(move || fill_a_small_disk(&path)).join().expect("held");
}

#[test]
fn the_schema_text_names_every_column_and_metric() {
    let text = include_str!("../../results/README.md");
    for column in COLUMNS {
        assert!(text.contains(&format!("\n| `{column}` |")), "column {column}");
    }
    for metric in Metric::all() {
        let row = format!("\n| `{metric}` | {} |", metric.unit());
        assert!(text.contains(&row), "metric {metric}");
    }
    let described = text.lines().filter(|line| line.starts_with("| `")).count();
    let files = 5;
    assert_eq!(described, files + COLUMNS.len() + Metric::all().count(), "nothing else");
    assert!(text.contains(&format!("The schema version is {SCHEMA_VERSION}.")));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(lines in proptest::collection::vec(
        "(20261123-043512-a1b2c3|ok|failed|startup|process|vm|touch=64|startup.init|ns|none|kernel=tuned;machine=q35|[0-9]{1,3}|[,\"\n\r]|,{1,3}|\\PC){0,40}", 0..6)) {
        let text = read::header() + &lines.join("\n");
        let _ = read::parse("fuzz".into(), text.as_bytes(), &manifest());
        let _ = read::parse("fuzz".into(), lines.concat().as_bytes(), &manifest());
    }

    #[test]
    fn a_flipped_byte_is_found_or_changes_a_free_text_only(at in 0..2000_usize, byte: u8) {
        let mut bytes = read::header().into_bytes();
        for trial in trials() {
            for sample in &trial {
                write_row(&mut bytes, &manifest().run_id, trial.len(), sample).expect("row");
            }
        }
        let at = at % bytes.len();
        bytes[at] = byte;
        // No panic; and whatever is read is no longer than what was written.
        if let Ok(parsed) = read::parse("fuzz".into(), &bytes, &manifest()) {
            prop_assert!(parsed.samples.len() <= trials().concat().len());
        }
    }

    #[test]
    fn every_finite_value_and_detail_reads_back(value: f64, detail in "\\PC{0,60}") {
        prop_assume!(value.is_finite());
        let sample = Sample { detail, ..sample(1, 1, BackendName::Vm, Metric::DensityStart, value) };
        let mut bytes = read::header().into_bytes();
        write_row(&mut bytes, &manifest().run_id, 1, &sample).expect("row");
        let parsed = read::parse("fuzz".into(), &bytes, &manifest()).expect("reads");
        prop_assert_eq!(parsed.samples, [sample]);
    }
}

#[test]
fn nobodys_home_is_stored() {
    let home = std::env::var("HOME").expect("a home");
    let mut line = Vec::new();
    let missing = failed(1, 1, &format!("no file `{home}/a/b`"));
    write_row(&mut line, "20261123-043512-a1b2c3", 1, &missing).expect("written");
    let line = String::from_utf8(line).expect("text");
    assert_eq!(home.len() > 1, line.contains("no file `~/a/b`"), "{line}");
}
