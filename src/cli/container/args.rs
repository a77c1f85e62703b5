//! The command line of `container run`.

use std::path::{Path, PathBuf};

use clap::{ArgAction, ArgGroup, Args, Subcommand, ValueEnum};
use oci_spec::runtime::{Capability, Mount, PosixRlimit};

use crate::cli::exit::Exit;
use crate::container::cgroup::CpuQuota;
use crate::container::{capability, resource_limit, temporary, volume};
use crate::units::Bytes;

/// Arguments of `container`.
#[derive(Debug, Args)]
pub struct ContainerArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ContainerCommand,
}

/// What can be done with containers.
#[derive(Debug, Subcommand)]
pub enum ContainerCommand {
    /// Run a command in a new container, to its end
    Run(Box<RunArgs>),
}

/// Run a command in a new container, to its end
///
/// The command is process 1 inside, with this program's own standard input,
/// output and error. Signals are passed on to it; killing this program with
/// SIGKILL kills the container. As process 1 the command has no default
/// action for signals: one that it does not handle is dropped by the kernel.
#[derive(Debug, Args)]
#[command(
    after_long_help = Exit::container_help(),
    group = ArgGroup::new("source").required(true),
    override_usage = "unladen container run [OPTIONS] <--rootfs DIR | --image IMAGE> [--] CMD [ARG]...\n       \
                      unladen container run --bundle DIR"
)]
pub struct RunArgs {
    /// Root filesystem: a folder. The container writes into it, unless
    /// --overlay or --readonly is given
    #[arg(long, value_name = "DIR", group = "source")]
    pub rootfs: Option<PathBuf>,
    /// Root filesystem: an image, as an OCI layout folder or archive or a
    /// docker-archive; writable, changes are dropped at the end
    #[arg(long, value_name = "PATH[:REF]", group = "source")]
    pub image: Option<String>,
    /// A folder with an OCI runtime configuration (config.json), which says
    /// everything else
    #[arg(long, value_name = "DIR", group = "source", conflicts_with_all = [
        "overlay", "readonly", "memory", "swap", "cpus", "pids", "net", "user", "rootless", "volume", "tmpfs", "device",
        "env", "env_file", "workdir", "hostname", "seccomp", "cap_add", "cap_drop", "no_new_privileges",
        "ulimit", "oom_score_adj", "tty", "command"
    ])]
    pub bundle: Option<PathBuf>,
    /// Drop all changes of the root filesystem at the end; they are kept in
    /// memory and count as the container's
    #[arg(long, conflicts_with = "readonly")]
    pub overlay: bool,
    /// Let nobody change the root filesystem
    #[arg(long)]
    pub readonly: bool,
    /// Limit of memory, such as 64M
    #[arg(short, long, value_name = "SIZE", value_parser = memory)]
    pub memory: Option<Bytes>,
    /// Limit of swap besides memory; 0 allows none
    #[arg(long, value_name = "SIZE", requires = "memory")]
    pub swap: Option<Bytes>,
    /// Limit of processor time, in processors, such as 0.5
    #[arg(long, value_name = "N", value_parser = processors)]
    pub cpus: Option<CpuQuota>,
    /// Limit of the number of processes and threads
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub pids: Option<u64>,
    /// Network
    #[arg(long, value_enum, default_value = "loopback")]
    pub net: Net,
    /// User, and group, as numbers or as the container's files name them
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Make a user namespace in which you are the command's user; needs no
    /// privileges, and is what happens anyway when you are not root
    #[arg(long)]
    pub rootless: bool,
    /// A file or folder of the host inside the container (repeatable)
    #[arg(short, long, value_name = "SRC:DST[:ro]", value_parser = parse_volume)]
    pub volume: Vec<Mount>,
    /// An empty filesystem in memory (repeatable)
    #[arg(long, value_name = "DST[:OPTIONS]", value_parser = parse_temporary)]
    pub tmpfs: Vec<Mount>,
    /// A device of the host, and what the command may do with it: read,
    /// write, make nodes; needs root (repeatable)
    #[arg(long, value_name = "HOST[:DST[:rwm]]", value_parser = parse_device)]
    pub device: Vec<DeviceArg>,
    /// A variable of the environment; without a value it is passed on
    /// (repeatable)
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = variable)]
    pub env: Vec<String>,
    /// A file with such variables, one a line (repeatable)
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// The folder in which the command starts
    #[arg(short, long, value_name = "DIR", value_parser = absolute)]
    pub workdir: Option<PathBuf>,
    /// Host name inside
    #[arg(long, value_name = "NAME", default_value = "unladen", value_parser = hostname)]
    pub hostname: String,
    /// Filter of system calls: `default`, `none`, or a profile in Docker's format
    #[arg(long, value_name = "FILE", default_value = "default")]
    pub seccomp: String,
    /// Give a capability, or ALL (repeatable)
    #[arg(long, value_name = "CAP", value_parser = parse_capability)]
    pub cap_add: Vec<CapabilityArg>,
    /// Take a capability away, or ALL (repeatable)
    #[arg(long, value_name = "CAP", value_parser = parse_capability)]
    pub cap_drop: Vec<CapabilityArg>,
    /// Whether no program inside can ever gain privileges
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value = "true", default_missing_value = "true")]
    pub no_new_privileges: bool,
    /// A limit of each process, such as nofile=1024 (repeatable)
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = parse_ulimit)]
    pub ulimit: Vec<PosixRlimit>,
    /// Adjust whom the kernel kills for lack of memory, from -1000 (never) to 1000
    #[arg(long, value_name = "N", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub oom_score_adj: Option<i32>,
    /// Give the command a terminal of its own
    #[arg(short, long)]
    pub tty: bool,
    /// Accepted for habit: standard input is always the command's
    #[arg(short, long)]
    pub interactive: bool,
    /// Print the OCI runtime configuration (config.json) instead of running it
    #[arg(long)]
    pub print_spec: bool,
    /// The command and its arguments (default for an image: its own)
    #[arg(value_name = "CMD", trailing_var_arg = true)]
    pub command: Vec<String>,
}

/// A network on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Net {
    /// A network of its own with nothing but the loopback interface.
    #[value(alias = "none")]
    Loopback,
    /// The host's network.
    Host,
    /// An address on a bridge that the host reaches.
    Bridge,
}

/// A device on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceArg {
    /// Its path on the host.
    pub host: PathBuf,
    /// Its path in the container.
    pub inside: PathBuf,
    /// Made of `r`, `w` and `m`.
    pub access: String,
}

/// One capability, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapabilityArg {
    /// All of them.
    All,
    /// This one.
    One(Capability),
}

/// A size that is one: without any memory nothing can start.
fn memory(text: &str) -> Result<Bytes, String> {
    match text.parse() {
        Ok(Bytes(0)) => Err("nothing can start without memory".to_owned()),
        other => other.map_err(|error: crate::units::SizeError| error.to_string()),
    }
}

/// Length of a period in microseconds, the kernel's default
/// (Documentation/scheduler/sched-bwc.rst).
const PERIOD_US: u64 = 100_000;

/// Processors such as `2` or `0.5`.
fn processors(text: &str) -> Result<CpuQuota, String> {
    let error = || format!("`{text}` is no number of processors such as 2 or 0.5, at least 0.01");
    let (units, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if fraction.is_empty() || fraction.len() > 5 || !digits(fraction) || !digits(units) {
        return Err(error());
    }
    let units: u64 = if units.is_empty() { Ok(0) } else { units.parse() }.map_err(|_| error())?;
    // Five decimals of a processor are microseconds in a period.
    let fraction: u64 = format!("{fraction:0<5}").parse().map_err(|_| error())?;
    let whole = units.checked_mul(PERIOD_US).and_then(|whole| whole.checked_add(fraction));
    match whole {
        // The kernel takes no less than a millisecond.
        Some(quota_us) if quota_us >= 1000 => Ok(CpuQuota { quota_us, period_us: PERIOD_US }),
        _ => Err(error()),
    }
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err(format!("`{text}` is not an absolute path")) }
}

fn parse_volume(text: &str) -> Result<Mount, String> {
    let mut parts = text.split(':');
    let (source, destination) = match (parts.next(), parts.next()) {
        (Some(source), Some(destination)) if !source.is_empty() => (source, destination),
        _ => return Err(format!("`{text}` is not SRC:DST or SRC:DST:ro")),
    };
    let readonly = match (parts.next(), parts.next()) {
        (None | Some("rw"), None) => false,
        (Some("ro"), None) => true,
        _ => return Err(format!("`{text}` may end in `:ro` or `:rw` and nothing else")),
    };
    if !source.contains('/') && !matches!(source, "." | "..") {
        return Err(format!(
            "`{source}` would be a volume's name; for a folder write `./{source}`"
        ));
    }
    let source =
        std::path::absolute(Path::new(source)).map_err(|error| format!("`{source}`: {error}"))?;
    Ok(volume(&source, &absolute(destination)?, readonly))
}

fn parse_device(text: &str) -> Result<DeviceArg, String> {
    let mut parts = text.split(':');
    let host = absolute(parts.next().unwrap_or_default())?;
    let inside = parts.next().map(absolute).transpose()?.unwrap_or_else(|| host.clone());
    let access = parts.next().unwrap_or("rwm").to_owned();
    let once = |letter: char| access.matches(letter).count() == 1 && "rwm".contains(letter);
    if access.is_empty() || !access.chars().all(once) || parts.next().is_some() {
        return Err(format!("`{text}` may end in some of the letters `rwm` and nothing else"));
    }
    Ok(DeviceArg { host, inside, access })
}

fn parse_temporary(text: &str) -> Result<Mount, String> {
    let (destination, options) = text.split_once(':').unwrap_or((text, ""));
    let options: Vec<String> = options.split(',').map(str::to_owned).collect();
    Ok(temporary(&absolute(destination)?, &options))
}

/// A variable: what has no `=` is only a name.
fn variable(text: &str) -> Result<String, String> {
    match text.split('=').next() {
        Some(name) if !name.is_empty() => Ok(text.to_owned()),
        _ => Err(format!("`{text}` has no name before the `=`")),
    }
}

fn hostname(text: &str) -> Result<String, String> {
    // `__NEW_UTS_LEN` in include/uapi/linux/utsname.h.
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if text.is_empty() || text.len() > 64 || !text.bytes().all(fine) {
        return Err(format!("`{text}` is no host name: up to 64 letters, digits, `-`, `_`, `.`"));
    }
    Ok(text.to_owned())
}

fn parse_capability(text: &str) -> Result<CapabilityArg, String> {
    if text.eq_ignore_ascii_case("ALL") {
        return Ok(CapabilityArg::All);
    }
    let error = || format!("`{text}` is no capability such as NET_RAW (capabilities(7)), nor ALL");
    capability(text).map(CapabilityArg::One).ok_or_else(error)
}

fn parse_ulimit(text: &str) -> Result<PosixRlimit, String> {
    let error = || format!("`{text}` is not a limit such as nofile=1024 or nofile=1024:4096");
    let (name, values) = text.split_once('=').ok_or_else(error)?;
    let number = |text: &str| match text {
        "unlimited" | "-1" => Some(u64::MAX),
        number => number.parse().ok(),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = number(soft).zip(number(hard)).ok_or_else(error)?;
    if soft > hard {
        return Err(format!("`{text}`: the first number may not be above the second"));
    }
    let unknown = || format!("`{name}` is no limit of processes such as nofile (ulimit -a)");
    resource_limit(name, soft, hard).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_become_microseconds() {
        let quota = |text| processors(text).map(|quota| quota.quota_us);
        assert_eq!(quota("1"), Ok(100_000));
        assert_eq!(quota("0.5"), Ok(50_000));
        assert_eq!(quota(".25"), Ok(25_000));
        assert_eq!(quota("2.00001"), Ok(200_001));
        for bad in ["", "0", "x", "1.", "-1", "0.001", "1.234567", "99999999999999999999", "1e3"] {
            assert!(processors(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn volumes_are_paths() {
        let mount = parse_volume("/a:/b:ro").expect("fine");
        assert_eq!(mount.destination(), Path::new("/b"));
        assert!(mount.options().as_ref().is_some_and(|words| words.contains(&"rro".to_owned())));
        let here = parse_volume("./x:/b").expect("fine");
        assert!(here.source().as_ref().is_some_and(|path| path.is_absolute()));
        for bad in ["/a", "", ":/b", "name:/b", "/a:b", "/a:/b:rx", "/a:/b:ro:z"] {
            assert!(parse_volume(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn devices_have_a_place_and_rights() {
        let device = |text| parse_device(text).map(|device| (device.inside, device.access));
        assert_eq!(device("/dev/a"), Ok(("/dev/a".into(), "rwm".to_owned())));
        assert_eq!(device("/dev/a:/dev/b:rw"), Ok(("/dev/b".into(), "rw".to_owned())));
        for bad in ["", "a", "/a:b", "/a:", "/a:/b:", "/a:/b:x", "/a:/b:rr", "/a:/b:r:w"] {
            assert!(parse_device(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_of_processes_have_one_or_two_numbers() {
        let limit = parse_ulimit("nofile=10:20").expect("fine");
        assert_eq!((limit.soft(), limit.hard()), (10, 20));
        let limit = parse_ulimit("core=unlimited").expect("fine");
        assert_eq!((limit.soft(), limit.hard()), (u64::MAX, u64::MAX));
        for bad in ["nofile", "nofile=", "files=3", "nofile=20:10", "nofile=a:b"] {
            assert!(parse_ulimit(bad).is_err(), "{bad}");
        }
    }
}
