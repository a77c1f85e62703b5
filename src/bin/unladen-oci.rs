//! The `unladen-oci` command.

fn main() -> std::process::ExitCode {
    unladen::cli::oci::main()
}
