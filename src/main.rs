//! The command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    pgstream::cli::main()
}
