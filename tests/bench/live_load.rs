//! Many subscribers on one server: what each of them costs, how soon all are told, and whether one that
//! has stopped reading delays the others.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlrsync_tests::client::Client;
use sqlrsync_tests::crowd::{Crowd, Members, Times};
use sqlrsync_tests::measure;
use sqlrsync_tests::programs::release_programs;
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::tls::Certificate;
use tokio_rustls::rustls::ClientConfig;

use crate::table::{Check, Row, bytes, median, seconds};

/// How long it may take until all are open, and until all are told.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// How many there are where one of them stalls.
const BESIDE: usize = 999;

/// What one may take of the server's memory, in bytes.
const MEMORY_MAX: f64 = 20_000.0;

/// How soon all must know.
const TOLD_MAX: Duration = Duration::from_secs(2);

/// How long after its last work a program is at rest: threads that wait for more of it end after ten
/// seconds.
const SETTLE: Duration = Duration::from_secs(11);

/// The client of a server with that certificate.
pub fn trusting(client: Client, certificate: &Certificate) -> Client {
    client.with_env("SQLRSYNC_CA_FILE", certificate.cert().to_str().expect("a path that is text"))
}

/// What a job says of its connections.
pub const fn over(tls: Option<&Certificate>) -> &'static str {
    if tls.is_some() { " over TLS" } else { "" }
}

/// The part of a core that a server at rest may take.
const REST_MAX: f64 = 0.001;

/// A server that takes as many connections as there are files for, and a machine that pushes to it.
struct Lab {
    server: Server,
    client: Client,
    key: String,
    tls: Option<Arc<ClientConfig>>,
}

impl Lab {
    fn new(certificate: Option<&Certificate>) -> Lab {
        let flags =
            ["--connections-max", "100000", "--connections-per-address-max", "100000", "--log", "error"];
        let tls_flags = certificate.map(Certificate::server_flags);
        let flags: Vec<&str> =
            flags.into_iter().chain(tls_flags.iter().flatten().map(String::as_str)).collect();
        let server = Server::start_with(release_programs(), None, &flags);
        let key = server.admin_key();
        let client = Client::new_in(release_programs(), None).with_env("SQLRSYNC_ADMIN_KEY", &key);
        client.use_server(server.url());
        let (client, tls) = match certificate {
            Some(certificate) => (trusting(client, certificate), Some(certificate.trusted())),
            None => (client, None),
        };
        Lab { server, client, key, tls }
    }

    /// A database that was pushed once.
    fn database(&self, name: &str) -> PathBuf {
        let path = self.client.path(name);
        sample::execute(&path, "PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, x)");
        sample::execute(&path, "INSERT INTO t VALUES(1, 1)");
        self.push(name);
        path
    }

    fn push(&self, name: &str) {
        self.client.run(&[name, &format!("team/{name}")]).ok();
    }

    fn crowd(&self, name: &str, members: Members) -> Crowd {
        let replica = format!("team/{name}");
        Crowd::open_over(self.tls.clone(), self.server.address(), &replica, &self.key, members, WAIT_MAX)
            .expect("they open")
    }

    /// Changes a row and pushes it; when the push began, and when the subscribers were told.
    fn version(&self, name: &str, crowd: &Crowd, readers: usize, number: u64) -> (Instant, Times) {
        let path = self.client.path(name);
        sample::execute(&path, &format!("UPDATE t SET x = {number}"));
        crowd.expect(number);
        let begin = Instant::now();
        self.push(name);
        (begin, crowd.told(readers, WAIT_MAX).expect("all are told"))
    }
}

/// `count` subscribers that wait.
pub fn idle(count: usize, rest: Duration, tls: Option<&Certificate>) -> Row {
    let files = measure::open_files_max();
    assert!(files > count as u64 + 100, "this process may open {files} files, and {count} are needed");
    let lab = Lab::new(tls);
    let pid = lab.server.pid();
    lab.database("app.db");
    // The first few make what is made once.
    drop(lab.crowd("app.db", Members { reading: 10, stalled: 0 }));
    let before = measure::memory_now(pid).expect("the server runs");
    let begin = Instant::now();
    let crowd = lab.crowd("app.db", Members { reading: count, stalled: 0 });
    let opened = begin.elapsed();
    let held = measure::memory_now(pid).expect("the server runs");
    let cpu = processor_share(pid, rest);
    let (pushed, times) = lab.version("app.db", &crowd, count, 2);
    let told = times.last.duration_since(pushed);
    let after = measure::memory_now(pid).expect("the server runs");
    assert_eq!(crowd.lost(), 0, "all are held");
    let each = held.saturating_sub(before) as f64 / count as f64;
    let each_after = after.saturating_sub(before) as f64 / count as f64;
    let fan_out = times.last.duration_since(times.first);
    Row {
        job: format!("{count} idle subscribers{}: from the push's start until all know", over(tls)),
        time: told,
        checks: vec![
            Check::at_most("all are told".to_owned(), told.as_secs_f64(), TOLD_MAX.as_secs_f64(), "2 s"),
            Check::note(format!("{} between the first and the last of them", seconds(fan_out))),
            Check::at_most(
                format!("{} of the server's memory each", bytes(each as u64)),
                each.max(each_after),
                MEMORY_MAX,
                "20 KB",
            ),
            Check::note(format!(
                "{} each after they were told; {} in all, {} before",
                bytes(each_after as u64),
                bytes(after),
                bytes(before)
            )),
            Check::at_most(
                format!("{:.3} % of a core over {}", cpu * 100.0, seconds(rest)),
                cpu,
                REST_MAX,
                "0.1 %",
            ),
            Check::note(format!("{} until all had subscribed", seconds(opened))),
        ],
        ..Row::default()
    }
}

/// The part of a core that a process uses while nothing happens.
pub fn processor_share(pid: u32, rest: Duration) -> f64 {
    // What came before is not what is asked for.
    std::thread::sleep(SETTLE);
    let before = measure::processor_time(pid).expect("it runs");
    let begin = Instant::now();
    std::thread::sleep(rest);
    let used = measure::processor_time(pid).expect("it runs").saturating_sub(before);
    used.as_secs_f64() / begin.elapsed().as_secs_f64()
}

/// One that has stopped reading beside 999 that read, and a thousand that read, by turns.
pub fn stalled(versions: u64) -> Row {
    measure::open_files_max();
    let lab = Lab::new(None);
    let crowds = [("all.db", BESIDE + 1, 0), ("one.db", BESIDE, 1)].map(|(name, reading, stalled)| {
        lab.database(name);
        (name, lab.crowd(name, Members { reading, stalled }))
    });
    let mut last = [Vec::new(), Vec::new()];
    let mut spread = [Vec::new(), Vec::new()];
    for number in 2..2 + versions {
        // Each of them is first once.
        let order = if number % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            let (name, crowd) = &crowds[which];
            let (pushed, times) = lab.version(name, crowd, BESIDE, number);
            last[which].push(times.last.duration_since(pushed));
            spread[which].push(times.last.duration_since(times.first));
        }
    }
    let lost = crowds[0].1.lost();
    assert_eq!(lost, 0, "those that read are held");
    let [without, with] = last.each_ref().map(|times| median(times));
    let ratio = with.as_secs_f64() / without.as_secs_f64();
    let noise = deviation(&last[0]) / without.as_secs_f64();
    Row {
        job: format!("{BESIDE} that read beside one that does not, {versions} versions"),
        time: with,
        checks: vec![
            Check::at_most(
                format!("{ratio:.2} × the time of {} that read ({})", BESIDE + 1, seconds(without)),
                ratio,
                1.0 + noise.max(0.05),
                &format!("{:.2} (noise)", 1.0 + noise.max(0.05)),
            ),
            Check::note(format!(
                "first to last: {} beside it, {} without",
                seconds(median(&spread[1])),
                seconds(median(&spread[0]))
            )),
        ],
        ..Row::default()
    }
}

/// The median distance from the median, in seconds.
fn deviation(times: &[Duration]) -> f64 {
    let middle = median(times);
    median(&times.iter().map(|time| time.abs_diff(middle)).collect::<Vec<_>>()).as_secs_f64()
}
