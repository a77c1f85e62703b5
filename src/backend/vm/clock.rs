//! The host's clock as a guest may rely on it.

use std::fs;

use super::super::Assets;
use crate::sys::tsc;

/// The host's true time stamp counter frequency in kHz, with which a guest
/// need not calibrate its own: what the kernel says or logged, else measured.
/// `None` where the counter is not steady.
pub(super) fn tsc_khz(assets: &Assets) -> Option<String> {
    let said = assets.script("vm/tsc-khz.sh", &[]).ok().map(|khz| khz.trim().to_owned());
    // The log of a host that has run for long has lost the line, and often
    // only root may read it.
    said.or_else(|| is_steady().then(tsc::frequency_khz).flatten().map(|khz| khz.to_string()))
}

/// Whether the kernel itself takes its time from the counter: it leaves one
/// that is not steady.
fn is_steady() -> bool {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    fs::read_to_string(path).is_ok_and(|name| name.trim() == "tsc")
}
