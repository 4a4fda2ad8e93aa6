//! A push of one row of a database that an application has open: its WAL says what changed.

use sqlrsync_tests::events::{self, Events};

use super::{Lab, Pair, Series, median, settle};
use crate::table::{Check, bytes};

/// What a push may take, from the program's start to its end.
const MOST_SECONDS: f64 = 0.03;

/// What it may read in all.
const MOST_BYTES_READ: f64 = 1e6;

impl Lab {
    pub(super) fn by_wal(&mut self, events: &Events, pair: &mut Pair) {
        let mut application = rusqlite::Connection::open(&pair.file).expect("the database opens");
        let mut change = |pair: &mut Pair| {
            events::change_rows_in(&mut application, &mut pair.random, 1).expect("a row can be changed");
            settle();
        };
        // The first finds no end in this WAL to go on from.
        change(pair);
        self.ours(&pair.pusher, &pair.push(), &mut Series::default());
        let mut series = Series::default();
        for _ in 0..self.runs.max(5) {
            change(pair);
            let said = self.ours(&pair.pusher, &pair.push(), &mut series);
            assert_eq!(said["scanned"], false, "the WAL knows it: {said}");
        }
        let job = format!("{}: push of one changed row, told by the WAL", events.name);
        let mut row = series.row(&job, None);
        let time = median(&series.times).as_secs_f64();
        row.checks.push(Check::at_most("time".into(), time, MOST_SECONDS, "30 ms"));
        let read = series.client_read_max;
        let found = format!("read: client {}", bytes(read));
        row.checks.push(Check::at_most(found, read as f64, MOST_BYTES_READ, "1 MB"));
        self.report(&row);
        // The jobs that follow find it in step, and with nothing in a WAL.
        drop(application);
        self.ours(&pair.pusher, &pair.push(), &mut Series::default());
        self.ours(&pair.puller, &pair.pull(), &mut Series::default());
    }
}
