//! What many versions of one database take, and whether the last of them is pulled like the first.

use std::path::Path;

use sqlrsync_tests::events::{self, Events};

use super::{Lab, Pair, Series, median};
use crate::table::{Check, bytes};

/// How many versions the job `versions` makes.
const VERSIONS: usize = 100;

/// How many pushes the job `churned` makes after the first.
const CHURNED_PUSHES: usize = 20;

/// Each so many of them changes a tenth of the pages: a hundredth of the rows at random. The others, a row.
const LARGE_PUSH_EVERY: usize = 5;

impl Lab {
    /// Many versions of one database, a row changed in each.
    pub fn versions(&mut self, events: &Events, database: &Path) {
        let mut pair = Pair::new(self, events, database);
        let one = self.repository_bytes();
        let empty = one - self.bytes_of_first_version(&pair);
        for _ in 1..VERSIONS {
            self.push_changed(&mut pair, 1);
        }
        let all = self.repository_bytes();
        let ratio = (all - empty) as f64 / (one - empty) as f64;
        let (first, last) = self.first_and_last(events, &pair, VERSIONS);
        let mut row = last.row(&format!("{}: pull of version {VERSIONS} into a new file", events.name), None);
        row.checks = vec![
            Check::at_most(
                format!("{ratio:.3} × one version in the repository ({})", bytes(one - empty)),
                ratio,
                1.05,
                "1.05",
            ),
            beside(&last, &first, Some(2.0)),
        ];
        self.report(&row);
    }

    /// A version of which hardly a stored block is whole: later pushes changed pages all over it, so that what is
    /// left of a block has to be put together anew.
    pub fn churned(&mut self, events: &Events, database: &Path) {
        let mut pair = Pair::new(self, events, database);
        for push in 1..=CHURNED_PUSHES {
            let large = push % LARGE_PUSH_EVERY == 0;
            self.push_changed(&mut pair, if large { events.rows() / 100 } else { 1 });
        }
        let version = CHURNED_PUSHES + 1;
        let (first, last) = self.first_and_last(events, &pair, version);
        let job = format!("{}: pull of a version whose blocks later pushes changed", events.name);
        let mut row = last.row(&job, None);
        let wire = median(&last.wire) as f64 / median(&first.wire) as f64;
        row.checks =
            vec![beside(&last, &first, None), Check::note(format!("{wire:.3} × the bytes of version 1"))];
        self.report(&row);
    }

    fn push_changed(&self, pair: &mut Pair, rows: u64) {
        events::change_rows(&pair.file, &mut pair.random, rows).expect("rows can be changed");
        self.ours(&pair.pusher, &pair.push(), &mut Series::default());
    }

    /// Pulls of version 1 and of this one into new files, by turns.
    fn first_and_last(&self, events: &Events, pair: &Pair, last: usize) -> (Series, Series) {
        let mut series = (Series::default(), Series::default());
        for _ in 0..self.runs {
            for (version, series) in [(1, &mut series.0), (last, &mut series.1)] {
                let client = self.machine();
                self.settle_for(events.bytes);
                self.ours(&client, &[format!("{}@{version}", pair.remote), "new.db".into()], series);
                std::fs::remove_file(client.path("new.db")).expect("what was pulled can be removed");
            }
        }
        series
    }
}

/// The time of a version beside that of the first.
fn beside(last: &Series, first: &Series, most: Option<f64>) -> Check {
    Check::ratio(median(&last.times), "version 1", median(&first.times), most)
}
