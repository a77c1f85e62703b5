//! The null backend: the payload as a plain child process, in a cgroup of
//! the same depth and controllers as every other instance.

use std::rc::Rc;
use std::time::Duration;

use super::assets::artefact;
use super::cold::cold_files;
use super::launcher::order::{Program, Recipe, fd};
use super::{Assets, Backend, BackendError, Instance, Prepared, Real, Until};
use crate::errors::chain;
use crate::payload::FILE_NAME;
use crate::payload::protocol::{ENV_CHANNEL, ENV_FILE, ENV_RUN, ENV_WORKLOAD};
use crate::record::{ArtefactFact, BackendName, CellKey, Version, Workload};

/// Time that a process or container may take until its workload is ready.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// The null backend.
#[derive(Debug)]
pub struct Process {
    real: Real,
    assets: Rc<Assets>,
    run_id: String,
}

impl Process {
    pub(super) fn new(real: Real, assets: Rc<Assets>, run_id: &str) -> Self {
        Self { real, assets, run_id: run_id.to_owned() }
    }
}

/// The payload's environment in a process or a container; `file` is what its
/// workload reads, as the payload sees it.
pub(super) fn environment(workload: Workload, run_id: &str, file: Option<&str>) -> Vec<String> {
    let mut all = vec![
        format!("{ENV_CHANNEL}=fd:{}", fd::CHANNEL),
        format!("{ENV_WORKLOAD}={workload}"),
        format!("{ENV_RUN}={run_id}"),
    ];
    all.extend(file.map(|path| format!("{ENV_FILE}={path}")));
    all
}

/// The version of what this crate itself does.
pub(super) fn own_version(name: &str) -> Version {
    Version { name: name.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}

impl Backend for Process {
    fn name(&self) -> BackendName {
        BackendName::Process
    }

    fn versions(&mut self) -> Result<Vec<Version>, BackendError> {
        Ok(vec![own_version("unladen")])
    }

    fn artefacts(&self) -> Vec<ArtefactFact> {
        // A payload that cannot be read cannot be launched either.
        artefact("payload", &self.assets.payload()).into_iter().collect()
    }

    fn prepare(&mut self, cell: &CellKey) -> Result<Prepared, BackendError> {
        let shared = self.assets.data(cell.workload);
        let shared = shared.map_err(|error| BackendError::Unavailable(chain(&error)))?;
        let file = shared.as_ref().map(|path| path.display().to_string());
        let env = environment(cell.workload, &self.run_id, file.as_deref());
        let program = Program {
            path: self.assets.payload(),
            argv: vec![FILE_NAME.to_owned()],
            env: env.clone(),
            huge_pages: true,
        };
        let cold = cold_files(cell, &[&program.path]);
        let (template, remarks) = self.real.prepare(Recipe::Process(program))?;
        let mut command = env;
        command.push(FILE_NAME.to_owned());
        let deadline = self.real.deadline(DEADLINE);
        Ok(Prepared { command, remarks, cold, shared, ..Prepared::new(template, deadline) })
    }

    fn launch(
        &mut self,
        prepared: &Prepared,
        until: Until,
    ) -> Result<Box<dyn Instance>, BackendError> {
        self.real.launch(prepared, until)
    }
}
