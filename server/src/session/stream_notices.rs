//! NEWREPLICAVERSION (0x52) on a push connection that pushes nothing.
//!
//! A push connection is a subscribed stream once the client has sent CHANGED on it, or has begun no push
//! for [`QUIET`]: a client that pushes begins at once, and must not find a byte before the answers to
//! its first message that it did not ask for. From then on it hears of each version of its replica that
//! somebody else pushed; its own (the same file of the same machine) are no news to it.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::backend::{Backend, PushPlan, Pusher, Subscription};

/// How long a client that means to push may take to begin.
const QUIET: Duration = Duration::from_secs(1);

/// What a push connection hears of its replica.
pub struct StreamNotices {
    /// `None` where the replica has no name yet.
    heard: Option<Subscription>,
    own: Pusher,
    from: Instant,
}

impl StreamNotices {
    /// Of a connection that was just opened.
    pub fn new(backend: &Backend, plan: &PushPlan) -> StreamNotices {
        let heard = plan.name().map(|name| backend.notices.subscribe(&name.to_string()));
        StreamNotices { heard, own: plan.pusher(), from: Instant::now() + QUIET }
    }

    /// The client sent CHANGED: it is there to stay.
    pub fn stays(&mut self) {
        self.from = self.from.min(Instant::now());
    }

    /// Returns when the client is to be told. Cancelling loses nothing.
    pub async fn next(&mut self) {
        let Some(heard) = &mut self.heard else { return std::future::pending().await };
        sleep_until(self.from).await;
        while heard.changed().await.is_ok() {
            let newest = heard.borrow_and_update().clone();
            let others = |pusher: &Pusher| !pusher.is(&self.own);
            // What was only found was there before, or is somebody's who was heard of then.
            if newest.is_some_and(|notice| notice.pusher.as_ref().is_some_and(others)) {
                return;
            }
        }
        std::future::pending().await
    }
}
