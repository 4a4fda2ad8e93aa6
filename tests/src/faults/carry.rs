//! One connection of the proxy: two pumps, one for each way, and a driver that lets the faults come.
//!
//! All three are parts of one task, so that ending it ends everything. The driver tells the pumps what
//! to do through a [`Gate`], and a pump tells the driver when the bytes are through that it waits for.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{Notify, watch};

use super::{Fault, Order, Shared, Way, What, When};

/// The most bytes that go on at once.
const PIECE: usize = 16 * 1024;

/// What goes on at once on a slow connection, and how long after that nothing does.
const SLOW_PIECE: usize = 256;
const SLOW_PAUSE: Duration = Duration::from_millis(5);

/// How long what still arrives on a closed connection is read: closing with something unread would be
/// a reset.
const CLOSING_MAX: Duration = Duration::from_secs(10);

/// What the pumps may do.
#[derive(Clone, Copy, Default, Debug)]
struct Gate {
    stalled: bool,
    slow: bool,
    /// What comes this way goes nowhere any more.
    closed: Option<Way>,
}

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// By itself.
    Done,
    Close,
    Reset,
    /// It does not, and carries nothing more.
    Dead,
}

/// A connection.
pub(super) struct Link {
    number: u64,
    began: Instant,
    shared: Arc<Shared>,
    orders: watch::Receiver<Order>,
}

/// What the pumps and the driver of a connection share.
struct Control {
    gate: watch::Sender<Gate>,
    /// How many bytes may go on each way before the next fault.
    left: [AtomicU64; 2],
    reached: Notify,
}

impl Control {
    fn new() -> Control {
        let left = [AtomicU64::new(0), AtomicU64::new(0)];
        Control { gate: watch::Sender::new(Gate::default()), left, reached: Notify::new() }
    }

    fn left(&self, way: Way) -> &AtomicU64 {
        &self.left[way as usize]
    }

    /// Lets everything through up to the next fault.
    fn open(&self, when: Option<When>) {
        for way in [Way::Up, Way::Down] {
            let bytes = match when {
                Some(When::Bytes(counted, bytes) | When::BytesOrAfter(counted, bytes, _))
                    if counted == way =>
                {
                    bytes
                }
                _ => u64::MAX,
            };
            self.left(way).store(bytes, Ordering::SeqCst);
        }
        self.gate.send_modify(|gate| (gate.stalled, gate.slow) = (false, false));
    }

    /// Waits for the moment of a fault.
    async fn comes(&self, when: When) {
        match when {
            When::After(time) => tokio::time::sleep(time).await,
            When::Bytes(way, _) => self.through(way).await,
            When::BytesOrAfter(way, _, time) => {
                let _ = tokio::time::timeout(time, self.through(way)).await;
            }
        }
    }

    /// Waits until as many bytes went that way as may.
    async fn through(&self, way: Way) {
        while self.left(way).load(Ordering::SeqCst) > 0 {
            self.reached.notified().await;
        }
    }
}

impl Link {
    pub(super) fn new(
        number: u64,
        began: Instant,
        shared: Arc<Shared>,
        orders: watch::Receiver<Order>,
    ) -> Link {
        Link { number, began, shared, orders }
    }

    /// Carries the connection to its end.
    pub(super) async fn carry(
        &mut self,
        mut client: TcpStream,
        mut server: TcpStream,
        faults: impl Iterator<Item = Fault>,
    ) {
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let control = Control::new();
        let end = {
            let (client_read, client_write) = client.split();
            let (server_read, server_write) = server.split();
            let (up, down) = (
                pump(Way::Up, client_read, server_write, &control, &self.shared),
                pump(Way::Down, server_read, client_write, &control, &self.shared),
            );
            tokio::select! {
                end = async { both(up, down).await } => end,
                end = self.drive(&control, faults) => end,
                () = counted(self.orders.clone(), |order| order.breaks) => End::Reset,
                () = counted(self.orders.clone(), |order| order.deaths) => End::Dead,
            }
        };
        match end {
            End::Done => {}
            End::Close => close(client, server).await,
            End::Dead => std::future::pending().await,
            End::Reset => {
                let _ = (client.set_zero_linger(), server.set_zero_linger());
            }
        }
    }

    /// Lets one fault come after the other, until one of them ends the connection or all is healed.
    async fn drive(&self, control: &Control, faults: impl Iterator<Item = Fault>) -> End {
        let mut orders = self.orders.clone();
        let healed = async {
            let _ = orders.wait_for(|order| order.healed).await;
        };
        tokio::select! {
            () = healed => {}
            end = self.suffer(control, faults) => return end,
        }
        control.open(None);
        std::future::pending().await
    }

    async fn suffer(&self, control: &Control, faults: impl Iterator<Item = Fault>) -> End {
        for fault in faults {
            control.open(Some(fault.when));
            control.comes(fault.when).await;
            self.shared.faults.fetch_add(1, Ordering::SeqCst);
            self.shared.note(self.began, self.number, &format!("{fault:?}"));
            match fault.what {
                What::Close => return End::Close,
                What::Reset => return End::Reset,
                What::HalfClose(way) => control.gate.send_modify(|gate| gate.closed = Some(way)),
                What::Stall(time) => {
                    control.gate.send_modify(|gate| gate.stalled = true);
                    tokio::time::sleep(time).await;
                }
                What::Slow(time) => {
                    control.gate.send_modify(|gate| gate.slow = true);
                    control.left.iter().for_each(|left| left.store(u64::MAX, Ordering::SeqCst));
                    tokio::time::sleep(time).await;
                }
            }
        }
        control.open(None);
        std::future::pending().await
    }
}

/// Both ways to their ends; one that fails ends the other.
async fn both(up: impl Future<Output = io::Result<()>>, down: impl Future<Output = io::Result<()>>) -> End {
    match tokio::try_join!(up, down) {
        Ok(_) => End::Done,
        // One side has reset it, or is gone: so it looks to the other.
        Err(_) => End::Reset,
    }
}

/// Comes back when the owner has ordered this once more.
async fn counted(mut orders: watch::Receiver<Order>, count: fn(&Order) -> u64) {
    let before = count(&orders.borrow());
    if orders.wait_for(|order| count(order) > before).await.is_err() {
        std::future::pending().await
    }
}

/// Carries what comes from one side to the other, as the gate allows.
async fn pump(
    way: Way,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    control: &Control,
    shared: &Shared,
) -> io::Result<()> {
    let mut gates = control.gate.subscribe();
    let mut buffer = vec![0; PIECE];
    loop {
        let passes = |gate: &Gate| !gate.stalled && control.left(way).load(Ordering::SeqCst) > 0;
        let gate = match gates.wait_for(passes).await {
            Ok(gate) => *gate,
            Err(_) => return Ok(()),
        };
        if gate.closed == Some(way) {
            return nowhere(from, to).await;
        }
        let left = control.left(way).load(Ordering::SeqCst);
        let piece = if gate.slow { SLOW_PIECE } else { PIECE };
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(piece);
        let read = tokio::select! {
            read = from.read(&mut buffer[..room]) => read?,
            _ = gates.changed() => continue,
        };
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        shared.count(way, read as u64);
        let less = |left: u64| (left != u64::MAX).then(|| left.saturating_sub(read as u64));
        let _ = control.left(way).fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        control.reached.notify_one();
        if gate.slow {
            tokio::time::sleep(SLOW_PAUSE).await;
        }
    }
}

/// Closes one way and lets what still comes go nowhere.
async fn nowhere(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
    to.shutdown().await?;
    let mut buffer = vec![0; PIECE];
    while from.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Closes both connections in good order.
async fn close(mut client: TcpStream, mut server: TcpStream) {
    let closing = async {
        let _ = (client.shutdown().await, server.shutdown().await);
        let (mut one, mut other) = (vec![0; PIECE], vec![0; PIECE]);
        let (mut client_open, mut server_open) = (true, true);
        while client_open || server_open {
            tokio::select! {
                read = client.read(&mut one), if client_open => client_open = matches!(read, Ok(1..)),
                read = server.read(&mut other), if server_open => server_open = matches!(read, Ok(1..)),
            }
        }
    };
    let _ = tokio::time::timeout(CLOSING_MAX, closing).await;
}
