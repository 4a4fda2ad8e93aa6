//! Calls that may take minutes: comparisons, merges, queries. They take room as transfers do, so that there
//! are only so many at once, and from one address.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sqlrsync_protocol::remote::RemoteName;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::Backend;
use crate::refused::{Refused, Why};

impl Backend {
    /// Runs a call once there is room, off the async threads.
    ///
    /// # Errors
    /// Those of `call`; [`Why::TryLater`] and [`Why::TooMany`] where there is no room for `at_most`.
    pub async fn long<T: Send + 'static>(
        self: &Arc<Backend>,
        address: Option<IpAddr>,
        at_most: Duration,
        call: impl FnOnce(&Arc<Backend>) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        let room = self.rooms.take(address, Instant::now() + at_most).await?;
        let backend = self.clone();
        let run = move || {
            let _room = room;
            call(&backend)
        };
        spawn_blocking(run).await.unwrap_or_else(|error| Err(Refused::failed("a call", &error)))
    }

    /// As [`Backend::long`], with the turn to make a version of a replica.
    ///
    /// # Errors
    /// As [`Backend::long`]; [`Why::TryLater`] where others have the turn for `at_most`.
    pub async fn long_with_turn<T: Send + 'static>(
        self: &Arc<Backend>,
        name: &RemoteName,
        address: Option<IpAddr>,
        at_most: Duration,
        call: impl FnOnce(&Arc<Backend>) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        let name = name.to_string();
        // Nobody's push: it is over sooner than anybody could ask whose it is.
        let turn = timeout_at(Instant::now() + at_most, self.turns.take(&name, ""))
            .await
            .map_err(|_| Refused::new(Why::TryLater, self.whose_turn(&name)))?;
        let run = move |backend: &Arc<Backend>| {
            let _turn = turn;
            call(backend)
        };
        self.long(address, at_most, run).await
    }
}
