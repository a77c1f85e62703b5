//! Who is compared, and how each is started.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bundle::{Bundles, Job};

/// The descriptor on which bubblewrap gets the system-call filter.
pub const FILTER: i32 = 3;

/// How an arm runs one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// This project's command on the bundle.
    Ours,
    /// The same on a bundle without limits, and so without control groups.
    Unlimited,
    /// An OCI runtime's `run` on the bundle.
    Oci,
    /// bubblewrap on the root filesystem.
    Bwrap,
    /// unshare(1) on the root filesystem.
    Unshare,
    /// The program itself, not isolated: what any process costs.
    Spawn,
}

/// One arm of the comparison.
#[derive(Clone, Debug)]
pub struct Arm {
    pub name: &'static str,
    pub program: PathBuf,
    pub version: String,
    pub way: Way,
    /// What is measured instead of a program that ends at once.
    pub job: Option<Job>,
    /// Whether it must not see a version 2 cgroup tree beside version 1.
    pub hide_unified: bool,
    /// What a reader has to know.
    pub remark: &'static str,
}

/// The name of this project's arm, to which all others are compared.
pub const OURS: &str = "unladen";
/// The same a second time: the ratio of the two is the noise of the run.
pub const CONTROL: &str = "unladen again";
/// The same without limits, which bwrap and unshare do not set either.
pub const UNLIMITED: &str = "unladen, no limits";
/// A process of the same program.
pub const SPAWN: &str = "spawn";
/// A process that sleeps as long as those of the arms that need it.
pub const SPAWN_NAP: &str = "spawn, nap";

/// An arm before its version is known.
struct Candidate {
    name: &'static str,
    way: Way,
    version: &'static [&'static str],
    job: Option<Job>,
    hide_unified: bool,
    remark: &'static str,
}

const fn candidate(name: &'static str, way: Way) -> Candidate {
    Candidate { name, way, version: &["--version"], job: None, hide_unified: false, remark: "" }
}

const CANDIDATES: [Candidate; 5] = [
    candidate("runc", Way::Oci),
    Candidate {
        hide_unified: true,
        remark: "on a hybrid host it refuses to start while it sees controllers in the version 2 tree: it is \
                 started in a mount namespace, made beforehand, in which that tree is hidden",
        ..candidate("crun", Way::Oci)
    },
    Candidate {
        job: Some(Job::Nap),
        remark: "its `run` can miss the end of a program that ends at once, and wait for ever: it is given one \
                 that sleeps 20 ms, and what the same sleep costs a plain process is subtracted",
        ..candidate("youki", Way::Oci)
    },
    Candidate {
        remark: "no cgroups and limits, no capabilities; the same filter, but mounts and namespaces by its own options",
        ..candidate("bwrap", Way::Bwrap)
    },
    Candidate {
        remark: "no cgroups and limits, no filter, all capabilities; of the mounts only /proc",
        ..candidate("unshare", Way::Unshare)
    },
];

/// The arms that can be measured, and what the others lack. An arm whose
/// version cannot be read is not measured: nobody could say what it was.
pub fn all(ours: &Path) -> (Vec<Arm>, Vec<(&'static str, String)>) {
    let plain = |name, way, program: &Path, job| Arm {
        name,
        program: program.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        way,
        job,
        hide_unified: false,
        remark: "",
    };
    let mut arms = vec![
        plain(OURS, Way::Ours, ours, None),
        plain(CONTROL, Way::Ours, ours, None),
        Arm {
            remark: "no cgroups and limits, as bwrap and unshare",
            ..plain(UNLIMITED, Way::Unlimited, ours, None)
        },
        Arm { remark: "no isolation", ..plain(SPAWN, Way::Spawn, Path::new(""), None) },
        plain(SPAWN_NAP, Way::Spawn, Path::new(""), Some(Job::Nap)),
    ];
    let mut missing = Vec::new();
    for candidate in &CANDIDATES {
        match found(candidate) {
            Ok(arm) => arms.push(arm),
            Err(reason) => missing.push((candidate.name, reason)),
        }
    }
    (arms, missing)
}

fn found(candidate: &Candidate) -> Result<Arm, String> {
    let Candidate { name, way, version, job, hide_unified, remark } = *candidate;
    let program = find(name)
        .ok_or_else(|| format!("not installed; install it with: scripts/peers/setup.sh {name}"))?;
    let output = Command::new(&program)
        .args(version)
        .output()
        .map_err(|error| format!("{} does not start: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().next().unwrap_or_default().trim().to_owned();
    if !output.status.success() || version.is_empty() {
        return Err(format!("{} does not tell its version", program.display()));
    }
    Ok(Arm { name, program, version, way, job, hide_unified, remark })
}

/// A program in `PATH`, in the folders of root's programs, or among those
/// that `scripts/peers/setup.sh` built.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name));
    // The script knows where it built a program; what it does not know is
    // answered by its exit code.
    let built = || {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/peers/setup.sh");
        let output = Command::new(script).args(["--path", name]).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.is_empty()).then(|| PathBuf::from(text))
    };
    folders.into_iter().find(|path| path.is_file()).or_else(built)
}

impl Arm {
    /// What it runs when `job` is asked for.
    pub fn job(&self, job: Job) -> Job {
        self.job.unwrap_or(job)
    }

    /// The command for one container of this id.
    pub fn command(&self, bundles: &Bundles, job: Job, id: &str) -> Vec<String> {
        let program = self.program.display().to_string();
        let rootfs = bundles.rootfs().display().to_string();
        let bundle = match self.way {
            Way::Unlimited => bundles.unlimited(job),
            _ => bundles.bundle(job),
        };
        let bundle = bundle.display().to_string();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let mut command: Vec<String> = match self.way {
            Way::Ours | Way::Unlimited => {
                words(&[&program, "container", "run", "--bundle", &bundle])
            }
            Way::Oci => {
                let state = bundles.state(self.name).display().to_string();
                words(&[&program, "--root", &state, "run", "--bundle", &bundle, id])
            }
            Way::Bwrap => words(&bubblewrap(&program, &rootfs, &FILTER.to_string())),
            Way::Unshare => words(&[
                &program,
                "--mount",
                "--uts",
                "--ipc",
                "--net",
                "--pid",
                "--cgroup",
                "--fork",
                "--kill-child",
                "--root",
                &rootfs,
                "--mount-proc",
            ]),
            Way::Spawn => Vec::new(),
        };
        match self.way {
            Way::Ours | Way::Unlimited | Way::Oci => {}
            Way::Bwrap | Way::Unshare => command.extend(job.arguments()),
            Way::Spawn => {
                let mut arguments = job.arguments();
                arguments[0].insert_str(0, &rootfs);
                command = arguments;
            }
        }
        command
    }

    /// The filter that the command wants on [`FILTER`].
    pub fn filter(&self, bundles: &Bundles) -> Option<PathBuf> {
        (self.way == Way::Bwrap).then(|| bundles.filter())
    }

    /// What removes a container of this id that was killed half-way.
    pub fn clean_up(&self, bundles: &Bundles, id: &str) -> Option<Vec<String>> {
        if self.way != Way::Oci {
            return None;
        }
        let program = self.program.display().to_string();
        let state = bundles.state(self.name).display().to_string();
        Some([&program, "--root", &state, "delete", "--force", id].map(str::to_owned).to_vec())
    }
}

/// bubblewrap's own way to the namespaces and mounts of the bundles.
fn bubblewrap<'a>(program: &'a str, rootfs: &'a str, filter: &'a str) -> [&'a str; 22] {
    [
        program,
        "--unshare-all",
        "--unshare-cgroup",
        "--die-with-parent",
        "--new-session",
        "--hostname",
        "unladen",
        "--ro-bind",
        rootfs,
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--mqueue",
        "/dev/mqueue",
        "--tmpfs",
        "/tmp",
        "--cap-drop",
        "ALL",
        "--seccomp",
        filter,
    ]
}
