//! A PUSH subscription: a local database is pushed whenever it has changed, until somebody says stop.

use std::time::Instant;

use super::{Run, push};
use crate::error::Error;
use crate::plan::Publish;

pub fn publish(run: &Run, plan: &Publish) -> Result<(), Error> {
    loop {
        let began = Instant::now();
        let mut outcome = push::push(run, plan.push.clone())?;
        outcome.seconds = began.elapsed().as_secs_f64();
        run.print(&outcome)?;
        run.pause(plan.timing.wait_idle)?;
    }
}
