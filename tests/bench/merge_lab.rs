//! Two people with a copy of one database each and a server of their own, and a wire whose waits are timed.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlrsync_tests::client::Client;
use sqlrsync_tests::events::Events;
use sqlrsync_tests::measure;
use sqlrsync_tests::programs::{Programs, programs, release_programs, workspace};
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;

/// The replica of both.
pub const REMOTE: &str = "team/app.db";

/// Their database, on both machines.
const FILE: &str = "app.db";

/// Where everything is, and which programs are measured.
pub struct Lab {
    folder: PathBuf,
    programs: &'static Programs,
}

impl Lab {
    /// With the release programs, or those of this program's own profile.
    pub fn new(release: bool) -> Lab {
        let folder = workspace().join("target/bench");
        std::fs::create_dir_all(&folder).expect("target/bench can be made");
        Lab { folder, programs: if release { release_programs() } else { programs() } }
    }

    /// The database's file, made by a process of its own.
    fn database(&self, events: &Events) -> PathBuf {
        let this = std::env::current_exe().expect("this program has a path");
        let made = Command::new(this).args(["--generate", events.name]).arg(&self.folder).status();
        assert!(made.is_ok_and(|status| status.success()), "the database {} was not made", events.name);
        events.cached(&self.folder).expect("it is there")
    }
}

/// Two machines with version 1, and their server.
pub struct Two<'l> {
    server: Server,
    key: String,
    wire: TimedWire,
    /// The machines.
    pub machines: [Client; 2],
    _lab: &'l Lab,
}

impl<'l> Two<'l> {
    /// Pushes the database from the one and pulls it into the other.
    pub fn new(lab: &'l Lab, events: &Events) -> Two<'l> {
        let server = Server::start_with(lab.programs, Some(&lab.folder), &["--log", "error"]);
        let key = server.admin_key();
        let machines = [(); 2].map(|()| {
            let client = Client::new_in(lab.programs, Some(&lab.folder));
            client.use_server(server.url());
            client.with_env("SQLRSYNC_ADMIN_KEY", &key)
        });
        std::fs::copy(lab.database(events), machines[0].path(FILE)).expect("it can be copied");
        machines[0].run(&[FILE, REMOTE]).ok();
        machines[1].run(&[REMOTE]).ok();
        // What counts is merging.
        measure::forget_memory_peak(server.pid());
        let wire = TimedWire::to(server.address());
        Two { server, key, wire, machines, _lab: lab }
    }

    /// The database of one of them.
    pub fn file(&self, who: usize) -> PathBuf {
        self.machines[who].path(FILE)
    }

    /// Gives some rows another amount, which is another for each of the two and each `number`.
    pub fn change(&self, who: usize, rows: &str, number: u32) {
        let amount = -f64::from(2 * number + 1 + who as u32);
        sample::execute(&self.file(who), &format!("UPDATE events SET amount = {amount} - id WHERE {rows}"));
    }

    /// A push that must come to this.
    pub fn push(&self, who: usize, wanted: &str) {
        self.push_by(who, self.server.url(), wanted);
    }

    /// The same over the wire; returns the longest that the server let the client wait.
    pub fn push_timed(&self, who: usize, wanted: &str) -> Duration {
        self.wire.begin();
        self.push_by(who, &self.wire.url(), wanted);
        self.wire.longest_wait()
    }

    fn push_by(&self, who: usize, url: &str, wanted: &str) {
        let outcome = self.machines[who].run(&[FILE, REMOTE, "--json", "--server", url]);
        assert!(outcome.code == if wanted == "conflict" { 3 } else { 0 }, "{outcome:?}");
        let said = outcome.json();
        assert_eq!(said["outcome"], wanted, "{said}");
    }

    /// Asks the server about the replica.
    pub fn get(&self, what: &str) -> String {
        let url = format!("{}/api/v1/replicas/{REMOTE}/{what}", self.server.url());
        let mut answer = ureq::get(&url)
            .header("Authorization", format!("Bearer {}", self.key))
            .call()
            .expect("an answer");
        answer.body_mut().with_config().limit(1 << 30).read_to_string().expect("a text")
    }

    /// The server's peak memory since version 1.
    pub fn server_memory(&self) -> u64 {
        measure::memory_peak(self.server.pid()).unwrap_or(0)
    }
}

/// A proxy that notes when something went which way.
struct TimedWire {
    address: SocketAddr,
    noted: Arc<Mutex<Noted>>,
}

#[derive(Default)]
struct Noted {
    /// When the client sent something last; `None` once the server has said something since.
    asked: Option<Instant>,
    longest: Duration,
}

impl TimedWire {
    fn to(server: SocketAddr) -> TimedWire {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it has an address");
        let noted = Arc::new(Mutex::new(Noted::default()));
        let all = noted.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(server) else { continue };
                for stream in [&client, &server] {
                    let _ = stream.set_nodelay(true);
                }
                let (up, down) = (all.clone(), all.clone());
                let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else {
                    continue;
                };
                std::thread::spawn(move || carry(client, server, || note(&up, Noted::asks)));
                std::thread::spawn(move || carry(server_too, client_too, || note(&down, Noted::is_answered)));
            }
        });
        TimedWire { address, noted }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn begin(&self) {
        note(&self.noted, |noted| *noted = Noted::default());
    }

    fn longest_wait(&self) -> Duration {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).longest
    }
}

impl Noted {
    fn asks(&mut self) {
        self.asked = Some(Instant::now());
    }

    fn is_answered(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.longest = self.longest.max(asked.elapsed());
        }
    }
}

fn note(noted: &Mutex<Noted>, change: impl FnOnce(&mut Noted)) {
    change(&mut noted.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Carries bytes one way until either end is closed.
fn carry(mut from: TcpStream, mut to: TcpStream, passed: impl Fn()) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        passed();
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}
