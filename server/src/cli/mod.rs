//! The command line: what can be typed, and which command runs it.

mod admin;
mod args;
mod config;
mod docs;
mod error;
mod serve;
mod store;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::FromArgMatches;

use crate::allocator;
use crate::data_folder::{self, DataFolder};
use args::{Cli, Command, ConfigCommand, KeyCommand, NamespaceCommand};
use error::Error;

/// Runs the program on these words, of which the first is its name; with what it needs of memory, all of `main`.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    allocator::bound_sqlite();
    let matches = args::command().get_matches_from(words);
    let outcome = match Cli::from_arg_matches(&matches) {
        Ok(cli) => act(cli, &matches),
        Err(error) => error.exit(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sqlrsync-server: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn act(cli: Cli, matches: &clap::ArgMatches) -> Result<ExitCode, Error> {
    let files = &cli.files;
    match cli.command {
        Command::Serve(given) => serve::serve(files, given),
        Command::Key(command @ KeyCommand::Create(_)) => admin::key(&folder(files)?, command),
        Command::Key(command) => admin::key(&existing_folder(files)?, command),
        Command::Namespace(command @ NamespaceCommand::Create { .. }) => {
            admin::namespace(&folder(files)?, command)
        }
        Command::Namespace(command) => admin::namespace(&existing_folder(files)?, command),
        Command::Replica(command) => admin::replica(&existing_folder(files)?, command),
        Command::Check { json } => store::check(&existing_folder(files)?, json),
        Command::Sweep { json } => store::sweep(&existing_folder(files)?, json),
        Command::Config(ConfigCommand::Show { given, json }) => config::show(files, &given, matches, json),
        Command::Completions { shell } => docs::completions(shell),
        Command::Man { folder } => docs::man(&folder),
    }
}

/// The data folder of the commands that make something in one. Keys can be made before the first start, in a folder
/// that somebody made for it and that has nothing in it yet; one that is not there, or is something else, is a mistyped
/// name, and a key in it would open nothing.
fn folder(files: &args::Files) -> Result<DataFolder, Error> {
    let file = config::read_file(files)?;
    let folder = DataFolder::open(&config::data_path(files, &file)?)?;
    if folder.is_empty()? { Ok(folder) } else { with_data(folder) }
}

/// The data folder of the commands that look into one. A folder that is something else has nothing to be
/// shown or proved, and neither "no keys" nor "nothing is damaged" would be an answer.
fn existing_folder(files: &args::Files) -> Result<DataFolder, Error> {
    let file = config::read_file(files)?;
    with_data(DataFolder::open(&config::data_path(files, &file)?)?)
}

fn with_data(folder: DataFolder) -> Result<DataFolder, Error> {
    if folder.holds_data()? {
        Ok(folder)
    } else {
        Err(data_folder::Error::Missing(folder.path().to_owned()).into())
    }
}
