//! What the template of the page is filled in with: texts and tables, no
//! numbers that the template would have to format.

use minijinja::Environment;
use minijinja::value::Serde;
use serde::Serialize;

use super::density;
use super::headline::{headline, main_workload};
use super::overview::{Overview, overviews};
use crate::chart::Figure;
use crate::record::{Does, Experiment, HostFact, Manifest, Outcome};
use crate::stats::{
    CellSummary, Comparison, Interval, LEVEL, MAX_FAILED_SHARE, MetricSummary, RESAMPLES, Summary,
    Verdict,
};
use crate::units::Unit;

const TEMPLATE: &str = include_str!("../../report/template/index.html");
const METHODOLOGY: &str = include_str!("../../report/METHODOLOGY.md");
const LIMITATIONS: &str = include_str!("../../report/LIMITATIONS.md");

/// The whole page.
pub(super) fn render(
    manifest: &Manifest,
    summary: &Summary,
    figures: &[Figure],
) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    // The ending `.html` turns on escaping of everything that is filled in.
    environment.add_template("index.html", TEMPLATE)?;
    environment.get_template("index.html")?.render(Serde(Page::new(manifest, summary, figures)))
}

#[derive(Serialize)]
struct Page<'a> {
    manifest: &'a Manifest,
    state: &'static str,
    headline: Vec<String>,
    sections: Vec<Section>,
    missing: Vec<Missing>,
    does: Vec<Row>,
    comparisons: Vec<Row>,
    verdict_rule: String,
    controls: Vec<Row>,
    overviews: Vec<Overview>,
    ledgers: Vec<Row>,
    scale: Vec<Row>,
    fits: Vec<Row>,
    assumptions: Vec<String>,
    tables: Vec<Table>,
    timeline: String,
    host: Vec<HostRow>,
    cells: Vec<CellCommand<'a>>,
    command: String,
    methodology: &'static str,
    limitations: &'static str,
}

/// The figures of one experiment.
#[derive(Serialize)]
struct Section {
    title: &'static str,
    /// Figures of the main workload, then those of all others.
    first: Vec<InlineFigure>,
    more: Vec<InlineFigure>,
}

#[derive(Clone, Serialize)]
struct InlineFigure {
    id: String,
    title: String,
    svg: String,
}

#[derive(Serialize)]
struct Missing {
    cell: String,
    why: String,
}

/// A row of texts; `class` tells the style sheet what kind it is.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) class: &'static str,
    pub(super) fields: Vec<String>,
}

#[derive(Serialize)]
struct Table {
    title: String,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct HostRow {
    name: String,
    before: String,
    after: String,
    differs: bool,
}

#[derive(Serialize)]
struct CellCommand<'a> {
    cell: String,
    remark: &'a str,
    accelerator: &'a str,
    command: String,
}

impl<'a> Page<'a> {
    fn new(manifest: &'a Manifest, summary: &'a Summary, figures: &[Figure]) -> Self {
        let capacity = density::capacity(manifest, summary);
        Self {
            manifest,
            state: match manifest.state {
                crate::record::RunState::Complete => "complete",
                crate::record::RunState::Interrupted => "interrupted",
                crate::record::RunState::Running => "not ended",
            },
            headline: headline(manifest, summary),
            sections: sections(summary, figures),
            missing: missing(summary),
            does: does(manifest),
            comparisons: summary.comparisons.iter().map(comparison).collect(),
            verdict_rule: verdict_rule(),
            controls: controls(summary),
            overviews: overviews(summary),
            ledgers: density::ledgers(summary),
            scale: density::scale(summary),
            fits: capacity.as_ref().map(density::fits).unwrap_or_default(),
            assumptions: capacity.map(|capacity| capacity.assumptions()).unwrap_or_default(),
            tables: tables(summary),
            timeline: timeline(summary),
            host: host(&manifest.host_before, &manifest.host_after),
            cells: manifest
                .cells
                .iter()
                .map(|fact| CellCommand {
                    cell: fact.cell.to_string(),
                    remark: &fact.detail,
                    accelerator: fact.accelerator.as_deref().unwrap_or(""),
                    command: fact.command.join("\n"),
                })
                .collect(),
            command: shell(&manifest.argv),
            methodology: METHODOLOGY,
            limitations: LIMITATIONS,
        }
    }
}

fn sections(summary: &Summary, figures: &[Figure]) -> Vec<Section> {
    let section = |title, experiment, kinds: &[&str]| {
        let main = main_workload(summary, experiment)
            .map(|workload| workload.to_string().replace('=', "-"))
            .unwrap_or_default();
        let of = |kind: &str, wanted: bool| -> Vec<InlineFigure> {
            let belongs = |figure: &&Figure| {
                figure
                    .id
                    .strip_prefix(kind)
                    .and_then(|rest| rest.strip_prefix('-'))
                    .is_some_and(|workload| (workload == main) == wanted)
            };
            figures.iter().filter(belongs).map(inline).collect()
        };
        Section {
            title,
            first: kinds.iter().flat_map(|kind| of(kind, true)).collect(),
            more: kinds.iter().flat_map(|kind| of(kind, false)).collect(),
        }
    };
    vec![
        section("Start-up", Experiment::Startup, &["waterfall", "startup"]),
        section("Memory", Experiment::Memory, &["memory", "stack"]),
        section("Density", Experiment::Density, &["density"]),
        section("Scale", Experiment::Scale, &["scale"]),
    ]
}

/// Inside a page an SVG needs no name space; without it the page names no
/// address at all.
fn inline(figure: &Figure) -> InlineFigure {
    InlineFigure {
        id: figure.id.clone(),
        title: figure.title.clone(),
        svg: figure.svg.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1),
    }
}

fn missing(summary: &Summary) -> Vec<Missing> {
    summary
        .cells
        .iter()
        .filter(|cell| cell.outcome != Outcome::Ok || cell.failed > 0 || !cell.reasons.is_empty())
        .map(|cell| Missing { cell: cell.cell.to_string(), why: why(cell) })
        .collect()
}

fn why(cell: &CellSummary) -> String {
    let reasons: Vec<String> = cell
        .reasons
        .iter()
        .map(|reason| match reason.count {
            1 => reason.text.clone(),
            count => format!("{} ({count} times)", reason.text),
        })
        .collect();
    let reasons = reasons.join("; ");
    match (cell.outcome, cell.failed) {
        (Outcome::Skipped, _) => cell.why_missing(),
        (_, 0) => format!("measured, but without some values: {reasons}"),
        (_, failed) => format!("{failed} of {} trials failed: {reasons}", cell.tried),
    }
}

/// What each backend does and does not do, in the order of the cells.
fn does(manifest: &Manifest) -> Vec<Row> {
    let mut names: Vec<&str> = Vec::new();
    for fact in &manifest.cells {
        let name = fact.cell.backend.as_str();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let row = |name: &str| {
        let Does { cgroup, seccomp, network, logging, daemon, remark } = manifest.does.get(name)?;
        let texts = [cgroup, seccomp, network, logging, daemon, remark];
        let said = texts.into_iter().map(|text| match text.as_str() {
            "" => "–".to_owned(),
            text => text.to_owned(),
        });
        let fields = std::iter::once(name.to_owned()).chain(said).collect();
        Some(Row { class: "", fields })
    };
    names.into_iter().filter_map(row).collect()
}

pub(super) fn interval(found: Option<Interval>, unit: Unit) -> String {
    found.map_or("–".to_owned(), |found| {
        format!("{} to {}", unit.human(found.low), unit.human(found.high))
    })
}

fn comparison(found: &Comparison) -> Row {
    let ratio = found.ratio.map_or("–".to_owned(), |ratio| Unit::Count.human(ratio.ratio));
    let p = |p: Option<f64>| match p {
        None => "not tested".to_owned(),
        Some(p) if p < 0.000_1 => "< 0.0001".to_owned(),
        Some(p) => format!("{p:.4}"),
    };
    Row {
        class: match found.verdict {
            Verdict::Withheld { .. } => "withheld",
            Verdict::NoDifference { .. } => "same",
            _ => "differs",
        },
        fields: vec![
            found.subject.workload.to_string(),
            found.metric.to_string(),
            found.subject.label(),
            found.baseline.label(),
            found.pairs.to_string(),
            ratio,
            interval(found.ratio.and_then(|ratio| ratio.interval), Unit::Count),
            p(found.p_holm),
            found.text.clone(),
        ],
    }
}

fn controls(summary: &Summary) -> Vec<Row> {
    let row = |control: &crate::stats::Control| Row {
        class: "",
        fields: vec![
            control.experiment.to_string(),
            control.workload.to_string(),
            control.metric.to_string(),
            control.pairs.to_string(),
            control.ratio.map_or("–".to_owned(), |ratio| format!("{:.3}", ratio.ratio)),
            control
                .ratio
                .and_then(|ratio| ratio.interval)
                .map_or("–".to_owned(), |found| format!("{:.3} to {:.3}", found.low, found.high)),
        ],
    };
    summary.controls.iter().map(row).collect()
}

fn verdict_rule() -> String {
    format!(
        "A difference is named only if the 95 % interval of the ratio of medians ({RESAMPLES} \
         resamples of whole rounds) excludes 1, if the ratio is further from 1 than twice the half \
         width of the A/A interval and than 2 %, and if the permutation test within rounds has p \
         below {LEVEL} after Holm over all comparisons tested. A cell of which more than {:.0} % \
         of trials failed is not judged.",
        100.0 * MAX_FAILED_SHARE
    )
}

/// One table per cell, its slopes last.
fn tables(summary: &Summary) -> Vec<Table> {
    summary
        .cells
        .iter()
        .filter(|cell| !cell.metrics.is_empty())
        .map(|cell| {
            let mut rows: Vec<Row> = cell.metrics.iter().map(metric).collect();
            rows.extend(cell.marginals.iter().map(|marginal| {
                let human = |value: f64| Unit::Bytes.human(value);
                let line = marginal.line;
                let fixed = line.map(|line| format!("fixed part {}", human(line.intercept)));
                Row {
                    class: "",
                    fields: vec![
                        marginal.metric().to_string(),
                        line.map_or(0, |line| line.points).to_string(),
                        String::new(),
                        line.map_or("–".to_owned(), |line| human(line.slope)),
                        interval(line.and_then(|line| line.interval), Unit::Bytes),
                        String::new(),
                        String::new(),
                        String::new(),
                        String::new(),
                        marginal.reason.clone().or(fixed).unwrap_or_default(),
                    ],
                }
            }));
            Table { title: cell.cell.to_string(), rows }
        })
        .collect()
}

fn metric(found: &MetricSummary) -> Row {
    let unit = found.metric.unit();
    let human = |value: Option<f64>| value.map_or("–".to_owned(), |value| unit.human(value));
    let values = found.values.as_ref();
    let name = match found.step {
        Some(step) => format!("{} at {step}", found.metric),
        None => found.metric.to_string(),
    };
    let percentiles: Vec<String> = values
        .map(|values| {
            [("p90", values.p90), ("p95", values.p95), ("p99", values.p99), ("p99.9", values.p999)]
                .iter()
                .filter_map(|(name, value)| Some(format!("{name} {}", unit.human((*value)?))))
                .collect()
        })
        .unwrap_or_default();
    let reasons = found.reasons.iter().map(|reason| reason.text.clone());
    let flags = found.flags.iter().map(ToString::to_string);
    Row {
        class: if values.is_none() { "withheld" } else { "" },
        fields: vec![
            name,
            found.n.to_string(),
            found.failed.to_string(),
            human(values.map(|values| values.median)),
            interval(values.and_then(|values| values.interval), unit),
            human(values.map(|values| values.min)),
            human(values.map(|values| values.mean)),
            human(values.and_then(|values| values.sd)),
            percentiles.join(", "),
            reasons.chain(flags).collect::<Vec<_>>().join("; "),
        ],
    }
}

fn timeline(summary: &Summary) -> String {
    let check = &summary.timeline;
    let human = |value: f64| Unit::Nanoseconds.human(value);
    let Some(worst) = check.worst_residue_ns else {
        return "No trial had start-up marks to check.".to_owned();
    };
    let mut text = format!(
        "Marks of {} trials were checked: the phases of each add up to its total within {}, where \
         {} is tolerated.",
        check.trials,
        human(worst),
        human(check.tolerance_ns)
    );
    if let Some(first) = &check.first_broken {
        text = format!(
            "Of {} trials, {} have marks out of order or phases that miss the total by more than \
             {}; the first: {first}.",
            check.trials,
            check.broken,
            human(check.tolerance_ns)
        );
    }
    text
}

/// Facts side by side, in the order of the first list.
fn host(before: &[HostFact], after: &[HostFact]) -> Vec<HostRow> {
    let value = |facts: &[HostFact], name: &str| {
        facts.iter().find(|fact| fact.name == name).map_or(String::new(), |fact| fact.value.clone())
    };
    let new = after.iter().filter(|fact| before.iter().all(|other| other.name != fact.name));
    before
        .iter()
        .chain(new)
        .map(|fact| {
            let (before, after) = (value(before, &fact.name), value(after, &fact.name));
            HostRow { name: fact.name.clone(), differs: before != after, before, after }
        })
        .collect()
}

/// A command line that a shell reads back as the same words.
fn shell(argv: &[String]) -> String {
    let plain = |word: &str| {
        !word.is_empty()
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c))
    };
    let quoted = |word: &String| {
        if plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    argv.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_quoted_for_a_shell() {
        let argv = ["unladen", "run", "a b", "", "it's", "k=v"].map(str::to_owned);
        assert_eq!(shell(&argv), r"unladen run 'a b' '' 'it'\''s' k=v");
    }

    #[test]
    fn what_backends_do_stands_in_the_order_of_the_cells() {
        let (mut manifest, _) = crate::stats::testing::realistic(2);
        assert!(does(&manifest).is_empty(), "an older run says nothing");
        let first = manifest.cells[0].cell.backend.to_string();
        let told = Does { cgroup: "none".to_owned(), ..Does::default() };
        manifest.does.insert(first.clone(), told);
        let rows = does(&manifest);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].fields, [first.as_str(), "none", "–", "–", "–", "–", "–"]);
    }

    #[test]
    fn facts_that_changed_or_appeared_are_marked() {
        let fact = |name: &str, value: &str| HostFact { name: name.into(), value: value.into() };
        let rows = host(&[fact("a", "1"), fact("b", "1")], &[fact("a", "1"), fact("c", "3")]);
        let seen: Vec<(&str, &str, &str, bool)> = rows
            .iter()
            .map(|row| (row.name.as_str(), row.before.as_str(), row.after.as_str(), row.differs))
            .collect();
        assert_eq!(seen, [("a", "1", "1", false), ("b", "1", "", true), ("c", "", "3", true)]);
    }
}
