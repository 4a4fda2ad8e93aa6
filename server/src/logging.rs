//! Logs: structured, on standard error, so that standard output has only what scripts read.
//!
//! No key is ever in a log, whatever filter somebody gives. Our own crates see to that themselves; libraries print
//! whole frames and headers, keys and all, where they are asked for more than `info`, and so never are.

use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

use crate::settings::LogFormat;

/// What the names of our own crates begin with, and no library's.
const OWN_CRATES: &str = "sqlrsync";

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
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr())
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            lines.with_ansi(colour).boxed()
        }
        LogFormat::Json => lines.json().boxed(),
    };
    // An error says that a subscriber is set already, which is a test's or an embedding program's.
    let _ = tracing_subscriber::registry().with(parsed).with(filter_fn(may_be_logged)).with(lines).try_init();
    Ok(())
}

/// Ours at every level; of everybody else nothing finer than `info`.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO || metadata.target().starts_with(OWN_CRATES)
}
