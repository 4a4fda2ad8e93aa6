//! The program `sqlrsync`. All it does is in the library: see [`sqlrsync::program`].

use std::process::ExitCode;

fn main() -> ExitCode {
    sqlrsync::program::main(std::env::args_os().collect())
}
