//! Machines of bare KVM: the kernel's virtual machine with one processor and
//! a guest of a few instructions, without firmware, devices or an operating
//! system. They show what the technique itself costs.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::launcher::order::Recipe;
use super::process::own_version;
use super::{Accelerator, Backend, BackendError, Instance, Prepared, Real, Until};
use crate::payload::stub;
use crate::record::{BackendName, CellKey, Version};

/// Time that an instance may take: it is a matter of a millisecond, unless
/// this host's KVM cannot run the guest.
const DEADLINE: Duration = Duration::from_secs(10);

/// Memory of a machine, of which the guest touches a page.
const MEMORY: Option<NonZeroUsize> = NonZeroUsize::new(16 * 1024 * 1024);

/// Bare KVM as a backend.
#[derive(Debug)]
pub struct KvmBare {
    real: Real,
}

impl KvmBare {
    pub(super) fn new(real: Real) -> Self {
        Self { real }
    }
}

/// Which interface the kernel's KVM speaks.
#[cfg(target_arch = "x86_64")]
fn api_version() -> Result<i32, BackendError> {
    crate::sys::kvm::api_version().map_err(|error| {
        BackendError::Unavailable(format!(
            "{}; enable virtualization, and join the group kvm",
            crate::errors::chain(&error)
        ))
    })
}

/// Which interface the kernel's KVM speaks.
#[cfg(not(target_arch = "x86_64"))]
fn api_version() -> Result<i32, BackendError> {
    Err(BackendError::Unavailable("the stub guest is for x86-64 only".to_owned()))
}

impl Backend for KvmBare {
    fn name(&self) -> BackendName {
        BackendName::KvmBare
    }

    fn versions(&mut self) -> Result<Vec<Version>, BackendError> {
        let version = format!("API {}", api_version()?);
        Ok(vec![own_version("unladen"), Version { name: "kvm".to_owned(), version }])
    }

    fn prepare(&mut self, cell: &CellKey) -> Result<Prepared, BackendError> {
        if cell.workload != stub::WORKLOAD {
            return Err(only_exit());
        }
        let memory = MEMORY.unwrap_or(NonZeroUsize::MIN);
        let image = stub::EXECUTABLE.unwrap_or_default().to_vec();
        let (template, remarks) = self.real.prepare(Recipe::Bare { image, memory })?;
        let command = ["open /dev/kvm", "KVM_CREATE_VM", "KVM_SET_USER_MEMORY_REGION"]
            .into_iter()
            .chain(["KVM_CREATE_VCPU", "KVM_SET_SREGS", "KVM_SET_REGS", "KVM_RUN", "close"])
            .map(str::to_owned)
            .collect();
        let (accelerator, deadline) = (Some(Accelerator::Kvm), self.real.deadline(DEADLINE));
        let prepared =
            Prepared { command, remarks, accelerator, ..Prepared::new(template, deadline) };
        // A device that opens proves nothing: the guest itself must run.
        match self.real.launch(&prepared, Until::Gone) {
            Ok(_) => Ok(prepared),
            Err(BackendError::Failed(failure)) => Err(BackendError::Unavailable(format!(
                "this host's KVM does not run a guest of a few instructions: {failure}"
            ))),
            Err(other) => Err(other),
        }
    }

    fn launch(
        &mut self,
        prepared: &Prepared,
        until: Until,
    ) -> Result<Box<dyn Instance>, BackendError> {
        self.real.launch(prepared, until)
    }
}

/// Why a guest without an operating system cannot have another workload.
pub(super) fn only_exit() -> BackendError {
    let workload = stub::WORKLOAD;
    BackendError::Unavailable(format!(
        "a guest without an operating system has no workload but {workload}, and no snapshot"
    ))
}
