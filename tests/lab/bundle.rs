//! Configurations of containers, and containers made of them.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use unladen::container::cgroup::Limits;
use unladen::container::{Container, Plan, default_cell_spec, parse_config};
use unladen::errors::chain;
use unladen::sys::pidfd::Exit;

use super::{Lab, output, with_programs};

/// Configurations that other tools wrote.
pub fn recorded() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/oci");
    let mut all: Vec<_> = fs::read_dir(folder)
        .expect("there")
        .map(|entry| {
            let path = entry.expect("entry").path();
            let text = fs::read_to_string(&path).expect("UTF-8");
            let name = path.file_name().expect("name").to_string_lossy().into_owned();
            (name, serde_json::from_str(&text).expect("JSON"))
        })
        .collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    assert!(all.len() >= 4);
    all
}

/// The spec of a cell in a lab, as JSON, changed.
pub fn config(lab: &Lab, script: &str, change: impl FnOnce(&mut Value)) -> Value {
    let cell = default_cell_spec(&lab.options("bash", script, Limits::default()));
    let mut config = serde_json::to_value(with_programs(cell)).expect("JSON");
    change(&mut config);
    config
}

pub fn plan_of(config: &Value, lab: &Lab) -> Result<Plan, String> {
    let spec = parse_config(config.to_string().as_bytes(), Path::new("config.json"))
        .map_err(|error| chain(&error))?;
    Plan::from_spec(&spec, &lab.rootfs).map_err(|error| chain(&error))
}

/// Both ways of launching.
pub fn both_ways(plan: &Plan) -> [(&'static str, Container); 2] {
    [
        ("prepared", Container::prepare(plan).expect("prepared")),
        ("direct", Container::prepare_direct(plan).expect("prepared")),
    ]
}

/// Runs a script in both ways and returns what it wrote, which is the same.
pub fn outputs(lab: &Lab, config: &Value) -> String {
    let plan = plan_of(config, lab).expect("a plan");
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("g{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let group = lab.tree.create(&name, plan.limits()).expect("group");
    let [first, second] = both_ways(&plan).map(|(way, mut container)| {
        let (exit, output) = output(&mut container, &group);
        assert_eq!(exit, Exit::Code(0), "{way}: {output}");
        output
    });
    assert_eq!(first, second);
    first
}
