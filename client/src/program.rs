//! The program from its arguments to its exit code: signals, logging, and how an error is said.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use sqlrsync_protocol::text::printable;

use crate::cli::Typed;
use crate::error::Error;
use crate::folders::Folders;
use crate::follow::exec::PATIENCE;
use crate::plan::{self, Plan};
use crate::run::{self, DIFFERS, Finish};
use crate::wire::Cancel;

/// How long a run that was told to stop may take to put things away.
const STOP_MAX: Duration = Duration::from_secs(3);

/// The same for a subscription, which may have a command of the user's to wait for.
const LIVE_STOP_MAX: Duration =
    Duration::from_secs(3).saturating_add(PATIENCE.finish).saturating_add(PATIENCE.terminate);

/// How long those who were told to hurry have before the process ends.
const HURRY_MAX: Duration = Duration::from_millis(100);

/// The exit code of an error where 1 says that something differs, as `diff` and `cmp` have it.
const TROUBLE: u8 = 2;

/// What all of SQLite may have in memory in one run, in bytes. A file that was pulled, or is compared, may come from
/// anybody: its caches and statements are bounded, and each value and row by 256 MiB, but not how many of them one
/// statement holds. This is room for a row of that length on both sides, twice.
const SQLITE_MEMORY_MAX: u64 = 1 << 30;

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
    let differs_is_one = typed.tells_by_exit_code();
    match start(typed) {
        Ok(finish) => ExitCode::from(finish.exit_code()),
        Err(error) => {
            let exit_code = match error.exit_code() {
                DIFFERS if differs_is_one => TROUBLE,
                exit_code => exit_code,
            };
            say(&error, exit_code, json);
            ExitCode::from(exit_code)
        }
    }
}

fn start(typed: Typed) -> Result<Finish, Error> {
    sqlrsync_database::check_library()?;
    sqlrsync_database::version::limit_heap(SQLITE_MEMORY_MAX);
    let environment = |name: &str| std::env::var_os(name);
    let resolved = plan::resolve(typed, &environment, Folders::of_process()?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::Program { program: "sqlrsync".to_owned(), why: error.to_string() })?;
    let cancel = Cancel::default();
    let live = matches!(resolved.plan, Plan::Follow(_) | Plan::Publish(_));
    let terminated = Arc::new(AtomicBool::new(false));
    if !matches!(resolved.plan, Plan::Peer(_)) {
        runtime.spawn(heed_signals(live, cancel.clone(), Arc::clone(&terminated)));
    }
    match run::carry_out(resolved, runtime, cancel) {
        // A service that was asked to stop, and has, did what it was for.
        Err(Error::Cancelled) if live && terminated.load(Ordering::SeqCst) => Ok(Finish::Done),
        ended => ended,
    }
}

/// SIGINT and SIGTERM stop a run: the step is abandoned and the files are whole. What does not stop by
/// itself, or is told a second time, is ended. A run that a peer started ends with the peer, and by
/// the signal itself.
async fn heed_signals(live: bool, cancel: Cancel, terminated: Arc<AtomicBool>) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => terminated.store(true, Ordering::SeqCst),
    }
    cancel.cancel();
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = tokio::time::sleep(if live { LIVE_STOP_MAX } else { STOP_MAX }) => {}
    }
    cancel.hurry();
    tokio::time::sleep(HURRY_MAX).await;
    if live && terminated.load(Ordering::SeqCst) {
        std::process::exit(0);
    }
    let exit_code = Error::Cancelled.exit_code();
    say(&Error::Cancelled, exit_code, false);
    std::process::exit(exit_code.into());
}

/// What is wrong, and what to do; and the same for programs.
fn say(error: &Error, exit_code: u8, json: bool) {
    let text = printable(&error.to_string());
    let hint = error.hint().map(|hint| printable(&hint));
    eprintln!("sqlrsync: {text}");
    if let Some(hint) = &hint {
        eprintln!("hint: {hint}");
    }
    if json {
        let _ = crate::outcome::print_json(&json!({
            "outcome": "failed", "error": text, "hint": hint, "exit_code": exit_code,
        }));
    }
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::new("warn,sqlrsync=debug,sqlrsync_database=debug");
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
