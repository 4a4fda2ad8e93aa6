//! The program `sqlrsync-server`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sqlrsync_server::allocator::keep_some();
    sqlrsync_server::allocator::bound_sqlite();
    sqlrsync_server::cli::run()
}
