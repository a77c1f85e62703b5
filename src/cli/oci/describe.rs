//! Commands that only tell something.

use std::path::Path;

use oci_spec::runtime::{Capability, Spec};
use serde::Serialize;

use super::OciError;
use super::args::Format;
use super::log::Log;
use super::processes::output_error;
use crate::cli::{print_bytes, print_line};
use crate::container::lifecycle::{Lifecycle, State};
use crate::errors::chain;

/// The oldest and newest version of the specification whose fields are known.
const OLDEST: &str = "1.0.0";
const NEWEST: &str = "1.3.0";

/// Prints something as JSON for people and programs.
pub(super) fn json(value: &impl Serialize) -> Result<u8, OciError> {
    let text = serde_json::to_string_pretty(value).map_err(OciError::Json)?;
    print(&text)
}

/// Prints something as one line of JSON.
pub(super) fn line(value: &impl Serialize) -> Result<u8, OciError> {
    let text = serde_json::to_string(value).map_err(OciError::Json)?;
    print(&text)
}

fn print(text: &str) -> Result<u8, OciError> {
    print_line(text).map(|()| 0).map_err(output_error)
}

/// The first line is what engines show; `spec:` is where Docker looks for the
/// version of the specification.
pub(super) fn version() -> Result<u8, OciError> {
    let name = env!("CARGO_PKG_VERSION");
    print(&format!("unladen-oci version {name}\nspec: {NEWEST}"))
}

pub(super) fn help(command: &mut clap::Command) -> Result<u8, OciError> {
    let text = command.render_help().to_string();
    print_bytes(text.as_bytes()).map_err(output_error)?;
    // Nothing was done.
    Ok(1)
}

/// `list`.
pub(super) fn list(
    containers: &Lifecycle,
    format: Format,
    quiet: bool,
    log: &mut Log,
) -> Result<u8, OciError> {
    let mut states: Vec<State> = Vec::new();
    for state in containers.list()? {
        match state {
            Ok(state) => states.push(state),
            Err(error) => log.warning(&chain(&error)),
        }
    }
    if quiet {
        let names: Vec<&str> = states.iter().map(|state| state.id.as_str()).collect();
        return if names.is_empty() { Ok(0) } else { print(&names.join("\n")) };
    }
    if format == Format::Json {
        return line(&states);
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    for state in &states {
        table.add_row([
            state.id.clone(),
            state.pid.to_string(),
            state.status.to_string(),
            state.bundle.display().to_string(),
            state.created.clone(),
            state.owner.clone(),
        ]);
    }
    print(&table.to_string())
}

/// `features`: what config.json may say, see features.md of the
/// specification.
pub(super) fn features() -> Result<u8, OciError> {
    let namespaces = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];
    let capabilities: Vec<String> =
        crate::container::all_capabilities().iter().map(Capability::to_string).collect();
    json(&serde_json::json!({
        "ociVersionMin": OLDEST,
        "ociVersionMax": NEWEST,
        "hooks": [
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart",
            "poststop",
        ],
        "mountOptions": crate::container::mount_options(),
        "linux": {
            "namespaces": namespaces,
            "capabilities": capabilities,
            "cgroup": {
                "v1": true,
                "v2": true,
                "systemd": false,
                "systemdUser": false,
                "rdma": false,
            },
            "apparmor": {"enabled": false},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": false}},
        },
        "annotations": {"dev.unladen.version": env!("CARGO_PKG_VERSION")},
    }))
}

/// `spec`: a configuration of an ordinary container for `rootfs` beside it.
pub(super) fn spec(bundle: &Path) -> Result<u8, OciError> {
    let path = bundle.join("config.json");
    let spec = Spec::default();
    let text = serde_json::to_vec_pretty(&spec).map_err(OciError::Json)?;
    let mut file = std::fs::File::options()
        .write(true)
        // One that somebody has written is worth more.
        .create_new(true)
        .open(&path)
        .map_err(OciError::file("make", &path))?;
    std::io::Write::write_all(&mut file, &text).map_err(OciError::file("write", &path))?;
    Ok(0)
}
