//! One attack from inside a container, chosen by the first argument: it says
//! `done PROOF` or `refused ERRNO STEP`, and waits for the end of its input, so
//! that somebody can look from outside whether it is true. It is compiled by
//! the test that uses it, as one static program.
//!
//! Attacks are aimed so that they do no harm where they succeed: the test that
//! runs them says at what. `victim` is no attack but a process that stands for
//! the host: it has a host name, a network and System V memory of its own, and
//! a secret.
#![allow(
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it speaks to the test, and system calls take registers"
)]

mod numbers;
mod sys;
mod victim;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

use sys::{Refused, check, step};

type Outcome = Result<String, Refused>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if arguments == ["victim"] {
        return victim::run();
    }
    match attack(&arguments) {
        Ok(proof) => println!("done {}", proof.trim()),
        Err(Refused { errno, step }) => println!("refused {errno} {step}"),
    }
    let _ = std::io::stdout().flush();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn attack(arguments: &[&str]) -> Outcome {
    match arguments {
        ["mknod", major, minor] => device(number(major), number(minor)),
        ["mount"] => mount("tmpfs", "/mnt", "tmpfs", ""),
        ["unmount", path, file] => unmount(path, file),
        ["remount", path] => remount(path),
        ["pivot"] => pivot(),
        ["nested-proc"] => nested_proc(),
        ["read", path] => file(path),
        ["list", path] => list(path),
        ["write-back", path] => write_back(path),
        ["write", path, text] => write(path, text),
        ["open-for-writing", path] => open_for_writing(path),
        ["release-agent", name] => release_agent(name),
        ["descriptor", fd, name] => descriptor(number(fd), name),
        ["set-namespace", fd, name] => set_namespace(number(fd), name),
        ["handle-of", path] => sys::handle_of(path),
        ["open-handle", handle] => sys::open_handle(handle),
        ["jailed", jail, path] => jailed(jail, path),
        ["climb", path] => climb(path),
        ["abstract", name] => abstract_socket(name),
        ["keyring-with", secret, rest @ ..] => keyring_with(secret, rest),
        ["keyring"] => sys::read_key(sys::SESSION, "session"),
        ["add-user-key", name, secret] => sys::add_user_key(name, secret),
        ["remove-user-key", name] => sys::remove_user_key(name),
        ["user-key", name] => sys::read_key(sys::USER, name),
        ["gain", program] => gain(program),
        ["kernel-symbols"] => kernel_symbols(),
        ["type", fd] => sys::type_into(number(fd)),
        [name, rest @ ..] => sys::call(name, rest),
        [] => Err(Refused { errno: 0, step: "no attack was named".to_owned() }),
    }
}

fn number(text: &str) -> i32 {
    text.parse().unwrap_or(-1)
}

/// Makes a node of a device and reads from it.
fn device(major: i32, minor: i32) -> Outcome {
    let _ = fs::remove_file("/tmp/device");
    sys::make_node("/tmp/device", major, minor)?;
    let mut bytes = [1_u8; 4];
    let mut file = step("open", fs::File::open("/tmp/device"))?;
    step("read", file.read_exact(&mut bytes))?;
    Ok(format!("read {bytes:?}"))
}

fn mount(source: &str, target: &str, kind: &str, data: &str) -> Outcome {
    let _ = fs::create_dir(target);
    sys::mount(source, target, kind, 0, data)?;
    Ok(format!("mounted at {target}"))
}

/// Takes a cover away and looks below it.
fn unmount(path: &str, below: &str) -> Outcome {
    sys::unmount(path)?;
    let text = file(below)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Makes a protected path writable again.
fn remount(path: &str) -> Outcome {
    sys::mount("none", path, "", sys::REMOUNT_BIND, "")?;
    write_back(&format!("{path}/kernel/panic_on_oops"))
}

/// Leaves the root for another one.
fn pivot() -> Outcome {
    mount("tmpfs", "/mnt", "tmpfs", "")?;
    step("mkdir", fs::create_dir("/mnt/old"))?;
    sys::pivot_root("/mnt", "/mnt/old")?;
    Ok(format!("left {:?}", fs::read_dir("/old/proc").is_ok()))
}

/// In namespaces of its own, where it has all capabilities, a second `/proc`
/// would have nothing hidden.
fn nested_proc() -> Outcome {
    sys::nest()?;
    mount("proc", "/mnt", "proc", "")?;
    file("/mnt/interrupts")
}

fn file(path: &str) -> Outcome {
    let text = step("read", fs::read_to_string(path))?;
    if text.is_empty() {
        return Err(Refused { errno: 0, step: "nothing is in it".to_owned() });
    }
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn list(path: &str) -> Outcome {
    let names: Vec<_> = step("list", fs::read_dir(path))?.flatten().collect();
    if names.is_empty() {
        return Err(Refused { errno: 0, step: "nothing is in it".to_owned() });
    }
    Ok(format!("{} entries", names.len()))
}

/// Writes what is there already.
fn write_back(path: &str) -> Outcome {
    let text = step("read", fs::read_to_string(path))?;
    write(path, text.trim_end())
}

fn write(path: &str, text: &str) -> Outcome {
    let mut file = step("open", fs::OpenOptions::new().write(true).open(path))?;
    step("write", file.write_all(text.as_bytes()))?;
    Ok(format!("wrote {text}"))
}

fn open_for_writing(path: &str) -> Outcome {
    step("open", fs::OpenOptions::new().write(true).open(path))?;
    Ok("opened".to_owned())
}

/// A hierarchy of control groups of its own, whose emptiness would start a
/// program of the host's.
fn release_agent(name: &str) -> Outcome {
    mount("none", "/mnt", "cgroup", &format!("none,name={name}"))?;
    write("/mnt/release_agent", "/no/such/program")?;
    file("/mnt/release_agent")
}

/// Reads a file by way of a folder that was left open.
fn descriptor(fd: i32, name: &str) -> Outcome {
    let file = check("openat", sys::open_at(fd, name))?;
    // SAFETY: it was just opened, and nobody else has it.
    let mut file = unsafe { fs::File::from_raw_fd(file) };
    let mut text = String::new();
    step("read", file.read_to_string(&mut text))?;
    Ok(text)
}

/// Enters a mount namespace that was left open.
fn set_namespace(fd: i32, path: &str) -> Outcome {
    sys::set_namespace(fd)?;
    file(path)
}

/// What a container would be with chroot(2) alone.
fn jailed(jail: &str, path: &str) -> Outcome {
    step("chroot", std::os::unix::fs::chroot(jail))?;
    step("chdir", std::env::set_current_dir("/"))?;
    climb(path)
}

/// The old way out: a root below the working directory, and up.
fn climb(path: &str) -> Outcome {
    let _ = fs::create_dir("/tmp/below");
    step("chroot", std::os::unix::fs::chroot("/tmp/below"))?;
    for _ in 0..64 {
        step("chdir", std::env::set_current_dir(".."))?;
    }
    step("chroot", std::os::unix::fs::chroot("."))?;
    file(path)
}

fn abstract_socket(name: &str) -> Outcome {
    let address = step("address", SocketAddr::from_abstract_name(name))?;
    let mut stream = step("connect", UnixStream::connect_addr(&address))?;
    step("write", stream.write_all(b"from inside\n"))?;
    // It stays open until the end.
    let _ = stream.into_raw_fd();
    Ok("connected".to_owned())
}

/// Runs a program in a session with a key.
fn keyring_with(secret: &str, program: &[&str]) -> Outcome {
    sys::make_session_key(secret)?;
    match program {
        [] => sys::read_key(sys::SESSION, "session"),
        [path, arguments @ ..] => Err(sys::execute(path, arguments)),
    }
}

/// An ordinary user executes a program that would make it root.
fn gain(program: &str) -> Outcome {
    sys::become_user(1000)?;
    Err(sys::execute(program, &["effective-user"]))
}

fn kernel_symbols() -> Outcome {
    let text = step("read", fs::read_to_string("/proc/kallsyms"))?;
    let known = text.lines().find(|line| !line.starts_with("0000000000000000"));
    known.map(str::to_owned).ok_or(Refused { errno: 0, step: "all addresses are 0".to_owned() })
}
