//! A program that a wire leads to: started, listened to, and ended.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use sqlrsync_protocol::text::printable;

use super::Cancel;
use super::pipes::Pipes;
use crate::error::Error;

/// The longest line of a program's stderr that is shown, in bytes; what is longer is divided.
const LINE_LEN_MAX: u64 = 4096;

/// The most lines that are kept.
const LINES_KEPT_MAX: usize = 100;

/// A running program. What it writes to stderr is kept: only its end tells whether it was the right
/// program, and then whether it is worth showing.
#[derive(Debug)]
pub struct Program {
    child: Arc<Mutex<Child>>,
    errors: Option<JoinHandle<Vec<String>>>,
    /// Ends the watch over `cancel`.
    done: Arc<AtomicBool>,
}

/// How a program ended.
#[derive(Debug)]
pub struct ProgramEnd {
    /// Its exit code, or the signal.
    pub status: ExitStatus,
    /// The first lines of its stderr, fit to be shown.
    pub errors: Vec<String>,
}

impl Program {
    /// Starts it with a wire to its stdin and stdout. When the user says stop, it is killed.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(command: &mut Command, name: &str, cancel: &Cancel) -> Result<(Program, Pipes), Error> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |why: String| Error::Program { program: name.to_owned(), why };
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed("it has no pipes".to_owned()));
        };
        let program = Program {
            child: Arc::new(Mutex::new(child)),
            errors: Some(thread::spawn(move || read_errors(stderr))),
            done: Arc::new(AtomicBool::new(false)),
        };
        program.watch(cancel.clone());
        Ok((program, Pipes::new(stdout, stdin, cancel)))
    }

    /// Waits for it to end. The wire has been dropped, so it reads the end of its stdin.
    ///
    /// # Errors
    /// What the system says.
    pub fn wait(mut self) -> std::io::Result<ProgramEnd> {
        let status = loop {
            // Not `wait`: the lock must be free for whoever wants to kill it.
            let status = self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait()?;
            match status {
                Some(status) => break status,
                None => thread::sleep(std::time::Duration::from_millis(5)),
            }
        };
        let errors = self.errors.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        Ok(ProgramEnd { status, errors })
    }

    fn watch(&self, cancel: Cancel) {
        let (child, done) = (self.child.clone(), self.done.clone());
        thread::spawn(move || {
            while !done.load(Ordering::SeqCst) {
                if cancel.is_cancelled() {
                    let _ = child.lock().unwrap_or_else(PoisonError::into_inner).kill();
                    return;
                }
                thread::sleep(std::time::Duration::from_millis(100));
            }
        });
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(child.try_wait(), Ok(Some(_))) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn read_errors(stderr: ChildStderr) -> Vec<String> {
    let mut reader = BufReader::new(stderr);
    let (mut line, mut kept) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        match reader.by_ref().take(LINE_LEN_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return kept,
            Ok(_) => {
                let text = printable(&String::from_utf8_lossy(&line));
                if !text.is_empty() && kept.len() < LINES_KEPT_MAX {
                    kept.push(text);
                }
            }
        }
    }
}
