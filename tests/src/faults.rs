//! A bad network: a TCP proxy between the real programs that cuts, resets, stalls, slows, closes one
//! half and turns away, at bytes and at times that a seed decides.
//!
//! One seed gives one schedule: what befalls the n-th connection depends on the seed and on n alone, so
//! a failure is repeated with the seed that it printed ([`seed`]). Which connection is the n-th is the
//! clients' doing: give each its own [`Proxy`]. Nothing is lost or invented on the way: every byte that
//! arrives was sent, in that order, and after [`Proxy::heal`] all of them arrive.
//!
//! `carry` is what happens to one connection; here are the listener, the schedule and the controls.

mod carry;

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::random::Random;

/// The seed to use instead of a test's own, to repeat a failure or to try another.
pub const SEED_ENV: &str = "SQLRSYNC_TEST_SEED";

/// The most connections that are carried at a time; a client that storms is turned away.
const CONNECTIONS_MAX: u64 = 256;

/// The most lines of the log of what was done.
const LOG_MAX: usize = 1000;

/// Of so many connections, one begins a time in which all are turned away.
const REFUSED_ONE_OF: u64 = 9;

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// When a fault comes, counted from the connection's beginning or from the end of the fault before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// After exactly so many bytes that way.
    Bytes(Way, u64),
    /// The same, but after so long where there are not so many: on a connection that waits.
    BytesOrAfter(Way, u64, Duration),
    /// After so long.
    After(Duration),
}

/// What befalls a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// It is closed both ways, in good order (FIN).
    Close,
    /// It is reset (RST), and what was under way is gone.
    Reset,
    /// One way is closed, and what comes from there goes nowhere; the other goes on.
    HalfClose(Way),
    /// For so long nothing goes on, and nothing is closed.
    Stall(Duration),
    /// For so long a few bytes at a time go on.
    Slow(Duration),
}

/// A fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// When it comes.
    pub when: When,
    /// What it is.
    pub what: What,
}

impl Fault {
    /// Closed after exactly so many bytes that way.
    pub fn cut(way: Way, bytes: u64) -> Fault {
        Fault { when: When::Bytes(way, bytes), what: What::Close }
    }

    fn of(random: &mut Random) -> Fault {
        let way = if random.below(2) == 0 { Way::Up } else { Way::Down };
        let when = match random.below(3) {
            // In the middle of the first exchange, of the pages, or of whatever goes on then.
            0 => When::BytesOrAfter(way, random.below(2_000), millis(random, 8_000)),
            1 => When::BytesOrAfter(way, random.below(60_000), millis(random, 8_000)),
            _ => When::After(millis(random, 3_000)),
        };
        let what = match random.below(8) {
            0 | 1 => What::Close,
            2 | 3 => What::Reset,
            4 => What::HalfClose(way),
            5 | 6 => What::Stall(millis(random, 2_500)),
            _ => What::Slow(millis(random, 1_500)),
        };
        Fault { when, what }
    }
}

fn millis(random: &mut Random, end: u64) -> Duration {
    Duration::from_millis(random.below(end))
}

/// What befalls the connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plan {
    /// Nothing.
    Clean,
    /// Each of them the same, once.
    Each(Fault),
    /// All kinds, one after the other, as this seed has it.
    Seeded(u64),
}

impl Plan {
    /// What befalls the connection of that number (from 0), in order.
    fn faults(self, number: u64) -> Box<dyn Iterator<Item = Fault> + Send> {
        match self {
            Plan::Clean => Box::new(std::iter::empty()),
            Plan::Each(fault) => Box::new(std::iter::once(fault)),
            Plan::Seeded(seed) => {
                let mut random = numbers_of(seed, number);
                // The first number is the listener's.
                random.bits();
                Box::new(std::iter::repeat_with(move || Fault::of(&mut random)))
            }
        }
    }

    /// For how long the connection of that number, and those after it, are turned away.
    fn refusal(self, number: u64) -> Option<Duration> {
        let Plan::Seeded(seed) = self else { return None };
        let drawn = numbers_of(seed, number).bits();
        drawn.is_multiple_of(REFUSED_ONE_OF).then(|| Duration::from_millis((drawn >> 32) % 1_500))
    }
}

/// Independent numbers for each connection of a seed.
fn numbers_of(seed: u64, connection: u64) -> Random {
    Random::new(Random::new(seed ^ connection.rotate_left(32)).bits())
}

/// The seed of a test: `usual`, or what [`SEED_ENV`] says. Printed, so that a failure tells it.
pub fn seed(usual: u64) -> u64 {
    let seed = std::env::var(SEED_ENV).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    eprintln!("the network's seed is {seed}; {SEED_ENV} chooses another");
    seed
}

/// What the owner of a proxy asks of all its connections.
#[derive(Clone, Copy, Default, Debug)]
struct Order {
    healed: bool,
    refusing: bool,
    /// How often all connections were to be broken so far.
    breaks: u64,
    /// How often all connections were to die so far.
    deaths: u64,
}

/// What listener, connections and owner share.
#[derive(Debug, Default)]
struct Shared {
    up: AtomicU64,
    down: AtomicU64,
    accepted: AtomicU64,
    open: AtomicU64,
    faults: AtomicU64,
    log: Mutex<Vec<String>>,
}

impl Shared {
    fn count(&self, way: Way, bytes: u64) {
        let counter = if way == Way::Up { &self.up } else { &self.down };
        counter.fetch_add(bytes, Ordering::SeqCst);
    }

    fn note(&self, began: Instant, number: u64, what: &str) {
        let mut log = self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if log.len() < LOG_MAX {
            log.push(format!("{:8.3} s  connection {number}: {what}", began.elapsed().as_secs_f64()));
        }
    }
}

/// A listener that carries every connection to a server, through whatever its plan has for it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    plan: Plan,
    order: watch::Sender<Order>,
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Proxy {
    /// Starts one before that server. Its connections end with it.
    pub fn start(server: SocketAddr, plan: Plan) -> Proxy {
        let listener = StdListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("it has an address");
        listener.set_nonblocking(true).expect("it can be set");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread for the proxy");
        let (order, orders) = watch::channel(Order::default());
        let shared = Arc::new(Shared::default());
        let front = Front { server, plan, orders, shared: Arc::clone(&shared), began: Instant::now() };
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            front.accept(listener).await;
        });
        Proxy { address, plan, order, shared, runtime: Some(runtime) }
    }

    /// The address that clients are to use.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on everything goes through, on the connections that there are and on new ones.
    pub fn heal(&self) {
        self.order.send_modify(|order| (order.healed, order.refusing) = (true, false));
    }

    /// Turns every new connection away, or no longer.
    pub fn refuse(&self, refusing: bool) {
        self.order.send_modify(|order| order.refusing = refusing);
    }

    /// Resets every connection that there is.
    pub fn break_all(&self) {
        self.order.send_modify(|order| order.breaks += 1);
    }

    /// From now on nothing is carried any more on the connections that there are, and none is closed: wires that
    /// nobody holds at the other end.
    pub fn kill_all(&self) {
        self.order.send_modify(|order| order.deaths += 1);
    }

    /// Bytes that went to the server and to the client, over all connections.
    pub fn carried(&self) -> (u64, u64) {
        (self.shared.up.load(Ordering::SeqCst), self.shared.down.load(Ordering::SeqCst))
    }

    /// How many connections were begun, those that were turned away included.
    pub fn connections(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many connections there are now.
    pub fn open_connections(&self) -> u64 {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// How many faults there were so far: a test that had none has shown nothing.
    pub fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::SeqCst)
    }

    /// What was done to which connection, and when.
    pub fn log(&self) -> String {
        self.shared.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner).join("\n")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        if std::thread::panicking() {
            eprintln!("--- what the network did ({:?}):\n{}", self.plan, self.log());
        }
    }
}

/// The side that clients see.
struct Front {
    server: SocketAddr,
    plan: Plan,
    orders: watch::Receiver<Order>,
    shared: Arc<Shared>,
    began: Instant,
}

impl Front {
    async fn accept(self, listener: TcpListener) {
        let mut refused_until = self.began;
        while let Ok((client, _)) = listener.accept().await {
            let number = self.shared.accepted.fetch_add(1, Ordering::SeqCst);
            let order = *self.orders.borrow();
            if let Some(time) = self.plan.refusal(number).filter(|_| !order.healed) {
                refused_until = refused_until.max(Instant::now() + time);
            }
            let refused = order.refusing || (!order.healed && Instant::now() < refused_until);
            if refused || self.shared.open.load(Ordering::SeqCst) >= CONNECTIONS_MAX {
                self.shared.faults.fetch_add(1, Ordering::SeqCst);
                self.shared.note(self.began, number, "turned away");
                let _ = client.set_zero_linger();
                continue;
            }
            self.carry(client, number);
        }
    }

    fn carry(&self, client: TcpStream, number: u64) {
        let (server, faults, orders) = (self.server, self.plan.faults(number), self.orders.clone());
        let (shared, began) = (Arc::clone(&self.shared), self.began);
        shared.open.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            let mut link = carry::Link::new(number, began, Arc::clone(&shared), orders);
            match TcpStream::connect(server).await {
                Ok(server) => link.carry(client, server, faults).await,
                // As the client would see it without a proxy.
                Err(_) => drop(client.set_zero_linger()),
            }
            shared.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

#[cfg(test)]
mod tests;
