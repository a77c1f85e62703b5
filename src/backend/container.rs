//! Our own container runtime as a backend: a cell becomes an OCI runtime
//! spec, which the launcher resolves and starts.

use std::rc::Rc;

use super::process::own_version;
use super::{Assets, Backend, BackendError, Instance, Prepared, Real, Until};
use crate::record::{BackendName, CellKey, Version};

/// The container runtime.
#[derive(Debug)]
pub struct Container {
    real: Real,
    assets: Rc<Assets>,
    run_id: String,
}

impl Container {
    pub(super) fn new(real: Real, assets: Rc<Assets>, run_id: &str) -> Self {
        Self { real, assets, run_id: run_id.to_owned() }
    }
}

impl Backend for Container {
    fn name(&self) -> BackendName {
        BackendName::Container
    }

    fn versions(&mut self) -> Result<Vec<Version>, BackendError> {
        Ok(vec![own_version("unladen")])
    }

    fn prepare(&mut self, _cell: &CellKey) -> Result<Prepared, BackendError> {
        Err(BackendError::Unavailable("stub".into()))
    }

    fn launch(
        &mut self,
        prepared: &Prepared,
        until: Until,
    ) -> Result<Box<dyn Instance>, BackendError> {
        self.real.launch(prepared, until)
    }
}
