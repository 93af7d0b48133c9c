//! The command `sdpoint`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sdpoint_cli::run(std::env::args_os())
}
