//! `unladen run`: from a spec to a folder of results.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::args::RunArgs;
use super::exit::Exit;
use super::progress::Progress;
use super::signals::Signals;
use super::tune::{self, Tuned};
use super::{CliError, say, show_report, systems};
use crate::backend::launcher::ENV_DELAY;
use crate::backend::{Accelerator, Assets, Backend, Launcher, Mock, RealBackends};
use crate::container::cgroup::Controller;
use crate::errors::chain;
use crate::host::{self, Guard, RunId};
use crate::plan::{self, Filters, Plan, Precision};
use crate::record::{
    BackendName, CellFact, HostFact, Manifest, Outcome, RunState, SCHEMA_VERSION, Sample,
};
use crate::run::{Campaign, Ending, Recorder, Workers};
use crate::spec::Spec;
use crate::stats::widest_ratio;
use crate::store::{RunWriter, homely};

/// Runs, and says how it went.
pub(super) fn run(args: &RunArgs) -> Result<Exit, CliError> {
    super::scope::enter_if_needed(&Controller::STANDARD);
    systems::know(args.backends.as_deref())?;
    systems::check(args.backend.iter().copied())?;
    systems::check_sockets(&args.engine_socket)?;
    let signals = Signals::catch().map_err(CliError::Signals)?;
    // For ladders, before the launcher inherits it. Without, they end earlier.
    let _ = crate::sys::limits::all_descriptors();
    // Before anything is read from the host: its facts are those measured under.
    let tuned = if args.tune { Some(Tuned::begin()?) } else { None };
    let begun = match &args.resume {
        Some(dir) => Session::resume(dir, args, &signals),
        None => Session::begin(args, &signals),
    };
    let begun = begun.and_then(|mut session| {
        session.note(tuned.as_ref())?;
        Ok(session)
    });
    let mut session = match begun {
        Err(CliError::Interrupted) => {
            say("interrupted before the first trial; nothing was measured");
            return Ok(signals.exit());
        }
        other => other?,
    };
    let ending = session.execute(args, &signals)?;
    let exit = session.finish(ending, &signals)?;
    let dir = session.writer.dir().to_owned();
    drop(session);
    drop(tuned);
    if !args.no_report {
        show_report(&dir, None)?;
    }
    say(&format!("results: {}", dir.display()));
    if matches!(exit, Exit::Signal(_)) || ending == Ending::Budget {
        say(&format!("to continue: unladen run --resume {}", dir.display()));
    }
    Ok(exit)
}

/// One sitting of a run.
struct Session {
    plan: Plan,
    campaign: Campaign,
    manifest: Manifest,
    writer: RunWriter,
    done: BTreeSet<(u32, usize)>,
}

impl Session {
    /// Begins a new run.
    fn begin(args: &RunArgs, signals: &Signals) -> Result<Self, CliError> {
        let spec = Spec::load(&args.spec)?;
        let filters = Filters {
            experiments: args.experiment.iter().map(|&name| name.into()).collect(),
            backends: args.backend.clone(),
            workloads: args.workload.clone(),
            rounds: args.rounds,
            precision: args
                .precision
                .map(|thousandths| Precision { thousandths, max_rounds: args.max_rounds }),
        };
        let cells = plan::cells(&spec, &filters)?;
        let run_id = RunId::new(SystemTime::now())?;
        let dir = args.out.clone().unwrap_or_else(|| default_folder(&run_id));
        RunWriter::make_folder(&dir)?;
        let seed = match args.seed {
            Some(seed) => seed,
            None => host::random_u64()?,
        };
        let host_before = host::facts();
        let prepared = prepare(cells.clone(), run_id.as_str(), args, signals);
        if let Err(CliError::Interrupted) = prepared {
            // Made above, and still empty.
            let _ = std::fs::remove_dir(&dir);
        }
        let mut campaign = prepared?;
        let plan = Plan::new(cells, &campaign.unavailable(), seed);
        let manifest = Manifest {
            schema: SCHEMA_VERSION,
            run_id: run_id.to_string(),
            state: RunState::Running,
            started: host::utc(SystemTime::now()),
            ended: None,
            argv: argv(),
            spec_name: spec.name.clone(),
            spec_text: spec.text.clone(),
            overrides: filters.to_overrides(),
            seed,
            labels: labels(&campaign, &host_before),
            does: systems::does(campaign.cells().iter().map(|fact| fact.cell.backend)),
            cells: published(&campaign),
            order: plan.order.clone(),
            host_before,
            host_after: Vec::new(),
            versions: campaign.versions(),
            artefacts: campaign.artefacts(),
            settings_changed: Vec::new(),
            warnings: Vec::new(),
        };
        let writer = RunWriter::create(&dir, &manifest)?;
        Ok(Self { plan, campaign, manifest, writer, done: BTreeSet::new() })
    }

    /// Continues an interrupted run.
    fn resume(dir: &Path, args: &RunArgs, signals: &Signals) -> Result<Self, CliError> {
        let resumed = RunWriter::resume(dir)?;
        let mut manifest = resumed.data.manifest;
        let plan = Plan::resume(&manifest)?;
        manifest.state = RunState::Running;
        let mut campaign = prepare(plan.cells.clone(), &manifest.run_id, args, signals)?;
        for warning in changes(&mut campaign, &manifest) {
            say(&warning);
            manifest.warnings.push(warning);
        }
        resumed.writer.write_manifest(&manifest)?;
        let writer = resumed.writer;
        Ok(Self { plan, campaign, manifest, writer, done: resumed.done })
    }

    /// Writes down which host settings are not as they were found.
    fn note(&mut self, tuned: Option<&Tuned>) -> Result<(), CliError> {
        let changed = tuned.map_or_else(tune::standing, |tuned| tuned.changed.clone());
        for fact in changed {
            if !self.manifest.settings_changed.contains(&fact) {
                self.manifest.settings_changed.push(fact);
            }
        }
        if std::env::var_os(ENV_DELAY).is_some() {
            let warning =
                format!("{ENV_DELAY} is set: containers are delayed, for a test of this suite");
            say(&warning);
            self.manifest.warnings.push(warning);
        }
        for warning in tuned.iter().flat_map(|tuned| &tuned.refused) {
            say(warning);
            self.manifest.warnings.push(warning.clone());
        }
        Ok(self.writer.write_manifest(&self.manifest)?)
    }

    /// Runs what is still to be done.
    fn execute(&mut self, args: &RunArgs, signals: &Signals) -> Result<Ending, CliError> {
        let already = self.done.iter().filter(|(round, _)| *round > 0).count();
        let mut progress = Progress::new(&self.plan, already);
        let precision = Filters::from_overrides(&self.manifest.overrides)?.precision;
        let mut recorder = Append {
            samples: match precision {
                Some(_) => crate::store::read_run(self.writer.dir())?.samples,
                None => Vec::new(),
            },
            writer: &mut self.writer,
            manifest: &self.manifest,
            precision,
        };
        let result = self.campaign.execute(
            &self.plan,
            &self.done,
            args.budget,
            &mut recorder,
            &mut progress,
        );
        let imprecise = precision.is_some() && !recorder.suffices();
        progress.finish();
        if imprecise && matches!(result, Ok(Ending::Complete)) {
            let warning = "the ratios are not known as well as --precision asks for; more rounds \
                           (--max-rounds) or a quieter host would help";
            say(warning);
            self.manifest.warnings.push(warning.to_owned());
        }
        match result {
            // A signal that reached the launcher's socket first.
            Err(_) if signals.stop.load(Ordering::Relaxed) => Ok(Ending::Interrupted),
            other => Ok(other?),
        }
    }

    /// Writes the end into the manifest, and weighs the outcome.
    fn finish(&mut self, ending: Ending, signals: &Signals) -> Result<Exit, CliError> {
        self.manifest.state = match ending {
            Ending::Complete | Ending::Precise => RunState::Complete,
            Ending::Interrupted | Ending::Budget => RunState::Interrupted,
        };
        self.manifest.ended = Some(host::utc(SystemTime::now()));
        self.manifest.host_after = host::facts();
        self.note_disturbances();
        self.writer.write_manifest(&self.manifest)?;
        let samples = crate::store::read_run(self.writer.dir())?.samples;
        Ok(match ending {
            Ending::Interrupted => signals.exit(),
            Ending::Complete | Ending::Precise | Ending::Budget => outcome(&samples),
        })
    }
}

impl Session {
    /// What changed on the host while it was measured, said three times: on
    /// the terminal, as a warning, and as a label of every chart.
    fn note_disturbances(&mut self) {
        let manifest = &mut self.manifest;
        for found in host::disturbances(&manifest.host_before, &manifest.host_after) {
            say(&found.detail);
            if !manifest.labels.contains(&found.label) {
                manifest.labels.push(found.label);
            }
            manifest.warnings.push(found.detail);
        }
    }
}

/// The exit code of a run that came to its end.
fn outcome(samples: &[Sample]) -> Exit {
    let any = |wanted: Outcome| {
        // A single value that is missing from a good trial is told in the
        // page; only a cell that never ran makes the host lack something.
        samples.iter().any(|sample| {
            sample.outcome == wanted && (wanted == Outcome::Failed || sample.round == 0)
        })
    };
    if any(Outcome::Failed) {
        Exit::TrialsFailed
    } else if any(Outcome::Skipped) {
        Exit::HostLacks
    } else {
        Exit::Ok
    }
}

/// Makes the backends and has them prepare all cells.
fn prepare(
    cells: Vec<plan::PlannedCell>,
    run_id: &str,
    args: &RunArgs,
    signals: &Signals,
) -> Result<Campaign, CliError> {
    let mock = cells.iter().any(|cell| cell.key.backend == BackendName::Mock);
    let mut workers = None;
    let backends: Vec<Box<dyn Backend>> = if mock {
        vec![Box::new(Mock::default())]
    } else {
        workers = Some(more_launchers(args, signals)?);
        let assets = Rc::new(Assets::unpack()?);
        let executable = std::env::current_exe().map_err(CliError::Executable)?;
        let interrupt = signals.descriptor().map_err(CliError::Signals)?;
        let launcher = Launcher::start(&executable, run_id, Some(interrupt))?;
        let (deadline, accelerator) = (args.deadline, args.accel.into());
        let sockets = args.engine_socket.iter().cloned().collect();
        RealBackends::with_sockets(launcher, &assets, run_id, deadline, accelerator, &sockets)
            .boxed()
    };
    say("preparing: the first time on a host, accelerators are probed by booting a guest");
    let guard = Guard::new(Path::new("/"));
    let campaign = Campaign::prepare(cells, backends, guard, signals.stop.clone());
    if signals.stop.load(Ordering::Relaxed) {
        return Err(CliError::Interrupted);
    }
    let campaign = campaign?;
    Ok(match workers {
        Some(workers) => campaign.with_workers(workers),
        None => campaign,
    })
}

/// Makes backends with a launcher of their own, each under an id of its own.
fn more_launchers(args: &RunArgs, signals: &Signals) -> Result<Arc<Workers>, CliError> {
    let executable = std::env::current_exe().map_err(CliError::Executable)?;
    let interrupt = Arc::new(signals.descriptor().map_err(CliError::Signals)?);
    let (deadline, wanted): (_, Option<Accelerator>) = (args.deadline, args.accel.into());
    let sockets = args.engine_socket.iter().cloned().collect();
    Ok(Arc::new(move |_, known| {
        let run_id = RunId::new(SystemTime::now()).map_err(|error| chain(&error))?;
        let assets = Rc::new(Assets::unpack().map_err(|error| chain(&error))?);
        let interrupt = interrupt.try_clone().map_err(|error| error.to_string())?;
        let launcher = Launcher::start(&executable, run_id.as_str(), Some(interrupt));
        let launcher = launcher.map_err(|error| chain(&error))?;
        let accelerator = known.or(wanted);
        let id = run_id.as_str();
        let all =
            RealBackends::with_sockets(launcher, &assets, id, deadline, accelerator, &sockets);
        Ok(all.boxed())
    }))
}

/// Conditions that every chart must carry.
fn labels(campaign: &Campaign, facts: &[HostFact]) -> Vec<String> {
    let mut labels = host::labels(facts);
    let emulated = campaign.cells().iter().any(|cell| cell.accelerator.as_deref() == Some("tcg"));
    if emulated {
        labels.insert(0, "VMs under TCG (software emulation)".to_owned());
    }
    labels
}

/// This command line, to be typed anywhere: without the program's folder.
fn argv() -> Vec<String> {
    let mut argv: Vec<String> = std::env::args().map(|word| homely(&word)).collect();
    if let Some(name) = argv.first_mut() {
        "unladen".clone_into(name);
    }
    argv
}

/// The campaign's cells as they are published.
fn published(campaign: &Campaign) -> Vec<CellFact> {
    let mut cells = campaign.cells();
    for cell in &mut cells {
        for text in cell.command.iter_mut().chain([&mut cell.detail]) {
            *text = homely(text);
        }
    }
    cells
}

/// What is not as it was when the run began.
fn changes(campaign: &mut Campaign, manifest: &Manifest) -> Vec<String> {
    let mut changes = Vec::new();
    for (now, then) in published(campaign).iter().zip(&manifest.cells) {
        if now.outcome != then.outcome {
            changes.push(format!("{}: cannot run any more: {}", now.cell, now.detail));
        }
        if now.outcome == Outcome::Ok && now.command != then.command {
            changes.push(format!("{}: its command is not what it was", now.cell));
        }
    }
    if campaign.versions() != manifest.versions {
        changes.push("versions are not what they were when the run began".to_owned());
    }
    if campaign.artefacts() != manifest.artefacts {
        changes.push("files that take part are not what they were".to_owned());
    }
    for difference in host::differences(&manifest.host_before, &host::facts()) {
        let value = |value: Option<String>| value.unwrap_or_else(|| "absent".to_owned());
        let (before, after) = (value(difference.before), value(difference.after));
        changes.push(format!("{} was {before} and is {after}", difference.name));
    }
    changes
}

/// `results/RUN-ID` in the current folder.
fn default_folder(run_id: &RunId) -> PathBuf {
    Path::new("results").join(run_id.to_string())
}

/// Stores each trial as soon as it is over.
struct Append<'a> {
    writer: &'a mut RunWriter,
    manifest: &'a Manifest,
    precision: Option<Precision>,
    /// All samples, if precision is asked for.
    samples: Vec<Sample>,
}

impl Recorder for Append<'_> {
    fn record(
        &mut self,
        samples: &[Sample],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.writer.append_trial(samples)?;
        if self.precision.is_some() {
            self.samples.extend_from_slice(samples);
        }
        Ok(())
    }

    fn keep(&mut self, samples: &[Sample]) {
        if let Err(error) = self.writer.keep_partial(samples) {
            say(&format!("the steps so far are not kept: {}", chain(&error)));
        }
    }

    fn suffices(&self) -> bool {
        let Some(precision) = self.precision else { return false };
        let widest = widest_ratio(self.manifest, &self.samples);
        widest.is_some_and(|widest| widest <= precision.share())
    }
}
