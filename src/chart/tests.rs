//! Figures of made-up runs: what must be in them, and one exact snapshot.

use super::*;
use crate::record::{CellKey, Manifest, Sample};
use crate::stats::testing::{Noise, at_step, failed, key, manifest, ok, realistic};

/// Figures of a run, written to the folder in `UNLADEN_SHOW_FIGURES` for a
/// person to look at.
fn drawn(manifest: &Manifest, samples: &[Sample]) -> Vec<Figure> {
    let summary = Summary::build(manifest, samples);
    let figures = figures(manifest, &summary, samples).expect("drawn");
    if let Some(folder) = std::env::var_os("UNLADEN_SHOW_FIGURES") {
        let folder = std::path::Path::new(&folder);
        for figure in &figures {
            std::fs::write(folder.join(format!("{}.png", figure.id)), &figure.png).expect("png");
            std::fs::write(folder.join(format!("{}.svg", figure.id)), &figure.svg).expect("svg");
        }
    }
    figures
}

fn figure<'a>(figures: &'a [Figure], id: &str) -> &'a Figure {
    figures.iter().find(|figure| figure.id == id).unwrap_or_else(|| panic!("no figure {id}"))
}

/// Texts of an SVG, after checking that its elements are closed in order and
/// that no `<` or `&` is left bare.
fn texts(svg: &str) -> Vec<String> {
    let mut open: Vec<&str> = Vec::new();
    let mut found = Vec::new();
    for piece in svg.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').expect("a tag ends");
        let name = tag.trim_matches('/').split_whitespace().next().expect("a tag has a name");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "closed in order");
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        for entity in text.split('&').skip(1) {
            let known = ["amp;", "lt;", "gt;", "quot;", "apos;"];
            assert!(known.iter().any(|name| entity.starts_with(name)), "bare & in {text}");
        }
        if !text.trim().is_empty() {
            found.push(text.trim().to_owned());
        }
    }
    assert_eq!(open, Vec::<&str>::new(), "every element is closed");
    found
}

#[test]
fn every_figure_names_every_cell_and_its_conditions() {
    let (manifest, samples) = realistic(8);
    let figures = drawn(&manifest, &samples);
    let ids: Vec<&str> = figures.iter().map(|figure| figure.id.as_str()).collect();
    assert_eq!(ids[..4], ["waterfall-exit", "startup-exit", "waterfall-pause", "startup-pause"]);
    assert_eq!(ids[ids.len() - 2..], ["memory-pause", "density-pause"]);
    for figure in &figures {
        let all = texts(&figure.svg).join(" ");
        for needed in ["TCG (software emulation)", "Example CPU 3000", "n = ", "Failed trials:"] {
            assert!(all.contains(needed), "{} lacks {needed}", figure.id);
        }
        for cell in ["process", "container", "vm tcg tuned", "q35"] {
            assert!(all.contains(cell), "{} lacks {cell}", figure.id);
        }
        assert!(figure.svg.contains("font-family=\"DejaVu Sans, Verdana, Arial, sans-serif\""));
        assert!(figure.png.starts_with(b"\x89PNG\r\n"));
    }
}

#[test]
fn what_is_missing_is_said_and_not_drawn() {
    let (manifest, samples) = realistic(8);
    let figures = drawn(&manifest, &samples);
    let reason = "skipped: the guest never reached init under KVM within 9 s";
    let waterfall = texts(&figure(&figures, "waterfall-exit").svg).join(" ");
    assert!(waterfall.contains(&format!("vm kvm tuned microvm ({reason})")));
    let http = texts(&figure(&figures, "waterfall-http").svg).join(" ");
    assert!(http.contains("vm tcg tuned q35 1 of 8"), "failed trials are counted");
    let memory = texts(&figure(&figures, "memory-pause").svg).join(" ");
    assert!(memory.contains("not measured: the memory controller is not delegated"));
    assert!(!memory.contains("0 B"), "what is missing is not nothing");
}

#[test]
fn what_others_published_is_marked_and_has_its_source() {
    let (scale, memory) = (key("scale container pause"), key("memory vm pause"));
    let mut samples = Vec::new();
    for step in [0, 10, 100] {
        samples.push(at_step(&scale, 1, step, "scale.start", 1e6 * f64::from(step + 1)));
    }
    for part in ["guest_ram", "translation", "vmm", "text", "image"] {
        for ledger in ["pss", "rss"] {
            let metric = format!("memory.part.{part}.{ledger}");
            samples.push(ok(&memory, 1, &metric, 3.0 * 1_048_576.0));
        }
    }
    for kind in ["anon", "file", "kernel", "advance"] {
        samples.push(ok(&memory, 1, &format!("memory.charge.{kind}"), 4096.0));
    }
    let figures = drawn(&manifest(&[scale, memory], 1), &samples);
    let starts = texts(&figure(&figures, "scale-pause").svg).join(" ");
    for needed in ["published: LightVM", "SOSP 2017", "Xeon E5-1630", "101 ms as number 101"] {
        assert!(starts.contains(needed), "{needed} is not in {starts}");
    }
    let stack = texts(&figure(&figures, "stack-pause").svg).join(" ");
    for needed in ["published: Firecracker, resident", "NSDI 2020", "15 MiB", "16 KiB", "9 MiB"] {
        assert!(stack.contains(needed), "{needed} is not in {stack}");
    }
}

#[test]
fn a_run_without_any_value_still_has_its_figures() {
    let cells = [key("startup vm exit"), key("memory vm pause"), key("density vm pause")];
    let samples = [failed(&cells[0], 1, "startup.kernel", "a < b & c > \"d\"")];
    let figures = drawn(&manifest(&cells, 3), &samples);
    assert_eq!(figures.len(), 4);
    for figure in &figures {
        texts(&figure.svg);
    }
    assert!(figures[0].svg.contains("a &lt; b &amp; c &gt; &quot;d&quot;"));
}

/// A run of whole ticks, drawn the same on every machine.
fn exact() -> (Manifest, Vec<Sample>) {
    let startup: Vec<CellKey> = ["startup mock exit", "startup mock exit init=5"].map(key).to_vec();
    let (memory, density) = (key("memory mock pause"), key("density mock pause"));
    let mut samples = Vec::new();
    for round in 1..=6 {
        for (cell, factor) in startup.iter().zip([1e3, 1e5]) {
            let scale = factor * (1.0 + f64::from(round) / 10.0);
            let marks = [
                ("spawned", 40.0),
                ("init", 100.0),
                ("ready", 120.0),
                ("exited", 150.0),
                ("gone", 160.0),
            ];
            for (mark, at) in marks {
                samples.push(ok(cell, round, &format!("startup.{mark}"), at * scale));
            }
        }
        samples.push(ok(&memory, round, "memory.pss", 4096.0 * f64::from(10 + round)));
        samples.push(ok(&memory, round, "memory.uss", 4096.0 * 8.0));
    }
    for step in [1, 2, 4, 8, 16] {
        let n = f64::from(step);
        samples.push(at_step(&density, 1, step, "memory.pss", 65_536.0 + 8_192.0 * n));
        samples.push(at_step(&density, 1, step, "density.start", 1e6 + 1e5 * n));
    }
    let most = at_step(&density, 1, 16, "density.instances", 16.0);
    samples.push(Sample { detail: "cap of 16".to_owned(), ..most });
    let cells = [startup, vec![memory, density]].concat();
    (manifest(&cells, 6), samples)
}

#[test]
fn an_exact_run_has_exactly_the_recorded_figures() {
    let (manifest, samples) = exact();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/figures");
    for figure in drawn(&manifest, &samples) {
        let path = folder.join(format!("{}.svg", figure.id));
        if std::env::var_os("UNLADEN_BLESS").is_some() {
            std::fs::create_dir_all(&folder).expect("folder");
            std::fs::write(&path, &figure.svg).expect("golden");
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            golden == figure.svg,
            "{} differs from {}: look at it, then record it with UNLADEN_BLESS=1",
            figure.id,
            path.display()
        );
    }
}

#[test]
fn figures_of_an_exact_run_say_its_numbers() {
    let (manifest, samples) = exact();
    let figures = drawn(&manifest, &samples);
    let said = |id: &str, text: &str| {
        let all = texts(&figure(&figures, id).svg);
        assert!(all.iter().any(|found| found.contains(text)), "{id} lacks `{text}`: {all:?}");
    };
    // Medians of the factors 1.1 to 1.6: 1.35.
    said("waterfall-exit", "spawn 54 µs");
    said("waterfall-exit", "exec to init 81 µs");
    said("waterfall-exit", "cleanup 1.35 ms");
    said("startup-exit", "median 162 µs [132 µs, 192 µs], n = 6");
    said("memory-pause", "54 KiB");
    said("density-pause", "mock: 8 KiB each [8 KiB, 8 KiB]");
    said("density-pause", "mock: 16 alive, then cap of 16");
}

/// Ten arms, more than a page should have, with long names and reasons.
fn ten_arms() -> (Manifest, Vec<Sample>) {
    let mut noise = Noise::new(4);
    let (mut cells, mut samples) = (Vec::new(), Vec::new());
    let arms = [
        ("process", "", 1.1e5),
        ("process", "control=1", 1.1e5),
        ("container", "", 9e5),
        ("container", "net=none;userns=yes", 7e5),
        ("container", "limits=none;userns=yes", 8e5),
        ("vm", "accel=tcg;kernel=tuned;machine=microvm", 4e8),
        ("vm", "accel=tcg;kernel=tuned;machine=q35", 6.9e8),
        ("vm", "accel=tcg;kernel=distro;machine=microvm", 1.4e9),
        ("vm", "accel=tcg;kernel=distro;machine=q35;memory=256M", 2.1e9),
        ("vm", "kernel=tuned;machine=microvm;vcpus=4", 4.2e8),
    ];
    let machine =
        [("spawned", 3e-4), ("vmm_ready", 0.1), ("kernel", 0.2), ("init", 0.95), ("ready", 1.0)];
    for (backend, params, base) in arms {
        let cell = |experiment: &str| key(&format!("{experiment} {backend} pause {params}"));
        let (startup, memory, density) = (cell("startup"), cell("memory"), cell("density"));
        for round in 1..=15 {
            let took = base * noise.lognormal(0.1);
            for (mark, share) in machine
                .iter()
                .filter(|(mark, _)| backend == "vm" || !["vmm_ready", "kernel"].contains(mark))
            {
                samples.push(ok(&startup, round, &format!("startup.{mark}"), took * share));
            }
            samples.push(ok(&startup, round, "stop.exited", 1e6));
            samples.push(ok(&startup, round, "stop.gone", 1.5e6));
            for ledger in ["pss", "uss", "rss", "cgroup", "peak"] {
                samples.push(ok(&memory, round, &format!("memory.{ledger}"), took / 10.0));
            }
        }
        for n in [1, 2, 4, 8, 16] {
            let bytes = base / 10.0 * f64::from(n);
            samples.push(at_step(&density, 1, n, "memory.pss", bytes));
            samples.push(at_step(&density, 1, n, "memory.cgroup", bytes * 1.1));
            samples.push(at_step(&density, 1, n, "density.start", base));
        }
        let detail = "memory pressure: all processes stood still for 10 % of the last ten seconds";
        let most = at_step(&density, 1, 16, "density.instances", 16.0);
        samples.push(Sample { detail: detail.to_owned(), ..most });
        cells.extend([startup, memory, density]);
    }
    (manifest(&cells, 15), samples)
}

/// Where the texts of an SVG stand: left, right, top, bottom, text.
fn boxes(svg: &str) -> Vec<(f64, f64, f64, f64, String)> {
    svg.split("<text ")
        .skip(1)
        .map(|piece| {
            let attribute = |name: &str| {
                let start = piece.find(&format!("{name}=\"")).expect(name) + name.len() + 2;
                &piece[start..start + piece[start..].find('"').expect("quoted")]
            };
            let number = |name: &str| attribute(name).parse::<f64>().expect(name);
            let text = piece.split(['>', '<']).nth(1).expect("text").trim().to_owned();
            let size = number("font-size");
            let bold = piece.contains("font-weight=\"bold\"");
            let kind = canvas::Type { size, bold, colour: canvas::BLACK };
            let wide = canvas::width(&text, kind).expect("font");
            let left = match attribute("text-anchor") {
                "start" => number("x"),
                "middle" => number("x") - wide / 2.0,
                _ => number("x") - wide,
            };
            let middle = number("y");
            (left, left + wide, middle - 0.45 * size, middle + 0.45 * size, text)
        })
        .collect()
}

#[test]
fn no_text_lies_over_another_or_over_the_edge() {
    let (ten, ten_samples) = ten_arms();
    let (manifest, samples) = realistic(8);
    for figure in drawn(&manifest, &samples).iter().chain(&drawn(&ten, &ten_samples)) {
        let boxes = boxes(&figure.svg);
        assert!(boxes.len() > 10);
        for (index, a) in boxes.iter().enumerate() {
            assert!(a.0 >= 0.0 && a.1 <= canvas::WIDTH * canvas::SCALE, "{}: {a:?}", figure.id);
            for b in &boxes[index + 1..] {
                let apart = a.1 <= b.0 || b.1 <= a.0 || a.3 <= b.2 || b.3 <= a.2;
                assert!(apart, "{}: {a:?} lies over {b:?}", figure.id);
            }
        }
    }
}
