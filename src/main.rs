//! The `unladen` command.

fn main() -> std::process::ExitCode {
    unladen::cli::main().into()
}
