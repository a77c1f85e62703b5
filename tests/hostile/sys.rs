//! System calls. Each function makes one, or a few that belong together.

use std::ffi::{CString, c_char, c_int, c_long, c_ulong, c_void};
use std::os::unix::process::CommandExt;
use std::ptr::null;

use crate::Outcome;
use crate::numbers as n;

/// What was refused, and how.
pub struct Refused {
    /// The kernel's number, or 0 when something just was not there.
    pub errno: i32,
    pub step: String,
}

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn mknod(path: *const c_char, mode: u32, device: u64) -> c_int;
    #[link_name = "mount"]
    fn c_mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
    fn umount2(target: *const c_char, flags: c_int) -> c_int;
    fn unshare(flags: c_int) -> c_int;
    fn fork() -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn setns(fd: c_int, kind: c_int) -> c_int;
    fn openat(fd: c_int, path: *const c_char, flags: c_int, ...) -> c_int;
    fn name_to_handle_at(
        fd: c_int,
        path: *const c_char,
        handle: *mut u8,
        mount: *mut c_int,
        flags: c_int,
    ) -> c_int;
    fn open_by_handle_at(mount: c_int, handle: *mut u8, flags: c_int) -> c_int;
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
    fn ptrace(request: c_int, pid: c_int, address: *const c_void, data: *const c_void) -> c_long;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn sethostname(name: *const c_char, len: usize) -> c_int;
    fn setresuid(real: u32, effective: u32, saved: u32) -> c_int;
    fn setresgid(real: u32, effective: u32, saved: u32) -> c_int;
    fn geteuid() -> u32;
    fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn setpriority(which: c_int, who: u32, value: c_int) -> c_int;
    pub fn shmget(key: c_int, size: usize, flags: c_int) -> c_int;
    pub fn shmat(id: c_int, address: *const c_void, flags: c_int) -> *mut c_void;
    pub fn shmctl(id: c_int, command: c_int, buffer: *mut c_void) -> c_int;
}

pub fn last(step: &str) -> Refused {
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    Refused { errno, step: step.to_owned() }
}

/// What a function of the standard library says.
pub fn step<T>(name: &str, result: std::io::Result<T>) -> Result<T, Refused> {
    result.map_err(|error| Refused {
        errno: error.raw_os_error().unwrap_or(0),
        step: name.to_owned(),
    })
}

/// What a function of the C library gave.
pub fn check<T: PartialOrd + Default>(name: &str, value: T) -> Result<T, Refused> {
    if value < T::default() { Err(last(name)) } else { Ok(value) }
}

pub fn c(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

pub fn make_node(path: &str, major: i32, minor: i32) -> Result<(), Refused> {
    let device = (major as u64) << 8 | minor as u64;
    // SAFETY: a valid string.
    check("mknod", unsafe { mknod(c(path).as_ptr(), 0o020_666, device) }).map(drop)
}

/// `MS_REMOUNT | MS_BIND`, without `MS_RDONLY`.
pub const REMOUNT_BIND: c_ulong = 32 | 4096;

pub fn mount(
    source: &str,
    target: &str,
    kind: &str,
    flags: c_ulong,
    data: &str,
) -> Result<(), Refused> {
    let texts = [source, target, kind, data].map(c);
    let [source, target, kind, data] = texts.each_ref().map(|text| text.as_ptr());
    // SAFETY: valid strings.
    check("mount", unsafe { c_mount(source, target, kind, flags, data.cast()) }).map(drop)
}

pub fn unmount(path: &str) -> Result<(), Refused> {
    // SAFETY: a valid string. 2 is MNT_DETACH.
    check("umount", unsafe { umount2(c(path).as_ptr(), 2) }).map(drop)
}

pub fn pivot_root(new: &str, old: &str) -> Result<(), Refused> {
    let (new, old) = (c(new), c(old));
    // SAFETY: valid strings.
    check("pivot_root", unsafe { syscall(n::PIVOT_ROOT, new.as_ptr(), old.as_ptr()) })?;
    step("chdir", std::env::set_current_dir("/"))
}

const NEWNS: c_int = 0x2_0000;
const NEWUSER: c_int = 0x1000_0000;
const NEWPID: c_int = 0x2000_0000;

/// Goes on in a child in user, mount and pid namespaces of its own; the parent
/// stays for its end.
pub fn nest() -> Result<(), Refused> {
    // SAFETY: calls without pointers into memory that anything else uses; this
    // program has one thread, so the child may go on.
    unsafe {
        check("unshare", unshare(NEWUSER | NEWNS | NEWPID))?;
        let child = check("fork", fork())?;
        if child > 0 {
            let mut status = 0;
            waitpid(child, &raw mut status, 0);
            std::process::exit(0);
        }
    }
    Ok(())
}

pub fn open_at(fd: i32, name: &str) -> i32 {
    // SAFETY: a valid string.
    unsafe { openat(fd, c(name).as_ptr(), 0) }
}

pub fn set_namespace(fd: i32) -> Result<(), Refused> {
    // SAFETY: no pointers.
    check("setns", unsafe { setns(fd, NEWNS) }).map(drop)
}

/// A file's handle in hexadecimal digits: length, type, bytes.
pub fn handle_of(path: &str) -> Outcome {
    let mut handle = [0_u8; 136];
    handle[0] = 128;
    let mut mount = 0;
    // SAFETY: a valid string, and a buffer as long as its first number says.
    let got = unsafe {
        name_to_handle_at(-100, c(path).as_ptr(), handle.as_mut_ptr(), &raw mut mount, 0)
    };
    check("name_to_handle_at", got)?;
    Ok(handle.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Opens a file by what the filesystem calls it, whatever root this is.
pub fn open_handle(text: &str) -> Outcome {
    let digits = text.as_bytes().chunks(2);
    let mut handle: Vec<u8> = digits
        .map(|two| u8::from_str_radix(&String::from_utf8_lossy(two), 16).unwrap_or(0))
        .collect();
    let root = check("open", open_at(-100, "/"))?;
    // SAFETY: a buffer as long as the first number in it says.
    let file = unsafe { open_by_handle_at(root, handle.as_mut_ptr(), 0) };
    let file = check("open_by_handle_at", file)?;
    crate::file(&format!("/proc/self/fd/{file}"))
}

/// `KEY_SPEC_SESSION_KEYRING` and `KEY_SPEC_USER_KEYRING`.
pub const SESSION: c_long = -3;
pub const USER: c_long = -4;
const KEY_KIND: *const u8 = c"user".as_ptr().cast();

fn key_name(name: &str) -> CString {
    c(&format!("unladen-hostile-{name}"))
}

/// Puts a key into a keyring.
fn add_key(keyring: c_long, name: &str, secret: &str) -> Result<c_long, Refused> {
    let (name, payload) = (key_name(name), secret.as_ptr());
    // SAFETY: valid strings, and a length as long as said.
    check("add_key", unsafe {
        syscall(n::ADD_KEY, KEY_KIND, name.as_ptr(), payload, secret.len(), keyring)
    })
}

/// A new session keyring with a key in it.
pub fn make_session_key(secret: &str) -> Result<(), Refused> {
    // SAFETY: a null pointer. KEYCTL_JOIN_SESSION_KEYRING.
    check("keyctl", unsafe { syscall(n::KEYCTL, 1_i64, null::<u8>()) })?;
    add_key(SESSION, "session", secret).map(drop)
}

/// A key of the user's, wherever the user is logged in; it goes by itself
/// after a minute.
pub fn add_user_key(name: &str, secret: &str) -> Outcome {
    let key = add_key(USER, name, secret)?;
    // SAFETY: no pointers. KEYCTL_SET_TIMEOUT.
    check("timeout", unsafe { syscall(n::KEYCTL, 15_i64, key, 60_i64) })?;
    Ok(format!("key {key}"))
}

fn search(keyring: c_long, name: &str) -> Result<c_long, Refused> {
    let name = key_name(name);
    // SAFETY: valid strings. KEYCTL_SEARCH.
    let found = unsafe { syscall(n::KEYCTL, 10_i64, keyring, KEY_KIND, name.as_ptr(), 0_i64) };
    check("search", found)
}

pub fn remove_user_key(name: &str) -> Outcome {
    let key = search(USER, name)?;
    // SAFETY: no pointers. KEYCTL_UNLINK.
    check("unlink", unsafe { syscall(n::KEYCTL, 9_i64, key, USER) })?;
    Ok("removed".to_owned())
}

/// Looks for a key and reads it.
pub fn read_key(keyring: c_long, name: &str) -> Outcome {
    let key = search(keyring, name)?;
    let mut buffer = [0_u8; 64];
    // SAFETY: a buffer as long as said. KEYCTL_READ.
    let got = unsafe { syscall(n::KEYCTL, 11_i64, key, buffer.as_mut_ptr(), buffer.len()) };
    let got = check("read", got)?;
    Ok(String::from_utf8_lossy(&buffer[..(got as usize).min(64)]).into_owned())
}

/// Becomes another program; comes back only when that is refused.
pub fn execute(path: &str, arguments: &[&str]) -> Refused {
    let error = std::process::Command::new(path).args(arguments).exec();
    Refused { errno: error.raw_os_error().unwrap_or(0), step: "execve".to_owned() }
}

pub fn become_user(id: u32) -> Result<(), Refused> {
    // SAFETY: no pointers.
    unsafe {
        check("setresgid", setresgid(id, id, id))?;
        check("setresuid", setresuid(id, id, id)).map(drop)
    }
}

/// Types a letter into somebody's terminal (`TIOCSTI`).
pub fn type_into(fd: i32) -> Outcome {
    let letter = b'x';
    // SAFETY: a pointer to one byte.
    check("ioctl", unsafe { ioctl(fd, 0x5412, &raw const letter) })?;
    Ok("typed".to_owned())
}

/// Attacks that are one system call.
pub fn call(name: &str, rest: &[&str]) -> Outcome {
    let number = |at: usize| rest.get(at).and_then(|text| text.parse::<i64>().ok()).unwrap_or(-1);
    let nothing = null::<c_void>();
    let absent = c("/no/such/file");
    // SAFETY: pointers are null, or to strings and buffers that outlive the
    // call and are as long as it is told.
    let value: c_long = unsafe {
        match name {
            // PTRACE_SEIZE
            "ptrace" => ptrace(0x4206, number(0) as c_int, nothing, nothing),
            "read-memory" => return read_memory(number(0), number(1), number(2)),
            "kill" => kill(number(0) as c_int, 9).into(),
            "host-name" => sethostname(rest[0].as_ptr().cast(), rest[0].len()).into(),
            "time-zone" => return time_zone(),
            "clock" => return clock(),
            "module" => syscall(n::INIT_MODULE, nothing, 0_i64, c("").as_ptr()),
            "kexec" => syscall(n::KEXEC_LOAD, 0_i64, 0_i64, nothing, 0_i64),
            // A map of the kind LRU_HASH, 4 bytes to 4 bytes, one entry.
            "bpf" => syscall(n::BPF, 0_i64, [9_u32, 4, 4, 1, 0].as_ptr(), 20_i64),
            "userfaultfd" => syscall(n::USERFAULTFD, 0_i64),
            "perf" => perf(),
            "io-uring" => syscall(n::IO_URING_SETUP, 1_i64, [0_u8; 120].as_mut_ptr()),
            "reboot" => syscall(n::REBOOT, 1_i64, 2_i64, 3_i64, nothing),
            "swap" => syscall(n::SWAPON, absent.as_ptr(), 0_i64),
            "accounting" => syscall(n::ACCT, absent.as_ptr()),
            // Q_SYNC of user quotas everywhere.
            "quota" => syscall(n::QUOTACTL, 0x8000_0100_u64, nothing, 0_i64, nothing),
            "ports" => syscall(n::IOPL, 3_i64),
            // ADDR_NO_RANDOMIZE
            "personality" => syscall(n::PERSONALITY, 0x4_0000_i64),
            // The level of messages on the console, to no level.
            "log" => syscall(n::SYSLOG, 8_i64, nothing, 0_i64),
            "compare" => syscall(n::KCMP, number(0), number(0), 1_i64, 0_i64, 0_i64),
            "watch-files" => syscall(n::FANOTIFY_INIT, 0_i64, 0_i64),
            // AF_PACKET, SOCK_RAW
            "packets" => socket(17, 3, 0).into(),
            "hurry" => setpriority(0, 0, -10).into(),
            "mtu" => return set_mtu(number(0) as i32),
            "shared-memory" => return shared_memory(),
            "effective-user" => return effective_user(),
            _ => return Err(Refused { errno: 0, step: format!("no attack {name}") }),
        }
    };
    check(name, value).map(|value| format!("gave {value}"))
}

/// Counts what a whole processor does, whoever uses it.
unsafe fn perf() -> c_long {
    // Type 1 (software), size 112, event 0 (clock).
    let mut event = [0_u8; 112];
    event[0] = 1;
    event[4] = 112;
    // SAFETY: a structure as long as it says.
    unsafe { syscall(n::PERF_EVENT_OPEN, event.as_ptr(), -1_i64, 0_i64, -1_i64, 0_i64) }
}

fn read_memory(pid: i64, address: i64, len: i64) -> Outcome {
    let mut buffer = vec![0_u8; len.clamp(0, 4096) as usize];
    let own = [buffer.as_mut_ptr() as usize, buffer.len()];
    let theirs = [address as usize, buffer.len()];
    let call = n::PROCESS_VM_READV;
    // SAFETY: two lists with one entry, of which the own one is a buffer.
    let got = unsafe { syscall(call, pid, own.as_ptr(), 1_i64, theirs.as_ptr(), 1_i64, 0_i64) };
    check("process_vm_readv", got)?;
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}

/// Sets the kernel's time zone to what it is.
fn time_zone() -> Outcome {
    let mut zone = [0_i32; 2];
    // SAFETY: no time, and a zone.
    unsafe {
        let call = syscall(n::GETTIMEOFDAY, null::<u8>(), zone.as_mut_ptr());
        check("gettimeofday", call)?;
        check("settimeofday", syscall(n::SETTIMEOFDAY, null::<u8>(), zone.as_ptr()))?;
    }
    Ok("set".to_owned())
}

/// Sets the length of the clock's tick to what it is.
fn clock() -> Outcome {
    // struct timex, and the place of `tick` in it.
    let mut state = [0_i64; 26];
    // SAFETY: a buffer as long as the structure; modes 0 only read.
    unsafe {
        check("read the clock", syscall(n::ADJTIMEX, state.as_mut_ptr()))?;
        // ADJ_TICK
        state[0] = 0x4000;
        check("adjtimex", syscall(n::ADJTIMEX, state.as_mut_ptr()))?;
    }
    Ok("set".to_owned())
}

/// `struct ifreq` of the loopback interface.
fn loopback() -> [u8; 40] {
    let mut request = [0; 40];
    request[..2].copy_from_slice(b"lo");
    request
}

fn set_mtu(value: i32) -> Outcome {
    let mut request = loopback();
    request[16..20].copy_from_slice(&value.to_ne_bytes());
    // SAFETY: a buffer as long as the structure. SIOCSIFMTU.
    unsafe {
        let socket = check("socket", socket(2, 2, 0))?;
        check("ioctl", ioctl(socket, 0x8922, request.as_ptr()))?;
    }
    Ok(format!("set {value}"))
}

pub fn mtu() -> i32 {
    let mut request = loopback();
    // SAFETY: a buffer as long as the structure. SIOCGIFMTU.
    unsafe { ioctl(socket(2, 2, 0), 0x8921, request.as_mut_ptr()) };
    i32::from_ne_bytes([request[16], request[17], request[18], request[19]])
}

/// The key of the victim's System V memory.
pub const SHARED: c_int = 0x0bad_cafe;

fn shared_memory() -> Outcome {
    let mut buffer = [0_u8; 64];
    // SAFETY: the segment is at least as long as the buffer.
    unsafe {
        let id = check("shmget", shmget(SHARED, 0, 0))?;
        let memory = shmat(id, null(), 0o10000);
        if memory.addr() == usize::MAX {
            return Err(last("shmat"));
        }
        std::ptr::copy_nonoverlapping(memory.cast::<u8>(), buffer.as_mut_ptr(), buffer.len());
    }
    let end = buffer.iter().position(|byte| *byte == 0).unwrap_or(buffer.len());
    Ok(String::from_utf8_lossy(&buffer[..end]).into_owned())
}

fn effective_user() -> Outcome {
    // SAFETY: no pointers.
    let user = unsafe { geteuid() };
    if user == 0 {
        return Ok("root".to_owned());
    }
    Err(Refused { errno: 0, step: format!("still user {user}") })
}

/// Host name, network and System V memory of its own.
pub fn step_aside() -> Result<(), Refused> {
    // SAFETY: no pointers. CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWNET.
    check("unshare", unsafe { unshare(0x400_0000 | 0x800_0000 | 0x4000_0000) }).map(drop)
}

pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
