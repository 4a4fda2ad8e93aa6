//! Ends the open sessions of revoked keys: within [`POLL_INTERVAL`] of the revocation, whichever
//! program wrote it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};

use crate::catalog::{Catalog, Error};
use crate::sessions::Sessions;

/// How often the catalog is asked whether somebody wrote to it; the question costs microseconds.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Watches until the task is aborted. `catalog` is a connection of its own: a connection's own
/// writes do not change its data version, and a server revokes through others.
pub fn watch(catalog: Catalog, sessions: Arc<Sessions>) -> JoinHandle<()> {
    let catalog = Arc::new(catalog);
    tokio::spawn(async move {
        let mut seen = None;
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            let (catalog, sessions) = (catalog.clone(), sessions.clone());
            let looked = spawn_blocking(move || look(&catalog, &sessions, seen)).await;
            match looked {
                Ok(Ok(version)) => seen = Some(version),
                Ok(Err(error)) => tracing::error!(%error, "cannot see whether keys were revoked"),
                // The runtime ends.
                Err(_) => return,
            }
        }
    })
}

fn look(catalog: &Catalog, sessions: &Sessions, seen: Option<i64>) -> Result<i64, Error> {
    // Read before the keys are: what is written in between is seen the next time.
    let version = catalog.data_version()?;
    if seen != Some(version) {
        for key in sessions.keys() {
            if !catalog.key_is_live(key)? {
                tracing::info!(%key, "revoked: ending its sessions");
                sessions.revoke(key);
            }
        }
    }
    Ok(version)
}
