use std::fs;

use tempfile::{TempDir, tempdir};

use super::*;

const GOVERNOR: &str = "sys/devices/system/cpu/cpufreq/policy0/scaling_governor";
const OTHER_GOVERNOR: &str = "sys/devices/system/cpu/cpufreq/policy1/scaling_governor";
const NO_TURBO: &str = "sys/devices/system/cpu/intel_pstate/no_turbo";
const THP: &str = "sys/kernel/mm/transparent_hugepage/enabled";
const KSM: &str = "sys/kernel/mm/ksm/run";
const SMT: &str = "sys/devices/system/cpu/smt/control";
const BOOT: &str = "proc/sys/kernel/random/boot_id";

struct Host {
    root: TempDir,
    state: TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { root: tempdir().expect("root"), state: tempdir().expect("state") };
        for (path, text) in [
            (GOVERNOR, "powersave\n"),
            (OTHER_GOVERNOR, "schedutil\n"),
            (NO_TURBO, "0\n"),
            (THP, "[always] madvise never\n"),
            (KSM, "1\n"),
            (SMT, "on\n"),
            (BOOT, "boot-1\n"),
        ] {
            host.put(path, text);
        }
        for policy in ["policy0", "policy1"] {
            let path =
                format!("sys/devices/system/cpu/cpufreq/{policy}/scaling_available_governors");
            host.put(&path, "performance powersave schedutil\n");
        }
        host
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("folders");
        fs::write(path, text).expect("written");
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root.path().join(path)).expect("read").trim().to_owned()
    }

    fn settings(&self) -> Settings {
        Settings::new(self.root.path(), &self.state.path().join("unladen"))
    }

    fn all(&self) -> Vec<String> {
        [GOVERNOR, OTHER_GOVERNOR, NO_TURBO, THP, KSM, SMT].map(|path| self.text(path)).to_vec()
    }
}

/// As after `kill -9`: a process of this number lives, but is not that one.
fn dead() -> Holder {
    Holder { pid: 1, started: u64::MAX }
}

#[test]
fn everything_is_changed_and_put_back() {
    let host = Host::new();
    let before = host.all();
    let applied = host.settings().apply(&Setting::ALL, None).expect("applied");
    assert_eq!(applied.refused, []);
    assert_eq!(applied.changes.len(), 6, "two governors and four others");
    let tuned = ["performance", "performance", "1", "madvise", "0", "off"];
    assert_eq!(host.all(), tuned);
    let restored = host.settings().restore().expect("restored");
    assert_eq!(restored.changes.len(), 6);
    // The word in brackets is the kernel's way of showing it, not its value.
    let expected: Vec<String> = before.into_iter().map(chosen_or_all).collect();
    assert_eq!(host.all(), expected);
    assert_eq!(host.settings().saved().expect("read"), None);
    assert_eq!(host.settings().restore().expect("nothing"), Restored::default());
}

fn chosen_or_all(text: String) -> String {
    super::super::facts::chosen(text)
}

#[test]
fn the_usual_ones_leave_the_threads_of_a_core_alone() {
    let host = Host::new();
    host.settings().apply(&Setting::USUAL, None).expect("applied");
    assert_eq!(host.text(SMT), "on");
}

#[test]
fn a_crash_in_the_middle_is_undone_by_the_next_command() {
    let host = Host::new();
    let before = host.all();
    let settings = host.settings();
    // Killed after the second of its files.
    let wanted: Vec<Change> = settings
        .plan(&Setting::ALL)
        .into_iter()
        .flat_map(|planned| match planned {
            Planned::Change { changes, .. } => changes,
            _ => Vec::new(),
        })
        .collect();
    let saved = Saved::new("boot-1".to_owned(), Some(dead()), wanted.clone());
    saved.write(&settings.folder).expect("saved");
    for change in &wanted[..2] {
        change.set(host.root.path(), &change.after).expect("set");
    }
    assert_ne!(host.all(), before);
    let restored = settings.recover().expect("recovered").expect("something to do");
    assert_eq!(restored.changes.len(), 2);
    assert_eq!(restored.foreign, [], "what was never changed is not somebody else's");
    assert_eq!(host.all(), before);
    assert_eq!(settings.recover().expect("nothing"), None);
}

#[test]
fn what_lives_or_is_meant_to_stay_is_not_recovered() {
    let host = Host::new();
    let settings = host.settings();
    settings.apply(&[Setting::Ksm], None).expect("applied");
    assert_eq!(settings.recover().expect("left alone"), None);
    assert_eq!(host.text(KSM), "0");
    let held = settings.apply(&[Setting::Turbo], None);
    assert!(matches!(held, Err(SettingsError::Held { .. })), "{held:?}");
    assert_eq!(host.text(NO_TURBO), "0");
    settings.restore().expect("restored");

    let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("child");
    let pid = i32::try_from(child.id()).expect("small");
    let started =
        procfs::process::Process::new(pid).and_then(|p| p.stat()).expect("stat").starttime;
    settings.apply(&[Setting::Ksm], Some(Holder { pid, started })).expect("applied");
    assert_eq!(settings.recover().expect("left alone"), None);
    assert!(matches!(settings.restore(), Err(SettingsError::InUse { .. })));
    child.kill().expect("killed");
    // A process that is dead and not yet reaped is dead.
    let ended = nix::sys::wait::waitid(
        nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(pid)),
        nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT,
    );
    ended.expect("ended");
    assert!(settings.recover().expect("recovered").is_some());
    assert_eq!(host.text(KSM), "1");
    child.wait().expect("reaped");
}

#[test]
fn a_restart_of_the_host_has_undone_everything() {
    let host = Host::new();
    let settings = host.settings();
    settings.apply(&[Setting::Ksm], None).expect("applied");
    host.put(BOOT, "boot-2\n");
    let restored = settings.recover().expect("recovered").expect("something to say");
    assert!(restored.rebooted);
    assert_eq!(host.text(KSM), "0", "whatever it is now, it was not us");
    assert_eq!(settings.saved().expect("read"), None);
}

#[test]
fn what_others_changed_meanwhile_is_theirs() {
    let host = Host::new();
    let settings = host.settings();
    settings.apply(&[Setting::Governor, Setting::Ksm], None).expect("applied");
    host.put(OTHER_GOVERNOR, "ondemand\n");
    let restored = settings.restore().expect("restored");
    assert_eq!(restored.foreign.len(), 1);
    assert_eq!(restored.foreign[0].1, "ondemand");
    assert_eq!(
        (host.text(OTHER_GOVERNOR), host.text(GOVERNOR)),
        ("ondemand".into(), "powersave".into())
    );
    assert_eq!(host.text(KSM), "1");
}

#[test]
fn a_setting_that_refuses_is_told_and_the_others_hold() {
    let host = Host::new();
    // A folder in the place of a file can be neither read nor written.
    fs::remove_file(host.root.path().join(KSM)).expect("removed");
    fs::create_dir(host.root.path().join(KSM)).expect("folder");
    let settings = host.settings();
    let applied = settings.apply(&[Setting::Turbo, Setting::Ksm], None).expect("applied");
    assert_eq!(applied.refused.len(), 1);
    assert_eq!(applied.refused[0].0, Setting::Ksm);
    assert_eq!(host.text(NO_TURBO), "1");
    settings.restore().expect("restored");

    // What can be read and not written changes nothing, and leaves no state
    // behind. The kernel refuses this file to root as well.
    let path = host.root.path().join(THP);
    fs::remove_file(&path).expect("removed");
    std::os::unix::fs::symlink("/proc/sys/kernel/random/boot_id", &path).expect("linked");
    let applied = settings.apply(&[Setting::Thp], None).expect("tried");
    assert_eq!((applied.changes.len(), applied.refused.len()), (0, 1), "{applied:?}");
    assert_eq!(settings.saved().expect("read"), None);
}

#[test]
fn a_half_refused_governor_is_whole_again() {
    let host = Host::new();
    let path = "sys/devices/system/cpu/cpufreq/policy1/scaling_available_governors";
    host.put(path, "powersave schedutil\n");
    let applied = host.settings().apply(&[Setting::Governor], None).expect("tried");
    assert_eq!(applied.changes, []);
    assert!(applied.refused[0].1.contains("policy1"), "{:?}", applied.refused);
    assert_eq!(host.text(GOVERNOR), "powersave");
}

#[test]
fn a_state_that_is_not_ours_is_not_touched() {
    let host = Host::new();
    let settings = host.settings();
    fs::create_dir_all(&settings.folder).expect("folder");
    fs::write(settings.folder.join("settings.json"), "{}").expect("written");
    assert!(matches!(settings.recover(), Err(SettingsError::Unreadable { .. })));
    assert!(matches!(settings.apply(&[Setting::Ksm], None), Err(SettingsError::Unreadable { .. })));
    assert_eq!(host.text(KSM), "1");
}
