//! What the benches share: backends as the command itself makes them, and
//! the cells that are benched. A backend that cannot run here is named with
//! its reason and left out; the bench goes on.

use std::path::Path;
use std::rc::Rc;
use std::time::SystemTime;

use unladen::backend::{Assets, Backend, Instance, Launcher, Prepared, RealBackends, Until};
use unladen::host::RunId;
use unladen::record::{BackendName, CellKey, Experiment, Workload};

/// A backend with one cell made ready.
pub struct Bench {
    pub label: String,
    backend: Box<dyn Backend>,
    prepared: Prepared,
}

impl Bench {
    /// Starts an instance, or ends the bench with what went wrong: a failed
    /// start is not a measurement.
    pub fn launch(&mut self, until: Until) -> Box<dyn Instance> {
        self.backend
            .launch(&self.prepared, until)
            .unwrap_or_else(|error| panic!("{}: {error}", self.label))
    }
}

/// One bench for each backend that can run `workload` here.
pub fn benches(experiment: Experiment, workload: Workload) -> Vec<Bench> {
    let run_id = RunId::new(SystemTime::now()).expect("random bytes").to_string();
    let assets = Rc::new(Assets::unpack().expect("the cache folder is writable"));
    let launcher = Launcher::start(Path::new(env!("CARGO_BIN_EXE_unladen")), &run_id, None)
        .expect("the launcher starts");
    let backends = RealBackends::new(launcher, &assets, &run_id, None, None).boxed();
    backends
        .into_iter()
        .filter_map(|mut backend| {
            let cell = cell(backend.name(), experiment, workload);
            let ready = backend.versions().and_then(|_| backend.prepare(&cell));
            match ready {
                Ok(prepared) => Some(Bench { label: cell.label(), backend, prepared }),
                Err(error) => {
                    eprintln!("skipped: {}: {error}", cell.label());
                    None
                }
            }
        })
        .collect()
}

fn cell(backend: BackendName, experiment: Experiment, workload: Workload) -> CellKey {
    let params = match backend {
        BackendName::Vm => "kernel=tuned;machine=microvm",
        _ => "",
    };
    let params = params.parse().expect("a canonical list");
    CellKey { experiment, backend, workload, params }
}
