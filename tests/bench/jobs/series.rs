//! The runs of one job, and the row of the table that they make.

use std::time::Duration;

use crate::rivals::Took;
use crate::table::{Check, Row, bytes, median};

/// The runs of one job.
#[derive(Default)]
pub struct Series {
    pub times: Vec<Duration>,
    pub rsync: Vec<Duration>,
    pub sqlite3_rsync: Vec<Duration>,
    pub wire: Vec<u64>,
    pub loopback: Vec<u64>,
    pub rsync_wire: Vec<u64>,
    pub client_bytes_max: u64,
    pub server_bytes_max: u64,
    pub client_read_max: u64,
    pub server_read_max: u64,
    /// Bytes of the pages that travelled.
    pub page_bytes: Vec<u64>,
}

impl Series {
    pub fn rsync(&mut self, took: Took) {
        self.rsync.push(took.time);
        self.rsync_wire.push(took.wire_bytes);
    }

    pub fn sqlite3_rsync(&mut self, took: Option<Took>) {
        self.sqlite3_rsync.extend(took.map(|took| took.time));
    }

    pub fn row(&self, job: &str, rsync_most: Option<f64>) -> Row {
        let time = median(&self.times);
        let mut checks = Vec::new();
        if !self.rsync.is_empty() {
            checks.push(Check::ratio(time, "rsync", median(&self.rsync), rsync_most));
        }
        if !self.sqlite3_rsync.is_empty() {
            checks.push(Check::ratio(time, "sqlite3_rsync", median(&self.sqlite3_rsync), None));
        }
        checks.push(Check::note(format!(
            "{} over the loopback interface in all",
            bytes(median(&self.loopback))
        )));
        Row {
            job: job.to_owned(),
            time,
            wire_bytes: median(&self.wire),
            client_bytes_max: self.client_bytes_max,
            server_bytes_max: self.server_bytes_max,
            checks,
            limit: None,
        }
    }

    pub fn wire_check(&self, most: u64) -> Check {
        let wire = median(&self.wire);
        Check::at_most(format!("{} on the wire", bytes(wire)), wire as f64, most as f64, &bytes(most))
    }
}
