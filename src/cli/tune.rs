//! `unladen tune`, the settings of a run with `--tune`, and putting back what
//! a killed run has left changed.

use super::args::{Command, TuneArgs};
use super::{CliError, Exit, print_line, say};
use crate::errors::chain;
use crate::host::{Change, Holder, Planned, Restored, Saved, Setting, Settings, SettingsError};
use crate::record::HostFact;
use crate::sys::clock::Deadline;

/// Time that the kernel may take to end a process whose socket is closed.
const DYING: std::time::Duration = std::time::Duration::from_secs(1);

/// Says, changes or puts back.
pub(super) fn tune(args: &TuneArgs) -> Result<Exit, CliError> {
    let settings = match args.root.as_os_str() == "/" {
        true => Settings::of_host()?,
        false => Settings::new(&args.root, &args.root.join("state")),
    };
    if args.restore {
        return restore(&settings, args.dry_run);
    }
    let only: Vec<Setting> = args.only.iter().map(|&name| name.into()).collect();
    let which = if only.is_empty() { Setting::USUAL.to_vec() } else { only };
    let planned = settings.plan(&which);
    if !args.apply || args.dry_run {
        for planned in &planned {
            print_line(&describe(planned))?;
        }
        if let Some(saved) = settings.saved()? {
            say(&standing_words(&saved));
        } else if planned.iter().any(|planned| matches!(planned, Planned::Change { .. })) {
            say("nothing is changed yet: `unladen tune --apply` does it");
        }
        return Ok(Exit::Ok);
    }
    let applied = settings.apply(&which, None)?;
    for change in &applied.changes {
        print_line(&changed_line(change))?;
    }
    for (setting, reason) in &applied.refused {
        say(&format!("{} stays as it is: {reason}", setting.as_str()));
    }
    match applied.changes.is_empty() {
        true => say("nothing was changed"),
        false => say("`unladen tune --restore` puts everything back"),
    }
    // A setting that this host has not got is asked for only by its name.
    let lacking = !args.only.is_empty() && !applied.refused.is_empty();
    Ok(if lacking { Exit::HostLacks } else { Exit::Ok })
}

fn restore(settings: &Settings, dry_run: bool) -> Result<Exit, CliError> {
    let Some(saved) = settings.saved()? else {
        say("no setting is changed");
        return Ok(Exit::Ok);
    };
    if dry_run {
        for change in &saved.changes {
            print_line(&restored_line(change))?;
        }
        return Ok(Exit::Ok);
    }
    let restored = settings.restore()?;
    for change in &restored.changes {
        print_line(&restored_line(change))?;
    }
    remark(&restored);
    Ok(Exit::Ok)
}

/// What is no plain success.
fn remark(restored: &Restored) {
    for (change, now) in &restored.foreign {
        say(&format!("/{} was changed to `{now}` by others and keeps that", change.path));
    }
    if restored.rebooted {
        say("the host was started anew since: its settings are its own again");
    }
}

fn describe(planned: &Planned) -> String {
    match planned {
        Planned::Change { setting, changes } => {
            let files: Vec<String> = changes.iter().map(changed_line).collect();
            let (name, purpose) = (setting.as_str(), setting.purpose());
            format!("{name:<9}{purpose}\n         {}", files.join("\n         "))
        }
        Planned::AsWanted { setting, value } => {
            format!("{:<9}is {value}, as it should be", setting.as_str())
        }
        Planned::Absent { setting, reason } => {
            format!("{:<9}not here: {reason}", setting.as_str())
        }
    }
}

fn changed_line(change: &Change) -> String {
    format!("/{}: {} -> {}", change.path, change.before, change.after)
}

fn restored_line(change: &Change) -> String {
    format!("/{}: {} -> {}", change.path, change.after, change.before)
}

fn standing_words(saved: &Saved) -> String {
    let count = saved.changes.len();
    let since = &saved.since;
    match &saved.holder {
        Some(holder) => {
            format!(
                "{count} host settings are changed since {since} by the run of process {}",
                holder.pid
            )
        }
        None => format!(
            "{count} host settings are changed since {since}: `unladen tune --restore` puts them back"
        ),
    }
}

fn fact(change: &Change) -> HostFact {
    let value = format!("{} -> {}", change.before, change.after);
    HostFact { name: format!("/{}", change.path), value }
}

/// Settings that are changed already, for the manifest of a run that did not
/// change them.
pub(super) fn standing() -> Vec<HostFact> {
    let saved = Settings::of_host().and_then(|settings| settings.saved());
    saved.ok().flatten().map_or_else(Vec::new, |saved| saved.changes.iter().map(fact).collect())
}

/// Host settings, changed for the life of this value.
#[derive(Debug)]
pub(super) struct Tuned {
    settings: Settings,
    held: bool,
    /// What is different, for the manifest.
    pub(super) changed: Vec<HostFact>,
    /// What could not be changed, in words.
    pub(super) refused: Vec<String>,
}

impl Tuned {
    /// Changes the usual settings, in the name of this process.
    ///
    /// # Errors
    /// When they are changed already, or cannot be written down.
    pub(super) fn begin() -> Result<Self, SettingsError> {
        let settings = Settings::of_host()?;
        let holder = Holder::myself().map_err(SettingsError::NoBoot)?;
        let applied = settings.apply(&Setting::USUAL, Some(holder))?;
        let refused = applied.refused.iter().map(|(setting, reason)| {
            format!("--tune leaves {} as it is: {reason}", setting.as_str())
        });
        Ok(Self {
            held: !applied.changes.is_empty(),
            changed: applied.changes.iter().map(fact).collect(),
            refused: refused.collect(),
            settings,
        })
    }
}

impl Drop for Tuned {
    fn drop(&mut self) {
        if !self.held {
            return;
        }
        match self.settings.restore() {
            Ok(restored) => remark(&restored),
            Err(error) => say(&format!("{}; `unladen tune --restore` tries again", chain(&error))),
        }
    }
}

/// Before a command begins: puts back what a killed run has left changed.
pub(super) fn recover(command: &Command) {
    // Containers start fast and in numbers; the rest prints a text or works
    // for a harness that lives.
    if matches!(
        command,
        Command::Container(_)
            | Command::Completions { .. }
            | Command::Man
            | Command::Launcher { .. }
    ) {
        return;
    }
    let Ok(settings) = Settings::of_host() else { return };
    match settings.recover() {
        Ok(None) => {}
        Ok(Some(restored)) => {
            if !restored.changes.is_empty() {
                let count = restored.changes.len();
                say(&format!("a killed run had left {count} host settings changed; put back"));
            }
            remark(&restored);
        }
        Err(error) => say(&format!("a killed run left host settings changed: {}", chain(&error))),
    }
}

/// In the launcher, once its harness is gone: does at once what otherwise the
/// next command would do.
pub(super) fn after_harness(harness: u32) {
    let Ok(settings) = Settings::of_host() else { return };
    let Ok(Some(Saved { holder: Some(holder), .. })) = settings.saved() else { return };
    if u32::try_from(holder.pid) != Ok(harness) {
        return;
    }
    // A harness that ends in order puts them back itself.
    let deadline = Deadline::after(DYING);
    while holder.is_alive() && !deadline.passed() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // What fails here is tried again by the next command, which can say so.
    let _ = settings.recover();
}

/// For `clean`: puts back whatever is changed, unless a run that is alive
/// holds it. Gives how much there was to do.
///
/// # Errors
/// When something cannot be put back.
pub(super) fn clean(dry_run: bool) -> Result<u32, CliError> {
    let Ok(settings) = Settings::of_host() else { return Ok(0) };
    let Some(saved) = settings.saved()? else { return Ok(0) };
    if saved.holder.as_ref().is_some_and(Holder::is_alive) {
        say(&standing_words(&saved));
        return Ok(0);
    }
    restore(&settings, dry_run)?;
    Ok(1)
}
