//! Completions and manual pages, from the command line's own definition.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap_complete::Shell;

use super::args::command;
use super::error::Error;

/// Prints completions for `shell`.
pub fn completions(shell: Shell) -> Result<ExitCode, Error> {
    clap_complete::generate(shell, &mut command(), "sqlrsync-server", &mut io::stdout());
    Ok(ExitCode::SUCCESS)
}

/// Writes a manual page for each command into `folder`, which is made where it is missing.
pub fn man(folder: &Path) -> Result<ExitCode, Error> {
    let written = std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(command(), folder));
    written.map_err(|source| Error::Pages { folder: folder.to_owned(), source })?;
    Ok(ExitCode::SUCCESS)
}
