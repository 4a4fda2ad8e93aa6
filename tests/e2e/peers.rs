//! ssh, with a real sshd where there is one, and `sqlite3_rsync` on the other side.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sqlrsync_tests::client::{Client, outcome_of};
use sqlrsync_tests::port::Port;
use sqlrsync_tests::programs::{on_path, programs};
use sqlrsync_tests::sample;
use sqlrsync_tests::subscriber::wait_until;
use tempfile::TempDir;

use crate::{needs, not_shown};

/// A program that takes the place of ssh: throws the options and the host away and runs the rest here,
/// through a shell, as sshd does.
fn fake_ssh(client: &Client) -> PathBuf {
    let path = client.path("fake-ssh");
    let script = "#!/bin/sh\n\
                  while [ $# -gt 0 ]; do\n\
                  \x20 case \"$1\" in -e|-p|-o|-l) shift 2 ;; --) shift ;; -*) shift ;; *) break ;; esac\n\
                  done\n\
                  shift\n\
                  [ \"$1\" = -- ] && shift\n\
                  exec /bin/sh -c \"$*\"\n";
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn two_sqlrsyncs_over_a_pipe_copy_both_ways() {
    let client = Client::stranger();
    let ssh = fake_ssh(&client);
    let exe = text(&programs().client).to_owned();
    let far = client.path("far.db");
    sample::create(&client.path("a.db"));
    let flags = ["--ssh", text(&ssh), "--exe", &exe];
    let there = format!("me@host:{}", far.display());
    client.run(&[&["a.db", &there], &flags[..]].concat()).ok();
    sample::assert_same(&client.path("a.db"), &far);
    sample::change(&client.path("a.db"), 9, "changed");
    let said = client.json(&[&["a.db", &there], &flags[..]].concat());
    assert!(said["pages_sent"].as_u64().unwrap() < 10, "{said}");
    sample::assert_same(&client.path("a.db"), &far);
    client.run(&[&[there.as_str(), "b.db"], &flags[..]].concat()).ok();
    sample::assert_same(&far, &client.path("b.db"));
}

#[test]
fn a_remote_program_that_is_not_there_is_an_error() {
    let client = Client::stranger();
    let ssh = fake_ssh(&client);
    sample::create(&client.path("a.db"));
    let arguments = ["a.db", "me@host:/nowhere/far.db", "--ssh", text(&ssh), "--exe", "/no/such/program"];
    client.run(&arguments).code_is_not(0);
    let outcome =
        client.run(&["me@host:/nowhere/far.db", "b.db", "--ssh", text(&ssh), "--exe", "/no/such/program"]);
    assert_ne!(outcome.code, 0);
    assert!(!client.path("b.db").exists());
}

#[test]
fn what_is_wrong_there_has_the_exit_code_that_it_has_here() {
    let client = Client::stranger();
    let ssh = fake_ssh(&client);
    let exe = text(&programs().client).to_owned();
    sample::create(&client.path("a.db"));
    let (file, folder) = (client.path("no-file.db"), client.path("no-folder/far.db"));
    let cases = [(["FAR", "b.db"], &file), (["a.db", "FAR"], &folder), (["FAR", "b.db"], &folder)];
    for protocol in ["3", "2", "1"] {
        for (arguments, far) in &cases {
            let there = format!("me@host:{}", far.display());
            let flags = ["--json", "--ssh", text(&ssh), "--exe", &exe, "--protocol", protocol];
            let arguments = arguments.map(|word| if word == "FAR" { there.as_str() } else { word });
            let outcome = client.run(&[&arguments[..], &flags[..]].concat());
            assert_eq!(outcome.code, 10, "version {protocol}: {}", outcome.stderr);
            let said: serde_json::Value = serde_json::from_str(outcome.stdout.trim()).unwrap();
            assert_eq!(said["error"], "me@host refuses: no such file or folder");
            // Nothing of servers and their keys: there is none.
            assert!(said["hint"].is_null(), "{said}");
        }
    }
    assert!(!client.path("b.db").exists() && !client.path("no-folder").exists());
}

#[test]
fn a_machine_that_ssh_cannot_reach_is_to_be_tried_again_and_no_server_is_spoken_of() {
    let client = Client::stranger();
    sample::create(&client.path("a.db"));
    let ssh = client.path("no-way");
    std::fs::write(&ssh, "#!/bin/sh\nexit 255\n").unwrap();
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let outcome = client.run(&["a.db", "me@host:/far.db", "--ssh", text(&ssh)]);
    assert_eq!(outcome.code, 5);
    assert!(outcome.stderr.contains("see that `ssh me@host` gets there"), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("server"), "{}", outcome.stderr);
}

/// `sqlite3_rsync`, or a loud word that it is missing.
fn sqlite3_rsync(what: &str) -> Option<PathBuf> {
    let found = on_path("sqlite3_rsync");
    if found.is_none() {
        not_shown(what, "sqlite3_rsync is not on the PATH");
    }
    found
}

#[test]
fn sqlite3_rsync_pushes_to_and_pulls_from_sqlrsync() {
    let Some(program) = sqlite3_rsync("sqlite3_rsync --exe sqlrsync") else { return };
    let client = Client::stranger();
    let ssh = fake_ssh(&client);
    let exe = text(&programs().client).to_owned();
    for protocol in ["1", "2"] {
        let (near, far, back) = (client.path("near.db"), client.path("far.db"), client.path("back.db"));
        for file in [&near, &far, &back] {
            let _ = std::fs::remove_file(file);
        }
        sample::Sample { rows: 4000, ..sample::Sample::default() }.create(&near);
        let flags = ["--ssh", text(&ssh), "--exe", &exe, "--protocol", protocol];
        let there = format!("host:{}", far.display());
        for round in 0..3 {
            sample::execute(
                &near,
                &format!("UPDATE notes SET text = 'round {round}' WHERE id % 700 = {round}"),
            );
            if round == 2 {
                sample::execute(&near, "INSERT INTO notes(text) SELECT text FROM notes");
            }
            let all = [&[text(&near), &there][..], &flags[..]].concat();
            let outcome = outcome_of(&mut client.command_of(&program, &all));
            assert_eq!(outcome.code, 0, "{protocol}: {}{}", outcome.stdout, outcome.stderr);
            sample::assert_same(&near, &far);
            let all = [&[there.as_str(), text(&back)][..], &flags[..]].concat();
            let outcome = outcome_of(&mut client.command_of(&program, &all));
            assert_eq!(outcome.code, 0, "{protocol}: {}{}", outcome.stdout, outcome.stderr);
            assert_eq!(sample::text(&back, "PRAGMA integrity_check"), "ok");
        }
    }
}

#[test]
fn sqlrsync_pushes_to_and_pulls_from_sqlite3_rsync() {
    let Some(program) = sqlite3_rsync("sqlrsync --exe sqlite3_rsync") else { return };
    let client = Client::stranger();
    let ssh = fake_ssh(&client);
    let (near, far) = (client.path("near.db"), client.path("far.db"));
    sample::Sample { rows: 4000, ..sample::Sample::default() }.create(&near);
    let flags = ["--ssh", text(&ssh), "--exe", text(&program)];
    let there = format!("host:{}", far.display());
    for round in 0..3 {
        sample::execute(&near, &format!("UPDATE notes SET text = 'round {round}' WHERE id % 700 = {round}"));
        client.run(&[&[text(&near), &there], &flags[..]].concat()).ok();
        sample::assert_same(&near, &far);
        client.run(&[&[there.as_str(), "./back.db", "--force"], &flags[..]].concat()).ok();
        sample::assert_same(&far, &client.path("back.db"));
    }
}

#[test]
fn the_options_of_sqlite3_rsync_are_understood_on_stdin_and_stdout() {
    // As sqlite3_rsync starts its other side; a closed input ends it without a change.
    let client = Client::stranger();
    sample::create(&client.path("a.db"));
    let before = std::fs::read(client.path("a.db")).unwrap();
    for arguments in
        [&["--origin", "a.db", "x.db"][..], &["--replica", "x.db", "a.db"], &["--replica", "x.db", "new.db"]]
    {
        let outcome = client.run(arguments);
        assert_ne!(outcome.code, -1, "{arguments:?}: {}", outcome.stderr);
    }
    assert!(std::fs::read(client.path("a.db")).unwrap() == before);
    assert!(!client.path("new.db").exists(), "an empty file is not left behind");
}

/// An sshd of our own on a loopback port, that lets this user in with a key made for it.
struct Sshd {
    child: Child,
    folder: TempDir,
    port: u16,
    _held: Port,
}

impl Sshd {
    /// `None` where OpenSSH is not installed.
    fn start(what: &str) -> Option<Sshd> {
        let sshd = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/local/bin/sshd"]
            .map(PathBuf::from)
            .into_iter()
            .find(|path| path.exists())
            .or_else(|| on_path("sshd"));
        let sshd = needs(sshd, "sshd", "openssh-server", what)?;
        for program in ["ssh", "ssh-keygen"] {
            needs(on_path(program), program, "openssh-client", what)?;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            outcome_of(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path(name))).ok();
        }
        std::fs::copy(path("user.pub"), path("authorized")).unwrap();
        let held = Port::hold();
        let port = held.address().port();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\n",
            path("host").display(),
            path("authorized").display()
        );
        std::fs::write(path("config"), config).unwrap();
        if is_root() {
            // Where sshd, started by root, wants to lock itself in.
            let _ = std::fs::create_dir_all("/run/sshd");
        }
        let log = std::fs::File::create(path("log")).unwrap();
        let child = Command::new(sshd)
            .args(["-D", "-e", "-f"])
            .arg(path("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let sshd = Sshd { child, folder, port, _held: held };
        sshd.wait();
        Some(sshd)
    }

    fn wait(&self) {
        wait_until("sshd listens", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// A program that is ssh with the key of this sshd.
    fn ssh(&self, client: &Client) -> PathBuf {
        let path = client.path("ssh-with-key");
        let script = format!(
            "#!/bin/sh\nexec ssh -F none -i {} -o IdentitiesOnly=yes -o StrictHostKeyChecking=no \
             -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \"$@\"\n",
            self.folder.path().join("user").display()
        );
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- sshd's log:\n{}", self.log());
        }
    }
}

fn user() -> String {
    outcome_of(Command::new("id").arg("-un")).ok().stdout.trim().to_owned()
}

fn is_root() -> bool {
    user() == "root"
}

#[test]
fn over_a_real_ssh_databases_go_both_ways() {
    let Some(sshd) = Sshd::start("databases over a real ssh") else { return };
    let client = Client::stranger();
    let ssh = sshd.ssh(&client);
    let exe = text(&programs().client).to_owned();
    // A name that a shell would take apart.
    let far = client.path("far 'and' $away.db");
    sample::create(&client.path("a.db"));
    let port = sshd.port.to_string();
    let flags = ["--ssh", text(&ssh), "--exe", &exe, "--port", &port];
    let there = format!("{}@127.0.0.1:{}", user(), far.display());
    client.run(&[&["a.db", &there], &flags[..]].concat()).ok();
    sample::assert_same(&client.path("a.db"), &far);
    sample::change(&client.path("a.db"), 9, "changed");
    client.run(&[&["a.db", &there], &flags[..]].concat()).ok();
    client.run(&[&[there.as_str(), "./b.db"], &flags[..]].concat()).ok();
    sample::assert_same(&client.path("a.db"), &client.path("b.db"));
    if let Some(program) = sqlite3_rsync("sqlite3_rsync --exe sqlrsync over a real ssh") {
        let far = client.path("plain.db");
        let there = format!("{}@127.0.0.1:{}", user(), far.display());
        let all = [&["a.db", &there], &flags[..]].concat();
        let outcome = outcome_of(&mut client.command_of(&program, &all));
        assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
        sample::assert_same(&client.path("a.db"), &far);
    }
}

#[test]
fn a_host_that_looks_like_an_option_is_refused() {
    let client = Client::stranger();
    sample::create(&client.path("a.db"));
    let marker = client.path("hacked");
    let host = format!("-oProxyCommand=touch {}:/x.db", marker.display());
    client.run(&["--", "a.db", &host]).code_is_not(0);
    client.run(&["--", &host, "./b.db"]).code_is_not(0);
    assert!(!marker.exists());
}
