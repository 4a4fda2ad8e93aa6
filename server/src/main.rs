//! The program `sqlrsync-server`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sqlrsync_server::allocator::keep_some();
    sqlrsync_server::cli::run(std::env::args_os())
}
