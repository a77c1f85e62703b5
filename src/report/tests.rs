//! The page and the table of made-up runs.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::record::RunState;
use crate::stats::testing::{failed, key, manifest, ok, realistic};

fn page(manifest: &Manifest, samples: &[Sample]) -> String {
    let summary = Summary::build(manifest, samples);
    let figures = figures(manifest, &summary, samples).expect("drawn");
    let html = page::render(manifest, &summary, &figures).expect("filled in");
    if let Some(folder) = std::env::var_os("UNLADEN_SHOW_FIGURES") {
        fs::write(Path::new(&folder).join("index.html"), &html).expect("page");
    }
    html
}

#[test]
fn a_run_folder_is_written_whole_and_again() {
    let folder = tempfile::tempdir().expect("folder");
    let (manifest, samples) = realistic(8);
    let first = write_run_folder(folder.path(), &manifest, &samples).expect("written");
    let list = |dir: &Path| {
        let mut names: Vec<String> = fs::read_dir(dir)
            .expect("folder")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("name"))
            .collect();
        names.sort();
        names
    };
    assert_eq!(list(folder.path()), ["report", "summary.csv", "summary.json"]);
    assert_eq!(list(&folder.path().join("report")), ["figures", "index.html"]);
    let figures = list(&folder.path().join("report/figures"));
    assert_eq!(figures.len(), 2 * 10, "{figures:?}");
    assert_eq!(first.page, folder.path().join("report/index.html"));
    let before = fs::read(&first.page).expect("page");
    let again = write_run_folder(folder.path(), &manifest, &samples).expect("written again");
    assert_eq!(fs::read(&again.page).expect("page"), before);
    assert_eq!(list(&folder.path().join("report/figures")), figures);
    // Not the private mode of a temporary file.
    let mode = fs::metadata(&again.page).expect("page").permissions().mode();
    let plain = folder.path().join("plain");
    fs::write(&plain, "").expect("file");
    assert_eq!(mode, fs::metadata(plain).expect("file").permissions().mode());
}

#[test]
fn an_error_names_the_file() {
    let folder = tempfile::tempdir().expect("folder");
    let (manifest, samples) = realistic(2);
    fs::write(folder.path().join("report"), "in the way").expect("file");
    let error = write_run_folder(folder.path(), &manifest, &samples).expect_err("in the way");
    assert!(error.to_string().contains("report/figures"), "{error}");
}

#[test]
fn the_page_has_its_parts_in_order() {
    let (manifest, samples) = realistic(20);
    let html = page(&manifest, &samples);
    let parts = [
        "A plain process was ready",
        "id=\"waterfall-exit\"",
        "id=\"startup-exit\"",
        "id=\"memory-pause\"",
        "id=\"density-pause\"",
        "id=\"tables\"",
        "id=\"comparisons\"",
        "id=\"missing\"",
        "id=\"conditions\"",
        "id=\"commands\"",
        "id=\"words\"",
        "id=\"reproduce\"",
        "id=\"methodology\"",
        "id=\"limitations\"",
    ];
    let places: Vec<usize> =
        parts.iter().map(|part| html.find(part).unwrap_or_else(|| panic!("no {part}"))).collect();
    assert!(places.is_sorted(), "{places:?}");
    for needed in [
        "under software emulation (TCG)",
        "skipped: the guest never reached init under KVM within 9 s",
        "unladen run quick --out &#x27;a b&#x27;",
        "unladen-payload exit",
        "slower by ",
        "memory.marginal.cgroup",
    ] {
        assert!(html.contains(needed), "{needed}");
    }
}

#[test]
fn the_page_loads_nothing_from_anywhere() {
    let (manifest, samples) = realistic(6);
    let html = page(&manifest, &samples);
    for loader in ["http://", "https://", "src=", "@import", "url(", "<link", "<script", "<iframe"]
    {
        assert!(!html.contains(loader), "the page contains {loader}");
    }
}

#[test]
fn hostile_text_stays_text() {
    let cell = key("startup vm exit x=<script>alert(1)</script>");
    let attack = "<script>alert('x')</script><img onerror=\"y\">";
    let samples = [failed(&cell, 1, "startup.kernel", attack), ok(&cell, 2, "startup.gone", 5.0)];
    let mut manifest = manifest(std::slice::from_ref(&cell), 2);
    manifest.warnings.push(attack.to_owned());
    manifest.labels.push(attack.to_owned());
    manifest.host_before[0].value = attack.to_owned();
    manifest.argv.push(attack.to_owned());
    manifest.cells[0].command.push(attack.to_owned());
    manifest.spec_text.push_str(attack);
    let html = page(&manifest, &samples);
    for bad in ["<script", "<img", "onerror=\"y\""] {
        assert!(!html.contains(bad), "the page contains {bad}");
    }
    assert!(html.contains("&lt;script&gt;"));
}

#[test]
fn the_headline_says_what_the_numbers_say() {
    let (manifest, samples) = realistic(20);
    let summary = Summary::build(&manifest, &samples);
    let sentences = headline(&manifest, &summary);
    let container = &sentences[1];
    assert!(container.starts_with("A container was ready in 1.1"), "{container}");
    assert!(
        container.contains("times as long as the plain process (95 % interval "),
        "{container}"
    );
    let machine = &sentences[2];
    assert!(machine.starts_with("The fastest virtual machine (vm tcg tuned microvm)"), "{machine}");
    assert!(machine.contains("under software emulation (TCG)"), "{machine}");
    let all = sentences.join(" ");
    assert!(all.contains("One more idle instance costs"), "{all}");
    assert!(all.contains("64 of container (cap of the spec)"), "{all}");
    assert!(all.contains("2 of "), "failures are counted: {all}");
    assert!(all.contains("TCG (software emulation), nested."), "{all}");
}

#[test]
fn the_headline_claims_nothing_that_was_not_measured() {
    let mut manifest = manifest(&[key("startup vm exit"), key("memory vm pause")], 4);
    manifest.state = RunState::Interrupted;
    let summary = Summary::build(&manifest, &[]);
    let sentences = headline(&manifest, &summary);
    assert_eq!(
        sentences[..2],
        [
            "This run did not come to its end; what follows is what it had measured.",
            "None of 0 trials failed; 2 of 2 cells have no value.",
        ]
    );
    assert!(page(&manifest, &[]).contains("No two cells of this run can be compared."));
}

#[test]
fn the_terminal_table_has_a_row_for_every_arm() {
    let (manifest, samples) = realistic(8);
    let summary = Summary::build(&manifest, &samples);
    let mut table = terminal_table(&summary);
    table.set_width(160);
    let text = table.to_string();
    if std::env::var_os("UNLADEN_SHOW_FIGURES").is_some() {
        println!("{text}");
    }
    assert_eq!(
        missing_lines(&summary),
        [
            "startup vm kvm tuned microvm exit: skipped: the guest never reached init under KVM within 9 s"
        ]
    );
    let row = |start: &[&str]| {
        text.lines()
            .find(|line| start.iter().all(|part| line.contains(part)))
            .unwrap_or_else(|| panic!("no row {start:?} in\n{text}"))
    };
    assert!(row(&["container", "pause"]).contains("64 (cap of the spec)"));
    assert!(row(&["vm tcg tuned microvm", "http"]).contains("7/8"));
    assert!(row(&["process (control)", "pause"]).contains('–'), "cgroup was not measured");
    assert!(row(&["container", "http"]).contains("stop+"));
    assert!(row(&["vm kvm tuned microvm"]).contains("skipped"));
    assert!(!text.contains(" 0 B"));
}
