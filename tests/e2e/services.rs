//! Subscriptions as services: what systemd is told (`sd_notify(3)`), and the units in `docs/systemd`.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sqlrsync_tests::client::{Client, outcome_of};
use sqlrsync_tests::fake::nobody;
use sqlrsync_tests::programs::{on_path, programs, workspace};
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::subscriber::{PATIENCE, Subscriber};

use crate::{REMOTE, needs};

/// The end of systemd.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn new(socket: UnixDatagram) -> Manager {
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Manager { socket, heard: Vec::new() }
    }

    /// Waits for a line that begins so.
    #[track_caller]
    fn wait_for(&mut self, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; 4096];
        while !self.heard.iter().any(|line| line.starts_with(wanted)) {
            assert!(Instant::now() < deadline, "{wanted} was not said: {:?}", self.heard);
            if let Ok(n) = self.socket.recv(&mut buffer) {
                let message = String::from_utf8_lossy(&buffer[..n]).into_owned();
                self.heard.extend(message.lines().map(str::to_owned));
            }
        }
    }

    fn has_heard(&self, line: &str) -> bool {
        self.heard.iter().any(|heard| heard == line)
    }
}

fn service(name: &str, client: &Client, arguments: &[&str], socket: &str) -> Subscriber {
    let mut command = client.command(arguments);
    command.env("NOTIFY_SOCKET", socket);
    Subscriber::start(name, command)
}

fn published() -> (Server, Client) {
    let server = Server::start();
    let origin = Client::admin(&server);
    sample::create(&origin.path("app.db"));
    origin.run(&["app.db", REMOTE]).ok();
    (server, origin)
}

#[test]
fn a_follower_says_when_it_is_ready_what_it_does_and_that_it_stops() {
    let (server, _origin) = published();
    let client = Client::admin(&server);
    let path = client.path("notify");
    let mut manager = Manager::new(UnixDatagram::bind(&path).unwrap());
    let arguments = [REMOTE, "--subscribe", "--exec", "test -z \"$NOTIFY_SOCKET\""];
    let mut follower = service("a follower", &client, &arguments, path.to_str().unwrap());
    manager.wait_for("READY=1");
    assert!(client.path("app.db").exists(), "ready: the first version is there");
    manager.wait_for(&format!("STATUS=following: version 1 of {REMOTE}"));
    assert!(!manager.has_heard("STOPPING=1"));
    assert_eq!(follower.stop(), 0);
    manager.wait_for("STOPPING=1");
    let said = follower.report();
    assert!(said.contains("ended with exit code 0"), "the command cannot speak for us: {said}");
}

#[test]
fn a_follower_without_a_server_is_ready_and_waits() {
    let client = Client::stranger().with_env("SQLRSYNC_ADMIN_KEY", "some-key");
    client.use_server(&nobody());
    // A name that is no file, as systemd has it.
    let name = format!("sqlrsync-test-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let mut manager = Manager::new(socket);
    let mut follower = service("a follower", &client, &[REMOTE, "--subscribe"], &format!("@{name}"));
    manager.wait_for("READY=1");
    manager.wait_for("STATUS=waiting: the server");
    assert_eq!(follower.stop(), 0);
}

#[test]
fn a_publisher_says_when_it_is_ready_and_that_it_stops() {
    let (server, _) = published();
    let client = Client::admin(&server);
    sample::create(&client.path("other.db"));
    let path = client.path("notify");
    let mut manager = Manager::new(UnixDatagram::bind(&path).unwrap());
    let arguments = ["other.db", "team/other.db", "--subscribe"];
    let mut publisher = service("a publisher", &client, &arguments, path.to_str().unwrap());
    manager.wait_for("READY=1");
    client.run(&["log", "team/other.db"]).ok();
    manager.wait_for("STATUS=watching other.db");
    assert_eq!(publisher.stop(), 0);
    manager.wait_for("STOPPING=1");
}

/// The units with the programs of these tests, in a folder of their own.
fn units(folder: &Path) -> Vec<PathBuf> {
    let mut units = Vec::new();
    for entry in std::fs::read_dir(workspace().join("docs/systemd")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let programs = programs();
        let text = text
            .replace("/usr/local/bin/sqlrsync-server", programs.server.to_str().unwrap())
            .replace("/usr/local/bin/sqlrsync", programs.client.to_str().unwrap());
        assert!(!text.contains("/usr/local"), "{}", path.display());
        let unit = folder.join(path.file_name().unwrap());
        std::fs::write(&unit, text).unwrap();
        units.push(unit);
    }
    units
}

#[test]
fn systemd_accepts_the_units() {
    let analyze = on_path("systemd-analyze");
    let what = "that systemd accepts the units";
    let Some(analyze) = needs(analyze, "systemd-analyze", "systemd", what) else { return };
    let folder = tempfile::tempdir().unwrap();
    let units = units(folder.path());
    assert!(units.len() >= 3, "{units:?}");
    let verify = |unit: &Path| {
        let output = outcome_of(Command::new(&analyze).args(["verify", "--man=no"]).arg(unit));
        let said = output.stderr;
        let name = unit.file_stem().unwrap().to_string_lossy().into_owned();
        // What it says of the machine's own units is not ours to answer for.
        (output.code == 0 && !said.contains(name.trim_end_matches('@')), said)
    };
    for unit in &units {
        let (good, said) = verify(unit);
        assert!(good, "{}: {said}", unit.display());
        let text = std::fs::read_to_string(unit).unwrap();
        // That a mistake would be found.
        std::fs::write(unit, text.replace("ProtectSystem=strict", "ProtectSystem=stricter\nNoSuchKey=1"))
            .unwrap();
        assert!(!verify(unit).0, "a wrong unit is found");
        for restart in ["Restart=on-failure", "RestartPreventExitStatus=2"] {
            assert!(text.contains(restart), "{}: {restart}", unit.display());
        }
    }
}
