//! Our own container runtime as a backend: a cell becomes an OCI runtime
//! spec, which the launcher resolves and starts.

use std::rc::Rc;

use oci_spec::runtime::{Capabilities, Spec};

use super::cold::cold_files;
use super::launcher::order::Recipe;
use super::process::{DEADLINE, environment, own_version};
use super::{Assets, Backend, BackendError, Instance, Prepared, Real, Until};
use crate::container::cgroup::{CpuQuota, Limits};
use crate::container::seccomp::{Machine, default_profile};
use crate::container::{CellOptions, PAYLOAD_PATH, default_cell_spec, minimal_rootfs, rootfs_with};
use crate::errors::chain;
use crate::payload::protocol::FILE_PATH;
use crate::record::{BackendName, CellKey, Version, Workload};
use crate::spec::param_value;
use crate::units::Bytes;

/// Length of a CPU quota's period in microseconds, the kernel's default
/// (Documentation/scheduler/sched-bwc.rst).
const CPU_PERIOD_US: u64 = 100_000;

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

    /// The spec of a cell's containers.
    pub(super) fn spec(&self, cell: &CellKey) -> Result<Spec, BackendError> {
        let payload = if is_foreign(cell) {
            let foreign = self.assets.payload_aarch64();
            foreign.map_err(|error| BackendError::Unavailable(chain(&error)))?
        } else {
            self.assets.payload()
        };
        let unavailable = |error: &dyn std::error::Error| BackendError::Unavailable(chain(error));
        let data = self.assets.data(cell.workload).map_err(|error| unavailable(&error))?;
        let rootfs = self.assets.cache().join("rootfs");
        let rootfs = match &data {
            Some(data) => rootfs_with(&rootfs, &payload, data, FILE_PATH),
            None => minimal_rootfs(&rootfs, &payload),
        };
        let rootfs = rootfs.map_err(|error| unavailable(&error))?;
        // Without privileges there is no container without a user namespace.
        let user_namespace =
            param_value(cell, "userns") == Some("yes") || !nix::unistd::geteuid().is_root();
        let seccomp = if param_value(cell, "seccomp") == Some("none") {
            None
        } else {
            // These containers have no capability at all.
            let profile = default_profile(&Capabilities::new(), Machine::native());
            Some(profile.map_err(|error| BackendError::Unavailable(chain(&error)))?)
        };
        let mut spec = default_cell_spec(&CellOptions {
            rootfs: &rootfs,
            arguments: vec![PAYLOAD_PATH.to_owned()],
            limits: limits(cell),
            seccomp,
            user_namespace,
            // A bridge's namespace is made for the instance; that there is one
            // stays in the spec.
            network: param_value(cell, "net") != Some("none"),
        });
        if let Some(process) = spec.process_mut() {
            let file = data.is_some().then_some(FILE_PATH);
            process.set_env(Some(environment(cell.workload, &self.run_id, file)));
        }
        Ok(spec)
    }
}

/// What must be said of a program for another processor that runs.
const EMULATED: &str =
    "an interpreter is registered on this host for arm64 programs: its processor is emulated";

/// Whether the cell's program is made for another processor.
fn is_foreign(cell: &CellKey) -> bool {
    param_value(cell, "arch") == Some("aarch64")
}

/// The limits that a cell asks for.
fn limits(cell: &CellKey) -> Limits {
    let memory = param_value(cell, "memory").and_then(|text| text.parse::<Bytes>().ok());
    let hundredths = param_value(cell, "cpus").and_then(hundredths);
    Limits {
        memory: memory.map(|Bytes(bytes)| bytes),
        pids: param_value(cell, "pids").and_then(|text| text.parse().ok()),
        cpu_quota: hundredths.map(|hundredths| CpuQuota {
            quota_us: CPU_PERIOD_US * hundredths / 100,
            period_us: CPU_PERIOD_US,
        }),
        ..Limits::default()
    }
}

/// Processors such as `1` or `0.5` in hundredths.
pub(super) fn hundredths(text: &str) -> Option<u64> {
    let (units, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction: u64 = format!("{fraction:0<2}").parse().ok()?;
    units.parse::<u64>().ok()?.checked_mul(100)?.checked_add(fraction)
}

impl Backend for Container {
    fn name(&self) -> BackendName {
        BackendName::Container
    }

    fn versions(&mut self) -> Result<Vec<Version>, BackendError> {
        Ok(vec![own_version("unladen")])
    }

    fn prepare(&mut self, cell: &CellKey) -> Result<Prepared, BackendError> {
        let spec = self.spec(cell)?;
        let command = command(&spec);
        let root = spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default();
        let payload = root.join(PAYLOAD_PATH.trim_start_matches('/'));
        let cold = cold_files(cell, &[&payload]);
        let bundle = self.assets.cache().to_owned();
        let recipe = Recipe::Container {
            spec: Box::new(spec),
            bundle,
            bridge: param_value(cell, "net") == Some("bridge"),
            pooled: param_value(cell, "pool") == Some("yes"),
        };
        let (template, remarks) = self.real.prepare(recipe)?;
        let deadline = self.real.deadline(DEADLINE);
        let shared = matches!(cell.workload, Workload::Read(_))
            .then(|| root.join(FILE_PATH.trim_start_matches('/')));
        let mut prepared =
            Prepared { command, remarks, cold, shared, ..Prepared::new(template, deadline) };
        if is_foreign(cell) {
            // Only the attempt can tell: an interpreter may be registered for
            // such programs (binfmt_misc), which emulates their processor.
            match self.real.launch(&prepared, Until::Ready) {
                Ok(_) => prepared.remarks.push(EMULATED.to_owned()),
                Err(BackendError::Failed(failure)) => {
                    return Err(BackendError::Unavailable(format!(
                        "a container has its host's kernel and processor: {failure}"
                    )));
                }
                Err(other) => return Err(other),
            }
        }
        Ok(prepared)
    }

    fn launch(
        &mut self,
        prepared: &Prepared,
        until: Until,
    ) -> Result<Box<dyn Instance>, BackendError> {
        self.real.launch(prepared, until)
    }
}

/// The spec as lines for the report: anybody can give it to another runtime.
/// The filter with its hundreds of names stands on one line.
fn command(spec: &Spec) -> Vec<String> {
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    let filter = value.pointer_mut("/linux/seccomp").map(serde_json::Value::take);
    let mut text = serde_json::to_string_pretty(&value).unwrap_or_default();
    if let Some(filter) = filter {
        text = text.replacen("\"seccomp\": null", &format!("\"seccomp\": {filter}"), 1);
    }
    std::iter::once("OCI runtime spec:".to_owned()).chain(text.lines().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spec_of_the_report_is_the_whole_spec() {
        let seccomp = default_profile(&Capabilities::new(), Machine::native()).expect("resolved");
        let mut spec = Spec::default();
        spec.linux_mut().as_mut().expect("linux").set_seccomp(Some(seccomp));
        let lines = command(&spec);
        assert!(lines.len() < 500, "{} lines", lines.len());
        let again: Spec = serde_json::from_str(&lines[1..].join("\n")).expect("a spec");
        assert_eq!(again, spec);
    }

    #[test]
    fn processors_become_quotas() {
        assert_eq!(hundredths("1"), Some(100));
        assert_eq!(hundredths("0.5"), Some(50));
        assert_eq!(hundredths("2.25"), Some(225));
        assert_eq!(hundredths("x"), None);
    }
}
