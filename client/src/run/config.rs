//! `config show`, `completions` and `man`: what the program says about itself.

use std::io::Write;
use std::path::Path;

use clap_complete::Shell;
use serde::Serialize;
use sqlrsync_protocol::text::printable;

use super::Run;
use crate::cli;
use crate::error::Error;
use crate::outcome::{print_json, print_line};
use crate::secrets::Secrets;
use crate::settings::{Problem, Settings};

/// One line of `config show --json`.
#[derive(Serialize)]
struct Row<'a> {
    setting: &'a str,
    value: &'a str,
    source: &'a str,
    /// Why it does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    wrong: Option<&'a str>,
}

/// Prints what holds, then what is set and cannot be used, and ends with the first of that.
pub fn show(run: &Run, settings: &Settings, problems: Vec<Problem>) -> Result<(), Error> {
    let mut rows: Vec<(&str, String, String)> =
        settings.rows().into_iter().map(|(name, value, source)| (name, value, source.to_string())).collect();
    for variable in ["SQLRSYNC_AUTH_TOKEN", "SQLRSYNC_ADMIN_KEY"] {
        let set = std::env::var_os(variable).is_some_and(|value| !value.is_empty());
        rows.push((variable, if set { "set" } else { "not set" }.to_owned(), "environment".to_owned()));
    }
    let secrets = run.folders.secrets_file();
    let stored = Secrets::read(&secrets)?.all().len();
    rows.push(("stored push keys", stored.to_string(), secrets.display().to_string()));
    rows.push(("config file", run.folders.config_file().display().to_string(), "XDG_CONFIG_HOME".to_owned()));
    rows.push(("state folder", run.folders.state().display().to_string(), "XDG_STATE_HOME".to_owned()));

    let width = |column: fn(&(&str, String, String)) -> usize| rows.iter().map(column).max().unwrap_or(0);
    let (names, values) = (width(|row| row.0.chars().count()), width(|row| row.1.chars().count()));
    for (setting, value, source) in &rows {
        if run.output.json {
            print_json(&Row { setting, value, source, wrong: None })?;
        } else {
            print_line(&format!("{setting:names$}  {:values$}  {}", printable(value), printable(source)))?;
        }
    }
    for problem in &problems {
        let setting = problem.name.as_deref().unwrap_or("the file");
        let (value, source, why) = (&problem.value, problem.source.to_string(), &problem.why);
        if run.output.json {
            print_json(&Row { setting, value, source: &source, wrong: Some(why) })?;
        } else {
            let (value, source, why) = (printable(value), printable(&source), printable(why));
            print_line(&format!("{setting:names$}  {value:values$}  {source}  cannot be used: {why}"))?;
        }
    }
    problems.into_iter().next().map_or(Ok(()), |problem| Err(problem.into_error()))
}

pub fn completions(shell: Shell) -> Result<(), Error> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "sqlrsync", &mut out);
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(&out).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Error::Output),
    }
}

pub fn man(folder: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(Error::file("make the folder", folder))?;
    let mut command = cli::command();
    command.build();
    clap_mangen::generate_to(command, folder).map_err(Error::file("write the pages into", folder))
}
