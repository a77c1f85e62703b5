//! Somebody else's systems as backends: a description (see
//! [`crate::spec::systems`]) and a cell become commands, which the launcher
//! carries out.
//!
//! One driver for all: what differs between systems is data.

mod census;
mod external;
mod image;
mod memory;
mod root;
mod version;
mod words;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

pub(super) use census::{census, cgroup_tops, cgroups_of};

use self::external::External;
use self::memory::PeerInstance;
use self::words::Values;
use super::assets::artefact;
use super::container::Container;
use super::launcher::order::{PeerChannel, PeerRecipe, Recipe};
use super::process::environment;
use super::{Assets, Backend, BackendError, Instance, Prepared, Real, Until};
use crate::container::PAYLOAD_PATH;
use crate::host::RunId;
use crate::payload::protocol::{ENV_CHANNEL, ENV_END, STREAMS};
use crate::record::{ArtefactFact, BackendName, CellKey, Params, PeerName, Version};
use crate::spec::systems::{Channel, Driver, System};

/// Time that an instance may take until its workload is ready.
const DEADLINE: Duration = Duration::from_secs(60);

/// Time that loading an image may take, beside the instance's own.
const LOADING: Duration = Duration::from_secs(180);

/// Time that commands may take to remove an instance.
const REMOVING: Duration = Duration::from_secs(120);

/// How often a command that removes something is tried, and with what pause: a
/// daemon may still be making what is to be removed.
pub(super) const TRIES: u32 = 5;
pub(super) const PAUSE: Duration = Duration::from_millis(300);

/// The name of the folder in the cache that holds a folder for each run with
/// instances of somebody else's systems.
const FOLDER: &str = "instances";

/// Where the short folders of runs are, and how their names begin.
const BRIEF: &str = "/run/unladen-";

/// A guest's first serial line.
const SERIAL: &str = "/dev/ttyS0";

/// Where the payload finds the channel's socket, where it connects to one.
const INSIDE: &str = "/unladen.sock";

/// Somebody else's system.
#[derive(Debug)]
pub struct Peer {
    name: PeerName,
    system: &'static System,
    real: Real,
    assets: Rc<Assets>,
    run_id: String,
    /// A daemon's socket that the user named.
    socket: Option<PathBuf>,
    /// What was found out about versions, by the parameters of the cell.
    versions: BTreeMap<Params, Result<Vec<Version>, String>>,
    /// The daemon's processes, by the template of the cell.
    daemons: BTreeMap<u32, Vec<i32>>,
}

/// The folders of runs with instances, with their ids.
pub(super) fn folders() -> Vec<(String, PathBuf)> {
    let mut found = super::vm::run_folders(FOLDER);
    let (parent, begin) = BRIEF.rsplit_once('/').unwrap_or_default();
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let ours = |entry: std::fs::DirEntry| {
        let id = entry.file_name().to_str()?.strip_prefix(begin)?.to_owned();
        id.parse::<RunId>().is_ok().then(|| (id, entry.path()))
    };
    found.extend(entries.filter_map(ours));
    found
}

/// Carries out what a killed run left to be undone, and removes its folder.
///
/// # Errors
/// The reason why the folder cannot be removed. Commands that fail are no
/// error: what they should remove may be gone.
pub(super) fn undo(folder: &Path) -> Result<(), std::io::Error> {
    use super::launcher::peer::undo::{Undo, remove_folder, remove_leaf};
    for undo in Undo::all(folder) {
        for command in &undo.commands {
            for _ in 0..TRIES {
                if External::new(command, &undo.env).output().is_ok() {
                    break;
                }
                std::thread::sleep(PAUSE);
            }
        }
        undo.leaves.iter().try_for_each(|leaf| remove_leaf(leaf, folder))?;
    }
    remove_folder(folder)
}

impl Peer {
    pub(super) fn new(
        system: &'static System,
        real: Real,
        assets: Rc<Assets>,
        run_id: &str,
        socket: Option<PathBuf>,
    ) -> Option<Self> {
        // A description has no other names.
        let name = PeerName::new(&system.name).ok()?;
        let (versions, daemons) = (BTreeMap::new(), BTreeMap::new());
        let run_id = run_id.to_owned();
        Some(Self { name, system, real, assets, run_id, socket, versions, daemons })
    }

    /// Folder of the run's instances.
    fn folder(&self) -> PathBuf {
        self.assets.cache().join(FOLDER).join(&self.run_id)
    }

    /// Folder of the system's own files in this run, one for each set of
    /// parameters that may make a difference to it.
    fn state(&self, cell: &CellKey) -> PathBuf {
        let mut name = format!("state-{}", self.system.name);
        for param in self.system.params.iter().filter(|param| param.always) {
            let value = cell.params.get(param.name).or(param.default).unwrap_or_default();
            name.push('-');
            name.push_str(value);
        }
        self.folder().join(name)
    }

    /// The system's program.
    fn program(&self) -> Result<PathBuf, String> {
        let found = self.system.binary.iter().find_map(|name| external::find(name, &self.assets));
        found.ok_or_else(|| {
            let name = &self.system.name;
            let how = match self.system.never_run {
                true => "its own site says how to install it".to_owned(),
                false => {
                    let script = self.assets.script_path("peers/setup.sh");
                    format!(
                        "scripts/peers/setup.sh {name} installs it, where it can be had ({})",
                        script.display()
                    )
                }
            };
            format!("{} is not installed; {how}", self.system.binary.join(" or "))
        })
    }

    /// What the tokens stand for that are the same for all instances of a
    /// cell.
    fn values(&self, cell: &CellKey) -> Result<Values, String> {
        if self.system.root && !nix::unistd::geteuid().is_root() {
            return Err(format!("{} is started as root only", self.system.name));
        }
        let text = |path: &Path| path.display().to_string();
        let mut values = Values::of_cell(cell, self.system.params);
        values.set("bin", &text(&self.program()?));
        values.set("run", &self.run_id);
        values.set("state", &text(&self.state(cell)));
        values.set("runs", &text(&self.folder()));
        values.set("brief", &format!("{BRIEF}{}", self.run_id));
        values.set("payload", PAYLOAD_PATH);
        values.set("inside", INSIDE);
        values.set("parent", &format!("/unladen-{}", self.run_id));
        values.set("image", &format!("localhost/unladen-payload:{}", self.run_id));
        values.set("archive", &text(&self.folder().join("image.tar")));
        if let Some(name) = &self.system.daemon {
            let name = values.fill(name);
            values.set("daemon", &text(&self.daemon(&name)?));
        }
        Ok(values)
    }

    /// The socket of the system's daemon.
    fn daemon(&self, name: &str) -> Result<PathBuf, String> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let socket = self.daemon_folder(name).join("daemon.sock");
        if socket.exists() {
            return Ok(socket);
        }
        Err(format!(
            "no daemon {name} is there for it: start one beside your own with scripts/peers/setup.sh \
             --start {name} ({}), or name yours with --engine-socket {}=SOCKET",
            self.assets.script_path("peers/setup.sh").display(),
            self.system.name
        ))
    }

    fn daemon_folder(&self, name: &str) -> PathBuf {
        self.assets.cache().join("peers/daemons").join(name)
    }

    /// The processes of the system's own daemon, where we may know them.
    fn daemon_processes(&self, values: &Values) -> Vec<i32> {
        let Some(name) = self.system.daemon.as_ref().filter(|_| self.socket.is_none()) else {
            return Vec::new();
        };
        let file = self.daemon_folder(&values.fill(name)).join("daemon.pid");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().filter_map(|line| line.trim().parse().ok()).collect()
    }

    /// The environment of the system's commands.
    fn command_env(&self, cell: &CellKey, values: &Values) -> Vec<String> {
        let mut env = external::base_environment();
        env.extend(self.payload_env(cell).iter().map(|(name, value)| format!("{name}={value}")));
        let own = self.system.environment.iter();
        env.extend(own.map(|(name, value)| format!("{name}={}", values.fill(value))));
        env
    }

    /// The payload's variables.
    fn payload_env(&self, cell: &CellKey) -> Vec<(String, String)> {
        let place = match self.system.channel {
            Channel::Inherited(number) => format!("fd:{number}"),
            Channel::Connected => format!("unix:{INSIDE}"),
            Channel::Streams => String::from_utf8_lossy(STREAMS).into_owned(),
            Channel::Serial => SERIAL.to_owned(),
        };
        let split = |text: String| {
            let (name, value) = text.split_once('=')?;
            let value = if name == ENV_CHANNEL { place.as_str() } else { value };
            Some((name.to_owned(), value.to_owned()))
        };
        let mut env: Vec<_> =
            environment(cell.workload, &self.run_id, None).into_iter().filter_map(split).collect();
        if self.system.driver == Driver::Vmm {
            let end = if self.system.power_off { "power-off" } else { "debug-exit" };
            env.push((ENV_END.to_owned(), end.to_owned()));
        }
        env
    }

    fn recipe(&self, cell: &CellKey) -> Result<PeerRecipe, String> {
        let system = self.system;
        let mut values = self.values(cell)?;
        let env = self.payload_env(cell);
        let payload = self.assets.payload();
        let (folder, state) = (self.folder(), self.state(cell));
        std::fs::create_dir_all(&state)
            .map_err(|error| format!("cannot make the folder `{}`: {error}", state.display()))?;
        if system.driver == Driver::Vmm {
            root::guest(&mut values, &self.assets, &env)?;
        }
        let rootfs = root::folder(system, self.assets.cache(), &payload)?;
        values.set("rootfs", &rootfs.display().to_string());
        let mut files = words::files(system, &values, &env);
        let container = Container::new(self.real.clone(), Rc::clone(&self.assets), &self.run_id);
        let spec = || container.spec(cell).map_err(|error| error.to_string());
        if system.driver == Driver::Oci {
            files.push(("config.json".to_owned(), root::config(spec()?, &env)?));
        }
        if system.driver == Driver::Engine {
            image::write(&folder.join("image.tar"), &values.fill("{image}"), &payload)
                .map_err(|error| format!("cannot write the image's archive: {error}"))?;
        }
        let filter = match system.filter {
            Some(number) => Some((root::filter(&spec()?, &state)?, number)),
            None => None,
        };
        let (start, detached) = match (cell.workload.ends(), &system.attached, &system.detached) {
            (true, Some(words), _) | (_, Some(words), None) => (words, false),
            (_, _, Some(words)) => (words, true),
            (_, None, None) => return Err(format!("{} has no command", system.name)),
        };
        let line = |words: &Vec<String>| values.line(words, &system.env, &env);
        let lines = |all: &[Vec<String>]| all.iter().map(line).collect();
        Ok(PeerRecipe {
            channel: match system.channel {
                Channel::Inherited(number) => PeerChannel::Inherited(number),
                Channel::Connected => PeerChannel::Connected,
                Channel::Streams | Channel::Serial => PeerChannel::Streams,
            },
            start: self.with_paths(line(start)),
            detached,
            delete: lines(&system.delete),
            load: lines(&system.load),
            unload: lines(&system.unload),
            env: self.command_env(cell, &values),
            files,
            filter,
            hide_unified: system.hide_unified,
            network: system.network,
            leaves: values.all(&system.leaves).into_iter().map(PathBuf::from).collect(),
            folder,
            brief: PathBuf::from(format!("{BRIEF}{}", self.run_id)),
            state,
        })
    }

    /// A command whose program is a path.
    fn with_paths(&self, mut words: Vec<String>) -> Vec<String> {
        if let Some(path) = words.first().and_then(|name| external::find(name, &self.assets)) {
            words[0] = path.display().to_string();
        }
        words
    }
}

/// A recipe for the report: anybody can repeat it.
fn command(recipe: &PeerRecipe) -> Vec<String> {
    let line = |words: &Vec<String>| words.join(" ");
    let mut lines: Vec<String> = recipe.load.iter().map(line).collect();
    lines.push(line(&recipe.start));
    lines.extend(recipe.delete.iter().filter(|_| recipe.detached).map(line));
    for (name, text) in &recipe.files {
        lines.push(format!("{name}:"));
        lines.extend(text.lines().map(str::to_owned));
    }
    lines
}

impl Backend for Peer {
    fn name(&self) -> BackendName {
        BackendName::Peer(self.name)
    }

    fn versions(&mut self) -> Result<Vec<Version>, BackendError> {
        self.any_version().map_err(BackendError::Unavailable)
    }

    fn artefacts(&self) -> Vec<ArtefactFact> {
        let path = self.program().ok();
        path.and_then(|path| artefact(&self.system.name, &path).ok()).into_iter().collect()
    }

    fn prepare(&mut self, cell: &CellKey) -> Result<Prepared, BackendError> {
        let versions = self.fitting_versions(cell).map_err(BackendError::Unavailable)?;
        let mut recipe = self.recipe(cell).map_err(BackendError::Unavailable)?;
        let lists = [&mut recipe.delete, &mut recipe.load, &mut recipe.unload];
        for command in lists.into_iter().flatten() {
            *command = self.with_paths(std::mem::take(command));
        }
        let command = command(&recipe);
        let recipe = Recipe::Peer(Box::new(recipe));
        let (template, mut remarks) = self.real.prepare_within(recipe, LOADING)?;
        let values = self.values(cell).map_err(BackendError::Unavailable)?;
        self.daemons.insert(template, self.daemon_processes(&values));
        // Parameters such as a storage driver are what it says it has.
        if cell.params != Params::default() {
            remarks.extend(versions.into_iter().map(|version| version.version));
        }
        let deadline = self.real.deadline(DEADLINE);
        Ok(Prepared { command, remarks, ..Prepared::new(template, deadline) })
    }

    fn launch(
        &mut self,
        prepared: &Prepared,
        until: Until,
    ) -> Result<Box<dyn Instance>, BackendError> {
        let inner = self.real.start(prepared, until, REMOVING)?;
        let daemons = self.daemons.get(&prepared.template).cloned().unwrap_or_default();
        Ok(Box::new(PeerInstance::new(inner, &self.run_id, daemons)))
    }
}
