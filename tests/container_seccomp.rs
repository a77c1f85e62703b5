//! Seccomp filters in real containers: verdicts as a program sees them, and
//! filters that forbid what the launch itself needs.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;
mod lab;

use std::ffi::CString;
use std::fmt::Write;

use common::{is_root, skip as skipped};
use lab::Lab;
use nix::sched::CloneFlags;
use oci_spec::runtime::{LinuxSeccomp, Spec};
use serde_json::{Value, json};
use unladen::container::cgroup::Limits;
use unladen::container::seccomp::{Machine, compile};
use unladen::container::{Container, Plan, default_cell_spec};
use unladen::errors::chain;
use unladen::sys::pidfd::Exit;
use unladen::sys::spawn::{Command, Launch, Program, SpawnError, Step};

/// A cell that runs a program with the host's files, changed.
fn plan(lab: &Lab, arguments: &[&str], change: impl FnOnce(&mut Spec)) -> Result<Plan, String> {
    let cell = default_cell_spec(&lab.options("sh", "true", Limits::default()));
    let mut spec = lab::with_programs(cell);
    let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
    spec.process_mut().as_mut().expect("process").set_args(Some(arguments));
    change(&mut spec);
    Plan::from_spec(&spec, &lab.rootfs).map_err(|error| chain(&error))
}

fn set_filter(spec: &mut Spec, filter: Option<Value>) {
    let filter = filter.map(|json| serde_json::from_value::<LinuxSeccomp>(json).expect("a spec"));
    spec.linux_mut().as_mut().expect("linux").set_seccomp(filter);
}

/// Everything allowed but these, which get an action.
fn denying(action: &str, names: &[&str]) -> Option<Value> {
    Some(json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": names, "action": action}]}))
}

/// Calls with the error number that the default profile gives (0: allowed).
const PROBES: [(&str, [u64; 3], u32); 11] = [
    ("getpid", [0, 0, 0], 0),
    ("personality", [0xffff_ffff, 0, 0], 0),
    ("personality", [0x40000, 0, 0], 38),
    ("socket", [16, 3, 0], 0),
    ("socket", [16, 3, 9], 22),
    ("io_uring_setup", [1, 0, 0], 38),
    ("add_key", [0, 0, 0], 38),
    ("bpf", [0, 0, 0], 1),
    ("userfaultfd", [0, 0, 0], 1),
    ("kexec_load", [0, 0, 0], 1),
    ("init_module", [0, 0, 0], 1),
];

/// What a program in a container is told, one error number for each probe.
fn probe(lab: &Lab, change: impl Fn(&mut Spec)) -> Vec<u32> {
    let mut script = String::new();
    for (name, [a, b, c], _) in PROBES {
        let number = Machine::native().number(name).expect("a number");
        writeln!(script, "$!=0; syscall({number},{a},{b},{c}); print 0+$!,\"\\n\";").expect("text");
    }
    let plan = plan(lab, &["/usr/bin/perl", "-e", &script], change).expect("a plan");
    let group = lab.tree.create("probe", plan.limits()).expect("group");
    let mut container = Container::prepare(&plan).expect("prepared");
    let (exit, output) = lab::output(&mut container, &group);
    assert_eq!(exit, Exit::Code(0), "{output}");
    output.lines().map(|line| line.parse().expect("a number")).collect()
}

#[test]
fn the_default_profile_judges_calls_of_a_real_program() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let expected = PROBES.map(|(_, _, errno)| errno);
    // Last of all, and before the change of user.
    for no_new_privileges in [true, false] {
        let seen = probe(&Lab::new(), |spec| {
            let process = spec.process_mut().as_mut().expect("process");
            process.set_no_new_privileges(Some(no_new_privileges));
        });
        assert_eq!(seen, expected, "{no_new_privileges}");
    }
    // Without the filter the kernel answers itself.
    let open = probe(&Lab::new(), |spec| set_filter(spec, None));
    let differing = open.iter().zip(&expected).filter(|(open, with)| open != with).count();
    assert!(differing >= 3, "{open:?}");
}

/// Why a container with this filter does not start.
fn refused(no_new_privileges: bool, program: &str, filter: Option<Value>) -> String {
    let lab = Lab::new();
    let plan = plan(&lab, &[program], |spec| {
        set_filter(spec, filter);
        let process = spec.process_mut().as_mut().expect("process");
        process.set_no_new_privileges(Some(no_new_privileges));
    });
    let plan = match plan {
        Ok(plan) => plan,
        Err(error) => return error,
    };
    let group = lab.tree.create("one", plan.limits()).expect("group");
    let mut container = Container::prepare(&plan).expect("prepared");
    chain(&container.launch(&group, &[]).expect_err("refused"))
}

#[test]
fn a_filter_that_forbids_what_follows_is_an_error_that_names_it() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let kill = "SCMP_ACT_KILL_PROCESS";
    let error = refused(true, "/bin/true", denying(kill, &["execve"]));
    assert!(error.contains("`linux.seccomp` forbids execve"), "{error}");
    // Without no_new_privs steps follow.
    let error = refused(false, "/bin/true", denying("SCMP_ACT_ERRNO", &["setresuid"]));
    assert!(error.starts_with("cannot become user 0 and group 0"), "{error}");
    assert!(error.ends_with("EPERM: Operation not permitted"), "{error}");
    let error = refused(false, "/bin/true", denying(kill, &["setresuid"]));
    assert!(error.starts_with("the child was killed before it could become user 0"), "{error}");
    let error = refused(false, "/bin/true", denying(kill, &["fchdir"]));
    assert!(error.contains("killed before it could change to the directory /"), "{error}");
}

/// A child with a filter, outside of any container, and its error.
fn launch(program: &str, filter: Value) -> Result<(), SpawnError> {
    let text = |text: &str| CString::new(text).expect("no NUL");
    let filter = compile(&serde_json::from_value(filter).expect("a spec")).expect("compiled");
    let steps = vec![Step::MapDescriptors, Step::NoNewPrivileges, Step::Seccomp(filter)];
    let paths = Program::Paths(vec![text(program)]);
    let mut command =
        Command::new(paths, vec![text(program)], vec![], CloneFlags::empty(), steps).expect("fine");
    command.spawn(&Launch::default()).map(|child| {
        child.pidfd.wait(Some(lab::LIMIT)).expect("waited").expect("ended");
    })
}

#[test]
fn a_child_that_may_not_exit_still_reports_and_ends() {
    let filter = denying("SCMP_ACT_ERRNO", &["exit", "exit_group"]).expect("one");
    let error = launch("/no/such/program", filter).expect_err("refused");
    let text = chain(&error);
    assert_eq!(text, "cannot execute /no/such/program: ENOENT: No such file or directory");
}

#[test]
fn a_filter_that_forbids_the_guard_is_refused() {
    let lab = Lab::new();
    let plan = plan(&lab, &["/bin/true"], |spec| {
        set_filter(spec, denying("SCMP_ACT_ERRNO", &["execveat"]));
    })
    .expect("a plan");
    let error = Container::prepare_direct(&plan).expect_err("refused");
    assert!(chain(&error).contains("the seccomp filter forbids what the protection"), "{error}");
}

#[test]
fn a_last_filter_judges_nothing_but_the_program() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    // All that the launch itself does near its end.
    let names = ["clock_gettime", "rt_sigprocmask", "rt_sigaction", "prctl", "ppoll", "chdir"];
    let more = [&names[..], &["execveat", "fcntl", "write"]].concat();
    launch("/bin/true", denying("SCMP_ACT_KILL_PROCESS", &more).expect("one")).expect("launched");
    let plan = plan(&lab, &["/bin/true"], |spec| {
        set_filter(spec, denying("SCMP_ACT_KILL_PROCESS", &names));
    })
    .expect("a plan");
    let group = lab.tree.create("one", plan.limits()).expect("group");
    let mut container = Container::prepare(&plan).expect("prepared").traced(true);
    let child = container.launch(&group, &[]).expect("launched");
    assert!(child.begun <= child.set_up, "{child:?}");
    assert!(child.trace.is_sorted(), "{:?}", child.trace);
    let ended = child.pidfd.wait(Some(lab::LIMIT)).expect("waited").expect("ended");
    assert_eq!(ended.exit, Exit::Code(0));
}

#[test]
fn a_killing_filter_kills_the_program_alone() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    let plan = plan(&lab, &["/bin/uname"], |spec| {
        set_filter(spec, denying("SCMP_ACT_KILL_PROCESS", &["uname"]));
    })
    .expect("a plan");
    let group = lab.tree.create("one", plan.limits()).expect("group");
    let (exit, _) = lab::output(&mut Container::prepare(&plan).expect("prepared"), &group);
    assert_eq!(exit, Exit::Signal(nix::libc::SIGSYS));
}
