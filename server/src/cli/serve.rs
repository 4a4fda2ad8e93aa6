//! `serve`: runs a server until it is told to stop.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use super::args::Files;
use super::config;
use super::error::Error;
use crate::descriptors;
use crate::first_start::FirstKey;
use crate::logging;
use crate::server::{Config, Server};
use crate::settings::Given;

/// Serves until SIGTERM or SIGINT.
pub fn serve(files: &Files, given: Box<Given>) -> Result<ExitCode, Error> {
    let file = config::read_file(files)?;
    let data = config::data_path(files, &file)?;
    let settings = given.over(file.given);
    settings.check()?;
    logging::start(&settings.log, settings.log_format)?;
    let runtime = runtime()?;
    let outcome = runtime.block_on(run(Config { data, settings }));
    // What is still running after the promised time is not waited for: a commit that was not
    // acknowledged is whole or not there, whenever the process ends.
    runtime.shutdown_background();
    outcome.map(|()| ExitCode::SUCCESS)
}

/// The runtime of the edges; what blocks has threads of its own.
pub fn runtime() -> Result<Runtime, Error> {
    Ok(Builder::new_multi_thread().enable_all().thread_name("edge").build()?)
}

async fn run(config: Config) -> Result<(), Error> {
    // Before anything is served, so that no signal is missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    descriptors::raise(config.settings.connections_max);
    let data = config.data.clone();
    let mut server = Server::start(config).await?;
    // Merges may need gigabytes, and the system's folder for them be in memory.
    if let Err(error) = sqlrsync_database::keep_temporary_files_in(server.temporary()) {
        tracing::warn!(%error, folder = %server.temporary().display(), "temporary files go where the system has them");
    }
    if let Some(first) = server.take_first_key() {
        welcome(&first, &data, &server.url());
    }
    announce(&server.url())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => server.reload_tls(),
        }
    }
    server.shutdown().await;
    Ok(())
}

/// The one line of standard output, for scripts that wait for it.
fn announce(url: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {url}")?;
    out.flush()
}

/// What the first start says, once. The key goes to a terminal and nowhere else: where standard error is a
/// file or a journal, which others may read and which is kept, it goes into a file of the data folder.
fn welcome(first: &FirstKey, data: &Path, url: &str) {
    let namespace = &first.namespace;
    let (shown, given) = if io::stderr().is_terminal() {
        let key = first.key.secret();
        (format!("is\n\n    {key}\n\nKeep it: it is not shown again."), key)
    } else {
        match first.keep(data) {
            Ok(file) => {
                let file = file.display();
                let shown = format!("is in\n\n    {file}\n\nKeep it in a safe place, and remove the file.");
                (shown, format!("$(cat '{file}')"))
            }
            Err(error) => {
                eprintln!(
                    "\nThis is the first start. The namespace {namespace} was made, and its admin key is lost, since \
                     it could not be written: {error}\nMake another: sqlrsync-server key create --kind admin\n"
                );
                return;
            }
        }
    };
    eprintln!(
        "\nThis is the first start. The namespace {namespace} was made, and its admin key {shown} To push a \
         database, run\n\n    SQLRSYNC_ADMIN_KEY=\"{given}\" sqlrsync app.db {namespace}/app.db --server {url}\n"
    );
}
