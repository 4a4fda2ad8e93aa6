//! The program from its arguments to its exit code: signals, logging, and how an error is said.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use sqlrsync_protocol::text::printable;
use tokio::runtime::Runtime;

use crate::cli::Typed;
use crate::error::Error;
use crate::folders::Folders;
use crate::plan::{self, Plan, Resolved};
use crate::run;
use crate::wire::Cancel;

/// How long a run that was told to stop may take to put things away.
const STOP_MAX: Duration = Duration::from_secs(3);

/// Does what the arguments say (the program's name is the first) and returns the exit code.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let typed = match Typed::parse(arguments) {
        Ok(typed) => typed,
        Err(error) => {
            // Help and version are errors to clap, too, with exit code 0. Nobody reading is no failure.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let (verbose, json) = match &typed {
        Typed::User(cli) => (cli.output.verbose, cli.output.json),
        Typed::Peer(arguments) => (arguments.verbose > 1, false),
    };
    if verbose {
        log_to_stderr();
    }
    match start(typed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error, json);
            ExitCode::from(error.exit_code())
        }
    }
}

fn start(typed: Typed) -> Result<(), Error> {
    sqlrsync_database::check_library()?;
    let environment = |name: &str| std::env::var_os(name);
    let resolved = plan::resolve(typed, &environment, Folders::of_process()?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::Program { program: "sqlrsync".to_owned(), why: error.to_string() })?;
    let cancel = Cancel::default();
    heed_signals(&resolved, &runtime, &cancel);
    run::carry_out(resolved, runtime, cancel)
}

/// SIGINT and SIGTERM stop a run: the step is abandoned and the files are whole. What does not stop by
/// itself is ended. A run that a peer started ends with the peer, and by the signal itself.
fn heed_signals(resolved: &Resolved, runtime: &Runtime, cancel: &Cancel) {
    if matches!(resolved.plan, Plan::Peer(_)) {
        return;
    }
    let cancel = cancel.clone();
    runtime.spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        cancel.cancel();
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = tokio::time::sleep(STOP_MAX) => {}
        }
        say(&Error::Cancelled, false);
        std::process::exit(Error::Cancelled.exit_code().into());
    });
}

/// What is wrong, and what to do; and the same for programs.
fn say(error: &Error, json: bool) {
    let text = printable(&error.to_string());
    let hint = error.hint().map(|hint| printable(&hint));
    eprintln!("sqlrsync: {text}");
    if let Some(hint) = &hint {
        eprintln!("hint: {hint}");
    }
    if json {
        let _ = crate::outcome::print_json(&json!({
            "outcome": "failed", "error": text, "hint": hint, "exit_code": error.exit_code(),
        }));
    }
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::new("warn,sqlrsync=debug,sqlrsync_database=debug");
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
