//! The command line of an OCI runtime, spelled as engines know it from runc
//! (<https://github.com/opencontainers/runc/tree/main/man>).

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// An OCI container runtime that adds nothing to a container: no daemon, no
/// helper process
///
/// For engines such as Podman and Docker, which call it instead of runc or
/// crun:
///
///   podman --runtime /usr/local/bin/unladen-oci --cgroup-manager=cgroupfs run ...
///
///   dockerd --add-runtime unladen=/usr/local/bin/unladen-oci
///   docker run --runtime unladen ...
#[derive(Debug, Parser)]
#[command(name = "unladen-oci", disable_version_flag = true, verbatim_doc_comment)]
pub(super) struct Cli {
    /// Folder of the containers' states
    /// [default: /run/unladen-oci, or $XDG_RUNTIME_DIR/unladen-oci without root]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,
    /// Also write errors and warnings to this file
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,
    /// Form of the lines in the log
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(super) log_format: LogFormat,
    /// Accepted and without effect: there is nothing more to tell
    #[arg(long, global = true)]
    pub(super) debug: bool,
    /// Refused: have the engine use its cgroupfs manager
    #[arg(long, global = true)]
    pub(super) systemd_cgroup: bool,
    /// Who makes cgroups; `systemd` is refused
    #[arg(long, global = true, value_name = "NAME", default_value = "cgroupfs")]
    pub(super) cgroup_manager: String,
    /// Accepted: whether a container needs privileges is in its configuration
    #[arg(long, global = true, value_name = "WHETHER", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value = "auto")]
    pub(super) rootless: Rootless,
    /// Print the version
    #[arg(short = 'v', long)]
    pub(super) version: bool,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// A line for a person
    Text,
    /// One JSON object a line: `level`, `msg`, `time`
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Rootless {
    True,
    False,
    Auto,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For a person
    #[default]
    Table,
    /// For a program
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a container, whose program then waits for `start`
    Create(CreateArgs),
    /// Start the program of a created container
    Start {
        /// The container
        id: String,
    },
    /// Create and start a container, wait for its end, and delete it
    Run {
        #[command(flatten)]
        create: CreateArgs,
        /// Neither wait nor delete
        #[arg(short, long)]
        detach: bool,
        /// Do not delete it
        #[arg(long)]
        keep: bool,
    },
    /// Print the state of a container
    State {
        /// The container
        id: String,
    },
    /// Send a signal to a container
    Kill {
        /// To all of its processes, not only the first
        #[arg(short, long)]
        all: bool,
        /// The container
        id: String,
        /// Name or number
        #[arg(default_value = "SIGTERM")]
        signal: String,
    },
    /// Delete a container
    Delete {
        /// Kill it first if it runs; a container that does not exist is no error
        #[arg(short, long)]
        force: bool,
        /// The container
        id: String,
    },
    /// Run one more process in a container
    Exec(Box<ExecArgs>),
    /// List the containers
    List {
        /// Form of the list
        #[arg(short, long, default_value = "table")]
        format: Format,
        /// Only names
        #[arg(short, long)]
        quiet: bool,
    },
    /// List the processes of a container
    Ps {
        /// Form of the list
        #[arg(short, long, default_value = "table")]
        format: Format,
        /// The container
        id: String,
        /// For `ps`, whose table is narrowed down [default: -ef]
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Stop all processes of a container for a while
    Pause {
        /// The container
        id: String,
    },
    /// Continue all processes of a paused container
    Resume {
        /// The container
        id: String,
    },
    /// Change limits of a container
    Update(Box<UpdateArgs>),
    /// Print what a container uses
    Events {
        /// Once, which is the only way here
        #[arg(long, required = true)]
        stats: bool,
        /// The container
        id: String,
    },
    /// Print what this runtime can do
    Features,
    /// Write a config.json to start from
    Spec {
        /// The folder to write it to
        #[arg(short, long, default_value = ".", value_name = "DIR")]
        bundle: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Folder of config.json and, usually, the root filesystem
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub(super) bundle: PathBuf,
    /// Unix socket to which the terminal is sent
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// Write the pid of the container's first process to this file
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// Refused: the host's root would stay in reach
    #[arg(long)]
    pub(super) no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub(super) no_new_keyring: bool,
    /// Hand on this many descriptors from number 3 on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) preserve_fds: u16,
    /// Name of the container
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// Take the process from this JSON file, as in config.json
    #[arg(short, long, value_name = "FILE")]
    pub(super) process: Option<PathBuf>,
    /// Write the pid of the process to this file
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// Unix socket to which the terminal is sent
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// Do not wait for its end
    #[arg(short, long)]
    pub(super) detach: bool,
    /// With a terminal of its own
    #[arg(short, long)]
    pub(super) tty: bool,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub(super) cwd: Option<PathBuf>,
    /// A variable, besides the container's
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(super) env: Vec<String>,
    /// User and group
    #[arg(short, long, value_name = "UID[:GID]")]
    pub(super) user: Option<String>,
    /// Supplementary groups
    #[arg(short = 'g', long, value_name = "GID")]
    pub(super) additional_gids: Vec<u32>,
    /// A capability besides the container's
    #[arg(short, long, value_name = "CAP")]
    pub(super) cap: Vec<String>,
    /// Never gain privileges
    #[arg(long)]
    pub(super) no_new_privs: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub(super) no_new_keyring: bool,
    /// Hand on this many descriptors from number 3 on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) preserve_fds: u16,
    /// The container
    pub(super) id: String,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    /// Take `linux.resources` from this JSON file, `-` for standard input
    #[arg(short, long, value_name = "FILE")]
    pub(super) resources: Option<PathBuf>,
    /// Bytes of memory, -1 for no limit
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    pub(super) memory: Option<i64>,
    /// Bytes of memory and swap together, -1 for no limit
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    pub(super) memory_swap: Option<i64>,
    /// Bytes of memory that are taken away last
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    pub(super) memory_reservation: Option<i64>,
    /// Microseconds of CPU time in a period, -1 for no limit
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    pub(super) cpu_quota: Option<i64>,
    /// Microseconds of a period
    #[arg(long, value_name = "US")]
    pub(super) cpu_period: Option<u64>,
    /// Share of CPU time under competition
    #[arg(long, value_name = "N")]
    pub(super) cpu_share: Option<u64>,
    /// CPUs that may be used
    #[arg(long, value_name = "LIST")]
    pub(super) cpuset_cpus: Option<String>,
    /// Memory nodes that may be used
    #[arg(long, value_name = "LIST")]
    pub(super) cpuset_mems: Option<String>,
    /// Processes and threads, -1 for no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) pids_limit: Option<i64>,
    /// The container
    pub(super) id: String,
}
