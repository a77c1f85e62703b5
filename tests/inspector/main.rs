//! What a program sees of the container that it is in, as sorted text: one
//! fact a line, `name value`. It is compiled by the test that uses it, as one
//! static program, and run by several runtimes on the same bundle.
//!
//! Arguments: paths to look at closely (masked and read-only ones). At the end
//! it prints `end` and waits for the end of its input, so that somebody can
//! look at it from outside.
#![allow(clippy::print_stdout, reason = "it speaks to the test")]

use std::collections::BTreeSet;
use std::ffi::{CString, c_char, c_int, c_long};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

unsafe extern "C" {
    fn fork() -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn _exit(code: c_int) -> !;
    fn alarm(seconds: u32) -> u32;
    fn __errno_location() -> *mut c_int;
    fn gethostname(name: *mut c_char, len: usize) -> c_int;
    fn getdomainname(name: *mut c_char, len: usize) -> c_int;
    fn getsid(pid: c_int) -> c_int;
    fn getpgid(pid: c_int) -> c_int;
    fn getppid() -> c_int;
    fn getpriority(which: c_int, who: u32) -> c_int;
    fn sched_getscheduler(pid: c_int) -> c_int;
    fn prctl(operation: c_int, ...) -> c_int;
    fn isatty(fd: c_int) -> c_int;
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn read(fd: c_int, buffer: *mut u8, len: usize) -> isize;
    fn close(fd: c_int) -> c_int;
    fn mkdir(path: *const c_char, mode: u32) -> c_int;
    fn rmdir(path: *const c_char) -> c_int;
}

const O_WRONLY: c_int = 1;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    process();
    status();
    limits();
    mounts();
    descriptors();
    folder(Path::new("/dev"));
    for path in &arguments {
        closely(path);
    }
    for path in ["/", "/dev", "/dev/shm", "/tmp", "/proc", "/sys", "/dev/mqueue", "/dev/pts"] {
        writable(path);
    }
    network();
    for number in 0..MAX_NUMBER {
        verdict(number, &format!("syscall {number}"), [-1; 6]);
    }
    special_verdicts();
    println!("end");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn fact(name: &str, value: impl std::fmt::Display) {
    println!("{name} {value}");
}

fn errno() -> c_int {
    // SAFETY: the C library's own location for this thread.
    unsafe { *__errno_location() }
}

/// A kernel error as a word, or what it gave.
fn result(value: c_long) -> String {
    if value < 0 { format!("error {}", errno()) } else { "fine".to_owned() }
}

fn process() {
    fact("arguments", format!("{:?}", std::env::args().collect::<Vec<_>>()));
    for (index, (name, value)) in std::env::vars().enumerate() {
        fact(&format!("environment {index}"), format!("{name}={value}"));
    }
    fact(
        "cwd",
        std::env::current_dir().map_or_else(|e| e.to_string(), |p| p.display().to_string()),
    );
    let name = |get: unsafe extern "C" fn(*mut c_char, usize) -> c_int| {
        let mut buffer = [0_u8; 256];
        // SAFETY: the buffer is as long as said.
        unsafe { get(buffer.as_mut_ptr().cast(), buffer.len()) };
        let end = buffer.iter().position(|byte| *byte == 0).unwrap_or(0);
        String::from_utf8_lossy(&buffer[..end]).into_owned()
    };
    fact("hostname", name(gethostname));
    fact("domainname", name(getdomainname));
    // SAFETY: calls without pointers.
    unsafe {
        fact("pid", std::process::id());
        fact("ppid", getppid());
        fact("session", getsid(0));
        fact("group", getpgid(0));
        fact("nice", getpriority(0, 0));
        fact("scheduler", sched_getscheduler(0));
        fact("personality", syscall(NUMBER_PERSONALITY, 0xffff_ffff_u64));
        fact("ioprio", syscall(NUMBER_IOPRIO_GET, 1, 0));
        let mut signal: c_int = -1;
        prctl(2, std::ptr::from_mut(&mut signal));
        fact("parent death signal", signal);
        fact("dumpable", prctl(3, 0, 0, 0, 0));
        fact("keep capabilities", prctl(7, 0, 0, 0, 0));
        fact("securebits", prctl(27, 0, 0, 0, 0));
        fact("timer slack", prctl(30, 0, 0, 0, 0));
        fact("thp disable", prctl(42, 0, 0, 0, 0));
        fact("terminals", (0..3).map(|fd| isatty(fd).to_string()).collect::<String>());
    }
    fact("oom_score_adj", file("/proc/self/oom_score_adj"));
    fact("coredump_filter", file("/proc/self/coredump_filter"));
    fact("loginuid", file("/proc/self/loginuid"));
    fact("uid_map", words("/proc/self/uid_map"));
    fact("gid_map", words("/proc/self/gid_map"));
    for line in file("/proc/self/cgroup").lines() {
        let (_, rest) = line.split_once(':').unwrap_or(("", line));
        let (names, path) = rest.split_once(':').unwrap_or((rest, ""));
        fact(&format!("cgroup {names}"), path);
    }
    for name in ["exe", "root"] {
        let target = fs::read_link(format!("/proc/1/{name}"));
        fact(&format!("link {name}"), target.map_or_else(code, |t| t.display().to_string()));
    }
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter(|entry| entry.file_name().as_bytes()[0].is_ascii_digit()).count();
    fact("processes", pids);
}

fn code(error: std::io::Error) -> String {
    format!("error {}", error.raw_os_error().unwrap_or(0))
}

fn file(path: &str) -> String {
    fs::read_to_string(path).map_or_else(code, |text| text.trim_end().to_owned())
}

fn words(path: &str) -> String {
    file(path).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn status() {
    let wanted = [
        "Umask",
        "State",
        "Tgid",
        "Ngid",
        "Uid",
        "Gid",
        "Groups",
        "NStgid",
        "NSpid",
        "NSpgid",
        "NSsid",
        "SigPnd",
        "ShdPnd",
        "SigBlk",
        "SigIgn",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
        "Speculation_Store_Bypass",
        "SpeculationIndirectBranch",
        "Cpus_allowed",
        "Mems_allowed_list",
    ];
    for line in file("/proc/self/status").lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name == "SigIgn" {
            // Without the two that C libraries keep for themselves.
            let set = u64::from_str_radix(value.trim(), 16).unwrap_or(0) & !(3 << 31);
            fact("status SigIgn", format!("{set:x}"));
        } else if wanted.contains(&name) {
            fact(&format!("status {name}"), value.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
}

fn limits() {
    for line in file("/proc/self/limits").lines().skip(1) {
        fact("limit", line.split_whitespace().collect::<Vec<_>>().join(" "));
    }
}

/// Mounts without numbers: mount point, part of the filesystem, type, and
/// sorted options.
fn mounts() {
    let sorted = |options: &str| {
        let set: BTreeSet<&str> = options.split(',').collect();
        set.into_iter().collect::<Vec<_>>().join(",")
    };
    let mut lines: Vec<(String, String)> = file("/proc/self/mountinfo")
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            let propagation = left
                .get(6..)
                .unwrap_or_default()
                .iter()
                .map(|word| word.split(':').next().unwrap_or_default());
            let propagation = propagation.collect::<Vec<_>>().join(",");
            let text = format!(
                "root={} type={} source={} options={} super={} propagation={propagation}",
                left.get(3)?,
                right.first()?,
                right.get(1)?,
                sorted(left.get(5)?),
                sorted(right.get(2)?),
            );
            Some(((*left.get(4)?).to_owned(), text))
        })
        .collect();
    // Stable: what is stacked at one place stays in order.
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    for (point, text) in lines {
        fact(&format!("mount {point}"), text);
    }
}

fn descriptors() {
    let mut open: Vec<(u32, String)> = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let target = fs::read_link(entry.path()).ok()?.display().to_string();
            // Without inode numbers, and without the listing itself.
            let kind = target.split(":[").next().unwrap_or_default().to_owned();
            (!kind.starts_with("/proc/")).then_some((number, kind))
        })
        .collect();
    open.sort();
    for (number, kind) in open {
        fact(&format!("descriptor {number}"), kind);
    }
}

fn describe(path: &Path) -> String {
    let Ok(data) = fs::symlink_metadata(path) else { return "absent".to_owned() };
    let kind = data.file_type();
    let (word, more) = if kind.is_symlink() {
        ("link", fs::read_link(path).map_or_else(code, |target| target.display().to_string()))
    } else if kind.is_dir() {
        ("folder", String::new())
    } else if kind.is_char_device() {
        let device = data.rdev();
        ("characters", format!("{}:{}", device >> 8 & 0xfff, device & 0xff))
    } else if kind.is_block_device() {
        ("blocks", String::new())
    } else {
        ("file", String::new())
    };
    format!("{word} {:04o} {}:{} {more}", data.mode() & 0o7777, data.uid(), data.gid())
}

/// Everything below a folder.
fn folder(path: &Path) {
    fact(&format!("file {}", path.display()), describe(path));
    let mut names: Vec<_> =
        fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    names.sort();
    for name in names {
        // Not beyond a link.
        if fs::symlink_metadata(&name).is_ok_and(|data| data.is_dir()) {
            folder(&name);
        } else {
            fact(&format!("file {}", name.display()), describe(&name));
        }
    }
}

fn c(path: &str) -> CString {
    CString::new(path).unwrap_or_default()
}

/// Whether a path can be read and written, and whether it holds anything.
fn closely(path: &str) {
    let name = c(path);
    // SAFETY: a valid string, and a buffer as long as said. Nothing is written.
    unsafe {
        let mut buffer = [0_u8; 64];
        let fd = open(name.as_ptr(), 0x800);
        let opened = result(fd.into());
        let content = match fs::read_dir(path) {
            Ok(entries) => format!("{} entries", entries.count().min(1)),
            Err(_) if fd < 0 => String::new(),
            Err(_) => {
                let got = read(fd, buffer.as_mut_ptr(), buffer.len());
                format!(
                    "reads {}",
                    if got < 0 { result(got as c_long) } else { got.min(1).to_string() }
                )
            }
        };
        if fd >= 0 {
            close(fd);
        }
        let fd = open(name.as_ptr(), O_WRONLY);
        let written = result(fd.into());
        if fd >= 0 {
            close(fd);
        }
        fact(&format!("path {path}"), format!("opens {opened}; {content}; for writing {written}"));
        let is_folder = fs::metadata(path).is_ok_and(|data| data.is_dir());
        if is_folder {
            writable(path);
        }
    }
}

/// Whether something can be made in a folder.
fn writable(path: &str) {
    let name = c(&format!("{}/inspector", path.trim_end_matches('/')));
    // SAFETY: a valid string; what was made is removed.
    unsafe {
        let made = result(mkdir(name.as_ptr(), 0o700).into());
        rmdir(name.as_ptr());
        fact(&format!("mkdir in {path}"), made);
    }
}

fn network() {
    for line in file("/proc/net/dev").lines().skip(2) {
        let name = line.split(':').next().unwrap_or_default().trim();
        fact(&format!("interface {name}"), file(&format!("/sys/class/net/{name}/flags")));
    }
}

/// Beyond every number of this kernel generation.
const MAX_NUMBER: c_long = 500;
#[cfg(target_arch = "x86_64")]
const NUMBER_PERSONALITY: c_long = 135;
#[cfg(target_arch = "x86_64")]
const NUMBER_IOPRIO_GET: c_long = 252;
#[cfg(target_arch = "x86_64")]
const NUMBER_SOCKET: c_long = 41;
#[cfg(target_arch = "x86_64")]
const NUMBER_CLONE: c_long = 56;
#[cfg(target_arch = "x86_64")]
const NUMBER_UNSHARE: c_long = 272;
/// vfork returns twice on one stack; sync waits for the host's disks.
#[cfg(target_arch = "x86_64")]
const SKIPPED: [c_long; 2] = [58, 162];

#[cfg(target_arch = "aarch64")]
const NUMBER_PERSONALITY: c_long = 92;
#[cfg(target_arch = "aarch64")]
const NUMBER_IOPRIO_GET: c_long = 31;
#[cfg(target_arch = "aarch64")]
const NUMBER_SOCKET: c_long = 198;
#[cfg(target_arch = "aarch64")]
const NUMBER_CLONE: c_long = 220;
#[cfg(target_arch = "aarch64")]
const NUMBER_UNSHARE: c_long = 97;
/// sync waits for the host's disks.
#[cfg(target_arch = "aarch64")]
const SKIPPED: [c_long; 1] = [81];

/// Makes a system call in a child and says how it went. The arguments are
/// such that it can do nothing: bad pointers, bad descriptors, bad flags.
fn verdict(number: c_long, name: &str, arguments: [c_long; 6]) {
    if SKIPPED.contains(&number) {
        return;
    }
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the child makes one system call with arguments that refer to
    // none of its memory, and exits with what it gave. Some wait for ever.
    let status = unsafe {
        let child = fork();
        if child == 0 {
            alarm(1);
            let value = syscall(number, a, b, c, d, e, f);
            // 255 is what a refused exit would give.
            _exit(if value < 0 { errno().min(254) } else { 0 });
        }
        let mut status = 0;
        while waitpid(child, &raw mut status, 0) < 0 && errno() == 4 {}
        status
    };
    let signal = status & 0x7f;
    let text =
        if signal != 0 { format!("signal {signal}") } else { format!("{}", status >> 8 & 0xff) };
    fact(name, text);
}

/// Calls that a profile judges by their arguments.
fn special_verdicts() {
    for persona in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff, 1, 0x4_0000] {
        let arguments = [persona, 0, 0, 0, 0, 0];
        verdict(NUMBER_PERSONALITY, &format!("personality {persona:#x}"), arguments);
    }
    for family in [1, 2, 10, 16, 17, 38, 40, 44] {
        verdict(NUMBER_SOCKET, &format!("socket family {family}"), [family, 2, 0, 0, 0, 0]);
    }
    // Each namespace flag, with a flag beside it that the kernel refuses.
    let both = 0x0000_0200 | 0x0002_0000;
    for flag in
        [0x80, 0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000]
    {
        let refused = both | flag;
        verdict(NUMBER_CLONE, &format!("clone {flag:#x}"), [refused, 0, 0, 0, 0, 0]);
        verdict(NUMBER_UNSHARE, &format!("unshare {flag:#x}"), [flag, 0, 0, 0, 0, 0]);
    }
}
