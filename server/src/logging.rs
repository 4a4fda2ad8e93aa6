//! Logs: structured, on standard error, so that standard output has only what scripts read.

use tracing_subscriber::EnvFilter;

use crate::settings::LogFormat;

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is none.
    #[error(
        "--log {filter:?} is no filter: {problem}. Write for example info, or info,sqlrsync_server=debug"
    )]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Starts logging; a program that logs already goes on as it did.
///
/// # Errors
/// [`Error::Filter`].
pub fn start(filter: &str, format: LogFormat) -> Result<(), Error> {
    let parsed = EnvFilter::try_new(filter)
        .map_err(|problem| Error::Filter { filter: filter.to_owned(), problem: problem.to_string() })?;
    let logs = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr);
    // An error says that a subscriber is set already, which is a test's or an embedding program's.
    let _ = match format {
        LogFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr())
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            logs.with_ansi(colour).try_init()
        }
        LogFormat::Json => logs.json().try_init(),
    };
    Ok(())
}
