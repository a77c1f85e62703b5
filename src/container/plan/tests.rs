//! The order of steps, compared as lists.

use std::path::Path;

use oci_spec::runtime::Mount;

use super::*;
use crate::container::{CellOptions, default_cell_spec};

/// A root filesystem with mount points, and the plan of a cell in it.
fn cell(user_namespace: bool, change: impl FnOnce(&mut Spec)) -> (tempfile::TempDir, Plan) {
    let folder = tempfile::tempdir().expect("folder");
    for name in ["proc", "sys", "dev", "tmp"] {
        std::fs::create_dir(folder.path().join(name)).expect("made");
    }
    let options = CellOptions {
        rootfs: folder.path(),
        arguments: vec!["/program".to_owned()],
        limits: Limits::default(),
        seccomp: None,
        user_namespace,
        network: true,
    };
    let mut spec = default_cell_spec(&options);
    let linux = spec.linux_mut().as_mut().expect("linux");
    linux.set_masked_paths(Some(vec!["/proc/kcore".to_owned()]));
    linux.set_readonly_paths(Some(vec!["/proc/sys".to_owned()]));
    change(&mut spec);
    let plan = Plan::from_spec(&spec, Path::new("/")).expect("a plan");
    (folder, plan)
}

/// What the steps do, in the words of their error messages, with the
/// temporary folder's name replaced.
fn words(steps: &[Step], folder: &tempfile::TempDir) -> Vec<String> {
    let path = folder.path().canonicalize().expect("there").display().to_string();
    steps.iter().map(|step| step.to_string().replace(&path, "ROOTFS")).collect()
}

const IDENTITY: [&str; 9] = [
    "arrange the descriptors",
    "set no_new_privs",
    "limit the bounding set to 0x0",
    "set the supplementary groups []",
    "become user 0 and group 0",
    "set the capabilities 0x0",
    "set the parent-death signal SIGKILL",
    "find the launching process alive",
    "change to the directory /",
];

/// From the instance's mounts to the end.
const FEATURES: [&str; 5] = [
    "set the host name `unladen`",
    "bring up the loopback interface",
    "make /proc/sys read-only",
    "find character device 1:3 at /dev/null",
    "mask /proc/kcore",
];

/// What each instance makes for itself, and where it mounts it.
const MAKE: [&str; 2] = [
    "make the proc for /proc with `source=proc`",
    "make the tmpfs for /tmp with `source=tmpfs,mode=1777`",
];
const MOUNT: [&str; 2] = ["mount at /proc", "mount at /tmp"];

const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// From the host's mounts to detached copies of what is needed.
fn open() -> Vec<String> {
    let mut list = own(&[
        "change the mount /",
        "open ROOTFS to bind it",
        "change the attributes of bind 0",
        "make the tmpfs for /dev with `source=tmpfs,mode=755,size=64k`",
    ]);
    list.extend(NODES.iter().map(|node| format!("open /dev/{node} to bind it")));
    list
}

/// From the old root to the sealed new one. The old root is gone before
/// anything is looked up in the new one.
fn enter() -> Vec<String> {
    own(&[
        "bind at ROOTFS",
        "enter the root filesystem",
        "make it the root (pivot_root)",
        "detach the old root",
    ])
}

/// What all instances share.
fn shared() -> Vec<String> {
    let links = ["fd", "stdin", "stdout", "stderr"];
    let mut list = vec!["mount at /dev".to_owned()];
    list.extend(
        NODES.iter().flat_map(|node| {
            [format!("make the file /dev/{node}"), format!("mount at /dev/{node}")]
        }),
    );
    list.extend(links.iter().map(|link| format!("make the link /dev/{link}")));
    // Read-only only when everything in it is made.
    list.extend(own(&["change the mount /dev", "change the mount /"]));
    list
}

fn own(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_prepared_root_leaves_only_what_differs_for_each_instance() {
    let (folder, plan) = cell(false, |_| {});
    let prepared = [own(&["set the umask 0022"]), open(), enter(), shared()].concat();
    assert_eq!(words(&plan.root_steps(), &folder), prepared);
    let each = [
        own(&[
            "set the umask 0022",
            "join the cgroups",
            "start a session",
            "hide from other processes",
        ]),
        own(&MAKE),
        own(&[
            "enter an existing namespace (CloneFlags(CLONE_NEWNS))",
            "enter new namespaces (CloneFlags(CLONE_NEWNS | CLONE_NEWCGROUP))",
        ]),
        own(&MOUNT),
        own(&FEATURES),
        own(&IDENTITY),
    ];
    assert_eq!(words(&plan.prepared_steps(), &folder), each.concat());
    assert!(!plan.birth_prepared().contains(CloneFlags::CLONE_NEWNS));
}

#[test]
fn a_direct_start_does_the_same_in_one_go() {
    let (folder, plan) = cell(false, |_| {});
    let list = [
        own(&[
            "set the umask 0022",
            "join the cgroups",
            "start a session",
            "hide from other processes",
            "enter new namespaces (CloneFlags(CLONE_NEWCGROUP))",
        ]),
        open(),
        own(&MAKE),
        enter(),
        shared(),
        own(&MOUNT),
        own(&FEATURES),
        own(&IDENTITY),
    ];
    assert_eq!(words(&plan.direct_steps(), &folder), list.concat());
    assert!(plan.birth().contains(CloneFlags::CLONE_NEWNS));
}

#[test]
fn a_user_namespace_maps_ids_first_and_has_no_groups() {
    let (folder, plan) = cell(true, |_| {});
    let uid = nix::unistd::geteuid();
    let gid = nix::unistd::getegid();
    let list = words(&plan.direct_steps(), &folder);
    assert_eq!(
        list[1..5],
        [
            "write `deny` to /proc/self/setgroups".to_owned(),
            format!("write `0 {uid} 1` to /proc/self/uid_map"),
            format!("write `0 {gid} 1` to /proc/self/gid_map"),
            "join the cgroups".to_owned(),
        ]
    );
    assert!(!list.iter().any(|step| step.contains("supplementary groups")), "{list:?}");
    assert!(!plan.can_be_prepared());
}

#[test]
fn kept_capabilities_survive_the_change_of_user() {
    use oci_spec::runtime::{Capabilities, Capability};
    let (folder, plan) = cell(false, |spec| {
        let process = spec.process_mut().as_mut().expect("process");
        process.user_mut().set_uid(7).set_gid(8).set_umask(Some(0o27));
        process.set_oom_score_adj(Some(500));
        let set = || Some(Capabilities::from([Capability::NetBindService]));
        let mut all = process.capabilities().clone().expect("capabilities");
        all.set_bounding(set()).set_permitted(set()).set_effective(set());
        all.set_inheritable(set()).set_ambient(set());
        process.set_capabilities(Some(all));
    });
    let list = words(&plan.prepared_steps(), &folder);
    let from = list.iter().position(|step| step.contains("bounding")).expect("there");
    assert_eq!(
        list[from..from + 7],
        own(&[
            "limit the bounding set to 0x400",
            "keep capabilities over the change of user",
            "set the supplementary groups []",
            "become user 7 and group 8",
            "set the capabilities 0x400",
            "set the ambient set to 0x400",
            "set the umask 0027",
        ])
    );
    // While the host's /proc is in sight.
    assert_eq!(list[3], "write `500` to /proc/self/oom_score_adj");
}

/// A mount for a spec.
fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount.set_destination(destination.into());
    mount.set_typ(Some(kind.to_owned()));
    mount.set_source(Some(source.into()));
    mount.set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
    mount
}

#[test]
fn a_bind_is_shared_unless_it_is_in_what_an_instance_mounts() {
    let (folder, plan) = cell(false, |spec| {
        let mounts = spec.mounts_mut().as_mut().expect("mounts");
        mounts.push(mount("/data/deep", "bind", "/usr", &["rbind", "ro"]));
        mounts.push(mount("/tmp/data", "bind", "/usr", &["rbind", "ro"]));
        mounts.push(mount("/dev/shm", "tmpfs", "shm", &["size=1m"]));
    });
    let shared = words(&plan.root_steps(), &folder);
    let each = words(&plan.prepared_steps(), &folder);
    for step in ["make the directory /data", "make the directory /data/deep", "mount at /data/deep"]
    {
        assert!(shared.iter().any(|other| other == step), "{step}: {shared:?}");
    }
    // Its mount point must exist before /dev is read-only.
    let position = |list: &[String], step: &str| list.iter().position(|other| other == step);
    let point = position(&shared, "make the directory /dev/shm").expect("made");
    assert!(point < position(&shared, "change the mount /dev").expect("sealed"));
    assert_eq!(position(&shared, "make the directory /tmp/data"), None);
    // Its source is opened while the host's files are in sight, its mount
    // point made in the instance's own /tmp.
    let order: Vec<usize> = [
        "open /usr to bind it",
        "make the tmpfs for /dev/shm with `source=shm,size=1m`",
        "enter an existing namespace (CloneFlags(CLONE_NEWNS))",
        "mount at /tmp",
        "make the directory /tmp/data",
        "mount at /tmp/data",
        "mount at /dev/shm",
    ]
    .iter()
    .map(|step| position(&each, step).unwrap_or_else(|| panic!("no {step}: {each:?}")))
    .collect();
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn programs_without_a_slash_are_looked_for_in_path() {
    let (_folder, plan) = cell(false, |spec| {
        let process = spec.process_mut().as_mut().expect("process");
        process.set_args(Some(vec!["tool".to_owned()]));
        process.set_env(Some(vec!["PATH=/a::/b".to_owned()]));
    });
    let names: Vec<&str> = plan.program.iter().filter_map(|path| path.to_str().ok()).collect();
    assert_eq!(names, ["/a/tool", "./tool", "/b/tool"]);
}

#[test]
fn a_scratch_layer_is_put_together_out_of_sight_of_the_host() {
    let (folder, plan) = cell(false, |_| {});
    let plan = plan.with_scratch_layer().expect("there");
    assert!(!plan.can_be_prepared());
    let list = words(&plan.direct_steps(), &folder);
    let order: Vec<usize> = [
        "change the mount /",
        "open ROOTFS to bind it",
        "open /dev/null to bind it",
        "mount tmpfs at ROOTFS with `mode=755`",
        "change to the directory ROOTFS",
        "make the directory lower",
        "bind at lower",
        "make the directory upper",
        "mount overlay at root with `lowerdir=lower,upperdir=upper,workdir=work,volatile`",
        "change to the directory root",
        "make it the root (pivot_root)",
        "detach the old root",
    ]
    .iter()
    .map(|step| list.iter().position(|other| other == step).unwrap_or_else(|| panic!("no {step}")))
    .collect();
    assert!(order.is_sorted(), "{list:?}");
    let (folder, plan) = cell(true, |_| {});
    let list = words(&plan.with_scratch_layer().expect("there").direct_steps(), &folder);
    assert!(list.iter().any(|step| step.ends_with("volatile,userxattr`")), "{list:?}");
}

#[test]
fn a_filter_comes_last_or_before_the_capability_to_load_it_goes() {
    let filter = || {
        let json = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW"});
        Some(serde_json::from_value(json).expect("a spec"))
    };
    let list = |no_new_privileges: bool| {
        let (folder, plan) = cell(false, |spec| {
            spec.linux_mut().as_mut().expect("linux").set_seccomp(filter());
            let process = spec.process_mut().as_mut().expect("process");
            process.set_no_new_privileges(Some(no_new_privileges));
        });
        words(&plan.prepared_steps(), &folder)
    };
    let locked = list(true);
    assert!(locked.last().expect("steps").starts_with("load the seccomp filter ("), "{locked:?}");
    let open = list(false);
    let at = open.iter().position(|step| step.starts_with("load the seccomp")).expect("there");
    assert_eq!(open[at - 1..=at + 2][0], "set the supplementary groups []");
    assert_eq!(
        open[at + 1..=at + 2],
        own(&["become user 0 and group 0", "set the capabilities 0x0"])
    );
}
