//! The program itself: first start, keys while it runs, signals, check.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

use crate::support::{PATIENCE, eventually};

/// A server as a process; killed where a test fails.
struct Running {
    child: Child,
    address: String,
}

fn program(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sqlrsync-server"));
    command.args(args).arg("--data").arg(data);
    // Nothing of whoever runs the tests.
    command.env_clear().env("HOME", data.parent().unwrap_or(data));
    command
}

fn run(data: &Path, args: &[&str]) -> Output {
    ended(program(data, args))
}

/// Runs it to its end, which must come.
#[track_caller]
fn ended(mut command: Command) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = rustix::process::Pid::from_child(&child);
    in_time(move || child.wait_with_output().unwrap()).unwrap_or_else(|| {
        // Nobody has waited for it yet, so the number is still its own.
        let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
        panic!("{command:?} does not end")
    })
}

/// What some work comes to that may wait for ever; `None` where it does.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, result) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    result.recv_timeout(PATIENCE).ok()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl Running {
    fn start(data: &Path) -> Running {
        Running::start_with(data, Stdio::piped())
    }

    fn start_with(data: &Path, stderr: Stdio) -> Running {
        let child = program(data, &["serve", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut running = Running { child, address: String::new() };
        let mut stdout = BufReader::new(running.child.stdout.take().unwrap());
        let first = in_time(move || {
            let mut line = String::new();
            stdout.read_line(&mut line).map(|_| (line, stdout))
        });
        let (line, stdout) = first.expect("the server says where it listens").unwrap();
        running.child.stdout = Some(stdout.into_inner());
        running.address = line.trim_end().strip_prefix("listening on http://").expect(&line).to_owned();
        running
    }

    fn get(&self, path: &str, key: &str) -> String {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {key}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Sends SIGTERM; returns exit code, time taken, and what it said on standard error.
    fn stop(mut self) -> (Option<i32>, Duration, String) {
        let started = Instant::now();
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        let mut stderr = self.child.stderr.take().unwrap();
        let said = in_time(move || {
            let mut said = String::new();
            stderr.read_to_string(&mut said).map(|_| said)
        });
        // It says nothing more: what is left of it is its end.
        let said = said.expect("the server stops").unwrap();
        let mut status = None;
        eventually("the server ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        (status.unwrap().code(), started.elapsed(), said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_first_start_shows_a_key_once_on_a_terminal_and_the_next_command() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let far_end = || Stdio::from(std::fs::OpenOptions::new().write(true).open(&name).unwrap());
    let server = Running::start_with(&data, far_end());
    let said = in_time(move || {
        let mut said = String::new();
        let mut reader = std::fs::File::from(terminal);
        let mut chunk = [0; 4096];
        while !said.contains("--server http://127.0.0.1:") {
            let len = reader.read(&mut chunk).unwrap();
            said.push_str(std::str::from_utf8(&chunk[..len]).unwrap());
        }
        said
    });
    let said = said.expect("the next command");
    drop(server);
    let key = said.split_whitespace().find(|word| word.starts_with("sqlr_admin_")).expect("a key");
    assert!(said.contains(&format!("SQLRSYNC_ADMIN_KEY=\"{key}\" sqlrsync app.db team/app.db")), "{said}");
    assert_eq!(said.lines().filter(|line| line.contains(key)).count(), 2, "the key, and the command");
    assert!(!data.join("first-admin-key").exists());
    let (_, _, said) = Running::start(&data).stop();
    assert!(!said.contains("sqlr_admin_"), "shown twice: {said}");
    let listed = run(&data, &["key", "list", "--json"]);
    let line: Value = serde_json::from_str(text(&listed.stdout).trim()).unwrap();
    assert_eq!((&line["kind"], &line["scope"]), (&"admin".into(), &"team".into()));
    assert!(!text(&listed.stdout).contains(key));
}

#[test]
fn the_first_start_without_a_terminal_leaves_the_key_in_a_file_for_its_owner_and_in_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Running::start(&data);
    let file = data.join("first-admin-key");
    let key = std::fs::read_to_string(&file).unwrap();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(server.get("/api/v1/replicas", key.trim()).starts_with("HTTP/1.1 200"));
    let (code, took, said) = server.stop();
    assert_eq!(code, Some(0));
    assert!(took < PATIENCE, "{took:?}");
    assert!(!said.contains("sqlr_admin_"), "{said}");
    let command = format!("SQLRSYNC_ADMIN_KEY=\"$(cat '{}')\" sqlrsync app.db team/app.db", file.display());
    assert!(said.contains(&command), "{said}");
}

#[test]
fn what_only_looks_into_a_data_folder_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("typo");
    for args in [
        &["key", "list"][..],
        &["key", "revoke", "1"],
        &["namespace", "list"],
        &["replica", "list"],
        &["replica", "visibility", "team/app.db", "public"],
        &["check"],
        &["sweep"],
        &["key", "create", "--kind", "pull"],
        &["namespace", "create", "team"],
    ] {
        let output = run(&data, args);
        assert_eq!(output.status.code(), Some(10), "{args:?}");
        assert!(text(&output.stderr).contains("there is no data folder"), "{args:?}");
        assert!(!data.exists(), "{args:?}");
    }
    // A folder with something else in it is none either.
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("precious"), "").unwrap();
    assert_eq!(run(&data, &["key", "create", "--kind", "pull"]).status.code(), Some(10));
    assert_eq!(data.read_dir().unwrap().count(), 1);
}

#[test]
fn keys_are_made_and_revoked_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Running::start(&data);
    let made = run(&data, &["key", "create", "--kind", "pull", "--json"]);
    let made: Value = serde_json::from_str(&text(&made.stdout)).unwrap();
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    assert!(server.get("/api/v1/replicas", key).starts_with("HTTP/1.1 200"));
    let revoked = run(&data, &["key", "revoke", id]);
    assert_eq!(revoked.status.code(), Some(0));
    assert!(server.get("/api/v1/replicas", key).starts_with("HTTP/1.1 401"));

    let plain = run(&data, &["key", "create", "--kind", "push", "--replica", "team/app.db"]);
    let plain = text(&plain.stdout);
    assert_eq!(plain.lines().count(), 1);
    assert!(plain.starts_with("sqlr_push_"));
    let shown = ["replica", "visibility", "team/app.db", "public"];
    assert!(run(&data, &shown).status.success());
    let listed: Value = serde_json::from_slice(&run(&data, &["replica", "list", "--json"]).stdout).unwrap();
    assert_eq!((&listed["replica"], &listed["visibility"]), (&"team/app.db".into(), &"public".into()));
    let shown: Value =
        serde_json::from_slice(&run(&data, &["replica", "show", "team/app.db", "--json"]).stdout).unwrap();
    assert_eq!(shown, listed);
    assert_eq!((&shown["policy"], &shown["cells"]), (&"merge".into(), &false.into()));
    assert!(run(&data, &["replica", "policy", "team/app.db", "merge", "--cells"]).status.success());
    let shown: Value =
        serde_json::from_slice(&run(&data, &["replica", "show", "team/app.db", "--json"]).stdout).unwrap();
    assert_eq!((&shown["policy"], &shown["cells"]), (&"merge".into(), &true.into()));
    let shown = text(&run(&data, &["replica", "show", "team/app.db"]).stdout);
    assert!(shown.ends_with("policy: merge --cells\n"), "{shown}");
    for (args, code) in [
        (&["replica", "visibility", "team/none.db", "public"][..], 10),
        (&["replica", "show", "team/none.db"][..], 10),
        (&["key", "create", "--kind", "push"][..], 2),
        (&["key", "create", "--kind", "admin", "--replica", "team/app.db"], 2),
        (&["key", "create", "--kind", "pull", "--replica", "team/../app.db"], 2),
        (&["key", "create", "--kind", "pull", "--replica", "nowhere/app.db"], 10),
        (&["key", "revoke", "999"], 10),
        (&["serve", "--listen", "127.0.0.1:0"], 1),
    ] {
        let output = run(&data, args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn keys_can_be_made_before_the_first_start_in_an_empty_folder() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let made = run(&data, &["key", "create", "--kind", "admin"]);
    let key = text(&made.stdout).trim().to_owned();
    let server = Running::start(&data);
    assert!(server.get("/api/v1/replicas", &key).starts_with("HTTP/1.1 200"));
    let (_, _, said) = server.stop();
    assert!(!said.contains("sqlr_admin_"), "an admin key is there already: {said}");
}

#[test]
fn check_proves_or_names_what_is_broken() {
    let server = crate::support::TestServer::start();
    let content = crate::support::database(4096, 1000, 1);
    let ask = crate::public_client::Ask::new(&server.admin, 2);
    crate::public_client::push(&server, "team/app.db", &ask, &content).unwrap();
    let data = server.folder.path().join("data");
    let sound = run(&data, &["check", "--json"]);
    assert_eq!(sound.status.code(), Some(0), "{}", text(&sound.stderr));
    let outcome: Value = serde_json::from_str(text(&sound.stdout).lines().last().unwrap()).unwrap();
    assert_eq!((&outcome["outcome"], &outcome["versions_proved"]), (&"proved".into(), &1.into()));

    let segment = find_segment(&data.join("repository"));
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let damaged = run(&data, &["check"]);
    assert_eq!(damaged.status.code(), Some(12));
    let name = segment.file_name().unwrap().to_str().unwrap();
    assert!(text(&damaged.stdout).contains(name), "{}", text(&damaged.stdout));
    assert_eq!(run(&data.join("nothing"), &["check"]).status.code(), Some(10));
    let other = tempfile::tempdir().unwrap();
    assert_eq!(run(other.path(), &["check"]).status.code(), Some(10), "a folder of something else");
    assert_eq!(other.path().read_dir().unwrap().count(), 0);
    assert_eq!(run(&data, &["sweep", "--json"]).status.code(), Some(0));
}

fn find_segment(folder: &Path) -> std::path::PathBuf {
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.parent().is_some_and(|parent| parent.ends_with("segments")) {
                return path;
            }
        }
    }
    panic!("no segment");
}

#[test]
fn completions_manual_pages_and_settings_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    assert!(text(&run(&data, &["completions", "bash"]).stdout).contains("sqlrsync-server"));
    let pages = folder.path().join("man/man1");
    assert!(run(&data, &["man", pages.to_str().unwrap()]).status.success());
    assert!(pages.join("sqlrsync-server-serve.1").exists());
    let file = pages.join("sqlrsync-server-serve.1");
    let failed = run(&data, &["man", file.to_str().unwrap()]);
    assert!(text(&failed.stderr).contains(file.to_str().unwrap()), "{}", text(&failed.stderr));
    let config = folder.path().join("config.toml");
    std::fs::write(&config, "transfers_max = 3\nlisten = \"127.0.0.1:1\"").unwrap();
    let path = config.to_str().unwrap();
    let mut shown = program(&data, &["config", "show", "--listen", "127.0.0.1:2", "--config", path]);
    shown.env("SQLRSYNC_SERVER_CONNECTIONS_MAX", "5");
    let shown = ended(shown);
    let shown = text(&shown.stdout);
    for line in [
        "listen = \"127.0.0.1:2\"  # flag",
        "connections_max = \"5\"  # environment",
        "transfers_max = \"3\"  # file",
        "idle_timeout = \"1m\"  # default",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
    }
}

#[test]
fn what_cannot_be_used_is_usage_wherever_it_stands_and_config_show_shows_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let config = folder.path().join("config.toml");
    let path = config.to_str().unwrap();
    std::fs::write(&config, "transfer_max = 3\nidle_timeout = \"soon\"\nconnections_max = 5").unwrap();
    let said = |output: Output| {
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        text(&output.stderr) + &text(&output.stdout)
    };
    let serve = said(run(&data, &["serve", "--config", path]));
    assert!(serve.contains("idle_timeout") || serve.contains("transfer_max"), "{serve}");
    let shown = said(run(&data, &["config", "show", "--config", path]));
    for part in [
        "connections_max = \"5\"  # file",
        "idle_timeout = \"1m\"  # default",
        "# transfer_max",
        "# idle_timeout",
    ] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    for args in [
        &["serve", "--idle-timeout", "soon"][..],
        &["serve", "--listen", "nonsense"],
        &["serve", "--listen", "127.0.0.1:99999"],
        &["serve", "--listen", "0.0.0.0:0"],
        &["serve", "--listen", "127.0.0.1:0", "--namespace", "../x"],
    ] {
        assert!(!said(run(&data, args)).is_empty(), "{args:?}");
    }
    let mut soon = program(&data, &["serve"]);
    soon.env("SQLRSYNC_SERVER_IDLE_TIMEOUT", "soon");
    said(ended(soon));
}
