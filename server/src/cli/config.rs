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

/// Reads the configuration file; an absent one says nothing, unless it was named.
pub fn read_file(files: &Files) -> Result<File, Error> {
    let (path, named) = match (&files.config, default_file()) {
        (Some(path), _) => (path.clone(), true),
        (None, Some(path)) => (path, false),
        (None, None) => return Ok(File::default()),
    };
    Ok(File::read(&path, named)?)
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

/// Prints each setting with its source.
pub fn show(files: &Files, given: &Given, matches: &ArgMatches, json: bool) -> Result<ExitCode, Error> {
    let file = read_file(files)?;
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
    Ok(ExitCode::SUCCESS)
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
