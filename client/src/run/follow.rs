//! A PULL subscription: a local file follows every new version, until somebody says stop.

use std::time::{Duration, Instant};

use super::{Run, pull};
use crate::error::Error;
use crate::plan::Follow;

/// How long to wait before the server is asked again.
const ASK_EVERY: Duration = Duration::from_secs(10);

pub fn follow(run: &Run, plan: &Follow) -> Result<(), Error> {
    loop {
        let began = Instant::now();
        let mut outcome = pull::pull(run, plan.pull.clone())?;
        outcome.seconds = began.elapsed().as_secs_f64();
        run.print(&outcome)?;
        run.pause(ASK_EVERY)?;
    }
}
