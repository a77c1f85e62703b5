//! Instances of somebody else's systems: a command that starts each, a
//! payload that reports like any other, and commands that remove it.
//!
//! Two kinds of commands exist. An *attached* one lives as long as its
//! instance, and its end is the instance's. A *detached* one leaves the
//! instance behind; the payload's end is seen from the host, and removing it
//! takes more commands, whose time counts.

mod call;
mod instance;
mod trees;
pub(in crate::backend) mod undo;
mod wires;

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::OFlag;

use self::call::Caller;
use self::instance::{Instance, Surroundings};
use self::undo::Undo;
use super::order::{Answer, Failure, Launched, PeerRecipe, Stopped, Until};
use super::place::Ground;
use crate::backend::Timeline;
use crate::backend::peers::cgroup_tops;
use crate::record::Mark;

/// A recipe that was carried out as far as all instances share it.
struct Template {
    recipe: PeerRecipe,
    /// A mount namespace for its commands.
    mounts: Option<OwnedFd>,
    /// Never readable, with the end that keeps it so.
    idle: (OwnedFd, OwnedFd),
}

/// What one recipe of a system has loaded for all that share its folder.
struct Loaded {
    template: Template,
    result: Result<(), String>,
}

/// Templates and live instances of somebody else's systems.
pub(super) struct Peers {
    run_id: String,
    tops: Vec<PathBuf>,
    templates: HashMap<u32, Template>,
    live: HashMap<String, (u32, Instance)>,
    /// What was loaded, or why not, by its folder.
    loaded: HashMap<PathBuf, Loaded>,
    /// The run's folders.
    folders: Option<[PathBuf; 2]>,
}

impl Peers {
    pub(super) fn new(run_id: &str) -> Self {
        Self {
            run_id: run_id.to_owned(),
            tops: cgroup_tops(),
            templates: HashMap::new(),
            live: HashMap::new(),
            loaded: HashMap::new(),
            folders: None,
        }
    }

    /// Whether the run has any of them.
    pub(super) fn used(&self) -> bool {
        self.folders.is_some()
    }

    /// Whether a template's instances are made here.
    pub(super) fn has_template(&self, number: u32) -> bool {
        self.templates.contains_key(&number)
    }

    /// Whether an instance is here.
    pub(super) fn has(&self, instance: &str) -> bool {
        self.live.contains_key(instance)
    }

    /// Makes what all instances of a recipe share.
    pub(super) fn prepare(
        &mut self,
        number: u32,
        recipe: PeerRecipe,
        ground: &Ground,
        null: BorrowedFd<'_>,
    ) -> Answer {
        match self.try_prepare(number, recipe, ground, null) {
            Ok(remarks) => Answer::Prepared { remarks },
            Err(reason) => Answer::Refused { reason },
        }
    }

    fn try_prepare(
        &mut self,
        number: u32,
        recipe: PeerRecipe,
        ground: &Ground,
        null: BorrowedFd<'_>,
    ) -> Result<Vec<String>, String> {
        let state = recipe.state.clone();
        let failed = |error: std::io::Error| {
            format!("cannot make the folder `{}`: {error}", state.display())
        };
        fs::create_dir_all(&recipe.state).map_err(failed)?;
        fs::create_dir_all(&recipe.brief).map_err(failed)?;
        self.folders = Some([recipe.brief.clone(), recipe.folder.clone()]);
        let idle = || nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|error| error.to_string());
        let mounts = if recipe.hide_unified { call::without_unified()? } else { None };
        for (name, text) in &recipe.files {
            fs::write(recipe.state.join(name), text).map_err(failed)?;
        }
        if !self.loaded.contains_key(&state) {
            let (commands, leaves) = (recipe.unload.clone(), recipe.leaves.clone());
            let undo = Undo { commands, env: recipe.env.clone(), leaves, last: true };
            undo.write(&state).map_err(failed)?;
            let copy = |fd: &OwnedFd| fd.try_clone().map_err(|error| error.to_string());
            let mounts = mounts.as_ref().map(copy).transpose()?;
            let template = Template { recipe: recipe.clone(), mounts, idle: idle()? };
            let caller = template.caller(null);
            let load = |command: &Vec<String>| caller.run(command, ground, "load");
            let result = recipe.load.iter().try_for_each(load);
            self.loaded.insert(state.clone(), Loaded { template, result });
        }
        if let Some(Loaded { result: Err(reason), .. }) = self.loaded.get(&state) {
            return Err(reason.clone());
        }
        let template = Template { recipe, mounts, idle: idle()? };
        let recipe = &template.recipe;
        let mut remarks = Vec::new();
        if let (true, Err(reason)) = (recipe.network, &ground.witness) {
            remarks
                .push(format!("the destruction of its network namespace is not awaited: {reason}"));
        }
        self.templates.insert(number, template);
        Ok(remarks)
    }

    /// Starts an instance.
    pub(super) fn launch(
        &mut self,
        number: u32,
        name: String,
        until: Until,
        deadline: Duration,
        (ground, null, control): (&mut Ground, BorrowedFd<'_>, BorrowedFd<'_>),
    ) -> Result<(Launched, Option<OwnedFd>), Box<Answer>> {
        let Some(template) = self.templates.get(&number) else {
            let reason = format!("no template {number}");
            return Err(Box::new(Answer::Refused { reason }));
        };
        let around = template.around((&self.run_id, &self.tops), null, control, deadline);
        let failed = |failure| Box::new(Answer::Failed(failure));
        let mut instance = Instance::start(&name, &around, ground).map_err(failed)?;
        let run = instance.ready(&around).and_then(|()| match until {
            Until::Ready => Ok(None),
            Until::Gone => {
                instance.mark(&around, ground);
                let code = instance.ended(&around)?;
                instance.check_code(code)?;
                instance.removed(&around, ground)?;
                Ok(code)
            }
        });
        let exit = run.map_err(|failure| {
            instance.destroy(&around, ground);
            failed(failure)
        })?;
        let launched = instance.launched(exit);
        if until == Until::Gone {
            return Ok((launched, None));
        }
        let channel = instance.channel();
        instance.step_aside();
        self.live.insert(name, (number, instance));
        Ok((launched, channel))
    }

    /// Ends an instance and removes it; with `kill` in any way.
    pub(super) fn stop(
        &mut self,
        name: &str,
        deadline: Duration,
        kill: bool,
        (ground, null, control): (&mut Ground, BorrowedFd<'_>, BorrowedFd<'_>),
    ) -> Answer {
        let found = self.live.remove(name);
        let Some((template, mut instance)) =
            found.and_then(|(number, live)| Some((self.templates.get(&number)?, live)))
        else {
            return Answer::Refused { reason: format!("no instance {name}") };
        };
        let around = template.around((&self.run_id, &self.tops), null, control, deadline);
        if kill {
            instance.destroy(&around, ground);
            return Answer::Stopped(Stopped { timeline: Timeline::default(), exit: None });
        }
        let mut stop = |instance: &mut Instance| -> Result<Option<u8>, Failure> {
            instance.look_around(&around, ground);
            instance.ask_to_stop()?;
            let code = instance.ended(&around)?;
            if code.is_some_and(|code| code != 0) {
                let reason = format!("it was asked to end with code 0 and ended with {code:?}");
                return Err(instance.failure(Mark::Exited, reason));
            }
            instance.removed(&around, ground)?;
            Ok(code)
        };
        match stop(&mut instance) {
            Ok(exit) => Answer::Stopped(Stopped { timeline: instance.timeline(), exit }),
            Err(failure) => {
                instance.destroy(&around, ground);
                Answer::Failed(failure)
            }
        }
    }

    /// Removes everything of the run.
    pub(super) fn end(&mut self, ground: &mut Ground, null: &OwnedFd) {
        let names: Vec<String> = self.live.keys().cloned().collect();
        for name in names {
            let around = (&mut *ground, null.as_fd(), null.as_fd());
            let _ = self.stop(&name, Duration::ZERO, true, around);
        }
        for Loaded { template, .. } in self.loaded.values() {
            let caller = template.caller(null.as_fd());
            for command in &template.recipe.unload {
                // What this leaves is found again by `unladen clean`: the
                // folder stays then.
                let _ = caller.run(command, ground, "unload");
            }
            for leaf in &template.recipe.leaves {
                let _ = undo::remove_leaf(leaf, &template.recipe.folder);
            }
        }
        for folder in self.folders.iter().flatten() {
            let _ = undo::remove_folder(folder);
        }
    }
}

impl Template {
    fn caller<'a>(&'a self, null: BorrowedFd<'a>) -> Caller<'a> {
        Caller { null, env: &self.recipe.env, mounts: self.mounts.as_ref() }
    }

    /// What an instance needs to know, of the run and of this template.
    fn around<'a>(
        &'a self,
        (run_id, tops): (&'a str, &'a [PathBuf]),
        null: BorrowedFd<'a>,
        control: BorrowedFd<'a>,
        deadline: Duration,
    ) -> Surroundings<'a> {
        let caller = self.caller(null);
        let idle = self.idle.0.as_fd();
        Surroundings { run_id, tops, recipe: &self.recipe, caller, control, deadline, idle }
    }
}
