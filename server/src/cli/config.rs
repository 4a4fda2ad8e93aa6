//! `config show`, and where the configuration file and the data folder are.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ArgMatches;
use etcetera::BaseStrategy;

use super::args::Files;
use super::error::Error;
use crate::data_folder::DataFolder;
use crate::settings::{File, Given, Shown, Source};

/// Exit code where a setting cannot be used.
const USAGE: u8 = 2;

/// Reads the configuration file; an absent one says nothing, unless it was named.
pub fn read_file(files: &Files) -> Result<File, Error> {
    match file_path(files) {
        Some((path, named)) => Ok(File::read(&path, named)?.checked(&path)?),
        None => Ok(File::default()),
    }
}

/// The configuration file, and whether somebody named it.
fn file_path(files: &Files) -> Option<(PathBuf, bool)> {
    match &files.config {
        Some(path) => Some((path.clone(), true)),
        None => default_file().map(|path| (path, false)),
    }
}

/// The data folder: flag or environment over file over default.
pub fn data_path(files: &Files, file: &File) -> Result<PathBuf, Error> {
    match files.data.as_ref().or(file.data.as_ref()) {
        Some(path) => Ok(path.clone()),
        None => Ok(DataFolder::default_path()?),
    }
}

fn default_file() -> Option<PathBuf> {
    let base = etcetera::choose_base_strategy().ok()?;
    Some(base.config_dir().join("sqlrsync-server").join("config.toml"))
}

/// Prints each setting with its source, and what in the file is wrong and so does not count.
pub fn show(files: &Files, given: &Given, matches: &ArgMatches, json: bool) -> Result<ExitCode, Error> {
    let file = match file_path(files) {
        Some((path, named)) => File::read(&path, named)?,
        None => File::default(),
    };
    // The settings are those of the innermost command.
    let mut matches = matches;
    while let Some((_, inner)) = matches.subcommand() {
        matches = inner;
    }
    let data = Shown {
        name: "data",
        value: Some(data_path(files, &file)?.display().to_string()),
        source: data_source(files, &file, matches),
    };
    let mut out = io::stdout().lock();
    for shown in std::iter::once(data).chain(given.show(&file.given, matches)) {
        let source = shown.source.as_str();
        if json {
            let line = serde_json::json!({"name": shown.name, "value": shown.value, "source": source});
            writeln!(out, "{line}")?;
        } else {
            let value = shown.value.map_or("(not set)".to_owned(), |value| format!("{value:?}"));
            writeln!(out, "{} = {value}  # {source}", shown.name)?;
        }
    }
    for problem in &file.problems {
        let name = problem.name.as_deref().unwrap_or("the file");
        if json {
            let line =
                serde_json::json!({"name": name, "value": null, "source": "file", "wrong": problem.why});
            writeln!(out, "{line}")?;
        } else {
            writeln!(
                out,
                "# {name} in the file cannot be used: {}",
                problem.why.trim_end().replace('\n', "\n# ")
            )?;
        }
    }
    Ok(if file.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(USAGE) })
}

fn data_source(files: &Files, file: &File, matches: &ArgMatches) -> Source {
    match (&files.data, &file.data) {
        (Some(_), _) if matches.value_source("data") == Some(clap::parser::ValueSource::EnvVariable) => {
            Source::Environment
        }
        (Some(_), _) => Source::Flag,
        (None, Some(_)) => Source::File,
        (None, None) => Source::Default,
    }
}
