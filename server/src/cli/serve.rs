//! `serve`: runs a server until it is told to stop.

use std::io::{self, Write};
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
    let mut server = Server::start(config).await?;
    if let Some(first) = server.take_first_key() {
        welcome(&first, &server.url());
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

/// What the first start says, once. The key goes to standard error and into no log.
fn welcome(first: &FirstKey, url: &str) {
    let (namespace, key) = (&first.namespace, first.key.secret());
    eprintln!(
        "\nThis is the first start. The namespace {namespace} was made, and its admin key is\n\n    {key}\n\n\
         Keep it: it is not shown again. To push a database, run\n\n    \
         SQLRSYNC_ADMIN_KEY={key} sqlrsync app.db {namespace}/app.db --server {url}\n"
    );
}
