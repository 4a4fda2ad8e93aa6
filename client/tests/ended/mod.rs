//! The program that is tested, run to its end, which must come.

use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

/// It is no measure of speed: on the slowest machine only a program that hangs takes as long.
const RUN_MAX: Duration = Duration::from_secs(300);

/// Runs a command that reads these bytes, and gives how it ended with all that it said.
///
/// # Panics
/// It does not end: then it is killed.
#[track_caller]
pub fn ended_with(command: &mut Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = rustix::process::Pid::from_child(&child);
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    std::thread::spawn(move || {
        // One that has read enough may have gone.
        let _ = std::io::Write::write_all(&mut stdin, &input);
    });
    let (ended, output) = channel();
    std::thread::spawn(move || ended.send(child.wait_with_output()));
    let Ok(output) = output.recv_timeout(RUN_MAX) else {
        // Nobody has waited for it yet, so the number is still its own.
        let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
        panic!("{command:?} does not end");
    };
    output.unwrap()
}

/// The same, with nothing to read.
#[track_caller]
pub fn ended(command: &mut Command) -> Output {
    ended_with(command, &[])
}
