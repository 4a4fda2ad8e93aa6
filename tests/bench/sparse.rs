//! One changed page of twenty gigabytes, told to the server, beside one of a hundred megabytes: what the
//! server takes must not grow with what did not change.

use std::time::{Duration, Instant};

use sqlrsync_protocol::conversation::{OriginOptions, Quiet, run_origin};
use sqlrsync_tests::measure;
use sqlrsync_tests::raw::RawSocket;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::synthetic::Synthetic;

/// What pushes of one page took.
#[derive(Clone, Debug, Default)]
pub struct Pushes {
    /// Each push, from the request to the answer, without the client's own hashing.
    pub times: Vec<Duration>,
    /// Bytes both ways.
    pub wire: Vec<u64>,
    /// Peak memory of the server.
    pub server_bytes_max: u64,
}

/// Pushes a database of that many pages, then its last page `runs` times.
pub fn pushes(server: &Server, key: &str, pages: u32, runs: usize) -> Pushes {
    let mut origin = Synthetic::new(pages);
    push(server, key, &mut origin);
    let mut pushes = Pushes::default();
    for _ in 0..runs {
        origin.state += 1;
        // The root of the new content is this client's business; it is not what is measured.
        origin.remember_root();
        measure::forget_memory_peak(server.pid());
        let begin = Instant::now();
        pushes.wire.push(push(server, key, &mut origin));
        pushes.times.push(begin.elapsed());
        let peak = measure::memory_peak(server.pid()).unwrap_or(0);
        pushes.server_bytes_max = pushes.server_bytes_max.max(peak);
    }
    pushes
}

fn push(server: &Server, key: &str, origin: &mut Synthetic) -> u64 {
    let path = format!("push/team/sparse-{}.db", origin.pages());
    let mut socket = RawSocket::connect(server.url(), &path, key).expect("the key is right");
    let summary = run_origin(OriginOptions::default(), origin, &mut socket, &mut Quiet);
    let summary = summary.unwrap_or_else(|error| panic!("the push failed: {error}"));
    summary.bytes_sent + summary.bytes_received
}
