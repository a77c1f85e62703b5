//! Networks of containers: reachable from the host, kept apart, and gone
//! afterwards.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;
mod lab;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::time::Duration;

use common::{is_root, skip as skipped};
use lab::{LIMIT, Lab, Running};
use unladen::container::cgroup::Limits;
use unladen::container::network::{
    Attachment, Bridge, Marked, Netns, NetworkError, Witness, find, remove_links,
};
use unladen::container::{NetworkedContainer, PrepareError};
use unladen::sys::pidfd::Exit;

const NET: &str = "/sys/class/net";

/// Answers one connection with what it sees of its network, then waits for
/// the end of its input.
const LISTENER: &str = r#"
    use Socket;
    socket(S, PF_INET, SOCK_STREAM, 0) or die $!;
    bind(S, sockaddr_in(8080, INADDR_ANY)) or die $!;
    listen(S, 5) or die $!;
    $| = 1;
    print "listening\n";
    my $peer = accept(C, S) or die $!;
    my ($port, $from) = sockaddr_in($peer);
    recv(C, my $question, 1, 0);
    open(D, "<", "/proc/net/dev");
    my @names = sort map { /^\s*(\w+):/ ? $1 : () } <D>;
    send(C, "from " . inet_ntoa($from) . " over @names\n", 0);
    close(C);
    <STDIN>;
"#;

fn exists(link: &str) -> bool {
    Path::new(NET).join(link).exists()
}

/// A container that listens, and its lease.
fn listener(
    lab: &Lab,
    bridge: &mut Bridge,
    name: &str,
) -> (Running, unladen::container::network::Lease) {
    let mut options = lab.options("sh", "", Limits::default());
    options.arguments =
        ["/usr/bin/perl", "-e", LISTENER].iter().map(|text| (*text).to_owned()).collect();
    let plan = lab.plan_from(&options);
    let mut container = NetworkedContainer::prepare(&plan).expect("ready");
    let group = lab.tree.create(name, plan.limits()).expect("group");
    let Attachment { netns, lease } = bridge.attach().expect("attached");
    let running = Running::with(|fds| container.launch(&group, fds, &netns).expect("launched"));
    assert_eq!(running.first_line, "listening");
    (running, lease)
}

fn ask(address: Ipv4Addr) -> String {
    let mut stream = TcpStream::connect_timeout(&SocketAddrV4::new(address, 8080).into(), LIMIT)
        .expect("reached");
    let mut text = String::new();
    stream.write_all(b"?").expect("sent");
    stream.read_to_string(&mut text).expect("answered");
    text
}

#[test]
fn instances_on_a_bridge_answer_the_host_and_leave_nothing() {
    if !is_root() {
        return skipped("networks need root");
    }
    let lab = Lab::new();
    let mut bridge = Bridge::create(&lab.id).expect("a bridge");
    let (name, gateway, subnet) = (bridge.name().to_owned(), bridge.gateway(), bridge.subnet());
    assert!(name.len() <= 15 && exists(&name));
    let own = Netns::own().expect("own");
    let mut running = Vec::new();
    for instance in ["one", "two", "three"] {
        running.push(listener(&lab, &mut bridge, instance));
    }
    let addresses: std::collections::BTreeSet<Ipv4Addr> =
        running.iter().map(|(_, lease)| lease.address()).collect();
    assert_eq!(addresses.len(), 3);
    for (_, lease) in &running {
        assert!(subnet.contains(lease.address()));
        assert!(exists(lease.link()), "{}", lease.link());
        assert_eq!(ask(lease.address()), format!("from {gateway} over eth0 lo\n"));
    }
    let links: Vec<String> = running.iter().map(|(_, lease)| lease.link().to_owned()).collect();
    let found = find(Path::new(NET)).expect("listed");
    assert_eq!(found.get(&lab.id).map(Vec::len), Some(4), "{found:?}");
    for (running, lease) in running {
        running.finish(Exit::Code(0));
        bridge.release(lease, LIMIT).expect("released");
    }
    assert!(links.iter().all(|link| !exists(link)));
    bridge.remove().expect("removed");
    assert!(!exists(&name));
    // The launching thread is where it was.
    let inode = |netns: &Netns| {
        std::fs::File::from(std::os::fd::AsFd::as_fd(netns).try_clone_to_owned().expect("copied"))
            .metadata()
            .map(|metadata| std::os::unix::fs::MetadataExt::ino(&metadata))
            .expect("metadata")
    };
    assert_eq!(inode(&own), inode(&Netns::own().expect("own")));
}

#[test]
fn an_address_comes_back_and_a_living_instance_keeps_its_own() {
    if !is_root() {
        return skipped("networks need root");
    }
    let lab = Lab::new();
    let mut bridge = Bridge::create(&lab.id).expect("a bridge");
    let Attachment { netns, lease } = bridge.attach().expect("attached");
    let link = lease.link().to_owned();
    let error = bridge.release(lease, Duration::from_millis(50)).expect_err("it lives");
    assert!(matches!(error, NetworkError::Remains { .. }), "{error}");
    assert!(error.to_string().contains(&link), "{error}");
    drop(netns);
    let Attachment { netns, lease } = bridge.attach().expect("attached");
    // Whatever the namespace is doing.
    bridge.detach(&lease).expect("detached");
    assert!(!exists(lease.link()));
    drop(netns);
    bridge.remove().expect("removed");
}

#[test]
fn a_bridge_that_was_left_is_found_by_its_names_and_removed() {
    if !is_root() {
        return skipped("networks need root");
    }
    let lab = Lab::new();
    let mut bridge = Bridge::create(&lab.id).expect("a bridge");
    let error = Bridge::create(&lab.id).expect_err("it exists");
    assert!(error.to_string().starts_with(&format!("cannot make the bridge {}", bridge.name())));
    assert!(exists(bridge.name()), "the failure must not remove the other one");
    let Attachment { netns, lease } = bridge.attach().expect("attached");
    let link = lease.link().to_owned();
    let name = bridge.name().to_owned();
    // As if killed: nothing of the bridge's own clean-up runs.
    std::mem::forget(bridge);
    let found = find(Path::new(NET)).expect("listed");
    assert_eq!(found.get(&lab.id), Some(&vec![name.clone(), link.clone()]));
    remove_links(&lab.id, Path::new(NET)).expect("removed");
    assert!(!exists(&name) && !exists(&link));
    remove_links(&lab.id, Path::new(NET)).expect("nothing to do");
    drop(netns);
}

#[test]
fn two_runs_have_networks_that_do_not_overlap() {
    if !is_root() {
        return skipped("networks need root");
    }
    let lab = Lab::new();
    let bridges: Vec<Bridge> =
        (0..4).map(|n| Bridge::create(&format!("{}-{n}", lab.id)).expect("a bridge")).collect();
    for (index, one) in bridges.iter().enumerate() {
        for other in &bridges[index + 1..] {
            assert!(!one.subnet().overlaps(other.subnet()));
        }
    }
    bridges.into_iter().for_each(|bridge| bridge.remove().expect("removed"));
}

#[test]
fn a_user_namespace_and_a_given_network_are_refused_together() {
    let lab = Lab::new();
    let mut options = lab.options("sh", "true", Limits::default());
    options.user_namespace = true;
    let error = NetworkedContainer::prepare(&lab.plan_from(&options)).expect_err("refused");
    assert!(matches!(error, PrepareError::UserNamespace), "{error}");
}

/// In a user namespace with a limit, one more network namespace can be made
/// exactly when another is destroyed: the kernel counts it until the very end.
#[test]
fn a_witness_knows_when_a_network_namespace_is_destroyed() {
    if !is_root() {
        return skipped("networks need root");
    }
    if std::env::var_os("UNLADEN_TEST_INNER").is_some() {
        return witness_in_user_namespace();
    }
    let name = "a_witness_knows_when_a_network_namespace_is_destroyed";
    let test = std::env::current_exe().expect("own path");
    let script = format!("UNLADEN_TEST_INNER=1 exec {} --exact {name} --nocapture", test.display());
    let arguments = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", &script];
    let (exit, output) =
        lab::host_program("/usr/bin/unshare", arguments.iter().map(|text| (*text).to_owned()));
    assert_eq!(exit, Exit::Code(0), "{output}");
    assert!(output.contains("1 passed"), "{output}");
}

/// How many network namespaces may exist.
fn limit_namespaces(count: u32) {
    std::fs::write("/proc/sys/user/max_net_namespaces", count.to_string()).expect("limited");
}

fn witness_in_user_namespace() {
    let mut witness = Witness::new().expect("a witness");
    for _ in 0..30 {
        // This process's own and the sentinel; everything else is destroyed
        // once there is room for a third.
        limit_namespaces(3);
        let patience = std::time::Instant::now() + LIMIT;
        let one = loop {
            match Netns::fresh() {
                Ok(one) => break one,
                Err(error) => assert!(std::time::Instant::now() < patience, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        limit_namespaces(4);
        let two = Netns::fresh().expect("a fourth");
        Netns::fresh().expect_err("the limit is reached");
        let (mut child, marked) = sleeper(&one, &mut witness);
        child.kill().expect("killed");
        child.wait().expect("reaped");
        limit_namespaces(5);
        drop(one);
        witness.wait(marked, LIMIT).expect("it ends");
        // The own one, the second one, and a sentinel in the worker's hands.
        limit_namespaces(4);
        drop(Netns::fresh().expect("the first one is destroyed"));
        drop(two);
        limit_namespaces(9);
        witness.renew().expect("a new sentinel");
    }
    // Nothing is let go of a namespace that lives: the wait ends at its limit.
    let one = Netns::fresh().expect("made");
    let (mut child, marked) = sleeper(&one, &mut witness);
    let error = witness.wait(marked, Duration::from_millis(100)).expect_err("it lives");
    assert!(matches!(error, NetworkError::Remains { .. }), "{error}");
    child.kill().expect("killed");
    child.wait().expect("reaped");
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    assert_eq!(witness.mark(pid).expect("no error"), None, "it has ended");
}

/// A process in a network namespace, marked.
fn sleeper(netns: &Netns, witness: &mut Witness) -> (std::process::Child, Marked) {
    let away = netns.enter().expect("entered");
    let child = std::process::Command::new("/bin/sleep").arg("60").spawn();
    drop(away);
    let child = child.expect("a child");
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    let marked = witness.mark(pid).expect("asked").expect("it lives");
    (child, marked)
}
